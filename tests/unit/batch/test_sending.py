"""The sender of a batch counts each outcome, and continues or stops as documented."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import pytest

from airflow_provider_apptoto.batch.options import BatchOptions
from airflow_provider_apptoto.batch.plan import Plan, PlannedMessage
from airflow_provider_apptoto.batch.results import BatchResults
from airflow_provider_apptoto.batch.sending import LOOK_AHEAD, MAX_WAIT, Sender
from airflow_provider_apptoto.client import (
    ApptotoAuthError,
    ApptotoNotSentError,
    ApptotoRejectedError,
    ApptotoStoppedError,
    ApptotoThrottledError,
    ApptotoUnknownOutcomeError,
    ApptotoValidationError,
    Message,
    Outcome,
)
from airflow_provider_apptoto.outbox import cancellation
from airflow_provider_apptoto.outbox.cancellation import Cancellation
from airflow_provider_apptoto.outbox.delivery import Delivery
from airflow_provider_apptoto.outbox.stores.base import LedgerAwayError
from tests.support.clock import Clock

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    Play = Callable[["PlayedOutbox"], Outcome]
    """What sending a message does: returns the outcome of its delivery, or raises."""

NO_ATTEMPT = ApptotoThrottledError | ApptotoStoppedError | ApptotoValidationError


def attempting(outcome: Outcome, delivered: Outcome | None = None) -> Play:
    """Return a fake request with this outcome."""

    def play(outbox: PlayedOutbox) -> Outcome:
        outbox.on_attempt(outcome)
        return delivered or outcome

    return play


def raising(error: Exception) -> Play:
    """Return a fake send that fails."""

    def play(outbox: PlayedOutbox) -> Outcome:
        if isinstance(error, ApptotoUnknownOutcomeError):
            outbox.on_attempt(Outcome.UNKNOWN)
        elif isinstance(error, ApptotoRejectedError) and not isinstance(error, NO_ATTEMPT):
            outbox.on_attempt(Outcome.REJECTED)
        elif isinstance(error, ApptotoNotSentError) and not isinstance(error, NO_ATTEMPT):
            outbox.on_attempt(Outcome.NOT_SENT)
        raise error

    return play


def in_turn(*plays: Play) -> Play:
    """Return a play that is another one each time."""
    left = iter(plays)

    def play(outbox: PlayedOutbox) -> Outcome:
        return next(left)(outbox)

    return play


def found_sent(_: PlayedOutbox) -> Outcome:
    """Find the message in the ledger."""
    return Outcome.DEDUPLICATED


SENT = attempting(Outcome.SENT)
UNREACHABLE = raising(ApptotoNotSentError("not sent", reason="refused"))
NO_ANSWER = raising(ApptotoUnknownOutcomeError("unknown", reason="timeout"))
REFUSED = raising(ApptotoRejectedError("rejected", status=422))


@dataclass
class PlayedOutbox:
    """Plays an outbox. The sender works with a copy of it, so what it notes is in lists that both share.

    :param plays: by the index of the message; all others are sent.
    """

    plays: Mapping[int, Play] = field(default_factory=dict)
    cancellation: Cancellation = field(default_factory=Cancellation)
    on_attempt: Callable[[Outcome], None] = lambda _: None
    was_begun: bool = False
    may_have_entries: bool = False
    away: list[Exception] = field(default_factory=list)
    """What the next calls of ``look_ahead`` raise."""
    asked: list[int] = field(default_factory=list)
    """The index of each message that was to be sent."""
    looked_up: list[list[str]] = field(default_factory=list)
    given: list[dict[str, Any]] = field(default_factory=list)

    def look_ahead(self, keys: Collection[str]) -> None:
        self.looked_up.append(list(keys))
        if self.away:
            raise self.away.pop(0)

    def send(self, message: Message, **given: Any) -> Delivery:
        assert message.to is not None
        index = int(message.to[-4:]) - 1000
        self.asked.append(index)
        self.given.append(given)
        play = self.plays.get(index, SENT)
        if play is not found_sent:
            self.cancellation.check()
        return Delivery(outcome=play(self), type=message.type, target=message.target)


class Batch:
    """A batch of some messages."""

    def __init__(
        self,
        plays: Mapping[int, Play] | None = None,
        size: int = 3,
        *,
        concurrency: int = 1,
        most: int = 5,
        **outbox: Any,
    ) -> None:
        self.messages = [
            PlannedMessage(
                index,
                Message(type="sms", to=f"+1650555{1000 + index}", message="Hi"),
                key=f"{index:032}",
                item=f"item {index}",
                reference=f"A{index}",
                labels={"clinic": "north"},
            )
            for index in range(size)
        ]
        self.results = BatchResults(Plan(rows=size, messages=self.messages), has_ledger=True)
        self.outbox = PlayedOutbox(plays or {}, **outbox)
        options = BatchOptions(concurrency=concurrency, max_consecutive_failures=most)
        self.sender = Sender(self.messages, cast("Any", self.outbox), self.results, options)

    def send(self) -> dict[str, int]:
        """Send it, and return the nonzero counts."""
        self.sender.send(lambda: None)
        return {name: count for name, count in self.results.counts().items() if count and name != "total"}

    @property
    def failures(self) -> list[tuple[int, str, int | None, str, str]]:
        return [
            (each.index, str(each.outcome), each.http_status, each.code, each.reason)
            for each in self.results.failures(untried=True)
        ]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Provide the clock for all waits."""
    clock = Clock()
    monkeypatch.setattr(cancellation, "time", clock)
    return clock


