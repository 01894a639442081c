"""``Outbox.send`` handles each state of the ledger and each answer of the server as documented."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_apptoto.client import (
    ApptotoAuthError,
    ApptotoConfigurationError,
    ApptotoError,
    ApptotoNotSentError,
    ApptotoRejectedError,
    ApptotoStoppedError,
    ApptotoThrottledError,
    ApptotoUnknownOutcomeError,
    ApptotoValidationError,
    InProcessRateLimiter,
    Message,
    Outcome,
    Routing,
)
from airflow_provider_apptoto.client.routing import DeliveryMode
from airflow_provider_apptoto.outbox.cancellation import Cancellation
from airflow_provider_apptoto.outbox.entry import Entry, State
from airflow_provider_apptoto.outbox.guards import Guards, WithheldError
from airflow_provider_apptoto.outbox.identity import texts_of
from airflow_provider_apptoto.outbox.ledger import LedgerTiming, recipient_hash
from airflow_provider_apptoto.outbox.stores.base import LedgerAwayError, LedgerStoreError
from tests.support.entries import FIRST, SECOND
from tests.support.faults import Exchange, FaultServer, accepting, answering
from tests.support.memory_store import KEYS, MemoryStore
from tests.support.outboxes import NUMBER, OTHER_NUMBER, TEXT, outbox_of

if TYPE_CHECKING:
    from tests.support.clock import Clock
    from tests.support.counts import Counts

MESSAGE: dict[str, Any] = {"type": "sms", "to": NUMBER, "message": TEXT}
BROKEN = answering(500, {"error": "down"}, accepted=True)
LEASE = 60.0


def kept(memory: MemoryStore, clinic: FaultServer, clock: Clock, state: str) -> Entry | None:
    """Create the entry that the first try of the task left.

    :param state: of the entry; ``nothing``; ``expired`` or ``live``: sending, and its lease is over or is not.
    """
    if state == "nothing":
        return None
    outbox = outbox_of(clinic, memory, clock)
    outbox.send(**MESSAGE)
    clinic.requests.clear()
    clinic.accepted.clear()
    sending = state in {"expired", "live"}
    left = memory.only.changed(State.SENDING if sending else State(state), lease=LEASE if sending else 0.0)
    memory.entries[left.key] = left
    if state == "expired":
        clock.now += LEASE
    return left


class Cell(NamedTuple):
    """The entry that a try finds, and the expected result if the server accepts messages."""

    state: str
    on_unknown: str
    outcome: str


def cells() -> list[Cell]:
    free = [
        Cell(state, on_unknown, "sent")
        for state in ("nothing", "not_sent", "rejected")
        for on_unknown in ("fail", "resend", "assume_sent")
    ]
    done = [
        Cell(state, on_unknown, "deduplicated")
        for state in ("sent", "redirected")
        for on_unknown in ("fail", "resend", "assume_sent")
    ]
    open_ = [
        Cell(state, on_unknown, outcome)
        for state in ("unknown", "expired", "live")
        for on_unknown, outcome in {"fail": "unknown", "resend": "sent", "assume_sent": "assumed_sent"}.items()
    ]
    return free + done + open_


@pytest.mark.parametrize("cell", cells(), ids=lambda cell: f"{cell.state}-{cell.on_unknown}")
def test_what_the_ledger_says_decides_whether_a_message_is_sent(
    memory: MemoryStore, clinic: FaultServer, clock: Clock, *, counts: Counts, cell: Cell
) -> None:
    left = kept(memory, clinic, clock, cell.state)
    counts.messages.clear()
    found_at = clock.now
    outbox = outbox_of(clinic, memory, clock, origin=SECOND, on_unknown=cell.on_unknown)
    if cell.outcome == "unknown":
        with pytest.raises(ApptotoUnknownOutcomeError) as raised:
            outbox.send(**MESSAGE)
        assert isinstance(raised.value, AirflowFailException)
    else:
        assert outbox.send(**MESSAGE).outcome == cell.outcome
    if cell.outcome == "sent":
        assert len(clinic.requests) == 1
        assert (memory.only.state, memory.only.origin) == (State.SENT, SECOND)
    else:
        assert (clinic.requests, memory.only) == ([], left)
    waited = LEASE if cell.state == "live" else 0.0
    assert clock.now - found_at == pytest.approx(waited)
    counted = "unknown" if cell.outcome == "assumed_sent" else cell.outcome
    assert counts.messages == {counted: 1}


class Answer(NamedTuple):
    """The server's answer to a message, and the expected result."""

    name: str
    script: Any
    error: type[ApptotoError] | None
    ledger: str


