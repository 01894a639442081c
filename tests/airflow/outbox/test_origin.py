"""On whose behalf a message is sent, and how old its run may be."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from enum import Enum
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_apptoto.client import ApptotoConfigurationError
from airflow_provider_apptoto.outbox.origin import Origin, is_retry
from airflow_provider_apptoto.outbox.policy import SendPolicy

DAY = timedelta(days=1)
NOW = datetime.now(UTC)


def context(*, end: datetime | None, logical: datetime | None, after: datetime | None) -> dict[str, Any]:
    return {"data_interval_end": end, "logical_date": logical, "dag_run": SimpleNamespace(run_after=after)}


KINDS = {
    "scheduled, on time": (context(end=NOW, logical=NOW - 30 * DAY, after=NOW), False),
    "caught up": (context(end=NOW - 2 * DAY, logical=NOW - 3 * DAY, after=NOW - 2 * DAY), True),
    "backfilled": (context(end=NOW - 9 * DAY, logical=NOW - 10 * DAY, after=NOW - 9 * DAY), True),
    "triggered between two intervals": (context(end=NOW - 5 * DAY, logical=NOW, after=NOW), False),
    "triggered, and then left for two days": (
        context(end=NOW - 5 * DAY, logical=NOW - 2 * DAY, after=NOW - 2 * DAY),
        True,
    ),
    "triggered for a day long ago": (context(end=NOW - 8 * DAY, logical=NOW - 9 * DAY, after=NOW), True),
    "triggered by an asset": (context(end=None, logical=None, after=NOW), False),
    "triggered by an asset two days ago": (context(end=None, logical=None, after=NOW - 2 * DAY), True),
}


def too_old(of: dict[str, Any], max_age: timedelta | None) -> str:
    return SendPolicy(max_age=max_age).why_too_old(of)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_is_too_old_when_its_occasion_is_over(kind: str) -> None:
    of_kind, is_old = KINDS[kind]
    assert (
        bool(re.fullmatch(r"the run's time, .*, is \d+ h ago, more than max_age=1 day.*", too_old(of_kind, DAY)))
        == is_old
    )
    assert too_old(of_kind, None) == ""


@pytest.mark.parametrize("max_age", [24, "1 day", timedelta(0), -DAY, True])
def test_a_maximum_age_is_a_time_of_more_than_nothing(max_age: Any) -> None:
    with pytest.raises(ApptotoConfigurationError, match=r"max_age: .* is neither a timedelta of more than 0 nor None"):
        SendPolicy(max_age=max_age)


def test_a_context_without_a_run_has_no_age() -> None:
    assert too_old({}, DAY) == ""


@pytest.mark.parametrize(
    ("try_number", "max_tries", "retries", "retried"),
    [
        (1, 0, 0, False),
        (1, 3, 3, False),
        (2, 3, 3, True),
        (4, 3, 3, True),
        (2, 1, 0, False),  # cleared after its one try
        (3, 5, 3, False),  # cleared after its second try: two, and three retries
        (4, 5, 3, True),
    ],
)
def test_a_retry_is_told_from_a_clear(try_number: int, max_tries: int, retries: int, retried: bool) -> None:
    context = {
        "ti": SimpleNamespace(try_number=try_number, max_tries=max_tries),
        "task": SimpleNamespace(retries=retries),
    }
    assert is_retry(context) is retried


def test_a_task_that_is_not_mapped_has_the_map_index_that_airflow_gives_it() -> None:
    ti = SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=None, try_number=3, state="failed")
    origin = Origin.from_context({"ti": ti})
    assert (origin.map_index, origin.try_number) == (-1, 3)


@pytest.mark.parametrize(
    ("of", "kind", "shown"),
    [
        (
            {"ti": SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=2, try_number=1, state="failed")},
            "callback:failed",
            "d.t[2], run r (callback:failed)",
        ),
        (
            {"dag_run": SimpleNamespace(dag_id="d", run_id="r", state="success")},
            "callback:success",
            "d, run r (callback:success)",
        ),
        ({"dag": SimpleNamespace(dag_id="d"), "run_id": "r"}, "callback:dag", "d, run r (callback:dag)"),
    ],
    ids=["of a task", "of a run", "of a DAG"],
)
def test_a_callback_is_told_from_the_task_that_it_is_called_for(of: dict[str, Any], kind: str, shown: str) -> None:
    origin = Origin.from_context(of)
    assert (origin.kind, str(origin), origin.is_task) == (kind, shown, False)
    fields = origin.to_dict()
    assert Origin.take_from(fields) == origin
    assert fields == {}


def test_the_kind_of_a_callback_does_not_depend_on_how_a_version_prints_its_states() -> None:
    class PrintedOtherwise(Enum):
        FAILED = "failed"

    ti = SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=-1, try_number=1, state=PrintedOtherwise.FAILED)
    assert Origin.from_context({"ti": ti}).kind == "callback:failed"
