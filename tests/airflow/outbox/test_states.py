"""A message that is sent only in some states of its appointment leaves soon after the state was read, or not at all."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_apptoto.client import InProcessRateLimiter, tracking
from airflow_provider_apptoto.outbox import states
from airflow_provider_apptoto.outbox.cancellation import Cancellation
from airflow_provider_apptoto.outbox.entry import State
from airflow_provider_apptoto.outbox.guards import Guards
from airflow_provider_apptoto.outbox.policy import OPEN_STATES
from airflow_provider_apptoto.outbox.states import EventStates, StateOutdatedError, StateUnreadError
from tests.support.appointments import Clinic
from tests.support.clock import Clock
from tests.support.faults import FaultServer, answering
from tests.support.memory_store import MemoryStore
from tests.support.outboxes import client_of, outbox_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_apptoto.outbox import Delivery
    from airflow_provider_apptoto.outbox.entry import Entry
    from tests.support.faults import Exchange, Script


class Crowded(InProcessRateLimiter):
    """Makes each request wait behind those of many other tasks; the last wait is repeated."""

    def __init__(self, *waits: float) -> None:
        self.interval, self.waits, self.reserved = 0.68, list(waits), 0

    def reserve(self, max_wait: float = math.inf, lead: float = 0.0) -> float:  # noqa: ARG002  the interface
        self.reserved += 1
        assert self.reserved < 20, "the message is never sent"
        return self.waits.pop(0) if len(self.waits) > 1 else self.waits[0]

    def back_off(self, seconds: float) -> None:
        """Leave the waits as they are."""


@dataclass
class Timed(Clinic):
    """Notes when a state was asked for and when a message came.

    :param answers: what the next messages get; then they are accepted.
    :param slow: seconds until each read is answered.
    """

    clock: Clock = field(default_factory=Clock)
    answers: list[Script] = field(default_factory=list)
    slow: float = 0.0
    is_cancelled_once_read: bool = False
    asked_at: float = 0.0
    ages: list[float] = field(default_factory=list)
    """Of the state, at each message."""

    def __call__(self, exchange: Exchange) -> None:
        if exchange.request.method == "GET":
            self.asked_at = self.clock.now
            self.clock.sleep(self.slow)
            super().__call__(exchange)
            if self.is_cancelled_once_read:
                self.person(1)["state"] = "not_coming"
            return
        self.ages.append(self.clock.now - self.asked_at)
        if self.answers:
            self.answers.pop(0)(exchange)
        else:
            super().__call__(exchange)


class Slow(MemoryStore):
    """Takes seconds for the writes of ``sending``."""

    def __init__(self, clock: Clock, *delays: float) -> None:
        super().__init__()
        self.clock, self.delays = clock, list(delays)
        self.on_write: Callable[[], None] = lambda: None

    def compare_and_swap(self, old: Entry | None, new: Entry) -> bool:
        done = super().compare_and_swap(old, new)
        if new.state is State.SENDING and self.delays:
            self.clock.sleep(self.delays.pop(0))
            self.on_write()
        return done


@pytest.fixture
def timed(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Timed:
    monkeypatch.setattr(states, "time", clock)
    monkeypatch.setattr(Cancellation, "sleep", lambda _, seconds: clock.sleep(seconds))
    return Timed(Clinic.of(1).events, clock=clock)


def send(timed: Timed, store: MemoryStore | None, waits: tuple[float, ...] = (0.0,), **options: Any) -> Delivery:
    limiter = Crowded(*waits)
    with FaultServer([timed]) as server:
        reader = client_of(server, timed.clock, limiter=limiter, window=120)
        guards = Guards(states=EventStates(client=reader, allowed=OPEN_STATES))
        outbox = outbox_of(server, store, timed.clock, limiter=limiter, guards=guards, window=120, **options)
        return outbox.send(type="sms", message="See you", event_id=1, participant_id=1001)


@pytest.mark.parametrize("wait", [10, 25, 35, 59])
def test_a_message_leaves_however_long_each_request_waits_for_its_slot(timed: Timed, wait: float) -> None:
    assert send(timed, MemoryStore(), (wait,)).outcome == "sent"
    assert timed.ages == [wait]


@pytest.mark.parametrize("has_ledger", [True, False])
@pytest.mark.parametrize(
    ("waits", "reads"),
    [((0, 59), 1), ((0, 61, 0), 2), ((0, 61, 20, 59), 2), ((0, 61, 20, 61, 0), 3), ((0, 61, 20, 61, 30, 40), 3)],
    ids=repr,
)
def test_the_wait_for_a_slot_ends_with_a_state_that_is_fresh(
    timed: Timed, waits: tuple[float, ...], reads: int, *, has_ledger: bool
) -> None:
    """More than 60 s: the other threads of a process and the other processes are waited for in turn."""
    sent = send(timed, MemoryStore() if has_ledger else None, waits)
    assert (sent.outcome, len(timed.ages), len(timed.reads)) == ("sent", 1, reads)
    assert max(timed.ages) < 60


@pytest.mark.parametrize("is_refused", [True, False])
def test_a_connection_may_take_long_or_need_another_attempt(
    timed: Timed, monkeypatch: pytest.MonkeyPatch, *, is_refused: bool
) -> None:
    connect: Any = tracking._TrackedConnection.connect
    calls: list[object] = []

    def slowly(connection: Any) -> None:
        calls.append(connection)
        if len(calls) in {2, 3}:  # the first one is that of the first read
            timed.clock.sleep(25 if is_refused else 70)
            if is_refused:
                raise ConnectionRefusedError
        connect(connection)

    monkeypatch.setattr(tracking._TrackedConnection, "connect", slowly)
    assert send(timed, MemoryStore(), (0, 15), max_attempts=3).outcome == "sent"
    assert (len(timed.ages), len(timed.reads), len(calls)) == (1, 2, 4 if is_refused else 2)
    assert max(timed.ages) < 60


@pytest.mark.parametrize("refusal", [answering(429, Retry_After="50"), answering(503, Retry_After="50")])
def test_the_wait_that_the_server_asks_for_is_followed_by_a_read(timed: Timed, refusal: Script) -> None:
    timed.answers = [refusal]
    assert send(timed, MemoryStore(), (0, 30), max_attempts=2).outcome == "sent"
    assert (len(timed.ages), len(timed.reads)) == (2, 2)
    assert max(timed.ages) < 60


@pytest.mark.parametrize("slow", [30, 50])
def test_the_time_until_a_read_is_answered_counts(timed: Timed, slow: float) -> None:
    timed.slow = slow
    assert send(timed, MemoryStore(), (0, 15, 15, 5)).outcome == "sent"
    assert max(timed.ages) < 60


def test_a_ledger_write_may_take_until_the_state_is_old(timed: Timed) -> None:
    ledger = Slow(timed.clock, 25)
    assert send(timed, ledger, (0, 50, 0)).outcome == "sent"
    assert (timed.ages, len(timed.reads)) == ([0], 2)
    assert ledger.history == [State.SENDING, State.NOT_SENT, State.SENDING, State.SENT]


def test_the_time_counts_in_which_the_machine_is_suspended(timed: Timed, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Slow(timed.clock)
    suspended = 0.0

    def written(old: Entry | None, new: Entry) -> bool:
        nonlocal suspended
        suspended = 20.0
        return MemoryStore.compare_and_swap(ledger, old, new)

    monkeypatch.setattr(timed.clock, "time", lambda: timed.clock.now + suspended)
    monkeypatch.setattr(ledger, "compare_and_swap", written)
    assert send(timed, ledger, (0, 45, 0)).outcome == "sent"
    assert timed.ages == [0]


@pytest.mark.parametrize(("delays", "waits"), [((), (0, 61, 20, 61, 0)), ((25,), (0, 50, 0))], ids=["slot", "ledger"])
def test_a_cancellation_during_the_wait_is_obeyed(
    timed: Timed, delays: tuple[float, ...], waits: tuple[float, ...]
) -> None:
    timed.is_cancelled_once_read = True
    ledger = Slow(timed.clock, *delays)
    assert send(timed, ledger, waits).outcome == "wrong_state"
    assert timed.ages == []
    assert {entry.state for entry in ledger.entries.values()} == ({State.NOT_SENT} if delays else set())


def test_without_another_read_nothing_is_sent(timed: Timed) -> None:
    ledger = Slow(timed.clock, 25)
    ledger.on_write = lambda: timed.faults.append(answering(502))
    with pytest.raises(StateUnreadError, match="could not be read"):
        send(timed, ledger, (0, 50, 0))
    assert timed.ages == []
    assert ledger.only.state is State.NOT_SENT


@pytest.mark.parametrize(
    ("delays", "waits", "states"),
    [((), (0, 61), []), ((25,) * 9, (0, 50), [State.NOT_SENT])],
    ids=["slot", "ledger"],
)
def test_a_state_that_is_always_too_old_ends_the_try(
    timed: Timed, delays: tuple[float, ...], waits: tuple[float, ...], states: list[State]
) -> None:
    ledger = Slow(timed.clock, *delays)
    with pytest.raises(StateOutdatedError, match="the state of event 1 was 60 s old or older") as raised:
        send(timed, ledger, waits)
    assert (timed.ages, raised.value.code) == ([], "state_outdated")
    assert [entry.state for entry in ledger.entries.values()] == states
