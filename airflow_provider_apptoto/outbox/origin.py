"""The task or callback that sends a message, read from its context."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

from airflow_provider_apptoto._airflow import is_running_task

if TYPE_CHECKING:
    from collections.abc import Mapping

TASK = "task"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The task try or callback that sends a message.

    :param kind: ``task``, or ``callback:`` followed by the state of its task or run.
    :param task_id: empty for a DAG callback.
    :param map_index: -1 if the task is not mapped.
    :param try_number: from 1; 0 for a DAG callback.
    """

    dag_id: str
    task_id: str
    run_id: str
    map_index: int
    try_number: int
    kind: str = TASK

    @property
    def task(self) -> tuple[str, str, str, int]:
        """The task instance, without the try number."""
        return self.dag_id, self.task_id, self.run_id, self.map_index

    @property
    def is_task(self) -> bool:
        """Whether the sender is a task, not a callback."""
        return self.kind == TASK

    def __str__(self) -> str:
        """Show the task instance."""
        mapped = f"[{self.map_index}]" if self.map_index >= 0 else ""
        task = f".{self.task_id}{mapped}" if self.task_id else ""
        return f"{self.dag_id}{task}, run {self.run_id}" + ("" if self.is_task else f" ({self.kind})")

    def to_dict(self) -> dict[str, Any]:
        """Return the origin as JSON values."""
        fields = asdict(self)
        return {"origin": fields.pop("kind"), **fields}

    @classmethod
    def take_from(cls, fields: dict[str, Any]) -> Self:
        """Remove the values of :meth:`to_dict` from a mapping, and return their origin."""
        names = ("dag_id", "task_id", "run_id", "map_index", "try_number")
        return cls(kind=fields.pop("origin"), **{name: fields.pop(name) for name in names})

    @classmethod
    def from_context(cls, context: Mapping[str, Any]) -> Self:
        """Read the origin from the context of a task, a task callback or a DAG callback."""
        ti, run = context.get("ti"), context.get("dag_run")
        if ti is None:
            dag_id = str(getattr(run, "dag_id", None) or getattr(context.get("dag"), "dag_id", ""))
            run_id = str(getattr(run, "run_id", None) or context.get("run_id") or "")
            kind = _callback(run, "dag")
            return cls(dag_id=dag_id, task_id="", run_id=run_id, map_index=-1, try_number=0, kind=kind)
        kind = TASK if is_running_task(context) else _callback(ti, "task")
        return cls(
            dag_id=ti.dag_id,
            task_id=ti.task_id,
            run_id=ti.run_id,
            map_index=-1 if ti.map_index is None else ti.map_index,
            try_number=ti.try_number,
            kind=kind,
        )


def _callback(of: object, unknown: str) -> str:
    """Return the kind of a callback.

    :param of: its task instance or run.
    :param unknown: used if the state is unknown.
    """
    state = getattr(of, "state", None)
    return f"callback:{getattr(state, 'value', state) or unknown}"  # str() of an enum differs between Python versions


NO_ORIGIN = Origin(dag_id="", task_id="", run_id="", map_index=-1, try_number=0)
"""Origin of messages that are sent outside Airflow, without a ledger."""


def is_retry(context: Mapping[str, Any]) -> bool:
    """Return whether an earlier try of the task failed and the task was not cleared since."""
    ti, task = context.get("ti"), context.get("task")
    if ti is None or task is None:
        return False
    # clearing a task raises max_tries, so that it has all its retries again
    cleared_at = ti.max_tries - task.retries
    return bool(ti.try_number > cleared_at + 1)
