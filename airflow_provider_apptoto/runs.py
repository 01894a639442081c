"""What a task's context says of its run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_apptoto.client.errors import ApptotoConfigurationError
from airflow_provider_apptoto.state.store import Origin

if TYPE_CHECKING:
    from collections.abc import Mapping


def origin(context: Mapping[str, Any]) -> Origin:
    """Return the try that runs."""
    ti = context["ti"]
    return Origin(
        dag_id=ti.dag_id,
        task_id=ti.task_id,
        run_id=ti.run_id,
        map_index=-1 if ti.map_index is None else ti.map_index,
        try_number=ti.try_number,
    )


def too_old(context: Mapping[str, Any], max_age: timedelta | None) -> str:
    """Say that a run is older than ``max_age``, if it is: the occasion is over."""
    if max_age is None:
        return ""
    if not isinstance(max_age, timedelta):
        raise ApptotoConfigurationError("max_age", f"{max_age!r} is neither a timedelta nor None")
    time = _time_of(context)
    age = datetime.now(UTC) - time
    if age <= max_age:
        return ""
    hours = age.total_seconds() / 3600
    return f"the run's time, {time.astimezone(UTC):%Y-%m-%dT%H:%MZ}, is {hours:.0f} h ago, more than max_age={max_age}"


def is_retry(context: Mapping[str, Any]) -> bool:
    """Tell whether an earlier try of this task failed, and was not cleared since."""
    ti = context["ti"]
    # a clear raises max_tries, so that the task has all its retries again
    cleared_at = ti.max_tries - context["task"].retries
    return bool(ti.try_number > cleared_at + 1)


def _time_of(context: Mapping[str, Any]) -> datetime:
    """Return what a run's age counts from.

    A run that somebody triggers between two intervals of a schedule is of the time it was triggered for, not of the end
    of the last interval, which may be a week ago.
    """
    known: list[datetime] = [
        time for time in (context.get("data_interval_end"), context.get("logical_date")) if time is not None
    ]
    return max(known) if known else context["dag_run"].run_after
