"""The app of the outbox page, as Airflow's API server mounts it, with users of each role."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_apptoto._airflow import has_plugin_pages

if not has_plugin_pages():  # Airflow 3.0 can run the app, but does not mount it
    pytest.skip("the page needs Airflow 3.1 or newer", allow_module_level=True)

from airflow.api_fastapi.app import create_auth_manager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.models.dag import DagModel
from airflow.models.dagbundle import DagBundleModel
from airflow.utils.session import create_session
from fastapi.testclient import TestClient
from sqlalchemy.engine import URL
from starlette.applications import Starlette
from starlette.routing import Mount

from airflow_provider_apptoto.outbox.database import StateDatabase
from airflow_provider_apptoto.plugins.apptoto import PREFIX, LazyApp
from tests.support.entries import filled
from tests.support.state_databases import forget_databases

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HOST = "http://airflow.example:8080"
DAG_IDS = ("clinic", "lab")
"""DAGs that Airflow knows; tests also write entries of others."""


@pytest.fixture(scope="session")
def dags(airflow_database: None) -> Iterator[None]:  # noqa: ARG001  it is needed
    """Add DAGs to the metadata database, and set the key of tokens."""
    with create_session() as session:
        session.merge(DagBundleModel(name="dags-folder"))
        session.flush()
        for dag_id in DAG_IDS:
            session.merge(DagModel(dag_id=dag_id, bundle_name="dags-folder", is_stale=False, fileloc="/dags/a.py"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "k" * 64)
        create_auth_manager()  # as the API server does
        yield


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StateDatabase]:
    """Provide the state database of ``apptoto_default``, which is empty."""
    bare = {"conn_type": "apptoto", "login": "clinic@clinic.example", "password": "sekret-api-key"}
    connections: dict[str, dict[str, Any]] = {
        "APPTOTO_DEFAULT": bare | {"extra": {"state_conn_id": "state"}},
        "STATE": {"conn_type": "sqlite", "host": str(tmp_path / "state.db")},
        "BARE": bare,
    }
    for name, fields in connections.items():
        monkeypatch.setenv(f"AIRFLOW_CONN_{name}", json.dumps(fields))
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")  # as the API server does
    forget_databases()
    database = StateDatabase(URL.create("sqlite", database=str(tmp_path / "state.db")))
    yield database
    database._engine.dispose()
    forget_databases()


@pytest.fixture
def ledger(state: StateDatabase) -> StateDatabase:
    """Provide the state database with an entry of each state, all of the DAG ``clinic``."""
    filled(state)
    return state


@pytest.fixture
def token(dags: None) -> Callable[[str], str]:  # noqa: ARG001  it is needed
    """Return a token of a user with a role of Airflow's SimpleAuthManager."""
    manager = create_auth_manager()

    def make(role: str) -> str:
        user = SimpleAuthManagerUser(username=f"ann {role}", role=role.upper())
        made: str = manager.generate_jwt(user)
        return made

    return make


@pytest.fixture
def anonymous(dags: None) -> Iterator[TestClient]:  # noqa: ARG001  it is needed
    """Provide a client that is not logged in."""
    app = Starlette(routes=[Mount(PREFIX, LazyApp())])
    with TestClient(app, base_url=HOST, raise_server_exceptions=False) as client:
        client.base_url = client.base_url.join(f"{PREFIX}/")
        yield client


@pytest.fixture
def client(anonymous: TestClient, token: Callable[[str], str]) -> Callable[[str], TestClient]:
    """Return the client with a token of a user with this role."""

    def log_in(role: str) -> TestClient:
        anonymous.headers["Authorization"] = f"Bearer {token(role)}"
        return anonymous

    return log_in
