"""Run DAGs in the installed Airflow, in this process."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import itertools
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pendulum
import pytest
from airflow.models import DagRun
from airflow.providers.common.compat.sdk import DAG

from tests.support.airflow_home import DAGS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

_numbers = itertools.count(1)
_built: dict[str, DAG] = {}

FILE = """# Airflow looks for a DAG's file; this one gives it what the test has built.
from tests.support.dag_runs import dag_of

dag = dag_of("{dag_id}")
"""


@dataclass
class TaskRun:
    """The end of one task instance."""

    task_id: str
    map_index: int
    state: str
    tries: int
    xcom: Any


@dataclass
class Run:
    """The end of one DAG run."""

    state: str
    tasks: list[TaskRun]

    def __getitem__(self, task_id: str) -> TaskRun:
        [found] = [task for task in self.tasks if task.task_id == task_id]
        return found


def dag_of(dag_id: str) -> DAG:
    """Return a DAG that a test of this process has built and runs."""
    return _built[dag_id]


def run_dag(build: Callable[[], object], *, dag_id: str = "", at: datetime | None = None, **arguments: Any) -> Run:
    """Run a DAG with these tasks.

    :param build: makes the tasks; called once, inside of the DAG.
    :param dag_id: by default one that no other run has.
    :param at: the run's logical date; the same one makes the same run of a DAG once more, as a clear does.
    :param arguments: further arguments of the DAG.
    """
    dag_id = dag_id or f"dag_{next(_numbers)}"
    with DAG(dag_id=dag_id, schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), **arguments) as dag:
        build()
    _built[dag_id] = dag
    path = DAGS / f"{dag_id}.py"
    path.write_text(FILE.format(dag_id=dag_id))
    try:
        return _run(dag, at=at)
    finally:
        path.unlink()
        del _built[dag_id]


def run_file(name: str, source: str, *, conf: dict[str, Any] | None = None) -> Run:
    """Run the DAG called ``dag`` of a file with this text.

    :param name: the file's name.
    :param source: its text.
    :param conf: the run's configuration.
    """
    path = DAGS / f"{name}.py"
    path.write_text(source)
    try:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return _run(module.dag, conf=conf)
    finally:
        path.unlink()


def _run(dag: Any, *, conf: dict[str, Any] | None = None, at: datetime | None = None) -> Run:
    date = "logical_date" if "logical_date" in inspect.signature(dag.test).parameters else "execution_date"
    with pytest.MonkeyPatch.context() as patch:
        if at is not None:
            # newer Airflows derive the id from the time of the call
            patch.setattr(DagRun, "generate_run_id", lambda *_, **__: f"manual__{at.isoformat()}")
        run = dag.test(run_conf=conf, **({} if at is None else {date: at}))
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


@contextlib.contextmanager
def own_sigterm() -> Iterator[None]:
    """Restore the signal handler that Airflow replaces."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
