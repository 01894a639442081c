"""What the outbox page uses of Airflow's API server (Airflow 3.1 and newer): the user and the permissions.

Only the API server imports this module. :mod:`._airflow` has all other code that depends on Airflow's version.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

# Checked on 3.1.8, 3.2.2, 3.3.2: `GetUserDep` accepts the login cookie and a bearer token.
from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.auth.managers.models.resource_details import AccessView, DagAccessEntity
from airflow.api_fastapi.core_api.security import GetUserDep, get_user, requires_access_dag, requires_access_view
from fastapi import HTTPException, Request

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = [
    "BaseUser",
    "GetUserDep",
    "changeable_dag_ids",
    "may_change",
    "may_open_plugins",
    "may_read_task_instances",
    "readable_dag_ids",
]


def readable_dag_ids(user: BaseUser) -> set[str]:
    """Return the DAGs that a user may read."""
    found: set[str] = get_auth_manager().get_authorized_dag_ids(user=user, method="GET")
    return found


def may_read_task_instances(request: Request, user: GetUserDep) -> None:
    """Check that a user may read task instances of some DAG.

    :raises HTTPException: the user may not.
    """
    # The request must have no parameter `dag_id`, which Airflow would check instead.
    requires_access_dag("GET", DagAccessEntity.TASK_INSTANCE)(request, user)


def may_change(request: Request, user: BaseUser, dag_id: str) -> bool:
    """Return whether a user may edit the task instances of a DAG."""
    # Checked on 3.1.8, 3.2.2, 3.3.2: is_authorized_custom_view is no substitute, because SimpleAuthManager allows
    # everything to everybody, and FAB nothing to anybody.
    try:
        requires_access_dag("PUT", DagAccessEntity.TASK_INSTANCE, dag_id)(request, user)
    except HTTPException:
        return False
    return True


def changeable_dag_ids(request: Request, user: BaseUser, dag_ids: Collection[str]) -> set[str]:
    """Return the DAGs whose task instances a user may edit."""
    return {dag_id for dag_id in {*dag_ids} if may_change(request, user, dag_id)}


async def may_open_plugins(request: Request) -> bool:
    """Return whether Airflow's UI shows pages of plugins to the user; if nobody is logged in, it asks for the login."""
    # Checked on 3.1.8, 3.2.2, 3.3.2: without the permission, the UI answers "404 Page Not Found". FAB's roles Viewer
    # and User don't have it.
    try:
        user = await get_user(request, None, None)
    except HTTPException:
        return True
    try:
        requires_access_view(AccessView.PLUGINS)(request, user)
    except HTTPException:
        return False
    return True
