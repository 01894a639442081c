"""A batch over real sockets and a ledger limits requests in flight, stops cleanly, and queries the ledger sparingly."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from airflow_provider_apptoto.batch import sending
from airflow_provider_apptoto.batch.options import BatchOptions
from airflow_provider_apptoto.batch.plan import Plan, PlannedMessage
from airflow_provider_apptoto.batch.results import BatchResults
from airflow_provider_apptoto.batch.sending import LOOK_AHEAD, Sender
from airflow_provider_apptoto.client import ApptotoClient, InProcessRateLimiter, Message, Outcome, RetryPolicy
from airflow_provider_apptoto.outbox.cancellation import Cancellation
from airflow_provider_apptoto.outbox.entry import State
from airflow_provider_apptoto.outbox.guards import Guards
from airflow_provider_apptoto.outbox.ledger import LedgerTiming
from airflow_provider_apptoto.outbox.origin import Origin
from airflow_provider_apptoto.outbox.outbox import Outbox
from airflow_provider_apptoto.outbox.policy import SendPolicy
from tests.support.faults import Exchange, FaultServer, accepting, answering, hanging
from tests.support.memory_store import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from airflow_provider_apptoto.outbox.entry import Entry
    from airflow_provider_apptoto.outbox.policy import OnUnknownName


class CountingStore(MemoryStore):
    """A ledger that records the requests to it."""

    def __init__(self) -> None:
        super().__init__()
        self.finds: list[int] = []
        """How many keys each call looked for."""

    def find(self, keys: Collection[str]) -> dict[str, Entry]:
        self.finds.append(len(keys))
        return super().find(keys)


class Batch:
    """A batch that is sent to a server.

    :param store: the ledger; ``None``: there is none.
    """

    def __init__(
        self,
        server: FaultServer,
        size: int,
        *,
        requests_per_minute: float = 1e9,
        timeout: float = 10,
        retry_policy: RetryPolicy | None = None,
        concurrency: int = 4,
        cancellation: Cancellation | None = None,
        store: MemoryStore | None = None,
        try_number: int = 1,
        on_unknown: OnUnknownName = "fail",
        too_old: str = "",
    ) -> None:
        client = ApptotoClient(
            base_url=server.url,
            login="clinic@clinic.example",
            api_key="key",
            rate_limiter=InProcessRateLimiter(requests_per_minute),
            timeout=timeout,
            retry_policy=retry_policy,
        )
        outbox = Outbox(
            client=client,
            build=Message,
            policy=SendPolicy(on_unknown=on_unknown),
            origin=Origin(dag_id="clinic", task_id="remind", run_id="run", map_index=-1, try_number=try_number),
            store=store,
            guards=Guards(why_too_old=too_old),
            cancellation=cancellation or Cancellation(),
            timing=LedgerTiming(patience=0.0, record_retries=()),
        )
        texts = [Message(type="sms", to=f"+1650555{1000 + index}", message="Hi") for index in range(size)]
        messages = [
            PlannedMessage(index, message, key=outbox.key_of(message), item=None, reference=None)
            for index, message in enumerate(texts)
        ]
        self.results = BatchResults(Plan(rows=size, messages=messages), has_ledger=store is not None)
        options = BatchOptions(concurrency=concurrency, max_consecutive_failures=5)
        self.sender = Sender(messages, outbox, self.results, options)

    def send(self, progress: Callable[[], None] = lambda: None) -> dict[str, int]:
        self.sender.send(progress)
        return {name: count for name, count in self.results.counts().items() if count}


# --- in flight


def test_as_many_messages_are_in_flight_as_the_user_says_and_no_more() -> None:
    together = threading.Barrier(4)
    in_flight: list[int] = []
    most: list[int] = []

    def waiting_for_the_others(exchange: Exchange) -> None:
        in_flight.append(1)
        together.wait(10)  # fails if fewer arrive
        most.append(len(in_flight))
        together.wait(10)
        in_flight.pop()
        accepting(exchange)

    with FaultServer([waiting_for_the_others]) as server:
        assert Batch(server, 12, concurrency=4).send() == {"total": 12, "sent": 12}
    assert set(most) == {4}


def test_messages_leave_in_the_order_of_the_rows() -> None:
    with FaultServer() as server:
        Batch(server, 30, concurrency=1).send()
        assert [request.json["to"] for request in server.requests] == [f"+1650555{1000 + index}" for index in range(30)]


def test_a_pace_that_is_slower_than_the_batch_is_wide_stops_nothing() -> None:
    one_at_a_time = RetryPolicy(window=0.05)  # the rate limit has one slot in it, for six messages
    with FaultServer() as server:
        batch = Batch(server, 8, requests_per_minute=1200, concurrency=6, retry_policy=one_at_a_time)
        assert batch.send() == {"total": 8, "sent": 8}


# --- a stop


def test_once_told_to_end_what_waits_for_its_slot_is_left_to_the_next_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "PROGRESS_SECONDS", 0.01)
    cancellation = Cancellation()

    def progress() -> None:
        if server.accepted:
            cancellation.cancel("the task was stopped")

    with FaultServer() as server:
        batch = Batch(server, 50, requests_per_minute=2, cancellation=cancellation)
        counts = batch.send(progress)
    assert counts == {"total": 50, "sent": 1, "not_sent": 49}
    failures = {(failure.code, failure.reason) for failure in batch.results.failures(untried=True)}
    assert failures == {("stopped", "not tried: the task was stopped")}


def test_what_is_in_flight_when_it_is_told_to_end_is_awaited_and_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "PROGRESS_SECONDS", 0.01)
    told = threading.Event()
    cancellation, store = Cancellation(), MemoryStore()

    def slow(exchange: Exchange) -> None:
        told.wait(10)
        accepting(exchange)

    def progress() -> None:
        if len(server.requests) == 3:
            cancellation.cancel("the task was stopped")
            told.set()

    with FaultServer([slow]) as server:
        counts = Batch(server, 50, concurrency=3, cancellation=cancellation, store=store).send(progress)
    assert counts == {"total": 50, "sent": 3, "not_sent": 47}
    assert [entry.state for entry in store.entries.values()] == [State.SENT] * 3


def test_an_interrupt_of_the_task_stops_the_batch_and_passes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "PROGRESS_SECONDS", 0.01)

    def interrupted() -> None:
        raise KeyboardInterrupt

    with FaultServer() as server:
        batch = Batch(server, 5000, requests_per_minute=6000)
        with pytest.raises(KeyboardInterrupt):
            batch.send(interrupted)
        counts = batch.results.counts()
    assert batch.sender.stopped == "the task was interrupted"
    assert counts["sent"] == len(server.accepted) < 5000
    assert counts["sent"] + counts["not_sent"] == 5000


def test_an_error_of_our_own_stops_the_batch_and_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Message, "payload", failing)
    with FaultServer() as server:
        batch = Batch(server, 100)
        with pytest.raises(ZeroDivisionError):
            batch.send()
        assert server.requests == []


# --- failures


def test_the_next_try_is_told_how_long_the_server_wants_to_be_left_alone() -> None:
    with FaultServer([answering(429, Retry_After="1800")]) as server:
        batch = Batch(server, 100)
        counts = batch.send()
        assert len(server.requests) <= 4
    assert counts == {"total": 100, "not_sent": 100}
    assert batch.sender.retry_after is not None
    assert 1790 < batch.sender.retry_after <= 1800


def test_messages_that_are_put_off_without_a_word_stop_it_too() -> None:
    with FaultServer([answering(503, Retry_After="0")]) as server:
        batch = Batch(server, 100, concurrency=1, retry_policy=RetryPolicy(max_attempts=1))
        assert batch.send() == {"total": 100, "not_sent": 100}
        assert len(server.requests) == 5
    assert batch.sender.retry_after == 0
    assert len(list(batch.results.failures(untried=False))) == 5


def test_messages_without_an_answer_stop_it_and_those_in_flight_are_unknown() -> None:
    with FaultServer([hanging]) as server:
        batch = Batch(server, 100, timeout=0.2, concurrency=4)
        counts = batch.send()
        assert len(server.requests) == counts["unknown"]
    assert 5 <= counts["unknown"] <= 5 + 3
    assert batch.results[Outcome.NOT_SENT] == 100 - counts["unknown"]
    assert "in a row" in batch.sender.stopped


def test_messages_that_are_assumed_sent_count_as_failures_in_a_row() -> None:
    with FaultServer([answering(500)]) as server:
        batch = Batch(server, 30, concurrency=1, on_unknown="assume_sent")
        assert batch.send() == {"total": 30, "assumed_sent": 5, "not_sent": 25}


@pytest.mark.parametrize("status", [401, 402, 403])
def test_a_refused_account_stops_it_and_the_next_try_sends_the_rest(status: int) -> None:
    store = MemoryStore()
    with FaultServer([accepting, accepting, answering(status), accepting]) as server:
        batch = Batch(server, 10, concurrency=1, store=store)
        assert batch.send() == {"total": 10, "sent": 2, "not_sent": 8}
        assert len(server.requests) == 3
        again = Batch(server, 10, concurrency=1, store=store, try_number=2)
        assert again.send() == {"total": 10, "sent": 8, "deduplicated": 2}
        assert len(server.accepted) == 10


# --- the ledger


def test_each_look_ahead_is_used_once_and_then_the_ledger_is_asked_again() -> None:
    size = LOOK_AHEAD + 20
    store = CountingStore()
    with FaultServer() as server:
        Batch(server, size, store=store).send()
        assert store.finds == [LOOK_AHEAD, 20]
        store.finds.clear()
        batch = Batch(server, size, store=store, try_number=2)
        assert batch.send() == {"total": size, "deduplicated": size}
        assert store.finds == [LOOK_AHEAD, 20]
        assert len(server.accepted) == size


def test_a_message_that_another_try_began_after_the_look_ahead_is_not_sent_twice() -> None:
    """The look-ahead found nothing, so the write to the ledger fails; then the entry is read again."""
    store = CountingStore()
    others: list[dict[str, int]] = []

    class Overtaken(CountingStore):
        """Looks up the first messages, and lets another try send all of them before it continues."""

        def find(self, keys: Collection[str]) -> dict[str, Entry]:
            found = super().find(keys)
            if not others:
                others.append({})
                others[0] |= Batch(server, 5, store=store, try_number=2, concurrency=1).send()
            return found

    overtaken = Overtaken()
    overtaken.entries = store.entries
    with FaultServer() as server:
        batch = Batch(server, 5, store=overtaken, concurrency=1)
        assert batch.send() == {"total": 5, "deduplicated": 5}
        assert others == [{"total": 5, "sent": 5}]
        assert len(server.accepted) == 5
    assert overtaken.finds == [5, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("began", [False, True])
def test_of_a_run_that_is_too_old_nothing_leaves_and_what_was_sent_is_known(began: bool) -> None:
    store = MemoryStore()
    with FaultServer() as server:
        if began:
            Batch(server, 2, store=store).send()
        batch = Batch(server, 5, store=store, too_old="the run's time is 96 h ago", concurrency=1)
        counts = batch.send()
        assert len(server.accepted) == (2 if began else 0)
    assert counts == {"total": 5, **({"deduplicated": 2, "too_old": 3} if began else {"too_old": 5})}
    assert batch.sender.was_begun is began
    assert list(batch.results.failures(untried=True)) == []


def test_a_refused_message_of_a_run_that_is_too_old_by_now_is_too_old_and_began() -> None:
    store = MemoryStore()
    with FaultServer([answering(422)]) as server:
        Batch(server, 1, store=store).send()
        batch = Batch(server, 1, store=store, too_old="the run's time is 96 h ago")
        assert batch.send() == {"total": 1, "too_old": 1}
        assert len(server.requests) == 1
    assert batch.sender.was_begun