# --- one outcome each


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome.SENT,
        Outcome.REDIRECTED,
        Outcome.DRY_RUN,
        Outcome.DEDUPLICATED,
        Outcome.ASSUMED_SENT,
        Outcome.TOO_OLD,
    ],
)
def test_a_delivery_counts_by_its_outcome_and_is_no_failure(outcome: Outcome) -> None:
    batch = Batch({1: lambda _: outcome})
    expected = {"sent": 3} if outcome is Outcome.SENT else {"sent": 2, str(outcome): 1}
    assert batch.send() == expected
    assert (batch.failures, batch.sender.stopped) == ([], "")


@pytest.mark.parametrize(
    ("error", "counted"),
    [
        (ApptotoNotSentError("x", status=503, reason="busy"), ("not_sent", 503, "not_sent", "busy")),
        (ApptotoNotSentError("x", code="ledger_unusable"), ("not_sent", None, "ledger_unusable", "")),
        (ApptotoThrottledError("x", reason="no slot"), ("not_sent", None, "rate_limited", "no slot")),
        (ApptotoRejectedError("x", status=422, reason="no"), ("rejected", 422, "rejected", "no")),
        (ApptotoRejectedError("x", status=404), ("rejected", 404, "rejected", "")),
        (ApptotoValidationError("to", "is blank", code="field_empty"), ("rejected", None, "field_empty", "is blank")),
        (ApptotoUnknownOutcomeError("x", reason="timeout"), ("unknown", None, "outcome_unknown", "timeout")),
        (ApptotoUnknownOutcomeError("x", status=500), ("unknown", 500, "outcome_unknown", "")),
    ],
    ids=lambda value: f"{type(value).__name__}" if isinstance(value, Exception) else value[0],
)
def test_an_error_counts_by_its_class_and_the_others_are_sent(
    error: Exception, counted: tuple[str, int | None, str, str]
) -> None:
    batch = Batch({1: raising(error)})
    assert batch.send() == {"sent": 2, counted[0]: 1}
    assert batch.failures == [(1, *counted)]
    assert batch.sender.stopped == ""


def test_a_message_that_is_too_old_after_an_earlier_try_is_too_old_and_no_failure() -> None:
    too_old = raising(ApptotoNotSentError("x", code=Outcome.TOO_OLD))
    batch = Batch(dict.fromkeys(range(9), too_old), 10, most=2)
    assert batch.send() == {"sent": 1, "too_old": 9}
    assert (batch.failures, batch.sender.stopped) == ([], "")


def test_a_message_that_was_stopped_counts_as_not_tried() -> None:
    batch = Batch({1: raising(ApptotoStoppedError("x", reason="the task was stopped"))})
    assert batch.send() == {"sent": 2, "not_sent": 1}
    assert batch.failures == [(1, "not_sent", None, "stopped", "not tried: the task was stopped")]


NO_TIMES = {"recipient_timezone": None, "not_after": None, "of_event": None, "start_time": None}


def test_each_message_goes_out_with_its_item_reference_and_labels() -> None:
    batch = Batch(size=2)
    batch.send()
    assert batch.outbox.given == [
        {"item": "item 0", "reference": "A0", "labels": {"clinic": "north"}, **NO_TIMES},
        {"item": "item 1", "reference": "A1", "labels": {"clinic": "north"}, **NO_TIMES},
    ]


# --- a refused account