ANSWERS = [
    Answer("accepts", accepting, None, "sent"),
    Answer("refuses for now", answering(429, Retry_After="7"), ApptotoNotSentError, "not_sent"),
    Answer("refuses", answering(422, {"error": "no"}), ApptotoRejectedError, "rejected"),
    Answer("refuses the account", answering(401), ApptotoAuthError, "rejected"),
    Answer("breaks down", BROKEN, ApptotoUnknownOutcomeError, "unknown"),
]


@pytest.mark.parametrize("on_unknown", ["fail", "resend", "assume_sent"])
@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer.name)
def test_the_outcome_is_recorded_and_decides_whether_airflow_may_retry(
    memory: MemoryStore, clinic: FaultServer, clock: Clock, *, counts: Counts, answer: Answer, on_unknown: str
) -> None:
    clinic.scripts = [answer.script]
    outbox = outbox_of(clinic, memory, clock, on_unknown=on_unknown)
    if answer.error is None:
        assert outbox.send(**MESSAGE).outcome == "sent"
    elif answer.error is ApptotoUnknownOutcomeError and on_unknown == "assume_sent":
        assert outbox.send(**MESSAGE).outcome == "assumed_sent"
    else:
        with pytest.raises(answer.error) as raised:
            outbox.send(**MESSAGE)
        may_retry = answer.ledger == "not_sent" or (answer.ledger == "unknown" and on_unknown == "resend")
        assert isinstance(raised.value, AirflowFailException) is not may_retry
        assert raised.value.status == {"not_sent": 429, "unknown": 500}.get(answer.ledger, raised.value.status)
        if isinstance(raised.value, ApptotoNotSentError):
            assert raised.value.retry_after == 7
    assert (str(memory.only.state), len(clinic.requests)) == (answer.ledger, 1)
    assert memory.history == [State.SENDING, State(answer.ledger)]
    assert counts.messages == {answer.ledger: 1}


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer.name)
def test_a_message_in_doubt_stays_unknown_unless_a_further_try_sends_it(
    memory: MemoryStore, clinic: FaultServer, clock: Clock, answer: Answer
) -> None:
    kept(memory, clinic, clock, "unknown")
    clinic.scripts = [answer.script]
    outbox = outbox_of(clinic, memory, clock, origin=SECOND, on_unknown="resend")
    if answer.error is None:
        assert outbox.send(**MESSAGE).outcome == "sent"
    else:
        with pytest.raises(answer.error):
            outbox.send(**MESSAGE)
    assert memory.only.state is (State.SENT if answer.error is None else State.UNKNOWN)
    with contextlib.nullcontext() if answer.error is None else pytest.raises(ApptotoUnknownOutcomeError):
        outbox_of(clinic, memory, clock, origin=SECOND).send(**MESSAGE)
    assert len(clinic.requests) == 1


# --- errors


def test_an_error_names_the_message_and_what_to_do(memory: MemoryStore, clinic: FaultServer, clock: Clock) -> None:
    clinic.scripts = [BROKEN]
    outbox = outbox_of(clinic, memory, clock, conn_id="apptoto_default")
    for origin in (FIRST, SECOND):
        outbox = outbox_of(clinic, memory, clock, origin=origin, conn_id="apptoto_default")
        with pytest.raises(ApptotoUnknownOutcomeError) as raised:
            outbox.send(**MESSAGE, reference="4711")
        text = str(raised.value)
        assert "HTTP 500 (down)" in text
        assert "sms to +1•••0199, reference 4711, at 2026-09-21T" in text
        assert "try 1 of clinic.remind, run monday" in text
        assert f"ledger resolve {memory.only.key} --to sent" in text
        assert TEXT not in text
        assert NUMBER not in text


