"""FAB's roles may do on the outbox page what they may do with task instances, and only in their DAGs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("airflow.api_fastapi.core_api.security", reason="the page needs Airflow 3.1 or newer")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its libraries warn on import
    pytest.importorskip("airflow.providers.fab.auth_manager.fab_auth_manager", reason="apache-airflow-providers-fab")

from airflow.api_fastapi.app import create_auth_manager

from airflow_provider_apptoto.outbox.origin import Origin
from airflow_provider_apptoto.outbox.stores.sql import SqlLedgerStore
from tests.support.entries import entry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastapi.testclient import TestClient

    from airflow_provider_apptoto.outbox.database import StateDatabase

ROLES = ("Admin", "Op", "User", "Viewer", "Public", "LabReader", "LabEditor")
"""Roles of FAB, and two that may read or edit the DAG ``lab`` alone."""
MAY_READ = {"Admin": {"clinic", "lab"}, "Op": {"clinic", "lab"}, "User": {"clinic", "lab"}, "Viewer": {"clinic", "lab"}}
MAY_READ |= {"Public": set(), "LabReader": {"lab"}, "LabEditor": {"lab"}}
MAY_CHANGE = {**MAY_READ, "Viewer": set(), "LabReader": set()}
MAY_OPEN_PLUGINS = {"Admin", "Op"}
SETTINGS = {
    "AIRFLOW__CORE__AUTH_MANAGER": "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager",
    "AIRFLOW__FAB__SECRET_KEY": "k" * 64,
    "AIRFLOW__API__SECRET_KEY": "k" * 64,
}
SETUP = """
import json, sys
from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder
from airflow.providers.fab.auth_manager.models.db import FABDBManager
from airflow.utils.session import create_session

with create_session() as session:
    FABDBManager(session).upgradedb()
with get_application_builder() as builder:
    manager = builder.sm
    manager.sync_roles()
    for name, action in (("LabReader", "can_read"), ("LabEditor", "can_edit")):
        manager.add_role(name)
        for each in {"can_read", action}:
            for resource in ("DAG:lab", "DAG Runs", "Task Instances"):
                manager.add_permission_to_role(manager.find_role(name), manager.create_permission(each, resource))
    ids = {}
    for name in sys.argv[1:]:
        found = manager.find_role(name)
        ids[name] = manager.add_user(name, name, name, f"{name}@clinic.example", found, "a password").id
print("answer:", json.dumps(ids))
"""


@pytest.fixture(scope="module")
def users(dags: None) -> dict[str, int]:  # noqa: ARG001  it is needed
    """Add FAB's tables to the metadata database, and a user of each role; return their ids."""
    command = [sys.executable, "-c", SETUP, *ROLES]
    done = subprocess.run(command, env={**os.environ, **SETTINGS}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    [line] = [line for line in done.stdout.splitlines() if line.startswith("answer: ")]
    found: dict[str, int] = json.loads(line.removeprefix("answer: "))
    return found


@pytest.fixture
def as_role(
    users: dict[str, int], anonymous: TestClient, state: StateDatabase, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], TestClient]]:
    """Return a client of a user with a role of FAB; each DAG has a message that may have been sent."""
    for number, dag_id in enumerate(("clinic", "lab")):
        origin = Origin(dag_id=dag_id, task_id="remind", run_id="monday", map_index=-1, try_number=1)
        made = entry(origin, str(number) * 32, state="unknown", lease=0.0)
        assert SqlLedgerStore(state).compare_and_swap(None, made)
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        manager: Any = create_auth_manager()

        def log_in(role: str) -> TestClient:
            user = manager.deserialize_user({"sub": str(users[role])})
            token = manager.generate_jwt(user)
            anonymous.headers["Authorization"] = f"Bearer {token}"
            anonymous.cookies.set("_token", token)  # what a browser sends
            return anonymous

        yield log_in
    monkeypatch.undo()
    create_auth_manager()


@pytest.mark.parametrize("role", ROLES)
def test_each_role_sees_the_messages_of_its_dags(as_role: Callable[[str], TestClient], role: str) -> None:
    client = as_role(role)
    for path, body in (("api/messages", None), ("api/open", None), ("api/search", {"text": "4711"})):
        answer = client.get(path) if body is None else client.post(path, json=body)
        if MAY_READ[role]:
            assert {row["dag_id"] for row in answer.json()["rows"]} == MAY_READ[role], path
            changeable = {row["dag_id"] for row in answer.json()["rows"] if row["may_change"]}
            assert changeable == MAY_CHANGE[role], path
        else:
            assert answer.status_code == 403, path
    answer = client.post("api/export", json={})
    assert answer.status_code == (200 if MAY_READ[role] else 403)
    assert len(answer.text.splitlines()) == 1 + len(MAY_READ[role])


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("what", ["resolve", "forget", "optout"])
def test_each_role_changes_the_messages_of_dags_whose_tasks_it_may_edit(
    as_role: Callable[[str], TestClient], role: str, what: str
) -> None:
    client = as_role(role)
    for number, dag_id in enumerate(("clinic", "lab")):
        body = {"keys": [str(number) * 32], "note": "seen", **({"outcome": "sent"} if what == "resolve" else {})}
        answer = client.post(f"api/dags/{dag_id}/{what}", json=body)
        assert answer.status_code == (200 if dag_id in MAY_CHANGE[role] else 403), dag_id


@pytest.mark.parametrize("role", ROLES)
def test_the_link_of_a_task_opens_the_page_alone_for_roles_that_see_no_plugins(
    as_role: Callable[[str], TestClient], role: str
) -> None:
    location = as_role(role).get("go?dag=lab", follow_redirects=False).headers["location"]
    assert location.startswith("/plugin/" if role in MAY_OPEN_PLUGINS else "/apptoto/outbox?")