@pytest.mark.parametrize("error", [ApptotoAuthError, ApptotoRejectedError])
@pytest.mark.parametrize("status", [401, 402, 403])
def test_a_refused_account_stops_at_once_and_is_no_fault_of_the_message(
    error: type[ApptotoRejectedError], status: int
) -> None:
    batch = Batch({1: raising(error("x", status=status))}, 10)
    assert batch.send() == {"sent": 1, "not_sent": 9}
    assert batch.outbox.asked == [0, 1]
    assert batch.sender.stopped == f"Apptoto rejected the account: HTTP {status}"
    [(_, _, shown, _, _), *untried] = batch.failures
    assert shown == status
    assert {reason for *_, reason in untried} == {f"not tried: Apptoto rejected the account: HTTP {status}"}


def test_after_a_stop_the_rest_is_looked_up_where_an_earlier_try_may_have_sent_it() -> None:
    plays = {1: raising(ApptotoRejectedError("x", status=402)), 3: found_sent, 5: found_sent}
    batch = Batch(plays, 6, may_have_entries=True)
    assert batch.send() == {"sent": 1, "deduplicated": 2, "not_sent": 3}
    assert batch.outbox.asked == [0, 1, 2, 3, 4, 5]


def test_after_a_stop_nothing_is_looked_up_that_only_this_try_can_have_sent() -> None:
    batch = Batch({1: raising(ApptotoRejectedError("x", status=402)), 3: found_sent}, 6)
    assert batch.send() == {"sent": 1, "not_sent": 5}
    assert batch.outbox.asked == [0, 1]


def test_after_a_stop_from_outside_nothing_more_is_looked_up() -> None:
    """Airflow kills the process soon, so there is no time for lookups."""

    def told_to_end(outbox: PlayedOutbox) -> Outcome:
        batch.outbox.cancellation.cancel("the task was stopped")
        return SENT(outbox)

    batch = Batch({1: told_to_end, 3: found_sent}, 6, may_have_entries=True)
    assert batch.send() == {"sent": 2, "not_sent": 4}
    assert batch.outbox.asked == [0, 1]
    assert batch.sender.stopped == "the task was stopped"


# --- consecutive failures


@pytest.mark.parametrize("failure", [UNREACHABLE, NO_ANSWER], ids=["not sent", "unknown"])
@pytest.mark.parametrize("most", [1, 3])
def test_as_many_failures_in_a_row_as_the_user_says_stop_it(failure: Play, most: int) -> None:
    batch = Batch(dict.fromkeys(range(2, 20), failure), 20, most=most)
    batch.send()
    assert batch.outbox.asked == list(range(2 + most))
    assert batch.sender.stopped == f"{most} messages in a row were not sent or have an unknown outcome"


def test_failures_of_both_kinds_count_together() -> None:
    batch = Batch({0: UNREACHABLE, 1: NO_ANSWER, 2: UNREACHABLE}, 9, most=3)
    assert batch.send() == {"not_sent": 2 + 6, "unknown": 1}


@pytest.mark.parametrize(
    "between",
    [SENT, REFUSED, attempting(Outcome.REDIRECTED)],
    ids=["sent", "rejected", "redirected"],
)
def test_an_answer_in_between_begins_the_row_anew(between: Play) -> None:
    plays = {index: between if index % 2 else UNREACHABLE for index in range(20)}
    batch = Batch(plays, 20, most=2)
    batch.send()
    assert (batch.sender.stopped, len(batch.outbox.asked)) == ("", 20)


@pytest.mark.parametrize(
    "between",
    [
        found_sent,
        lambda _: Outcome.DRY_RUN,
        raising(ApptotoValidationError("to", "x")),
        raising(ApptotoStoppedError("x", reason="x")),
        raising(ApptotoNotSentError("x", code=Outcome.TOO_OLD)),
    ],
    ids=["found sent", "dry run", "invalid", "stopped", "too old"],
)
def test_what_made_no_request_neither_ends_the_row_nor_belongs_to_it(between: Play) -> None:
    plays = {index: between if index % 2 else NO_ANSWER for index in range(20)}
    batch = Batch(plays, 20, most=3)
    batch.send()
    assert batch.outbox.asked == [0, 1, 2, 3, 4]
    only_between = Batch(dict.fromkeys(range(19), between), 20, most=1)
    only_between.send()
    assert len(only_between.outbox.asked) == 20


def test_what_is_assumed_sent_counts_as_a_failure_in_the_row() -> None:
    assumed = attempting(Outcome.UNKNOWN, delivered=Outcome.ASSUMED_SENT)
    batch = Batch(dict.fromkeys(range(20), assumed), 20, most=3)
    assert batch.send() == {"assumed_sent": 3, "not_sent": 17}


