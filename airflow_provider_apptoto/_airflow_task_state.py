"""Airflow's task state store as the outbox page reads and changes it, in Airflow's database (Airflow 3.3 and newer).

Only the API server imports this module. Tasks use the store through their context.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from airflow.utils.state import State as TaskInstanceStates
from sqlalchemy import and_, delete, exists, insert, select, update
from sqlalchemy.exc import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.orm import Session
    from sqlalchemy.sql import ColumnElement

try:
    # Checked on 3.3.2: a row for each value, kept until its DAG run is deleted
    _stored: Any = importlib.import_module("airflow.models.task_state_store").TaskStateStoreModel
except ImportError:  # Airflow < 3.3
    _stored = None


class TaskMayRunError(Exception):
    """The task instance has not ended, so it may write its values.

    :param state: of the task instance; ``None`` if it was not scheduled yet.
    """

    def __init__(self, state: str | None) -> None:
        super().__init__(state)
        self.state = state


class ValueChangedError(Exception):
    """A value, or the task instance, is not as it was when it was read."""


@dataclass(frozen=True, slots=True)
class TaskInstanceId:
    """A task instance.

    :param map_index: -1 if the task is not mapped.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int


@dataclass(frozen=True, slots=True)
class StoredValue:
    """A value of a task instance.

    :param text: JSON, as stored.
    """

    task: TaskInstanceId
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Swap:
    """A value to replace.

    :param old: the text that was read; ``None``: there is no value.
    :param new: ``None``: remove the value.
    """

    name: str
    old: str | None
    new: str | None


def has_task_state() -> bool:
    """Return whether Airflow has a task state store."""
    return _stored is not None


def read_values(dag_id: str, run_id: str, task_id: str | None, prefix: str, limit: int) -> list[StoredValue]:
    """Return the values of a DAG run whose names begin with a prefix, newest first.

    :param task_id: of this task only.
    :param limit: maximum number of values.
    """
    columns = (_stored.task_id, _stored.map_index, _stored.key, _stored.value)
    query = select(*columns).where(
        _stored.dag_id == dag_id, _stored.run_id == run_id, _stored.key.startswith(prefix, autoescape=True)
    )
    if task_id is not None:
        query = query.where(_stored.task_id == task_id)
    with create_session(scoped=False) as session:
        found = session.execute(query.order_by(_stored.updated_at.desc(), _stored.id).limit(limit))
        return [
            StoredValue(TaskInstanceId(dag_id, run_id, row.task_id, row.map_index), row.key, row.value) for row in found
        ]


def replace_values(task: TaskInstanceId, swaps: Iterable[Swap]) -> None:
    """Replace values of a task instance that has ended, all or none.

    :raises TaskMayRunError: the task instance has not ended.
    :raises ValueChangedError: a value is not the one that was read, or the task instance does not exist any more.
    """
    with create_session(scoped=False) as session:
        found = session.execute(
            select(TaskInstance.state, DagRun.id)
            .join(DagRun, and_(DagRun.dag_id == TaskInstance.dag_id, DagRun.run_id == TaskInstance.run_id))
            .where(*_is(TaskInstance, task))
            # a scheduler that starts the next try waits for this transaction
            .with_for_update(of=TaskInstance)
        ).one_or_none()
        if found is None:
            raise ValueChangedError
        state, run = found
        if state not in TaskInstanceStates.finished:
            raise TaskMayRunError(None if state is None else str(getattr(state, "value", state)))
        for swap in swaps:
            if not _swapped(session, task, run, swap):
                raise ValueChangedError


def _swapped(session: Session, task: TaskInstanceId, run: int, swap: Swap) -> bool:
    """Replace a value; return whether it was the one that was read."""
    now = datetime.now(UTC)
    if swap.old is None:
        row = {"dag_run_id": run, "key": swap.name, "value": swap.new, "updated_at": now, "expires_at": None}
        names = ("dag_id", "run_id", "task_id", "map_index")
        try:
            session.execute(insert(_stored).values(row | {name: getattr(task, name) for name in names}))
        except IntegrityError:
            return False
        return True
    # SQLite locks no row, so the statement checks the task instance once more
    has_ended = exists().where(*_is(TaskInstance, task), TaskInstance.state.in_(TaskInstanceStates.finished))
    here = and_(*_is(_stored, task), _stored.key == swap.name, _stored.value == swap.old, has_ended)
    statement = (
        delete(_stored).where(here)
        if swap.new is None
        else update(_stored).where(here).values(value=swap.new, updated_at=now)
    )
    result: Any = session.execute(statement.execution_options(synchronize_session=False))
    return bool(result.rowcount == 1)


def _is(model: Any, task: TaskInstanceId) -> list[ColumnElement[bool]]:
    """Return conditions for the rows of a task instance."""
    return [getattr(model, name) == getattr(task, name) for name in ("dag_id", "run_id", "task_id", "map_index")]