@pytest.mark.parametrize(
    ("to", "status"), [(NUMBER, 422), (NUMBER, 429), (NUMBER, 500), ("12", 200)], ids=["422", "429", "500", "invalid"]
)
@pytest.mark.parametrize("has_ledger", [True, False])
def test_no_frame_of_an_error_holds_the_message(
    memory: MemoryStore, clinic: FaultServer, clock: Clock, *, to: str, status: int, has_ledger: bool
) -> None:
    """Some log handlers print the variables of frames."""
    clinic.scripts = [answering(status)]
    outbox = outbox_of(clinic, memory if has_ledger else None, clock)
    with pytest.raises(ApptotoError) as raised:
        outbox.send(**{**MESSAGE, "to": to})
    assert [frame.name for frame in raised.traceback] == ["test_no_frame_of_an_error_holds_the_message"]
    earlier = raised.value.__context__
    while earlier is not None:
        assert earlier.__traceback__ is None
        earlier = earlier.__context__


@pytest.mark.parametrize(
    ("given", "error", "code"),
    [
        ({"to": "12"}, ApptotoValidationError, None),
        ({"reference": "two\nlines"}, ApptotoConfigurationError, "setting_invalid"),
        ({"reference": ""}, ApptotoConfigurationError, "setting_invalid"),
        ({"labels": {"a clinic": "north"}}, ApptotoConfigurationError, "setting_invalid"),
        ({"labels": dict.fromkeys("abcde", "x")}, ApptotoConfigurationError, "setting_invalid"),
    ],
)
def test_what_is_wrong_with_a_message_fails_at_once_and_for_good(
    memory: MemoryStore,
    clinic: FaultServer,
    clock: Clock,
    *,
    counts: Counts,
    given: dict[str, Any],
    error: type[ApptotoError],
    code: str | None,
) -> None:
    with pytest.raises(error) as raised:
        outbox_of(clinic, memory, clock).send(**{**MESSAGE, **given})
    assert isinstance(raised.value, AirflowFailException)
    assert code in {None, raised.value.code}
    assert (clinic.connections, memory.entries, counts.messages) == (0, {}, {})


def test_reference_and_labels_are_kept_in_clear_and_nothing_of_the_person_is(
    memory: MemoryStore, clinic: FaultServer, clock: Clock
) -> None:
    given: dict[str, Any] = {"reference": 4711, "labels": {"clinic": "north", "wave": 2}}  # as templates may give them
    outbox_of(clinic, memory, clock).send(**MESSAGE, **given)
    assert memory.only.reference == "4711"
    assert memory.only.labels == {"clinic": "north", "wave": "2"}
    assert (memory.only.target, memory.only.channel, memory.only.segments) == ("+1•••0199", "sms", 1)
    assert memory.only.recipient == recipient_hash(KEYS[0], NUMBER)
    assert memory.only.account == "c•••@•••.example"
    for mark in (NUMBER, "5550199", "Gwendolyn", "clinic@clinic.example", "sekret"):
        assert mark not in str(memory.only)


# --- one person, several texts


def test_a_second_text_to_the_same_recipient_needs_an_item(
    memory: MemoryStore, clinic: FaultServer, clock: Clock
) -> None:
    outbox = outbox_of(clinic, memory, clock)
    assert outbox.send(**MESSAGE).outcome == "sent"
    assert outbox.send(**MESSAGE).outcome == "deduplicated"
    with pytest.raises(ApptotoValidationError, match=r"^item: is required: this task sends different texts") as raised:
        outbox.send(**{**MESSAGE, "message": "Another"})
    assert (raised.value.code, isinstance(raised.value, AirflowFailException)) == ("ambiguous", True)
    assert outbox.send(**{**MESSAGE, "message": "Another", "to": OTHER_NUMBER}).outcome == "sent"
    for item, text in {"scan": "One", "bill": "Two"}.items():
        assert outbox.send(**{**MESSAGE, "message": text}, item=item).outcome == "sent"
    assert outbox.send(**{**MESSAGE, "message": "Three"}, item="bill").outcome == "deduplicated"
    assert len(clinic.accepted) == 4


def test_two_outboxes_of_one_try_know_of_each_other(memory: MemoryStore, clinic: FaultServer, clock: Clock) -> None:
    ti, next_ti = object(), object()
    outbox_of(clinic, memory, clock, texts=texts_of(ti)).send(**MESSAGE)
    with pytest.raises(ApptotoValidationError, match=r"^item: is required"):
        outbox_of(clinic, memory, clock, texts=texts_of(ti)).send(**{**MESSAGE, "message": "Another"})
    again = outbox_of(clinic, memory, clock, origin=SECOND, texts=texts_of(next_ti))
    assert again.send(**{**MESSAGE, "message": "Another"}).outcome == "deduplicated"
    assert len(clinic.accepted) == 1


