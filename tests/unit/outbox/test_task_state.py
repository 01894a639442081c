"""The ledger in Airflow's task state needs few calls, and a person can edit its values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_apptoto.outbox.entry import State
from airflow_provider_apptoto.outbox.ledger import Attempt, LedgerTiming, LostError, look_up
from airflow_provider_apptoto.outbox.stores.base import LedgerAwayError, LedgerStoreError
from airflow_provider_apptoto.outbox.stores.task_state import TaskStateLedgerStore
from tests.support.entries import FIRST, SECOND, entry

if TYPE_CHECKING:
    from airflow_provider_apptoto.outbox.entry import Entry
    from airflow_provider_apptoto.outbox.origin import Origin
    from tests.support.clock import Clock
    from tests.support.task_state import FakeTaskState

KEYS = ["k1", "k2", "k3"]


def looked_up(store: TaskStateLedgerStore, clock: Clock, key: str = "k1", origin: Origin = SECOND) -> Attempt | Entry:
    new = entry(origin, key=key)
    return look_up(store, new, resend=False, sleep=clock.sleep, timing=LedgerTiming(), own=set())


def send(store: TaskStateLedgerStore, clock: Clock, key: str = "k1", *, ends: State = State.SENT) -> None:
    """Send a message as the first try."""
    attempt = looked_up(store, clock, key, FIRST)
    assert isinstance(attempt, Attempt)
    attempt.begin(150)
    attempt.check_lease()
    attempt.record(ends)


def first_try(task_state: FakeTaskState) -> TaskStateLedgerStore:
    """Return the ledger of a try that has made the salt."""
    store = TaskStateLedgerStore(task_state)
    store.hash_keys()
    assert task_state.calls == ["get apptoto-salt", "set apptoto-salt"]
    task_state.calls.clear()
    return store


def test_a_message_costs_the_first_try_two_calls_and_takes_one_value(task_state: FakeTaskState, clock: Clock) -> None:
    store = first_try(task_state)
    for key in KEYS:
        store.hash_keys()
        send(store, clock, key)
    assert task_state.calls == [f"set apptoto-message-{key}" for key in KEYS for _ in range(2)]
    assert sorted(task_state.values) == [
        "apptoto-message-k1",
        "apptoto-message-k2",
        "apptoto-message-k3",
        "apptoto-salt",
    ]


def test_a_message_that_an_earlier_try_sent_costs_one_call(task_state: FakeTaskState, clock: Clock) -> None:
    send(first_try(task_state), clock)
    task_state.calls.clear()
    store = TaskStateLedgerStore(task_state)
    store.hash_keys()
    found = looked_up(store, clock)
    assert not isinstance(found, Attempt)
    assert (found.state, found.origin.try_number) == (State.SENT, 1)
    assert task_state.calls == ["get apptoto-salt", "get apptoto-message-k1"]


def test_what_a_later_try_sends_costs_three_calls(task_state: FakeTaskState, clock: Clock) -> None:
    first_try(task_state)
    store = TaskStateLedgerStore(task_state)
    store.hash_keys()
    task_state.calls.clear()
    send(store, clock)
    assert task_state.calls == ["get apptoto-message-k1"] + ["set apptoto-message-k1"] * 2


def test_the_entry_is_written_before_the_first_byte(task_state: FakeTaskState, clock: Clock) -> None:
    """If a try is killed then, its retry finds the entry."""
    attempt = looked_up(first_try(task_state), clock, origin=FIRST)
    assert isinstance(attempt, Attempt)
    assert "apptoto-message-k1" not in task_state.values
    attempt.begin(150)
    store = TaskStateLedgerStore(task_state)
    store.hash_keys()
    found = looked_up(store, clock)
    assert not isinstance(found, Attempt)
    assert (found.state, clock.now) == (State.SENDING, 1180)


@pytest.mark.parametrize(("edited", "may_send"), [("sent", False), ("not_sent", True), ("rejected", True)])
def test_a_person_resolves_an_unknown_message_by_editing_its_state(
    task_state: FakeTaskState, clock: Clock, edited: str, may_send: bool
) -> None:
    send(first_try(task_state), clock, ends=State.UNKNOWN)
    task_state.edit("apptoto-message-k1", state=edited)
    store = TaskStateLedgerStore(task_state)
    store.hash_keys()
    found = looked_up(store, clock)
    assert isinstance(found, Attempt) is may_send
    if isinstance(found, Attempt):
        found.begin(150)
        found.record(State.REJECTED)
        assert not found.entry.in_doubt


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        ({"state": "Sent"}, r"'Sent' is not a valid State"),
        ({"state": ""}, r"'' is not a valid State"),
        ({"surplus": 1}, r"unexpected keyword argument 'surplus'"),
    ],
)
def test_a_value_that_was_edited_wrongly_is_named_with_what_is_allowed(
    task_state: FakeTaskState, clock: Clock, edit: dict[str, Any], says: str
) -> None:
    send(first_try(task_state), clock, ends=State.UNKNOWN)
    task_state.edit("apptoto-message-k1", **edit)
    store = TaskStateLedgerStore(task_state)
    store.hash_keys()
    expected = (
        rf'^apptoto-message-k1 in Airflow\'s task state can\'t be read .*{says}.* "state" must be one of sending, sent'
    )
    with pytest.raises(LedgerStoreError, match=expected):
        store.find(["k1"])


def test_an_entry_is_found_by_the_next_try_as_it_was_written(task_state: FakeTaskState) -> None:
    written = entry(
        target="+1•••0199",
        recipient="r1",
        account="c•••@clinic.example",
        labels={"clinic": "north"},
        segments=2,
        sent_at=1000.123,
        http_status=200,
        code="x",
        reason="é",
        response_id="4711",
        in_doubt=True,
    )
    assert first_try(task_state).compare_and_swap(None, written)
    store = TaskStateLedgerStore(task_state)
    store.hash_keys()
    assert store.find(["k1", "k2"]) == {"k1": written}


def test_of_two_threads_with_the_same_message_one_writes(task_state: FakeTaskState, clock: Clock) -> None:
    store = first_try(task_state)
    attempts = [looked_up(store, clock, origin=FIRST) for _ in range(2)]
    first, second = attempts
    assert isinstance(first, Attempt)
    assert isinstance(second, Attempt)
    first.begin(150)
    with pytest.raises(LostError):
        second.begin(150)
    assert task_state.calls == ["set apptoto-message-k1"]


def test_a_call_that_fails_is_an_error_of_the_store(task_state: FakeTaskState, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("404: no such try")

    store = first_try(task_state)
    monkeypatch.setattr(task_state, "set", refuse)
    with pytest.raises(LedgerStoreError, match="task state can't be used: ConnectionError: 404") as raised:
        store.compare_and_swap(None, entry())
    assert not isinstance(raised.value, LedgerAwayError)
    assert store.find(["k1"]) == {}


def test_task_state_does_not_count_unresolved_messages_since_it_sees_one_task() -> None:
    assert TaskStateLedgerStore(None).unresolved() is None  # type: ignore[func-returns-value]  # as in other stores
