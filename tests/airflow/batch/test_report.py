"""The report of a batch counts every row, lists every message that may be missing, and fits into an XCom."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_apptoto.batch.plan import LeftOut, Plan, PlannedMessage, Problem
from airflow_provider_apptoto.batch.results import FAILED, MAX_NAMED, BatchResults, Failure
from airflow_provider_apptoto.client import ApptotoRejectedError, Message, Outcome
from tests.support.planning import PHONE, SECRET, plan_of

MAX_BYTES = 64 * 1024
ROWS = (Outcome.INVALID, Outcome.SUPPRESSED, Outcome.DUPLICATE)
"""Outcomes of rows that make no message."""
OUTCOMES = [outcome for outcome in Outcome if outcome not in ROWS]
"""Outcomes of messages."""


def failed(status: int | None = None, reason: str = "") -> ApptotoRejectedError:
    return ApptotoRejectedError("x", status=status, reason=reason)


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
            Problem(messages + index, None, reference, "to", "must not be blank", "field_empty", "to")
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
    outcomes: list[Outcome], untried: int, invalid: int, suppressed: int, duplicates: int
) -> None:
    plan = plan_of_size(len(outcomes) + untried, invalid=invalid, suppressed=suppressed, duplicates=duplicates)
    results = BatchResults(plan, has_ledger=True)
    for message, outcome in zip(plan.messages, outcomes, strict=False):
        results.add(message, outcome, failed(reason="x"))
    results.add_untried(plan.messages[len(outcomes) :], "the task was stopped")
    report = results.report()
    assert set(report) == {
        "total",
        *map(str, Outcome),
        "failures",
        "failures_left_out",
        "suppressed_rows",
        "duplicate_rows",
    }
    assert (len(report["suppressed_rows"]), len(report["duplicate_rows"])) == (suppressed, duplicates)
    assert report["total"] == plan.rows == sum(report[str(outcome)] for outcome in Outcome)
    assert (report["invalid"], report["suppressed"], report["duplicate"]) == (invalid, suppressed, duplicates)
    assert {outcome: report[str(outcome)] for outcome in OUTCOMES if outcome is not Outcome.NOT_SENT} == {
        outcome: outcomes.count(outcome) for outcome in OUTCOMES if outcome is not Outcome.NOT_SENT
    }
    assert report["not_sent"] == outcomes.count(Outcome.NOT_SENT) + untried
    named = sum(report[name] for name in ("unknown", "rejected", "not_sent", "invalid"))
    assert len(report["failures"]) + report["failures_left_out"] == named
    assert report["failures_left_out"] == 0


def test_a_batch_of_no_rows_has_counts_too() -> None:
    report = BatchResults(Plan(), has_ledger=True).report()
    assert report == {"total": 0} | dict.fromkeys(map(str, Outcome), 0) | {
        "failures": [],
        "failures_left_out": 0,
        "suppressed_rows": [],
        "duplicate_rows": [],
    }


def test_what_many_threads_count_at_once_is_all_counted() -> None:
    plan = plan_of_size(1000 * len(OUTCOMES))
    results = BatchResults(plan, has_ledger=True)
    start = threading.Barrier(8)

    def count(first: int) -> None:
        start.wait()
        for message in plan.messages[first::8]:
            results.add(message, OUTCOMES[message.index % len(OUTCOMES)])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(count, range(8)))
    assert {outcome: results[outcome] for outcome in OUTCOMES} == dict.fromkeys(OUTCOMES, 1000)
    counts = results.counts()
    assert counts["total"] == sum(counts[str(outcome)] for outcome in Outcome) == plan.rows


def test_a_count_can_be_asked_for_by_its_outcome() -> None:
    plan = plan_of_size(2, invalid=2, suppressed=3, duplicates=4)
    results = BatchResults(plan, has_ledger=True)
    results.add(plan.messages[0], Outcome.UNKNOWN)
    results.add(plan.messages[1], Outcome.SUPPRESSED)
    assert [results[outcome] for outcome in FAILED] == [1, 0, 0]
    assert [results[outcome] for outcome in ROWS] == [2, 4, 4]


def test_a_message_is_done_if_nothing_is_left_to_do() -> None:
    plan = plan_of_size(len(OUTCOMES))
    results = BatchResults(plan, has_ledger=True)
    for message, outcome in zip(plan.messages, OUTCOMES, strict=True):
        results.add(message, outcome)
    assert results.done == sum(outcome.is_done for outcome in OUTCOMES) == 5


# --- failures


def test_a_failure_names_its_row_its_outcome_and_the_cause() -> None:
    rows = [{"to": PHONE, "id": "A1"}, {"to": "+16505550198", "id": "A2"}, {"to": SECRET, "id": "A3"}]
    plan = plan_of(rows, {"type": "sms", "message": SECRET}, reference_column="id")
    results = BatchResults(plan, has_ledger=True)
    results.add(plan.messages[0], Outcome.REJECTED, failed(422, "to: no such number"))
    results.add(plan.messages[1], Outcome.SENT)
    report = results.report()
    assert report["failures"] == [
        {
            "index": 0,
            "line": None,
            "reference": "A1",
            "key": plan.messages[0].key,
            "outcome": "rejected",
            "http_status": 422,
            "code": "rejected",
            "column": None,
            "reason": "to: no such number",
        },
        {
            "index": 2,
            "line": None,
            "reference": "A3",
            "key": None,
            "outcome": "invalid",
            "http_status": None,
            "code": "recipient_invalid",
            "column": "to",
            "reason": f"to: {plan.problems[0].reason}",
        },
    ]
    assert json.loads(json.dumps(report)) == report
    for shown in (str(report), repr(results.counts()), results.table(), results.progress()):
        assert SECRET not in shown
        assert PHONE not in shown


def test_without_a_ledger_no_key_is_given_since_none_could_be_resolved() -> None:
    plan = plan_of_size(2)
    results = BatchResults(plan, has_ledger=False)
    results.add(plan.messages[0], Outcome.UNKNOWN, failed(reason="timeout"))
    results.add_untried(plan.messages[1:], "the task was stopped")
    assert [failure["key"] for failure in results.report()["failures"]] == [None, None]


def test_what_a_person_has_to_look_at_comes_first_and_bad_rows_last() -> None:
    plan = plan_of_size(6, invalid=1)
    results = BatchResults(plan, has_ledger=True)
    outcomes = [Outcome.NOT_SENT, Outcome.REJECTED, Outcome.SENT, Outcome.UNKNOWN, Outcome.REJECTED]
    for message, outcome in zip(plan.messages, outcomes, strict=False):
        results.add(message, outcome, failed())
    results.add_untried(plan.messages[5:], "the task was stopped")
    found = [(failure["outcome"], failure["index"]) for failure in results.report()["failures"]]
    assert found == [
        ("unknown", 3),
        ("rejected", 1),
        ("rejected", 4),
        ("not_sent", 0),
        ("not_sent", 5),
        ("invalid", 6),
    ]
    untried = results.report()["failures"][4]
    assert (untried["code"], untried["reason"]) == ("stopped", "not tried: the task was stopped")
    assert [failure.index for failure in results.failures(untried=False)] == [3, 1, 4, 0]
    assert [failure.index for failure in results.invalid()] == [6]


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"reference": "A1", "key": "K"}, "row 3 (reference A1), key K: unknown: timeout"),
        ({}, "row 3: unknown: timeout"),
        (
            {"key": "K", "outcome": Outcome.REJECTED, "http_status": 422, "reason": "no"},
            "row 3: rejected, HTTP 422: no",
        ),
        ({"key": "K", "outcome": Outcome.NOT_SENT, "http_status": 429}, "row 3: not_sent, HTTP 429: timeout"),
        ({"line": 7, "reference": "A1", "http_status": 500}, "line 7 (reference A1): unknown, HTTP 500: timeout"),
        ({"line": 7, "outcome": Outcome.INVALID, "reason": "to: no"}, "line 7: invalid: to: no"),
    ],
)
def test_a_line_of_a_failure_shows_the_key_only_where_somebody_has_to_resolve_it(
    fields: dict[str, Any], line: str
) -> None:
    others = dict.fromkeys(("line", "reference", "key", "http_status", "column"))
    given = {**others, "index": 3, "outcome": Outcome.UNKNOWN, "code": "x", "reason": "timeout", **fields}
    assert str(Failure(**given)) == line


def test_the_report_names_suppressed_and_duplicate_rows_by_line_and_reference() -> None:
    rows = [LeftOut(1, 3, "A2"), LeftOut(2, None, None)]
    plan = Plan(rows=3, suppressed=1, duplicates=1, suppressed_rows=rows[:1], duplicate_rows=rows[1:])
    report = BatchResults(plan, has_ledger=True).report()
    assert report["suppressed_rows"] == [{"index": 1, "line": 3, "reference": "A2"}]
    assert report["duplicate_rows"] == [{"index": 2, "line": None, "reference": None}]


def test_suppressed_and_duplicate_rows_take_no_room_from_failures_and_the_report_fits() -> None:
    plan = plan_of_size(2000, suppressed=5000, duplicates=5000, reference="r" * 200)
    results = BatchResults(plan, has_ledger=True)
    results.add(plan.messages[0], Outcome.UNKNOWN, failed(reason="timeout"))
    report = results.report()
    assert [failure["index"] for failure in report["failures"]] == [0]
    assert 100 < len(report["suppressed_rows"]) < 1000
    assert report["duplicate_rows"] == []
    assert size(report) <= MAX_BYTES
    for message in plan.messages:
        results.add(message, Outcome.REJECTED, failed(reason="r" * 200))
    full = results.report()
    assert full["failures_left_out"] > 0
    assert (full["suppressed"], full["suppressed_rows"]) == (5000, [])
    assert size(full) <= MAX_BYTES


# --- room


@pytest.mark.parametrize("outcome", FAILED)
def test_however_many_fail_the_report_fits_and_says_how_many_are_missing(outcome: Outcome) -> None:
    plan = plan_of_size(20_000, invalid=30_000)
    results = BatchResults(plan, has_ledger=True)
    for message in plan.messages:
        results.add(message, outcome, failed(500, "r" * 200))
    report = results.report()
    assert size(report) <= MAX_BYTES
    assert report[str(outcome)] == 20_000
    assert report["total"] == 50_000
    assert 100 < len(report["failures"]) <= MAX_NAMED
    assert report["failures_left_out"] == 50_000 - len(report["failures"])


def test_unknown_ones_are_named_before_all_others_when_there_is_no_room_for_all() -> None:
    plan = plan_of_size(2000)
    results = BatchResults(plan, has_ledger=True)
    for message in plan.messages:
        outcome = Outcome.UNKNOWN if message.index >= 1990 else Outcome.REJECTED
        results.add(message, outcome, failed(reason="r" * 200))
    failures = results.report()["failures"]
    assert [failure["index"] for failure in failures[:10]] == list(range(1990, 2000))
    assert {failure["outcome"] for failure in failures[10:]} == {"rejected"}


def test_very_many_whose_turn_never_came_are_all_counted() -> None:
    plan = plan_of_size(50_000)
    results = BatchResults(plan, has_ledger=True)
    results.add_untried(plan.messages, "the task was stopped")
    report = results.report()
    assert report["not_sent"] == report["total"] == 50_000
    assert len(report["failures"]) + report["failures_left_out"] == 50_000
    assert size(report) <= MAX_BYTES


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
    results = BatchResults(plan, has_ledger=True)
    for message in plan.messages:
        results.add(message, OUTCOMES[message.index % len(OUTCOMES)], failed(429, reason))
    report = results.report()
    assert size(report) <= MAX_BYTES
    named = sum(report[name] for name in ("unknown", "rejected", "not_sent", "invalid"))
    assert len(report["failures"]) + report["failures_left_out"] == named
    # nothing is left out if everything fits
    assert report["failures_left_out"] == 0 or size(report) > MAX_BYTES - 8000


# --- on the way


def test_progress_says_how_many_are_done_and_what_failed() -> None:
    plan = plan_of_size(10, invalid=2)
    results = BatchResults(plan, has_ledger=True)
    assert results.progress().startswith("0 of 10 messages done, none failed; ")
    assert "left" not in results.progress()
    outcomes = [Outcome.SENT, Outcome.DEDUPLICATED, Outcome.UNKNOWN, Outcome.DRY_RUN, Outcome.REJECTED]
    for message, outcome in zip(plan.messages, outcomes, strict=False):
        results.add(message, outcome)
    assert results.progress().startswith("3 of 10 messages done, 1 unknown, 1 rejected; ")
    assert results.progress().endswith(" left")


def test_the_table_shows_what_is_not_zero_and_always_what_was_sent() -> None:
    plan = plan_of_size(1200, duplicates=3)
    results = BatchResults(plan, has_ledger=True)
    for message in plan.messages:
        results.add(message, Outcome.REJECTED)
    lines = [line.split() for line in results.table().splitlines()]
    assert lines == [["total", "1,203"], ["sent", "0"], ["duplicate", "3"], ["rejected", "1,200"]]
