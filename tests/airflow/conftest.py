"""Fixtures for tests that run in Airflow."""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import sqlite3
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_apptoto.client import RetryPolicy
from airflow_provider_apptoto.decorators.apptoto import (
    ApptotoMessageBatchDecoratedOperator,
    ApptotoMessageDecoratedOperator,
)
from airflow_provider_apptoto.hooks import _state
from airflow_provider_apptoto.hooks import apptoto as hooks
from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageBatchOperator, ApptotoSendMessageOperator
from airflow_provider_apptoto.outbox.ledger import LedgerTiming
from tests.support import airflow_home
from tests.support.faults import FaultServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from airflow.providers.common.compat.sdk import BaseOperator

# Airflow 2.11's web libraries warn on import. With one import here, all other warnings can be errors. And Airflow 2.11
# can't delete a run, as a second one of the same date does, without the tables of its users.
for _module in ("flask_appbuilder.fieldwidgets", "airflow.providers.fab.auth_manager.models"):
    with contextlib.suppress(ImportError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module(_module)


@pytest.fixture(scope="session")
def airflow_database() -> Iterator[None]:
    """Provide the metadata database, and disable what costs a second per task."""
    # connections to the empty file that such a test leaves behind would see no tables
    assert not (airflow_home.HOME / "airflow.db").exists(), "an earlier test used this database without the fixture"
    airflow_home.copy_database(airflow_home.HOME)
    with pytest.MonkeyPatch.context() as patch:
        with contextlib.suppress(ImportError):
            # 3.3 creates its API server once; 3.0 to 3.2 do so for every task
            supervisor: Any = importlib.import_module("airflow.sdk.execution_time.supervisor")
            patch.setattr(supervisor, "in_process_api_server", functools.cache(supervisor.in_process_api_server))
        with contextlib.suppress(ImportError):
            # 3.0 prints coloured tracebacks with the locals of each frame
            structlog: Any = importlib.import_module("structlog.dev")
            patch.setattr(
                structlog.RichTracebackFormatter,
                "__call__",
                lambda _, *arguments: structlog.plain_traceback(*arguments),
            )
        yield


@pytest.fixture(autouse=True)
def no_pins(request: pytest.FixtureRequest) -> None:
    """Isolate the state database and the rendered fields of each test, because all tests share Airflow's database."""
    if "airflow_database" in request.fixturenames:
        request.getfixturevalue("airflow_database")
        path = airflow_home.HOME / "airflow.db"
        with contextlib.closing(sqlite3.connect(path, timeout=30)) as connection, connection:
            connection.execute("delete from variable where key like 'apptoto_ledger_%'")
            connection.execute("delete from rendered_task_instance_fields")


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip backoffs, and reset messages that are logged once per process."""
    monkeypatch.setattr(hooks.ApptotoHook, "retry_policy", RetryPolicy(backoff=0.01))
    monkeypatch.setattr(hooks.ApptotoHook, "ledger_timing", LedgerTiming(patience=0.0, record_retries=(0.01,)))
    monkeypatch.setattr(_state, "_told", set())


@pytest.fixture
def errors(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, BaseException]]:
    """Provide the last error of each task, by its id. Not all Airflows pass it to a callback in these runs."""
    errors: dict[str, BaseException] = {}

    def noting(method: Callable[..., Any]) -> Callable[..., Any]:
        def noted(self: BaseOperator, *arguments: Any, **named: Any) -> Any:
            try:
                return method(self, *arguments, **named)
            except BaseException as error:
                errors[self.task_id] = error
                raise

        return noted

    for operator in (
        ApptotoSendMessageOperator,
        ApptotoSendMessageBatchOperator,
        ApptotoMessageDecoratedOperator,
        ApptotoMessageBatchDecoratedOperator,
    ):
        for name in ("_do_render_template_fields", "_send"):
            monkeypatch.setattr(operator, name, noting(getattr(operator, name)))
    yield errors
    errors.clear()  # their frames hold variables


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Set a connection: ``connection(host, **extra)``."""

    def set_connection(
        host: str,
        conn_id: str = "apptoto_default",
        login: str = "clinic@clinic.example",
        password: str = "sekret-api-key",
        **extra: Any,
    ) -> None:
        fields = {
            "conn_type": "apptoto",
            "login": login,
            "password": password,
            "host": host,
            "extra": {"requests_per_minute": 6000, **extra},
        }
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(fields))

    return set_connection


@pytest.fixture
def server(connection: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultServer]:
    """Provide the server of a connection with a state database."""
    monkeypatch.setenv("AIRFLOW_CONN_STATE", json.dumps({"conn_type": "sqlite", "host": str(tmp_path / "state.db")}))
    with FaultServer() as server:
        connection(server.url, state_conn_id="state")
        yield server
