"""What is said of a batch: all is counted, who may have got nothing is named, and it fits where Airflow keeps it."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_apptoto.batch.plan import LeftOut, Plan, PlannedMessage, Problem
from airflow_provider_apptoto.batch.report import DONE, FAILED, MOST_NAMED, NO_MESSAGE, Failure, Tally
from airflow_provider_apptoto.client import Message
from tests.support.planning import PHONE, SECRET, plan_of

MOST_BYTES = 64 * 1024
COUNTED = (
    "sent",
    "redirected",
    "dry_run",
    "deduplicated",
    "assumed_sent",
    "unknown",
    "rejected",
    "not_sent",
    "invalid",
    "suppressed",
    "duplicate",
)
"""All that can become of a row, as the operator's documentation has it."""
OUTCOMES = [str(outcome) for outcome in (*DONE, *FAILED)]


def plan_of_size(
    messages: int, *, invalid: int = 0, suppressed: int = 0, duplicates: int = 0, reference: str | None = None
) -> Plan:
    message = Message("sms", to=PHONE, message=SECRET)
    return Plan(
        rows=messages + invalid + suppressed + duplicates,
        messages=[PlannedMessage(index, message, f"{index:032x}", None, reference) for index in range(messages)],
        duplicates=duplicates,
        suppressed=suppressed,
        suppressed_rows=[LeftOut(index, index + 2, reference) for index in range(min(suppressed, 1000))],
        duplicate_rows=[LeftOut(index, index + 2, reference) for index in range(min(duplicates, 1000))],
        invalid=invalid,
        problems=[
            Problem(messages + index, None, reference, "to", "is blank; nothing blank is sent")
            for index in range(min(invalid, 1000))
        ],
    )


def size(report: Any) -> int:
    return max(len(json.dumps(report)), len(json.dumps(report, ensure_ascii=False).encode(errors="surrogatepass")))


# --- counts


@given(
    st.lists(st.sampled_from(OUTCOMES), max_size=40),
    st.integers(0, 5),
    st.integers(0, 3),
    st.integers(0, 3),
    st.integers(0, 3),
)
def test_counts_always_add_up_to_the_rows_and_failures_to_those_that_failed(
    outcomes: list[str], untried: int, invalid: int, suppressed: int, duplicates: int
) -> None:
    plan = plan_of_size(len(outcomes) + untried, invalid=invalid, suppressed=suppressed, duplicates=duplicates)
    tally = Tally(plan, has_ledger=True)
    for message, outcome in zip(plan.messages, outcomes, strict=False):
        tally.add(message, outcome, reason="x")
    tally.add_untried(plan.messages[len(outcomes) :], "the task was told to end")
    report = tally.report()
    assert set(report) == {"total", *COUNTED, "failures", "failures_left_out", "suppressed_rows", "duplicate_rows"}
    assert (len(report["suppressed_rows"]), len(report["duplicate_rows"])) == (suppressed, duplicates)
    assert report["total"] == plan.rows == sum(report[name] for name in COUNTED)
    assert (report["invalid"], report["suppressed"], report["duplicate"]) == (invalid, suppressed, duplicates)
    assert {name: report[name] for name in OUTCOMES if name != "not_sent"} == {
        name: outcomes.count(name) for name in OUTCOMES if name != "not_sent"
    }
    assert report["not_sent"] == outcomes.count("not_sent") + untried
    failed = sum(report[name] for name in ("unknown", "rejected", "not_sent", "invalid"))
    assert len(report["failures"]) + report["failures_left_out"] == failed
    assert report["failures_left_out"] == 0


def test_a_batch_of_no_rows_has_counts_too() -> None:
    report = Tally(Plan(), has_ledger=True).report()
    assert report == {"total": 0} | dict.fromkeys(COUNTED, 0) | {
        "failures": [],
        "failures_left_out": 0,
        "suppressed_rows": [],
        "duplicate_rows": [],
    }


def test_what_many_threads_count_at_once_is_all_counted() -> None:
    plan = plan_of_size(8000)
    tally = Tally(plan, has_ledger=True)
    start = threading.Barrier(8)

    def count(first: int) -> None:
        start.wait()
        for message in plan.messages[first::8]:
            tally.add(message, OUTCOMES[message.index % len(OUTCOMES)])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(count, range(8)))
    assert {name: tally[name] for name in OUTCOMES} == dict.fromkeys(OUTCOMES, 1000)
    assert sum(tally.counts()[name] for name in COUNTED) == tally.counts()["total"] == 8000