def test_a_text_that_changed_between_two_tries_is_not_sent_and_the_log_says_so(
    memory: MemoryStore, clinic: FaultServer, clock: Clock, provider_log: list[str]
) -> None:
    outbox_of(clinic, memory, clock).send(**MESSAGE)
    outbox_of(clinic, memory, clock, origin=SECOND).send(**{**MESSAGE, "message": "Another"})
    assert len(clinic.accepted) == 1
    assert provider_log[-1].endswith("The text has changed since; the new text is not sent")


@pytest.mark.parametrize("secrets", [[b"new"], [b"new", b"old"]])
def test_messages_of_an_older_secret_are_found_under_their_newest_keys(
    clinic: FaultServer, clock: Clock, secrets: list[bytes]
) -> None:
    """A batch looks up many messages by their newest keys, so it must learn which ones have older keys."""
    old, now = MemoryStore(b"old"), MemoryStore(*secrets)
    outbox_of(clinic, old, clock).send(**MESSAGE)
    now.entries = old.entries
    outbox = outbox_of(clinic, now, clock, origin=SECOND)
    sent, other = Message(**MESSAGE), Message(**{**MESSAGE, "to": OTHER_NUMBER})
    found = outbox.keys_of_older_secrets([(sent, None), (other, None), (sent, "item")])
    assert found == ({outbox.key_of(sent): old.only.key} if len(secrets) == 2 else {})
    assert outbox_of(clinic, None, clock).keys_of_older_secrets([(sent, None)]) == {}


@pytest.mark.parametrize(("state", "outcome", "requests"), [("sent", "deduplicated", 0), ("not_sent", "sent", 1)])
def test_a_message_keeps_its_entry_when_the_secret_is_replaced(
    clinic: FaultServer, clock: Clock, *, state: str, outcome: str, requests: int
) -> None:
    old, now = MemoryStore(b"old"), MemoryStore(b"new", b"old")
    left = kept(old, clinic, clock, state)
    clinic.requests.clear()
    now.entries = old.entries
    assert outbox_of(clinic, now, clock, origin=SECOND).send(**MESSAGE).outcome == outcome
    assert left is not None
    assert (now.only.key, now.only.state, len(clinic.requests)) == (left.key, "sent", requests)


def test_what_a_process_with_the_old_secret_sends_meanwhile_is_not_sent_again(
    clinic: FaultServer, clock: Clock, provider_log: list[str]
) -> None:
    old, now = MemoryStore(b"old"), MemoryStore(b"new", b"old")
    outbox_of(clinic, old, clock).send(**MESSAGE)

    class Meanwhile(InProcessRateLimiter):
        """Gives its first slot once the other process has sent."""

        def reserve(self, max_wait: float = math.inf, lead: float = 0.0) -> float:
            now.entries = old.entries
            return super().reserve(max_wait, lead)

    limiter = Meanwhile(6000, clock)
    assert outbox_of(clinic, now, clock, origin=SECOND, limiter=limiter).send(**MESSAGE).outcome == "deduplicated"
    assert len(clinic.requests) == 1
    newest = outbox_of(clinic, now, clock).key_of(Message(**MESSAGE))
    assert any(newest in line for line in provider_log), "the log names the message that another try took"


@pytest.mark.parametrize("has_ledger", [True, False])
def test_the_key_of_a_message_tells_items_apart(clinic: FaultServer, clock: Clock, *, has_ledger: bool) -> None:
    outbox = outbox_of(clinic, MemoryStore() if has_ledger else None, clock)
    message = Message(**MESSAGE)
    keys = [outbox.key_of(message), outbox.key_of(message, "scan"), outbox.key_of(message, "bill")]
    assert len(set(keys)) == 3
    assert outbox.key_of(message, "scan") == keys[1]


# --- the turn of a message


