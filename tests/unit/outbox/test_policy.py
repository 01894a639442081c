"""Invalid parameters of a send are errors, and a run that is too old is detected."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pendulum
import pytest

from airflow_provider_apptoto.client import ApptotoConfigurationError
from airflow_provider_apptoto.outbox.policy import SendPolicy, checked_labels, checked_reference

if TYPE_CHECKING:
    from pytest_mock import MockerFixture

DAY = timedelta(days=1)
NOW = datetime.now(UTC)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("on_unknown", "retry", "'retry' is not one of fail, resend, assume_sent"),
        ("on_unknown", None, "None is not one of fail"),
        ("max_age", "1 day", "'1 day' is not a positive timedelta"),
        ("max_age", True, "True is not a positive timedelta"),
        ("max_age", 24, "24 is not a positive timedelta; None means no limit"),
        ("max_age", timedelta(0), "is not a positive timedelta"),
        ("max_age", -DAY, "is not a positive timedelta"),
        ("idempotency_key", "", "must not be blank; name the occasion, or omit it"),
        ("idempotency_key", " \n", "must not be blank"),
    ],
)
def test_a_wrong_value_is_refused_when_the_policy_is_made(field: str, value: Any, says: str) -> None:
    with pytest.raises(ApptotoConfigurationError, match=re.escape(says)) as raised:
        SendPolicy(**{field: value})
    assert raised.value.field == field


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
    "no run at all": ({}, False),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_is_too_old_when_its_occasion_is_over(kind: str) -> None:
    of_kind, is_old = KINDS[kind]
    says = r"the run is \d+ h old \(\d{4}-\d\d-\d\dT\d\d:\d\dZ\), more than max_age=24 h.*"
    assert bool(re.fullmatch(says, SendPolicy(max_age=DAY).why_too_old(of_kind))) == is_old
    assert SendPolicy(max_age=None).why_too_old(of_kind) == ""


@pytest.mark.parametrize(("age", "expected"), [(DAY, ""), (DAY + timedelta(minutes=1), "24 h"), (2.5 * DAY, "60 h")])
def test_the_reason_tells_the_time_of_the_run_in_utc_and_its_age(
    mocker: MockerFixture, age: timedelta, expected: str
) -> None:
    moment = datetime(2026, 11, 20, 9, 30, tzinfo=timezone(timedelta(hours=1)))
    mocker.patch.object(pendulum, "now", return_value=pendulum.instance(moment + age))
    reason = SendPolicy(max_age=DAY).why_too_old(context(end=moment, logical=None, after=None))
    assert reason == (expected and f"the run is {expected} old (2026-11-20T08:30Z), more than max_age=24 h")


# --- references and labels


@pytest.mark.parametrize(("given", "kept"), [(None, None), ("4711", "4711"), (4711, "4711"), ("a" * 200, "a" * 200)])
def test_a_reference_is_kept_as_one_line(given: object, kept: str | None) -> None:
    assert checked_reference(given) == kept


@pytest.mark.parametrize("given", ["", " ", "a\nb", "a\tb", "a" * 201, "a\x00", "a\u2028b"])
def test_what_is_not_one_printable_line_is_no_reference(given: str) -> None:
    with pytest.raises(ApptotoConfigurationError, match=r"^reference: must be one line of 1 to 200"):
        checked_reference(given)


@pytest.mark.parametrize("given", [None, {}, {"clinic": None}])
def test_labels_may_be_left_out(given: object) -> None:
    assert checked_labels(given) is None


def test_the_values_of_labels_become_strings() -> None:
    labels = {"clinic": "north", "campaign_2": 7, "paid": True, "x" * 64: "y" * 200}
    assert checked_labels(labels) == {"clinic": "north", "campaign_2": "7", "paid": "True", "x" * 64: "y" * 200}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["clinic"], "must be a mapping with at most 4 entries"),
        ("clinic=north", "must be a mapping"),
        (dict.fromkeys("abcde", "x"), "must be a mapping with at most 4"),
        ({"a clinic": "north"}, "a name must be up to 64 letters, digits and _"),
        ({"": "north"}, "a name must be"),
        ({"x" * 65: "north"}, "a name must be"),
        ({7: "north"}, "a name must be"),
        ({"clinic": ""}, "the value of 'clinic' must be one line of 1 to 200 characters"),
        ({"clinic": "a\nb"}, "the value of 'clinic' must be one line"),
        ({"clinic": "x" * 201}, "the value of 'clinic' must be one line"),
    ],
)
def test_what_are_no_labels_is_refused_and_no_value_is_shown(given: object, says: str) -> None:
    with pytest.raises(ApptotoConfigurationError, match=rf"^labels: {re.escape(says)}") as raised:
        checked_labels(given)
    assert "north" not in str(raised.value)
