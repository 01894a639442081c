"""Runs DAGs, written as text as a user would write them, in the Airflow that is installed."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import itertools
import json
import logging
import signal
import textwrap
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import DAGS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

with contextlib.suppress(ImportError), warnings.catch_warnings():
    # Airflow 2.11 can't delete a run, as a second one of the same date does, without the tables of its users
    warnings.simplefilter("ignore")
    importlib.import_module("airflow.providers.fab.auth_manager.models")

_numbers = itertools.count(1)

HEAD = """
from __future__ import annotations

import pendulum
from airflow.providers.common.compat.sdk import DAG, task
from datetime import timedelta

from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageBatchOperator, ApptotoSendMessageOperator

with DAG(dag_id="{dag_id}", schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), {arguments}) as dag:
"""


@dataclass
class TaskRun:
    """What became of one task instance."""

    task_id: str
    map_index: int
    state: str
    tries: int
    xcom: Any


@dataclass
class Run:
    """What became of one DAG run."""

    state: str
    tasks: list[TaskRun]

    def __getitem__(self, task_id: str) -> TaskRun:
        [found] = [task for task in self.tasks if task.task_id == task_id]
        return found


def run_tasks(
    tasks: str,
    *,
    arguments: str = "",
    conf: dict[str, Any] | None = None,
    dag_id: str = "",
    at: datetime | None = None,
) -> Run:
    """Run a DAG of these tasks.

    :param tasks: Python text; ``DAG``, ``task``, ``timedelta`` and the operators are imported.
    :param arguments: further arguments of the DAG, as text.
    :param conf: the run's configuration.
    :param dag_id: by default one that no other run has.
    :param at: the run's logical date; the same one makes the same run of a DAG once more, as a clear does.
    """
    dag_id = dag_id or f"dag_{next(_numbers)}"
    source = HEAD.format(dag_id=dag_id, arguments=arguments) + textwrap.indent(tasks, "    ")
    return run_file(dag_id, source, conf=conf, at=at)


def run_file(name: str, source: str, *, conf: dict[str, Any] | None = None, at: datetime | None = None) -> Run:
    """Run the DAG called ``dag`` of a file with this text.

    :param name: the file's name.
    :param source: its text.
    :param conf: the run's configuration.
    :param at: the run's logical date.
    """
    path = DAGS / f"{name}.py"
    path.write_text(source)
    try:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        date = "logical_date" if "logical_date" in inspect.signature(module.dag.test).parameters else "execution_date"
        with pytest.MonkeyPatch.context() as patch:
            if at is not None:
                # newer Airflows make the id of the time of the call
                patch.setattr(
                    "airflow.models.dagrun.DagRun.generate_run_id", lambda *_, **__: f"manual__{at.isoformat()}"
                )
            run = module.dag.test(run_conf=conf, **({} if at is None else {date: at}))
        instances = sorted(run.get_task_instances(), key=lambda instance: (instance.task_id, instance.map_index))
        return Run(
            str(getattr(run.state, "value", run.state)),
            [
                TaskRun(
                    task_id=instance.task_id,
                    map_index=instance.map_index,
                    state=str(getattr(instance.state, "value", instance.state)),
                    tries=instance.try_number,
                    xcom=instance.xcom_pull(task_ids=instance.task_id, map_indexes=instance.map_index),
                )
                for instance in instances
            ],
        )
    finally:
        path.unlink()


@contextlib.contextmanager
def own_sigterm() -> Iterator[None]:
    """Keep what Airflow does with the signal from outliving a test."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.fixture
def provider_log() -> Iterator[list[str]]:
    """Give what the provider logs. Airflow sets logging up anew in its first run, so ``caplog`` may miss it."""
    lines: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    logger, collector = logging.getLogger("airflow_provider_apptoto"), Collector()
    logger.addHandler(collector)
    yield lines
    logger.removeHandler(collector)


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