def test_a_message_whose_slot_is_too_far_away_is_neither_counted_nor_recorded(
    memory: MemoryStore, clinic: FaultServer, clock: Clock, counts: Counts
) -> None:
    limiter = InProcessRateLimiter(6000, clock)
    limiter.back_off(90)
    attempts: list[object] = []
    outbox = outbox_of(clinic, memory, clock, limiter=limiter, window=1.0, on_attempt=attempts.append)
    for _ in range(3):
        with pytest.raises(ApptotoThrottledError) as raised:
            outbox.send(**MESSAGE)
        assert not isinstance(raised.value, AirflowFailException)
        assert raised.value.retry_after == pytest.approx(90)
    assert (memory.history, clinic.requests, counts.messages, attempts) == ([], [], {}, [])
    clock.now += 90
    assert outbox.send(**MESSAGE).outcome == "sent"
    assert (counts.messages, attempts) == ({"sent": 1}, ["sent"])


def test_a_message_whose_next_attempt_has_no_slot_is_left_to_the_next_try(
    memory: MemoryStore, clinic: FaultServer, clock: Clock
) -> None:
    limiter = InProcessRateLimiter(6000, clock)

    def refusing(exchange: Exchange) -> None:
        limiter.back_off(3600)
        exchange.answer(429, Retry_After="1")

    clinic.scripts = [refusing, accepting]
    with pytest.raises(ApptotoThrottledError):
        outbox_of(clinic, memory, clock, limiter=limiter, max_attempts=3).send(**MESSAGE)
    assert memory.history == [State.SENDING, State.NOT_SENT]
    clock.now += 3600
    assert outbox_of(clinic, memory, clock, origin=SECOND, limiter=limiter).send(**MESSAGE).outcome == "sent"
    assert len(clinic.requests) == 2


def test_each_attempt_of_one_send_is_written_before_it_leaves(
    memory: MemoryStore, clinic: FaultServer, clock: Clock
) -> None:
    clinic.scripts = [answering(429, Retry_After="1"), answering(503, Retry_After="1"), accepting]
    assert outbox_of(clinic, memory, clock, max_attempts=3).send(**MESSAGE).outcome == "sent"
    assert memory.history == [State.SENDING] * 3 + [State.SENT]


# --- stopped


def test_a_task_that_was_told_to_end_sends_nothing(
    memory: MemoryStore, clinic: FaultServer, clock: Clock, counts: Counts
) -> None:
    cancellation = Cancellation()
    cancellation.cancel("the task was stopped")
    with pytest.raises(ApptotoStoppedError, match="the task was stopped") as raised:
        outbox_of(clinic, memory, clock, cancellation=cancellation).send(**MESSAGE)
    assert not isinstance(raised.value, AirflowFailException)
    assert (clinic.requests, memory.history, counts.messages) == ([], [], {})


