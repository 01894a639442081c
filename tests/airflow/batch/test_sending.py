"""The sending of a batch: what is under way at once, and when it stops."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from airflow_provider_apptoto import delivery
from airflow_provider_apptoto.batch import sending
from airflow_provider_apptoto.batch.plan import Plan, PlannedMessage
from airflow_provider_apptoto.batch.report import Tally
from airflow_provider_apptoto.batch.sending import Sender
from airflow_provider_apptoto.client import ApptotoClient, ApptotoNotSentError, InProcessPacer, Message, RetryPolicy
from airflow_provider_apptoto.delivery import Scope
from airflow_provider_apptoto.state.store import Origin, State
from tests.support.clock import Clock
from tests.support.faults import Exchange, FaultServer, accepting, answering, hanging

if TYPE_CHECKING:
    from collections.abc import Callable

ORIGIN = Origin(dag_id="clinic", task_id="remind", run_id="run", map_index=-1, try_number=1)


class Batch:
    """A batch that goes to a server, without a ledger."""

    def __init__(
        self,
        server: FaultServer,
        size: int,
        *,
        requests_per_minute: float = 1e9,
        timeout: float = 10,
        retry_policy: RetryPolicy | None = None,
        concurrency: int = 4,
        why_stop: Callable[[], str] = str,
    ) -> None:
        messages = [
            PlannedMessage(
                index,
                Message(type="sms", to=f"+1650555{1000 + index}", message="Hi"),
                key=f"{index:032}",
                item=None,
                reference=None,
            )
            for index in range(size)
        ]
        self.tally = Tally(Plan(rows=size, messages=messages), has_ledger=False)
        self.pacer = InProcessPacer(requests_per_minute)
        client = ApptotoClient(
            base_url=server.url,
            login="clinic@clinic.example",
            api_key="key",
            pacer=self.pacer,
            timeout=timeout,
            retry_policy=retry_policy,
        )
        self.sender = Sender(
            messages,
            client,
            Scope(origin=ORIGIN, why_stop=why_stop),
            self.tally,
            concurrency=concurrency,
            stop_after_unknown=5,
        )

    def send(self, progress: Callable[[], None] = lambda: None) -> dict[str, int]:
        self.sender.send(progress)
        return {name: count for name, count in self.tally.counts().items() if count}


def test_as_many_are_under_way_at_once_as_the_user_says_and_no_more() -> None:
    together = threading.Barrier(4)
    under_way: list[int] = []
    most: list[int] = []

    def waiting_for_the_others(exchange: Exchange) -> None:
        under_way.append(1)
        together.wait(10)  # breaks where fewer come
        most.append(len(under_way))
        together.wait(10)
        under_way.pop()
        accepting(exchange)

    with FaultServer([waiting_for_the_others]) as server:
        assert Batch(server, 12, concurrency=4).send() == {"total": 12, "sent": 12}
    assert set(most) == {4}


def test_they_leave_in_the_order_of_the_rows() -> None:
    with FaultServer() as server:
        Batch(server, 30, concurrency=1).send()
        assert [request.json["to"] for request in server.requests] == [f"+1650555{1000 + index}" for index in range(30)]


def test_a_wait_ends_as_soon_as_the_task_is_told_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(delivery, "time", clock)
    began = clock.now
    scope = Scope(origin=ORIGIN, why_stop=lambda: "told to end" if clock.now >= began + 3 else "")
    scope.sleep(2)
    assert clock.now == pytest.approx(began + 2)
    with pytest.raises(ApptotoNotSentError, match="told to end"):
        scope.sleep(30)
    assert clock.now == pytest.approx(began + 3, abs=0.3)


def test_once_told_to_end_what_waits_for_its_turn_is_left_to_the_next_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "PROGRESS_SECONDS", 0.01)
    told: list[str] = []

    def progress() -> None:
        if server.accepted:
            told.append("now")

    with FaultServer() as server:
        batch = Batch(server, 50, requests_per_minute=2, why_stop=lambda: "told to end" if told else "")
        counts = batch.send(progress)
    assert counts == {"total": 50, "sent": 1, "not_sent": 49}
    reasons = {failure.reason for failure in batch.tally.failures(untried=True)}
    assert reasons == {"not tried: told to end"}


def test_a_pace_that_is_slower_than_the_batch_is_wide_stops_nothing() -> None:
    one_at_a_time = RetryPolicy(window=0.05)  # the rate limit has one slot in it, for six messages
    with FaultServer() as server:
        batch = Batch(server, 8, requests_per_minute=1200, concurrency=6, retry_policy=one_at_a_time)
        assert batch.send() == {"total": 8, "sent": 8}


def test_what_is_under_way_when_it_is_told_to_end_is_waited_for_and_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "PROGRESS_SECONDS", 0.01)
    told = threading.Event()

    def slow(exchange: Exchange) -> None:
        told.wait(10)
        accepting(exchange)

    with FaultServer([slow]) as server:
        batch = Batch(server, 50, concurrency=3, why_stop=lambda: "told to end" if told.is_set() else "")

        def progress() -> None:
            if len(server.requests) == 3:
                told.set()

        counts = batch.send(progress)
    assert counts == {"total": 50, "sent": 3, "not_sent": 47}


def test_an_interrupt_of_the_task_stops_the_batch_and_passes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "PROGRESS_SECONDS", 0.01)

    def interrupted() -> None:
        raise KeyboardInterrupt

    with FaultServer() as server:
        batch = Batch(server, 5000, requests_per_minute=6000)
        with pytest.raises(KeyboardInterrupt):
            batch.send(interrupted)
        counts = batch.tally.counts()
    assert counts["sent"] == len(server.accepted) < 5000
    assert counts["sent"] + counts["not_sent"] == 5000


def test_a_fault_of_our_own_stops_the_batch_and_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(sending, "send_once", failing)
    with FaultServer() as server:
        batch = Batch(server, 100)
        with pytest.raises(ZeroDivisionError):
            batch.send()
        assert server.requests == []


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
    assert len(list(batch.tally.failures(untried=False))) == 5


def test_messages_without_an_answer_stop_it_and_those_that_are_under_way_are_unknown() -> None:
    with FaultServer([hanging]) as server:
        batch = Batch(server, 100, timeout=0.2, concurrency=4)
        counts = batch.send()
        assert len(server.requests) == counts["unknown"]
    assert 5 <= counts["unknown"] <= 5 + 3
    assert batch.tally[State.NOT_SENT] == 100 - counts["unknown"]
    assert "in a row" in batch.sender.stopped
