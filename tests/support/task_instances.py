"""Task instances and their stored values in Airflow's metadata database, without running a task (Airflow 3.3)."""

from __future__ import annotations

import importlib
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from sqlalchemy import delete, insert, select, update

from tests.support.task_state import FakeTaskState

if TYPE_CHECKING:
    from airflow_provider_apptoto._airflow_task_state import TaskInstanceId


def model() -> Any:
    """Return the model of stored values."""
    return importlib.import_module("airflow.models.task_state_store").TaskStateStoreModel


def add_run(dag_id: str, run_id: str) -> None:
    """Add a DAG run, in place of an earlier one."""
    with create_session() as session:
        session.execute(delete(DagRun).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id))
        values = {"dag_id": dag_id, "run_id": run_id, "run_type": "manual", "state": "failed"}
        session.execute(insert(DagRun).values(**values, run_after=datetime.now(UTC)))


def add_task(task: TaskInstanceId, state: str | None) -> None:
    """Add a task instance in a state."""
    values = {name: getattr(task, name) for name in ("dag_id", "run_id", "task_id", "map_index")}
    with create_session() as session:
        session.execute(insert(TaskInstance).values(**values, state=state, pool="default_pool"))


def set_state(task: TaskInstanceId, state: str | None) -> None:
    """Change the state of a task instance, as the scheduler does."""
    with create_session() as session:
        session.execute(
            update(TaskInstance).where(*_is(TaskInstance, task)).values(state=state),
            execution_options={"synchronize_session": False},
        )


class StoredTaskState(FakeTaskState):
    """The task state of a task instance, in the metadata database."""

    def __init__(self, task: TaskInstanceId) -> None:
        super().__init__()
        self._task = task

    def set(self, key: str, value: Any, *, retention: object) -> None:
        super().set(key, value, retention=retention)
        self.put(key, json.dumps(value))

    def put(self, key: str, text: str) -> None:
        """Store a text, which may be no JSON."""
        stored = model()
        with create_session() as session:
            run = session.scalar(
                select(DagRun.id).where(DagRun.dag_id == self._task.dag_id, DagRun.run_id == self._task.run_id)
            )
            session.execute(delete(stored).where(*_is(stored, self._task), stored.key == key))
            session.execute(
                insert(stored).values(
                    dag_run_id=run,
                    dag_id=self._task.dag_id,
                    run_id=self._task.run_id,
                    task_id=self._task.task_id,
                    map_index=self._task.map_index,
                    key=key,
                    value=text,
                    updated_at=datetime.now(UTC),
                )
            )

    def stored(self) -> dict[str, Any]:
        """Return the values by name."""
        stored = model()
        with create_session() as session:
            found = session.execute(select(stored.key, stored.value).where(*_is(stored, self._task)))
            return {name: json.loads(text) for name, text in found}


def _is(table: Any, task: TaskInstanceId) -> list[Any]:
    return [getattr(table, name) == getattr(task, name) for name in ("dag_id", "run_id", "task_id", "map_index")]