def test_a_task_that_is_told_to_end_while_it_waits_for_another_try_sends_nothing(
    memory: MemoryStore, clinic: FaultServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = kept(memory, clinic, clock, "live")
    cancellation = Cancellation()
    sleep = clock.sleep

    def ending(seconds: float) -> None:
        sleep(seconds)
        cancellation.cancel("the task was stopped")

    monkeypatch.setattr(clock, "sleep", ending)
    outbox = outbox_of(clinic, memory, clock, origin=SECOND, on_unknown="resend", cancellation=cancellation)
    with pytest.raises(ApptotoStoppedError):
        outbox.send(**MESSAGE)
    assert (clinic.requests, memory.only) == ([], left)


def test_a_task_that_is_told_to_end_between_the_ledger_and_the_first_byte_writes_none(
    clinic: FaultServer, clock: Clock, counts: Counts
) -> None:
    cancellation = Cancellation()

    class Ending(MemoryStore):
        def compare_and_swap(self, old: Entry | None, new: Entry) -> bool:
            cancellation.cancel("the task was stopped")
            return super().compare_and_swap(old, new)

    store = Ending()
    with pytest.raises(ApptotoStoppedError):
        outbox_of(clinic, store, clock, cancellation=cancellation).send(**MESSAGE)
    assert (clinic.bytes_seen, store.history, counts.messages) == (0, [State.SENDING, State.NOT_SENT], {})


def test_a_task_that_runs_out_of_time_before_the_first_byte_leaves_nothing_in_the_ledger(
    memory: MemoryStore, clinic: FaultServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    class TaskTimeout(BaseException):
        """Like Airflow's, it is not an Exception."""

    def strike(_: float) -> None:
        raise TaskTimeout

    limiter = InProcessRateLimiter(6000, clock)
    limiter.back_off(30)
    monkeypatch.setattr(clock, "sleep", strike)
    with pytest.raises(TaskTimeout):
        outbox_of(clinic, memory, clock, limiter=limiter).send(**MESSAGE)
    assert (clinic.requests, memory.history) == ([], [])


# --- too old

OLD = "the run is 96 h old (2026-03-02T00:00Z), more than max_age=24 h"


def test_a_message_of_a_run_that_is_too_old_is_withheld_and_not_recorded(
    memory: MemoryStore, clinic: FaultServer, clock: Clock, counts: Counts
) -> None:
    delivery = outbox_of(clinic, memory, clock, guards=Guards(why_too_old=OLD)).send(**MESSAGE, reference="4711")
    assert (delivery.outcome, delivery.outcome.is_withheld) == ("too_old", True)
    assert delivery.reason == f"{OLD}. To send it anyway, raise max_age or set it to None, and clear the task"
    assert delivery.to_xcom() == {
        "outcome": "too_old",
        "type": "sms",
        "target": "+1•••0199",
        "reference": "4711",
        "key": None,
        "http_status": None,
        "sent_at": None,
        "try_number": 1,
        "response": {},
        "segments": 1,
    }
    assert (clinic.connections, memory.history, counts.messages) == (0, [], {"too_old": 1})


@pytest.mark.parametrize(
    ("state", "of_another_task", "is_retry", "ends"),
    [
        ("nothing", False, False, "withheld"),
        ("nothing", False, True, "failed"),
        ("not_sent", False, False, "failed"),
        ("not_sent", True, False, "withheld"),
        ("not_sent", True, True, "failed"),
        ("rejected", False, False, "failed"),
        ("sent", False, True, "deduplicated"),
        ("unknown", False, True, "unknown"),
    ],
)
def test_a_message_that_is_too_old_is_skipped_only_if_no_try_of_its_task_began(
    memory: MemoryStore,
    clinic: FaultServer,
    clock: Clock,
    *,
    state: str,
    of_another_task: bool,
    is_retry: bool,
    ends: str,
) -> None:
    left = kept(memory, clinic, clock, state)
    if left is not None and of_another_task:
        other = dataclasses.replace(FIRST, task_id="remind_again")
        memory.entries[left.key] = left = dataclasses.replace(left, origin=other)
    outbox = outbox_of(clinic, memory, clock, origin=SECOND, guards=Guards(why_too_old=OLD), is_retry=is_retry)
    if ends == "withheld":
        assert outbox.send(**MESSAGE).outcome == "too_old"
    elif ends == "deduplicated":
        assert outbox.send(**MESSAGE).outcome == "deduplicated"
    else:
        error = ApptotoNotSentError if ends == "failed" else ApptotoUnknownOutcomeError
        with pytest.raises(error) as raised:
            outbox.send(**MESSAGE)
        assert isinstance(raised.value, AirflowFailException)
        if ends == "failed":
            assert (raised.value.code, raised.value.reason.split(". ")[0]) == ("too_old", OLD)
            assert re.match(
                r"The message was not sent: an earlier try started sending, but now the run is", str(raised.value)
            )
    assert clinic.requests == []
    assert list(memory.entries.values()) == ([] if left is None else [left])


# --- a ledger that fails


@pytest.mark.parametrize("state", [State.SENDING, State.SENT])
def test_a_write_whose_answer_is_lost_costs_neither_a_try_nor_a_message(
    memory: MemoryStore, clinic: FaultServer, clock: Clock, counts: Counts, state: State
) -> None:
    memory.lost_answers = [state]
    assert outbox_of(clinic, memory, clock).send(**MESSAGE).outcome == "sent"
    assert (len(clinic.requests), memory.only.state, counts.messages) == (1, State.SENT, {"sent": 1})
    assert memory.lost_answers == []


def test_a_message_waits_for_a_ledger_that_is_away_for_some_seconds(
    memory: MemoryStore, clinic: FaultServer, clock: Clock, provider_log: list[str]
) -> None:
    began = clock.now
    memory.refusals = [LedgerAwayError("restarting")] * 20
    assert outbox_of(clinic, memory, clock).send(**MESSAGE).outcome == "sent"
    assert clock.now - began == pytest.approx(20)
    assert provider_log[0] == "Can't reach the ledger; sending is paused for up to 30 s: restarting"


@pytest.mark.parametrize("error", [LedgerAwayError("gone"), LedgerStoreError("disk full")])
def test_nothing_is_sent_while_the_ledger_can_not_be_used_and_airflow_may_retry(
    memory: MemoryStore, clinic: FaultServer, clock: Clock, error: LedgerStoreError
) -> None:
    memory.refusals = [error] * 100
    with pytest.raises(ApptotoNotSentError, match=rf"^The message was not sent: {error}\. Nothing is sent") as raised:
        outbox_of(clinic, memory, clock).send(**MESSAGE)
    assert (raised.value.code, isinstance(raised.value, AirflowFailException)) == ("ledger_unusable", False)
    assert raised.value.reason == str(error)
    assert clinic.requests == []


def test_a_message_that_was_sent_counts_as_sent_if_the_ledger_can_not_be_written(
    memory: MemoryStore, clinic: FaultServer, clock: Clock, provider_log: list[str]
) -> None:
    def breaking(exchange: Exchange) -> None:
        memory.refusals = [LedgerStoreError("disk full")] * 100
        exchange.accept()
        exchange.answer(200, {"success": True, "id": 4711})

    clinic.scripts = [breaking]
    delivery = outbox_of(clinic, memory, clock).send(**MESSAGE)
    assert (delivery.outcome, delivery.http_status, delivery.response["id"]) == ("sent", 200, "4711")
    assert memory.only.state is State.SENDING
    assert any(line.startswith("Outcome not recorded") for line in provider_log)


def test_a_ledger_that_stalls_for_longer_than_the_margin_is_asked_again_before_anything_leaves(
    clinic: FaultServer, clock: Clock, provider_log: list[str]
) -> None:
    class Stalling(MemoryStore):
        def compare_and_swap(self, old: Entry | None, new: Entry) -> bool:
            done = super().compare_and_swap(old, new)
            if len(self.history) == 1:
                clock.now += 31
            return done

    store = Stalling()
    assert outbox_of(clinic, store, clock).send(**MESSAGE).outcome == "sent"
    assert store.history == [State.SENDING, State.NOT_SENT, State.SENDING, State.SENT]
    assert len(clinic.requests) == 1
    assert any("took 31 s. Looking it up again" in line for line in provider_log)


def test_a_try_that_stalled_while_a_person_and_another_try_went_on_sends_nothing(
    clinic: FaultServer, clock: Clock
) -> None:
    class Frozen(MemoryStore):
        """The first try is frozen after its write; a person resolves it, and the second try sends."""

        def compare_and_swap(self, old: Entry | None, new: Entry) -> bool:
            done = super().compare_and_swap(old, new)
            if len(self.history) == 1:
                clock.now += 3600
                self.entries[new.key] = new.changed(State.NOT_SENT)
                assert outbox_of(clinic, self, clock, origin=SECOND).send(**MESSAGE).outcome == "sent"
            return done

    store = Frozen()
    assert outbox_of(clinic, store, clock).send(**MESSAGE).outcome == "deduplicated"
    assert (len(clinic.requests), store.only.state, store.only.origin) == (1, State.SENT, SECOND)


# --- at the same time


def test_of_many_tries_at_once_one_sends_and_the_others_find_it(clinic: FaultServer) -> None:
    together = threading.Barrier(8)

    class Together(MemoryStore):
        """All of them look up the entry before one of them writes."""

        def find(self, keys: Any) -> dict[str, Entry]:
            found = super().find(keys)
            if not self.history and together.n_waiting < 8:
                together.wait(60)
            return found

    store = Together()

    def send(number: int) -> str:
        origin = dataclasses.replace(FIRST, task_id=f"remind_{number}")
        timing = LedgerTiming(poll=0.01)
        outbox = outbox_of(clinic, store, time, origin=origin, idempotency_key="monday", timing=timing)
        return str(outbox.send(**MESSAGE).outcome)

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(send, range(8)))
    assert sorted(outcomes) == ["deduplicated"] * 7 + ["sent"]
    assert len(clinic.requests) == 1


def test_a_slot_that_a_try_took_in_vain_is_left_to_its_next_request(clinic: FaultServer, clock: Clock) -> None:
    class Counting(InProcessRateLimiter):
        reserved = 0

        def reserve(self, *arguments: Any, **named: Any) -> float:
            self.reserved += 1
            return super().reserve(*arguments, **named)

    class Losing(MemoryStore):
        """Another try is faster, and ends at once."""

        def compare_and_swap(self, old: Entry | None, new: Entry) -> bool:
            if not self.history:
                super().compare_and_swap(None, dataclasses.replace(new, version="other", state=State.NOT_SENT))
            return super().compare_and_swap(old, new)

    limiter = Counting(60, clock)
    store = Losing()
    assert outbox_of(clinic, store, clock, limiter=limiter).send(**MESSAGE).outcome == "sent"
    assert (limiter.reserved, len(clinic.requests)) == (1, 1)


# --- without a ledger


def test_without_a_ledger_each_call_sends(clinic: FaultServer, clock: Clock) -> None:
    outbox = outbox_of(clinic, None, clock)
    assert [outbox.send(**MESSAGE).outcome for _ in range(2)] == ["sent", "sent"]
    assert outbox.send(Message(**MESSAGE)).key is None
    clinic.scripts = [BROKEN]
    with pytest.raises(ApptotoUnknownOutcomeError) as raised:
        outbox.send(**MESSAGE)
    assert isinstance(raised.value, AirflowFailException)


def test_dry_run_sends_nothing_and_remembers_nothing(
    memory: MemoryStore, clinic: FaultServer, clock: Clock, counts: Counts
) -> None:
    outbox = outbox_of(clinic, memory, clock, routing=Routing(DeliveryMode.DRY_RUN))
    for _ in range(2):
        delivery = outbox.send(**MESSAGE)
        assert (delivery.outcome, delivery.key, delivery.sent_at, delivery.response) == ("dry_run", None, None, {})
    assert (clinic.connections, memory.history, counts.messages) == (0, [], {"dry_run": 2})
    assert (
        outbox_of(clinic, memory, clock, routing=Routing(DeliveryMode.DRY_RUN), guards=Guards(why_too_old=OLD))
        .send(**MESSAGE)
        .outcome
        == "too_old"
    )


def test_a_redirected_message_does_not_stand_for_the_real_one(
    memory: MemoryStore, clinic: FaultServer, clock: Clock
) -> None:
    routing = Routing(DeliveryMode.REDIRECT, "+16505550100", "test@clinic.example")
    redirected = [outbox_of(clinic, memory, clock, routing=routing).send(**MESSAGE).outcome for _ in range(2)]
    live = [outbox_of(clinic, memory, clock).send(**MESSAGE).outcome for _ in range(2)]
    assert (redirected, live) == (["redirected", "deduplicated"], ["sent", "deduplicated"])
    assert [request.json["to"] for request in clinic.accepted] == ["+16505550100", NUMBER]


# --- the rest


def test_a_message_or_its_fields_are_given_and_not_both(clinic: FaultServer, memory: MemoryStore, clock: Clock) -> None:
    with pytest.raises(TypeError, match="Pass a Message or its fields, not both; also passed: to"):
        outbox_of(clinic, memory, clock).send(Message(**MESSAGE), to=OTHER_NUMBER)
    assert clinic.connections == 0


def test_a_message_that_is_withheld_from_its_second_attempt_was_not_sent(
    clinic: FaultServer, memory: MemoryStore, clock: Clock
) -> None:
    clinic.scripts = [answering(429, Retry_After="1"), accepting]
    departures: list[Message] = []

    def depart(message: Message) -> None:
        if departures:
            raise WithheldError(Outcome.OUTSIDE_WINDOW, "the window has closed")
        departures.append(message)

    delivery = outbox_of(clinic, memory, clock, max_attempts=2, on_departure=depart).send(**MESSAGE)
    assert delivery.outcome is Outcome.OUTSIDE_WINDOW
    assert memory.only.state is State.NOT_SENT
    assert clinic.accepted == []


def test_a_message_that_this_try_had_rejected_is_not_sent_after_a_wait(
    clinic: FaultServer, memory: MemoryStore, clock: Clock
) -> None:
    clinic.scripts = [answering(422, {"error": "no"}), accepting]
    for is_resumed in (False, True, True):
        with pytest.raises(ApptotoRejectedError) as raised:
            outbox_of(clinic, memory, clock, is_resumed=is_resumed).send(**MESSAGE)
        assert raised.value.status == 422
    assert clinic.accepted == []
    later = outbox_of(clinic, memory, clock, origin=SECOND, is_resumed=True).send(**MESSAGE)
    assert later.outcome is Outcome.SENT
