"""The results of a batch decide how its task ends: one row of the documented table per case."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_apptoto.batch.ending import End, Facts, ending
from airflow_provider_apptoto.batch.options import BatchOptions
from airflow_provider_apptoto.client import Outcome

OLD = "the run is 96 h old (2026-11-20T08:00Z), more than max_age=24 h"
NO_LEDGER = (
    "No ledger is configured, so a retry would resend messages that were delivered. The task is not retried. Set "
    "state_conn_id on the Apptoto connection to keep a ledger"
)


def facts(*, on_unknown: str = "fail", has_ledger: bool = True, **given: Any) -> Facts:
    """Return facts.

    :param given: counts by the name of their outcome, and other facts.
    """
    counts = {outcome: given.pop(str(outcome), 0) for outcome in Outcome if str(outcome) != "too_old"}
    counts[Outcome.TOO_OLD] = given.pop("late", 0)
    rows = Outcome.INVALID, Outcome.DUPLICATE, Outcome.SUPPRESSED
    messages = sum(count for outcome, count in counts.items() if outcome not in rows)
    return Facts(counts=counts, messages=messages, on_unknown=on_unknown, has_ledger=has_ledger, **given)


@pytest.mark.parametrize(
    ("given", "max_failed", "end"),
    [
        # nothing is left to do
        ({}, 0, End.SUCCESS),
        ({"sent": 5}, 0, End.SUCCESS),
        ({"sent": 1, "redirected": 1, "dry_run": 1, "deduplicated": 1, "assumed_sent": 1}, 0, End.SUCCESS),
        ({"suppressed": 3, "duplicate": 2}, 0, End.SUCCESS),
        ({"sent": 5, "has_ledger": False}, 0, End.SUCCESS),
        # some were not sent: a retry sends them, unless it would send others twice
        ({"sent": 4, "not_sent": 1}, 0, End.RETRY),
        ({"not_sent": 5}, 0, End.RETRY),
        ({"not_sent": 5, "has_ledger": False}, 0, End.RETRY),
        ({"not_sent": 4, "rejected": 1, "has_ledger": False}, 0, End.RETRY),
        ({"not_sent": 4, "suppressed": 1, "has_ledger": False}, 0, End.RETRY),
        ({"sent": 1, "not_sent": 4, "has_ledger": False}, 0, End.FAIL),
        ({"redirected": 1, "not_sent": 4, "has_ledger": False}, 0, End.FAIL),
        ({"assumed_sent": 1, "not_sent": 4, "on_unknown": "assume_sent", "has_ledger": False}, 0, End.FAIL),
        ({"unknown": 1, "not_sent": 4, "has_ledger": False}, 0, End.FAIL),
        ({"unknown": 1, "not_sent": 4, "on_unknown": "resend", "has_ledger": False}, 0, End.FAIL),
        # unsent messages decide first: the next try still finds the other problems
        ({"sent": 1, "not_sent": 1, "rejected": 9}, 0, End.RETRY),
        ({"sent": 1, "not_sent": 1, "unknown": 1}, 0, End.RETRY),
        ({"not_sent": 1, "invalid": 9}, 0, End.RETRY),
        ({"not_sent": 1, "late": 1, "too_old": OLD}, 0, End.RETRY),
        # some may have been sent
        ({"sent": 4, "unknown": 1}, 0, End.FAIL),
        ({"sent": 4, "unknown": 1}, "100%", End.FAIL),
        ({"sent": 4, "unknown": 1, "has_ledger": False}, 0, End.FAIL),
        ({"sent": 4, "unknown": 1, "on_unknown": "assume_sent"}, 0, End.FAIL),
        ({"sent": 4, "unknown": 1, "on_unknown": "resend"}, 0, End.RETRY_UNKNOWN),
        ({"sent": 4, "unknown": 1, "rejected": 1, "on_unknown": "resend"}, 1, End.RETRY_UNKNOWN),
        ({"sent": 4, "unknown": 1, "on_unknown": "resend", "has_ledger": False}, 0, End.FAIL),
        # rejected and invalid rows, up to a count or a percentage
        ({"sent": 4, "rejected": 1}, 0, End.FAIL),
        ({"sent": 4, "rejected": 1}, 1, End.SUCCESS),
        ({"sent": 4, "invalid": 1}, 0, End.FAIL),
        ({"sent": 4, "invalid": 1}, 1, End.SUCCESS),
        ({"sent": 4, "rejected": 1, "invalid": 1}, 1, End.FAIL),
        ({"sent": 4, "rejected": 1, "invalid": 1}, 2, End.SUCCESS),
        ({"sent": 19, "rejected": 1}, "5%", End.SUCCESS),
        ({"sent": 18, "rejected": 1}, "5%", End.FAIL),
        ({"sent": 19, "invalid": 1}, "5%", End.SUCCESS),
        ({"sent": 18, "rejected": 1, "invalid": 1}, "10%", End.SUCCESS),
        ({"sent": 17, "rejected": 1, "invalid": 1}, "10%", End.FAIL),
        ({"sent": 18, "rejected": 1, "suppressed": 5, "duplicate": 5}, "5%", End.FAIL),
        ({"rejected": 5}, "100%", End.SUCCESS),
        ({"unknown": 1, "rejected": 1, "on_unknown": "resend"}, 0, End.FAIL),
        ({"rejected": 1, "late": 1, "too_old": OLD}, 0, End.FAIL),
        # the run is too old
        ({"late": 5, "too_old": OLD}, 0, End.SKIP),
        ({"late": 4, "rejected": 1, "too_old": OLD}, 1, End.SKIP),
        ({"late": 4, "deduplicated": 1, "too_old": OLD}, 0, End.SKIP),
        ({"late": 4, "deduplicated": 1, "too_old": OLD, "was_begun": True}, 0, End.FAIL),
        ({"deduplicated": 5, "too_old": OLD, "was_begun": True}, 0, End.SUCCESS),
        ({"late": 1, "unknown": 1, "too_old": OLD, "was_begun": True}, 0, End.FAIL),
        ({"late": 1, "unknown": 1, "too_old": OLD, "was_begun": True, "on_unknown": "resend"}, 0, End.FAIL),
        # the run is not too old, but it is too late for some messages
        ({"late": 5}, 0, End.SKIP),
        ({"late": 5, "was_begun": True}, 0, End.SKIP),
        ({"late": 4, "sent": 1}, 0, End.SUCCESS),
    ],
    ids=lambda value: value.name if isinstance(value, End) else None,
)
def test_the_counts_decide_how_the_task_ends(given: dict[str, Any], max_failed: int | str, end: End) -> None:
    assert ending(facts(**given), BatchOptions(max_failed=max_failed)).end is end


def of_five(unsent: int = 0, unknown: int = 0, rejected: int = 0) -> str:
    return f"Of 5 messages, {unsent} were not sent, {unknown} may have been sent, {rejected} were rejected"


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"sent": 5, "suppressed": 1, "duplicate": 1}, ""),
        ({"sent": 3, "not_sent": 2}, f"{of_five(2)}: see the list. The next try sends the rest"),
        (
            {"sent": 3, "not_sent": 2, "stopped": "Apptoto rejected the account: HTTP 402"},
            f"{of_five(2)}: Apptoto rejected the account: HTTP 402. The next try sends the rest",
        ),
        (
            {"sent": 3, "not_sent": 2, "stopped": "the task was stopped", "has_ledger": False},
            f"{of_five(2)}: the task was stopped. {NO_LEDGER}",
        ),
        (
            {"sent": 3, "unknown": 2, "on_unknown": "resend"},
            f"{of_five(0, 2)}. The next try resends the messages that may have been sent",
        ),
        (
            {"sent": 3, "unknown": 2, "on_unknown": "resend", "has_ledger": False},
            f"{of_five(0, 2)}. {NO_LEDGER}",
        ),
        ({"sent": 3, "unknown": 2}, of_five(0, 2)),
        ({"sent": 3, "rejected": 2}, f"{of_five(0, 0, 2)}: more than max_failed=1"),
        (
            {"sent": 3, "rejected": 2, "invalid": 4},
            f"{of_five(0, 0, 2)}, and 4 rows were invalid: more than max_failed=1",
        ),
        ({"sent": 4, "rejected": 1}, of_five(0, 0, 1)),
        ({"sent": 5, "invalid": 1}, ""),
        ({"late": 2, "too_old": OLD}, f"2 of 2 messages were not sent: {OLD}"),
        (
            {"late": 2, "deduplicated": 1, "too_old": OLD, "was_begun": True},
            f"2 of 3 messages were not sent: an earlier try started sending, but now {OLD}",
        ),
    ],
)
def test_the_text_says_what_happened_and_what_to_do(given: dict[str, Any], text: str) -> None:
    assert ending(facts(**given), BatchOptions(max_failed=1)).text == text


def test_a_percentage_is_shown_as_it_was_written() -> None:
    assert ending(facts(sent=1, rejected=1), BatchOptions(max_failed="5%")).text.endswith("more than max_failed='5%'")
