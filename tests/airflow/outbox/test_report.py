"""Each outcome is logged in a line that names the message and nobody, and is counted once, under its connection."""

from __future__ import annotations

import contextlib
import logging
import re
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_apptoto.client import (
    ApptotoError,
    ApptotoNotSentError,
    ApptotoRejectedError,
    ApptotoUnknownOutcomeError,
    Routing,
)
from airflow_provider_apptoto.client.routing import DeliveryMode
from airflow_provider_apptoto.outbox.entry import State
from airflow_provider_apptoto.outbox.guards import Guards
from airflow_provider_apptoto.outbox.report import show_unresolved
from airflow_provider_apptoto.outbox.stores.base import LedgerStoreError
from tests.support.entries import SECOND
from tests.support.faults import FaultServer, answering, resetting
from tests.support.memory_store import MemoryStore
from tests.support.outboxes import NUMBER, TEXT, outbox_of

if TYPE_CHECKING:
    from tests.support.clock import Clock
    from tests.support.counts import Counts
    from tests.support.faults import Script

MESSAGE: dict[str, Any] = {"type": "sms", "to": NUMBER, "message": TEXT}
TOO_OLD = "the run's time is 96 h ago"
MASKED = r"sms to \+1•••0199"


def kept(memory: MemoryStore, clinic: FaultServer, clock: Clock, state: State) -> None:
    """Create the entry of an earlier try, and clear the log."""
    outbox_of(clinic, memory, clock).send(**MESSAGE)
    left = memory.only.changed(state)
    memory.entries[left.key] = left


@pytest.mark.parametrize(
    ("script", "options", "outcome", "line"),
    [
        (None, {}, "sent", rf"{MASKED}: sent, HTTP 200, \d+ ms, .*1 segment.*"),
        (answering(429, Retry_After="9"), {}, "not_sent", rf"{MASKED}: not_sent, HTTP 429, \d+ ms, .*1 segment.*"),
        (answering(422), {}, "rejected", rf"{MASKED}: rejected, HTTP 422, \d+ ms, .*1 segment.*"),
        (answering(500), {}, "unknown", rf"{MASKED}: unknown, HTTP 500, \d+ ms, .*1 segment.*"),
        (resetting(accepted=True), {}, "unknown", rf"{MASKED}: unknown, no complete answer, \d+ ms, .*1 segment.*"),
        (None, {"guards": Guards(why_too_old=TOO_OLD)}, "too_old", rf"{MASKED}: too_old, not sent: {TOO_OLD}\. .*"),
        (None, {"routing": Routing(DeliveryMode.DRY_RUN)}, "dry_run", rf"{MASKED}: dry_run, .*1 segment.*"),
    ],
)
@pytest.mark.parametrize("has_ledger", [True, False])
def test_an_attempt_is_logged_in_one_line_and_counted_once(
    memory: MemoryStore,
    clinic: FaultServer,
    clock: Clock,
    counts: Counts,
    provider_log: list[str],
    *,
    script: Script | None,
    options: dict[str, Any],
    outcome: str,
    line: str,
    has_ledger: bool,
) -> None:
    clinic.scripts = [script] if script else []
    outbox = outbox_of(clinic, memory if has_ledger else None, clock, conn_id="clinic", **options)
    try:
        outbox.send(**MESSAGE)
    except ApptotoError:
        assert outcome in {"not_sent", "rejected", "unknown"}
    [logged] = [each for each in provider_log if "to +1" in each]
    assert re.fullmatch(line, logged), logged
    if took := re.search(r"(\d+) ms", logged):
        assert int(took[1]) < 60_000
    assert counts.tags == [{"channel": "sms", "outcome": outcome, "conn_id": "clinic"}]
    assert not any(mark in str(provider_log) for mark in (NUMBER, TEXT))