# --- the rate limit


def slot_in(seconds: float | None) -> Play:
    return raising(ApptotoThrottledError("x", retry_after=seconds))


def test_a_message_waits_for_its_slot_and_is_sent(clock: Clock) -> None:
    began = clock.now
    batch = Batch({0: in_turn(slot_in(100), slot_in(MAX_WAIT), SENT)}, 2, most=1)
    assert batch.send() == {"sent": 2}
    assert clock.now == pytest.approx(began + 100 + MAX_WAIT)
    assert batch.outbox.asked == [0, 0, 0, 1]
    assert (batch.failures, batch.sender.stopped, batch.sender.retry_after) == ([], "", None)


@pytest.mark.parametrize("seconds", [MAX_WAIT + 1, None])
def test_a_slot_that_is_too_far_away_is_left_to_the_next_try(clock: Clock, seconds: float | None) -> None:
    began = clock.now
    batch = Batch({0: slot_in(seconds)}, 1)
    assert batch.send() == {"not_sent": 1}
    assert (clock.now, batch.sender.retry_after) == (began, seconds)


def test_a_wait_for_a_slot_ends_when_sending_is_stopped(clock: Clock) -> None:
    began = clock.now

    class StoppedSoon(Cancellation):
        @property
        def reason(self) -> str:
            return "the task was stopped" if clock.now >= began + 3 else ""

    batch = Batch({0: slot_in(100)}, 4, cancellation=StoppedSoon())
    assert batch.send() == {"not_sent": 4}
    assert clock.now == pytest.approx(began + 3, abs=0.3)
    assert {(code, reason) for *_, code, reason in batch.failures} == {("stopped", "not tried: the task was stopped")}


def test_the_longest_wait_that_was_asked_for_is_kept() -> None:
    asked = {
        index: raising(ApptotoNotSentError("x", status=429, retry_after=seconds))
        for index, seconds in enumerate([5, 60, None, 20])
    }
    batch = Batch(asked, 4)
    batch.send()
    assert batch.sender.retry_after == 60


def test_a_wait_of_zero_seconds_is_one_that_was_asked_for() -> None:
    batch = Batch({0: raising(ApptotoNotSentError("x", status=503, retry_after=0))}, 1)
    batch.send()
    assert batch.sender.retry_after == 0


# --- errors of our own


def waiting_for_a_stop(outbox: PlayedOutbox) -> Outcome:
    outbox.cancellation.sleep(10)
    return SENT(outbox)


def test_a_worker_that_crashes_stops_the_others_and_its_error_is_raised() -> None:
    batch = Batch({0: raising(ZeroDivisionError()), 1: waiting_for_a_stop}, 100, concurrency=2)
    with pytest.raises(ZeroDivisionError):
        batch.send()
    assert set(batch.outbox.asked) <= {0, 1}
    assert batch.sender.stopped == "an unexpected error occurred"
    assert batch.results[Outcome.NOT_SENT] == 99


def test_after_a_crash_nothing_more_is_looked_up() -> None:
    plays = {0: raising(ZeroDivisionError()), 1: waiting_for_a_stop, 2: found_sent}
    batch = Batch(plays, 100, concurrency=2, may_have_entries=True)
    with pytest.raises(ZeroDivisionError):
        batch.send()
    assert set(batch.outbox.asked) <= {0, 1}


# --- the ledger


def test_ledger_entries_are_looked_up_many_at_once_and_each_once() -> None:
    size = 2 * LOOK_AHEAD + 50
    batch = Batch(size=size, concurrency=4)
    assert batch.send() == {"sent": size}
    assert [len(keys) for keys in batch.outbox.looked_up] == [LOOK_AHEAD, LOOK_AHEAD, 50]
    assert [key for keys in batch.outbox.looked_up for key in keys] == [message.key for message in batch.messages]


@pytest.mark.parametrize("error", [LedgerAwayError("away"), ApptotoStoppedError("x", reason="x")])
def test_a_look_ahead_that_fails_is_left_to_each_message(error: Exception) -> None:
    batch = Batch(size=LOOK_AHEAD + 1, away=[error])
    assert batch.send() == {"sent": LOOK_AHEAD + 1}
    assert len(batch.outbox.looked_up) == 2


def test_an_earlier_try_that_began_is_known_after_the_send() -> None:
    assert Batch(was_begun=True).sender.was_begun
    assert not Batch().sender.was_begun