def test_a_count_can_be_asked_for_by_what_the_message_came_to() -> None:
    plan = plan_of_size(2)
    tally = Tally(plan, has_ledger=True)
    tally.add(plan.messages[0], "unknown")
    assert [tally[outcome] for outcome in FAILED] == [1, 0, 0]
    assert tally["unknown"] == 1


# --- failures


def test_a_failure_says_which_row_it_is_and_what_became_of_it() -> None:
    rows = [{"to": PHONE, "id": "A1"}, {"to": "+16505550198", "id": "A2"}, {"to": SECRET, "id": "A3"}]
    plan = plan_of(rows, {"type": "sms", "message": SECRET}, reference_field="id")
    tally = Tally(plan, has_ledger=True)
    tally.add(plan.messages[0], "rejected", status=422, reason="to: no such number")
    tally.add(plan.messages[1], "sent", status=200)
    report = tally.report()
    assert report["failures"] == [
        {
            "index": 0,
            "line": None,
            "reference": "A1",
            "key": plan.messages[0].key,
            "outcome": "rejected",
            "http_status": 422,
            "reason": "to: no such number",
        },
        {
            "index": 2,
            "line": None,
            "reference": "A3",
            "key": None,
            "outcome": "invalid",
            "http_status": None,
            "reason": f"to: {plan.problems[0].reason}",
        },
    ]
    assert json.loads(json.dumps(report)) == report
    for shown in (str(report), repr(tally.counts()), tally.table(), tally.progress()):
        assert SECRET not in shown
        assert PHONE not in shown


def test_without_a_ledger_no_key_is_given_since_none_could_be_resolved() -> None:
    plan = plan_of_size(2)
    tally = Tally(plan, has_ledger=False)
    tally.add(plan.messages[0], "unknown", reason="timeout")
    tally.add_untried(plan.messages[1:], "stopped")
    assert [failure["key"] for failure in tally.report()["failures"]] == [None, None]


def test_what_a_person_has_to_look_at_comes_first_and_bad_rows_last() -> None:
    plan = plan_of_size(6, invalid=1)
    tally = Tally(plan, has_ledger=True)
    for message, outcome in zip(plan.messages, ["not_sent", "rejected", "sent", "unknown", "rejected"], strict=False):
        tally.add(message, outcome)
    tally.add_untried(plan.messages[5:], "the task was told to end")
    found = [(failure["outcome"], failure["index"]) for failure in tally.report()["failures"]]
    assert found == [
        ("unknown", 3),
        ("rejected", 1),
        ("rejected", 4),
        ("not_sent", 0),
        ("not_sent", 5),
        ("invalid", 6),
    ]
    assert tally.report()["failures"][4]["reason"] == "not tried: the task was told to end"
    assert [failure.index for failure in tally.failures(untried=False)] == [3, 1, 4, 0]
    assert [failure.index for failure in tally.invalid()] == [6]


def test_a_line_of_a_failure_shows_the_key_only_where_somebody_has_to_resolve_it() -> None:
    assert (
        str(Failure(3, None, "A1", "K", "unknown", None, "timeout")) == "row 3 (reference A1), key K: unknown: timeout"
    )
    assert str(Failure(3, None, None, None, "unknown", None, "timeout")) == "row 3: unknown: timeout"
    assert str(Failure(0, None, None, "K", "rejected", 422, "no")) == "row 0: rejected, HTTP 422: no"


def test_a_line_of_a_failure_names_the_line_of_the_file() -> None:
    assert str(Failure(5, 7, "A1", None, "rejected", 422, "no")) == "line 7 (reference A1): rejected, HTTP 422: no"
    assert str(Failure(5, 7, None, None, "invalid", None, "to: no")) == "line 7: invalid: to: no"


def test_the_report_names_suppressed_and_duplicate_rows_by_line_and_reference() -> None:
    rows = [LeftOut(1, 3, "A2"), LeftOut(2, None, None)]
    plan = Plan(rows=3, suppressed=1, duplicates=1, suppressed_rows=rows[:1], duplicate_rows=rows[1:])
    report = Tally(plan, has_ledger=True).report()
    assert report["suppressed_rows"] == [{"index": 1, "line": 3, "reference": "A2"}]
    assert report["duplicate_rows"] == [{"index": 2, "line": None, "reference": None}]


