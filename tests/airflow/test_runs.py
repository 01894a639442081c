"""How old a run is, and when that is too old."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_apptoto.client import ApptotoConfigurationError
from airflow_provider_apptoto.runs import is_retry, origin, too_old

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


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_is_too_old_when_its_occasion_is_over(kind: str) -> None:
    of_kind, is_old = KINDS[kind]
    assert (
        bool(re.fullmatch(r"the run's time, .*, is \d+ h ago, more than max_age=1 day.*", too_old(of_kind, DAY)))
        == is_old
    )
    assert too_old(of_kind, None) == ""


def test_what_is_no_timedelta_is_refused() -> None:
    wrong: Any = 24
    with pytest.raises(ApptotoConfigurationError, match="max_age: 24 is neither a timedelta nor None"):
        too_old(KINDS["caught up"][0], wrong)


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
    ti = SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=None, try_number=3)
    assert (origin({"ti": ti}).map_index, str(origin({"ti": ti}))) == (-1, "d.t, run r")
