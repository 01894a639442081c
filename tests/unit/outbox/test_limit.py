"""A limit is a number of messages per time, and nothing else."""

from __future__ import annotations

import pytest

from airflow_provider_apptoto.client import ApptotoConfigurationError
from airflow_provider_apptoto.outbox.limit import Limit
from airflow_provider_apptoto.outbox.policy import limits_of


@pytest.mark.parametrize(
    ("text", "count", "seconds"),
    [
        ("2/day", 2, 86_400),
        ("1/hour", 1, 3_600),
        ("3/7d", 3, 604_800),
        ("1/12h", 1, 43_200),
        ("2/week", 2, 604_800),
        (" 2 / Day ", 2, 86_400),
        ("5/d", 5, 86_400),
    ],
)
def test_a_limit_is_read(text: str, count: int, seconds: int) -> None:
    limit = Limit.parse(text, "at_most")
    assert (limit.count, limit.seconds) == (count, seconds)
    assert Limit.parse(str(limit), "at_most") == limit


@pytest.mark.parametrize(
    "text", ["", "2", "day", "0/day", "-1/day", "2/0d", "2/month", "2/day/day", "2.5/day", 2, "2/7"]
)
def test_what_is_no_limit_is_an_error_that_shows_one(text: object) -> None:
    with pytest.raises(ApptotoConfigurationError, match=r"is not a limit such as '2/day'"):
        Limit.parse(text, "at_most")


def test_several_limits_all_apply() -> None:
    assert [str(each) for each in limits_of("2/day, 5/7d")] == ["2/day", "5/7d"]
    assert limits_of(None) == limits_of("off") == ()