def test_suppressed_and_duplicate_rows_take_no_room_from_failures_and_the_report_fits() -> None:
    plan = plan_of_size(2000, suppressed=5000, duplicates=5000, reference="r" * 200)
    tally = Tally(plan, has_ledger=True)
    tally.add(plan.messages[0], "unknown", reason="timeout")
    report = tally.report()
    assert [failure["index"] for failure in report["failures"]] == [0]
    assert 100 < len(report["suppressed_rows"]) < 1000
    assert report["duplicate_rows"] == []
    assert size(report) <= MOST_BYTES
    for message in plan.messages:
        tally.add(message, "rejected", reason="r" * 200)
    full = tally.report()
    assert full["failures_left_out"] > 0
    assert (full["suppressed"], full["suppressed_rows"]) == (5000, [])
    assert size(full) <= MOST_BYTES


# --- room


@pytest.mark.parametrize("outcome", ["unknown", "rejected", "not_sent"])
def test_however_many_fail_the_report_fits_and_says_how_many_are_missing(outcome: str) -> None:
    plan = plan_of_size(20_000, invalid=30_000)
    tally = Tally(plan, has_ledger=True)
    for message in plan.messages:
        tally.add(message, outcome, status=500, reason="r" * 200)
    report = tally.report()
    assert size(report) <= MOST_BYTES
    assert report[outcome] == 20_000
    assert report["total"] == 50_000
    assert 100 < len(report["failures"]) <= MOST_NAMED
    assert report["failures_left_out"] == 50_000 - len(report["failures"])


def test_unknown_ones_are_named_before_all_others_when_there_is_no_room_for_all() -> None:
    plan = plan_of_size(2000)
    tally = Tally(plan, has_ledger=True)
    for message in plan.messages:
        tally.add(message, "unknown" if message.index >= 1990 else "rejected", reason="r" * 200)
    failures = tally.report()["failures"]
    assert [failure["index"] for failure in failures[:10]] == list(range(1990, 2000))
    assert {failure["outcome"] for failure in failures[10:]} == {"rejected"}


def test_very_many_whose_turn_never_came_are_all_counted() -> None:
    plan = plan_of_size(50_000)
    tally = Tally(plan, has_ledger=True)
    tally.add_untried(plan.messages, "the task was told to end")
    report = tally.report()
    assert report["not_sent"] == report["total"] == 50_000
    assert len(report["failures"]) + report["failures_left_out"] == 50_000
    assert size(report) <= MOST_BYTES


@given(
    st.integers(1, 400),
    st.integers(0, 400),
    st.text(max_size=200) | st.sampled_from(["\U0001f642" * 200, '"\\' * 100, "\0" * 200, None]),
    st.text(max_size=200) | st.sampled_from(["\U0001f642" * 200, "\x7f" * 200]),
)
def test_whatever_references_and_reasons_hold_the_report_never_exceeds_the_limit(
    messages: int, invalid: int, reference: str | None, reason: str
) -> None:
    plan = plan_of_size(messages, invalid=invalid, reference=reference)
    tally = Tally(plan, has_ledger=True)
    for message in plan.messages:
        tally.add(message, OUTCOMES[message.index % len(OUTCOMES)], status=429, reason=reason)
    report = tally.report()
    assert size(report) <= MOST_BYTES
    failed = sum(report[name] for name in ("unknown", "rejected", "not_sent", "invalid"))
    assert len(report["failures"]) + report["failures_left_out"] == failed
    # nothing is left out while there is room
    assert report["failures_left_out"] == 0 or size(report) > MOST_BYTES - 8000


# --- on the way


def test_progress_says_how_many_are_done_and_what_failed() -> None:
    plan = plan_of_size(10, invalid=2)
    tally = Tally(plan, has_ledger=True)
    assert tally.progress().startswith("0 of 10 messages done, none failed; ")
    assert "left" not in tally.progress()
    for message, outcome in zip(
        plan.messages, ["sent", "deduplicated", "unknown", "dry_run", "rejected"], strict=False
    ):
        tally.add(message, outcome)
    assert tally.progress().startswith("3 of 10 messages done, 1 unknown, 1 rejected; ")
    assert tally.progress().endswith(" left")


def test_the_table_shows_what_is_not_zero_and_always_what_was_sent() -> None:
    plan = plan_of_size(1200, duplicates=3)
    tally = Tally(plan, has_ledger=True)
    for message in plan.messages:
        tally.add(message, "rejected")
    lines = [line.split() for line in tally.table().splitlines()]
    assert lines == [["total", "1,203"], ["sent", "0"], ["rejected", "1,200"], ["duplicate", "3"]]


def test_the_names_of_what_rows_can_be_are_those_that_are_documented() -> None:
    assert tuple(str(name) for name in (*DONE, *FAILED, *NO_MESSAGE)) == COUNTED