@pytest.mark.parametrize(
    ("script", "status"),
    [(None, "2xx"), (answering(422), "4xx"), (answering(500), "5xx"), (resetting(accepted=False), "none")],
)
def test_a_request_is_timed_under_its_connection_and_the_kind_of_its_answer(
    clinic: FaultServer, clock: Clock, counts: Counts, *, script: Script | None, status: str
) -> None:
    clinic.scripts = [script] if script else []
    with contextlib.suppress(ApptotoError):
        outbox_of(clinic, None, clock, conn_id="clinic").send(**MESSAGE)
    [(name, took, tags)] = counts.timings
    assert (name, tags) == ("apptoto.request.duration", {"status": status, "conn_id": "clinic"})
    assert 0 < took.total_seconds() < 60
    sent = [("apptoto.last_sent", {"conn_id": "clinic"})] if status == "2xx" else []
    assert [(name, tags) for name, _, tags in counts.gauges] == sent


def test_a_rehearsal_shows_a_text_that_need_not_be_hidden(
    clinic: FaultServer, clock: Clock, provider_log: list[str]
) -> None:
    routing = Routing(DeliveryMode.DRY_RUN)
    outbox_of(clinic, None, clock, routing=routing).send(**MESSAGE, redact=False)
    assert provider_log[-1].endswith(f": {TEXT!r}")
    outbox_of(clinic, None, clock, routing=routing).send(
        **{**MESSAGE, "message": None, "template_id": "7"}, redact=False
    )
    assert "None" not in provider_log[-1]
    outbox_of(clinic, None, clock, routing=routing).send(**MESSAGE)
    assert re.fullmatch(rf"{MASKED}: dry_run, .*\(GSM-7\)", provider_log[-1])


def test_what_never_left_is_not_timed(clock: Clock, counts: Counts) -> None:
    with FaultServer() as gone:
        pass
    with pytest.raises(ApptotoNotSentError):
        outbox_of(gone, None, clock).send(**MESSAGE)
    assert counts.timings == []


@pytest.mark.parametrize(
    ("status", "code"), [(422, "rejected"), (401, "credentials_refused"), (500, "outcome_unknown")]
)
def test_the_ledger_keeps_the_code_of_what_went_wrong(
    memory: MemoryStore, clinic: FaultServer, clock: Clock, *, status: int, code: str
) -> None:
    clinic.scripts = [answering(status)]
    with pytest.raises(ApptotoError) as raised:
        outbox_of(clinic, memory, clock).send(**MESSAGE)
    assert (memory.only.code, raised.value.code) == (code, code)


@pytest.mark.parametrize(("message", "more"), [(TEXT, ""), ("Another", r"\. .*text.*")])
def test_what_an_earlier_try_sent_is_logged_with_its_time_and_that_try(
    memory: MemoryStore,
    clinic: FaultServer,
    clock: Clock,
    counts: Counts,
    provider_log: list[str],
    *,
    message: str,
    more: str,
) -> None:
    kept(memory, clinic, clock, State.SENT)
    outbox_of(clinic, memory, clock, origin=SECOND, conn_id="clinic").send(**{**MESSAGE, "message": message})
    line = rf"{MASKED}: already sent at 2026-\S+Z by try 1 of clinic\.remind, run monday{more}"
    assert re.fullmatch(line, provider_log[-1]), provider_log[-1]
    assert counts.tags[-1] == {"channel": "sms", "outcome": "deduplicated", "conn_id": "clinic"}
    provider_log.clear()
    quiet = outbox_of(clinic, memory, clock, origin=SECOND, log_level=logging.DEBUG)
    quiet.send(**{**MESSAGE, "message": message})
    assert bool(provider_log) is bool(more)  # that a text has changed is a warning


@pytest.mark.parametrize("has_ledger", [True, False])
def test_what_is_assumed_sent_is_logged_with_the_reason_of_the_doubt(
    memory: MemoryStore, clinic: FaultServer, clock: Clock, counts: Counts, provider_log: list[str], *, has_ledger: bool
) -> None:
    clinic.scripts = [answering(500, {"error": "down"})]
    outbox = outbox_of(clinic, memory if has_ledger else None, clock, on_unknown="assume_sent", conn_id="clinic")
    assert outbox.send(**MESSAGE).outcome == "assumed_sent"
    assert re.fullmatch(rf'{MASKED}: assumed sent \(on_unknown="assume_sent"\): .*HTTP 500.*', provider_log[-1])
    assert counts.tags == [{"channel": "sms", "outcome": "unknown", "conn_id": "clinic"}]


