"""One Airflow for all tests in this folder, because starting one takes as long as running twenty tasks."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import postgres
from tests.support.faults import FaultServer
from tests.support.standalone import KEY, Airflow, standalone

if TYPE_CHECKING:
    from collections.abc import Iterator

CONNECTIONS: dict[str, dict[str, Any]] = {
    "apptoto_default": {},
    "task_state": {"timeout": 5, "requests_per_minute": 600},
    "state_database": {"timeout": 5, "requests_per_minute": 600, "state_conn_id": "ledger"},
    "fast": {"timeout": 5, "requests_per_minute": 6000, "state_conn_id": "ledger"},
    "shared": {"requests_per_minute": 300, "state_conn_id": "shared_ledger"},
}
"""Ids of connections, and their extras; each has its own account, and so its own rate limit."""


@pytest.fixture(scope="package")
def running_airflow(tmp_path_factory: pytest.TempPathFactory, postgres_port: int) -> Iterator[Airflow]:
    home = tmp_path_factory.mktemp("airflow")
    database = {
        "host": "127.0.0.1",
        "port": postgres_port,
        "user": postgres.USER,
        "dbname": postgres.new_database(postgres_port),
    }
    shared = {"host": "127.0.0.1", "port": postgres_port, "login": postgres.USER}
    shared_ledger = {"conn_type": "postgres", **shared, "schema": postgres.new_database(postgres_port)}
    location = f"{postgres.USER}@127.0.0.1:{postgres_port}/{database['dbname']}"
    with FaultServer() as server:
        environment = {
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://{location}",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": f"postgresql+asyncpg://{location}",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW_CONN_SHARED_LEDGER": json.dumps(shared_ledger),
            "AIRFLOW_CONN_LEDGER": json.dumps({"conn_type": "sqlite", "host": str(home / "state.db")}),
        }
        for conn_id, extra in CONNECTIONS.items():
            account = {"login": f"{conn_id}@clinic.example", "password": KEY, "host": server.url}
            fields = {"conn_type": "apptoto", **account, "extra": extra}
            environment[f"AIRFLOW_CONN_{conn_id.upper()}"] = json.dumps(fields)
        with standalone(home, **environment) as own:
            yield Airflow(home=home, environment=own, database=database, server=server)


@pytest.fixture(scope="package")
def until_the_end() -> Iterator[contextlib.ExitStack]:
    """Provide what keeps a new triggerer until the last test of this folder, because other modules may need it."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def airflow(running_airflow: Airflow) -> Airflow:
    """Provide the Airflow, and a server that has received nothing yet."""
    running_airflow.server.requests.clear()
    running_airflow.server.accepted.clear()
    return running_airflow