def test_what_an_earlier_try_left_in_doubt_is_assumed_sent_and_the_log_says_so(
    memory: MemoryStore, clinic: FaultServer, clock: Clock, provider_log: list[str]
) -> None:
    kept(memory, clinic, clock, State.UNKNOWN)
    delivery = outbox_of(clinic, memory, clock, origin=SECOND, on_unknown="assume_sent").send(**MESSAGE)
    assert (delivery.outcome, len(clinic.requests)) == ("assumed_sent", 1)
    assert re.fullmatch(
        rf'{MASKED}: assumed sent \(on_unknown="assume_sent"\): an earlier try may have sent it', provider_log[-1]
    )


def test_an_error_of_a_message_without_a_reference_says_that_it_has_none(
    memory: MemoryStore, clinic: FaultServer, clock: Clock
) -> None:
    clinic.scripts = [answering(422)]
    with pytest.raises(
        ApptotoRejectedError, match=r"(?s)\n  sms to \+1•••0199, reference none, at 2026-.*clear the task"
    ):
        outbox_of(clinic, memory, clock).send(**MESSAGE)


@pytest.mark.parametrize(("left", "reason"), [(State.UNKNOWN, "down"), (State.SENDING, "an earlier try ended")])
def test_a_message_in_doubt_is_an_error_that_says_why_and_what_to_do(
    memory: MemoryStore, clinic: FaultServer, clock: Clock, *, left: State, reason: str
) -> None:
    outbox_of(clinic, memory, clock).send(**MESSAGE)
    entry = memory.only.changed(left, lease=0.0, reason="down" if left is State.UNKNOWN else None)
    memory.entries[entry.key] = entry
    clock.now += 1
    with pytest.raises(ApptotoUnknownOutcomeError) as raised:
        outbox_of(clinic, memory, clock, origin=SECOND, conn_id="clinic").send(**MESSAGE)
    assert reason in str(raised.value.reason)
    assert reason in str(raised.value)
    assert f"ledger resolve --conn-id clinic {entry.key} --to sent" in str(raised.value)
    assert len(clinic.requests) == 1


def test_without_a_ledger_an_unknown_outcome_is_the_error_of_the_client(clinic: FaultServer, clock: Clock) -> None:
    clinic.scripts = [answering(500)]
    with pytest.raises(ApptotoUnknownOutcomeError) as raised:
        outbox_of(clinic, None, clock).send(**MESSAGE)
    assert "ledger" not in str(raised.value)
    assert raised.value.status == 500


def test_outside_of_airflow_a_delivery_has_no_try(clinic: FaultServer, clock: Clock) -> None:
    delivery = outbox_of(clinic, None, clock, origin=None).send(**MESSAGE)
    assert (delivery.outcome, delivery.try_number) == ("sent", None)


def test_the_messages_that_wait_for_a_person_are_shown_under_their_connection(
    memory: MemoryStore, clinic: FaultServer, clock: Clock, counts: Counts
) -> None:
    kept(memory, clinic, clock, State.UNKNOWN)
    counts.gauges.clear()
    outbox_of(clinic, memory, clock, conn_id="clinic").show_unresolved()
    outbox_of(clinic, None, clock, conn_id="clinic").show_unresolved()
    assert counts.gauges == [("apptoto.ledger.unknown", 1, {"conn_id": "clinic"})]


def test_a_ledger_that_can_not_be_counted_fails_no_task(counts: Counts) -> None:
    class Unusable(MemoryStore):
        def unresolved(self) -> int:
            raise LedgerStoreError("it is locked")

    show_unresolved(Unusable(), "clinic")
    assert counts.gauges == []
