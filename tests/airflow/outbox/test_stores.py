"""All stores of the ledger keep the same promises: one suite for a state database and Airflow's real task state."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from airflow.providers.common.compat.sdk import get_current_context, task

from airflow_provider_apptoto._airflow import HAS_RETRY_POLICY
from airflow_provider_apptoto.client import ApptotoValidationError
from airflow_provider_apptoto.outbox.database import StateDatabase
from airflow_provider_apptoto.outbox.entry import Entry, State
from airflow_provider_apptoto.outbox.ledger import Attempt, LedgerTiming, LostError, look_up
from airflow_provider_apptoto.outbox.stores.base import LedgerStore, LedgerStoreError
from airflow_provider_apptoto.outbox.stores.sql import SqlLedgerStore
from airflow_provider_apptoto.outbox.stores.task_state import TaskStateLedgerStore
from tests.support.dag_runs import run_dag
from tests.support.entries import FIRST, SECOND, entry
from tests.support.memory_store import MemoryStore
from tests.support.state_databases import url_of

if TYPE_CHECKING:
    from collections.abc import Iterator

Body = Callable[[LedgerStore], None]
OnStore = Callable[[Body], None]

TIMING = LedgerTiming(poll=0.01)


def in_a_task(body: Body) -> None:
    """Run a test with the store of a task that Airflow runs."""
    errors: list[BaseException] = []

    def build() -> None:
        @task
        def use_store() -> None:
            context: Any = get_current_context()
            try:
                body(TaskStateLedgerStore(context["task_state_store"]))
            except BaseException as error:
                errors.append(error)
                raise

        use_store()

    run = run_dag(build)
    if errors:
        raise errors[0]
    assert run.state == "success"


@pytest.fixture(
    params=[
        "memory",  # the fake that other tests use
        "sqlite",
        "postgresql",
        pytest.param("task_state", marks=pytest.mark.skipif(not HAS_RETRY_POLICY, reason="came with Airflow 3.3")),
    ]
)
def on_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OnStore]:
    """Provide a function that runs the body of a test on an unused store."""
    if request.param == "task_state":
        request.getfixturevalue("airflow_database")
        yield in_a_task
    elif request.param == "memory":
        store = MemoryStore(b"0123456789abcdef")
        yield lambda body: body(store)
    else:
        database = StateDatabase(url_of(request.param, request, tmp_path))
        yield lambda body: body(SqlLedgerStore(database))
        database._engine.dispose()


class Watched:
    """Signals when somebody looked up an entry and found it."""

    def __init__(self, store: LedgerStore) -> None:
        self._store = store
        self.looked = threading.Event()

    def find(self, keys: Collection[str]) -> dict[str, Entry]:
        found = self._store.find(keys)
        self.looked.set()
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def looked_up(store: LedgerStore, new: Entry, *, resend: bool = False) -> Attempt | Entry:
    return look_up(store, new, resend=resend, sleep=time.sleep, timing=TIMING, own=set())


def allowed(store: LedgerStore, new: Entry, *, resend: bool = False) -> Attempt:
    """Look up a message that may be sent."""
    result = looked_up(store, new, resend=resend)
    assert isinstance(result, Attempt)
    return result


def begun(store: LedgerStore, new: Entry, *, resend: bool = False) -> Attempt:
    """Begin to send a message that may be sent."""
    attempt = allowed(store, new, resend=resend)
    attempt.begin(60)
    attempt.check_lease()
    return attempt


def refused(store: LedgerStore, new: Entry, *, resend: bool = False) -> Entry:
    """Return the entry that forbids a message."""
    result = looked_up(store, new, resend=resend)
    assert isinstance(result, Entry)
    return result


def found(store: LedgerStore, key: str) -> Entry | None:
    return store.find([key]).get(key)


def test_an_entry_is_found_as_it_was_written(on_store: OnStore) -> None:
    def body(store: LedgerStore) -> None:
        assert found(store, "k1") is None
        first = entry(labels={"clinic": "north", "campaign": "flu"}, target="+1•••0199", recipient="r" * 32).changed(
            State.UNKNOWN, http_status=500, code="outcome_unknown", reason="Bad: é, 'quoted' \u2028", reference=None
        )
        assert store.compare_and_swap(None, first)
        assert found(store, "k1") == first
        assert store.find(["k1", "k2"]) == {"k1": first}

    on_store(body)


def test_the_keys_of_hashes_stay_the_same(on_store: OnStore) -> None:
    def body(store: LedgerStore) -> None:
        assert store.hash_keys() == store.hash_keys()
        assert [len(key) for key in store.hash_keys()] == [16]

    on_store(body)


def test_of_two_who_change_the_same_entry_the_second_is_told(on_store: OnStore) -> None:
    def body(store: LedgerStore) -> None:
        first = entry()
        assert store.compare_and_swap(None, first)
        assert not store.compare_and_swap(None, entry(SECOND))
        sent = first.changed(State.SENT)
        assert store.compare_and_swap(first, sent)
        assert not store.compare_and_swap(first, first.changed(State.NOT_SENT))
        assert found(store, "k1") == sent

    on_store(body)


def test_what_was_sent_is_not_sent_again(on_store: OnStore) -> None:
    def body(store: LedgerStore) -> None:
        begun(store, entry()).record(State.SENT, http_status=200, response_id="4711")
        for resend in (False, True):
            known = refused(store, entry(SECOND), resend=resend)
            assert (known.state, known.response) == (State.SENT, {"success": True, "id": "4711"})

    on_store(body)


@pytest.mark.parametrize("state", [State.NOT_SENT, State.REJECTED])
def test_what_was_not_sent_is_sent_by_the_next_try(on_store: OnStore, state: State) -> None:
    def body(store: LedgerStore) -> None:
        first = begun(store, entry())
        first.record(state, http_status=429)
        second = begun(store, entry(SECOND))
        assert (second.entry.origin.try_number, second.entry.created_at) == (2, first.entry.created_at)

    on_store(body)


def test_a_try_that_is_killed_before_its_first_byte_leaves_nothing_in_the_way(on_store: OnStore) -> None:
    def body(store: LedgerStore) -> None:
        allowed(store, entry())
        begun(store, entry(SECOND))
        now = found(store, "k1")
        assert now is not None
        assert (now.state, now.origin.try_number) == (State.SENDING, 2)

    on_store(body)


def test_of_two_tries_that_looked_up_at_the_same_time_one_sends(on_store: OnStore) -> None:
    def body(store: LedgerStore) -> None:
        frozen = allowed(store, entry())
        second = begun(store, entry(SECOND))
        with pytest.raises(LostError):
            frozen.begin(60)
        assert found(store, "k1") == second.entry

    on_store(body)


@pytest.mark.parametrize("state", [State.UNKNOWN, State.SENDING])
def test_what_may_have_been_sent_is_sent_again_only_on_demand(on_store: OnStore, state: State) -> None:
    def body(store: LedgerStore) -> None:
        left = entry().changed(state, lease=0.0)
        assert store.compare_and_swap(None, left)
        assert refused(store, entry(SECOND)) == left
        assert found(store, "k1") == left
        assert begun(store, entry(SECOND), resend=True).entry.in_doubt

    on_store(body)


@pytest.mark.parametrize("state", [State.NOT_SENT, State.REJECTED])
def test_what_may_have_been_sent_stays_in_doubt_when_a_further_try_is_refused(on_store: OnStore, state: State) -> None:
    def body(store: LedgerStore) -> None:
        assert store.compare_and_swap(None, entry().changed(State.UNKNOWN))
        begun(store, entry(SECOND), resend=True).record(state, http_status=429)
        assert refused(store, entry()).state is State.UNKNOWN

    on_store(body)


def test_the_outcome_of_another_try_is_waited_for(on_store: OnStore) -> None:
    def body(store: LedgerStore) -> None:
        first = begun(store, entry())
        seen: list[Entry] = []
        watched = Watched(store)
        waiting = threading.Thread(target=lambda: seen.append(refused(cast("LedgerStore", watched), entry(SECOND))))
        waiting.start()
        watched.looked.wait()
        first.record(State.SENT, http_status=200)
        waiting.join()
        assert [known.state for known in seen] == [State.SENT]

    on_store(body)


def test_a_send_whose_lease_is_over_is_left_as_it_is(on_store: OnStore) -> None:
    def body(store: LedgerStore) -> None:
        sending = entry().changed(State.SENDING, lease=0.05)
        assert store.compare_and_swap(None, sending)
        assert refused(store, entry(SECOND)) == sending
        assert found(store, "k1") == sending
        assert time.time() >= sending.updated_at + sending.lease

    on_store(body)


def test_a_clock_that_was_put_back_makes_nobody_wait_longer_than_the_lease(on_store: OnStore) -> None:
    def body(store: LedgerStore) -> None:
        ahead = dataclasses.replace(entry().changed(State.SENDING, lease=0.05), updated_at=time.time() + 86_400)
        assert store.compare_and_swap(None, ahead)
        assert refused(store, entry(SECOND)) == ahead

    on_store(body)


def test_another_mapped_task_with_another_text_for_the_same_recipient_is_told_so(on_store: OnStore) -> None:
    def body(store: LedgerStore) -> None:
        begun(store, entry(dataclasses.replace(FIRST, map_index=3), text="another"))
        with pytest.raises(ApptotoValidationError, match=r"mapped task 3 .* idempotency_key"):
            looked_up(store, entry())

    on_store(body)


def test_a_person_can_say_of_an_unknown_message_whether_it_was_sent(on_store: OnStore) -> None:
    def body(store: LedgerStore) -> None:
        for key, word in {"k1": State.SENT, "k2": State.NOT_SENT}.items():
            unknown = entry(key=key).changed(State.UNKNOWN)
            assert store.compare_and_swap(None, unknown)
            assert store.compare_and_swap(unknown, dataclasses.replace(unknown, state=word))
        assert refused(store, entry(SECOND)).state is State.SENT
        begun(store, entry(SECOND, key="k2"))

    on_store(body)


@pytest.mark.skipif(not HAS_RETRY_POLICY, reason="came with Airflow 3.3")
@pytest.mark.usefixtures("airflow_database")
def test_an_entry_of_task_state_that_was_edited_wrongly_is_named_with_what_is_allowed() -> None:
    def body(store: LedgerStore) -> None:
        store.hash_keys()
        new = entry()
        task_state = cast("TaskStateLedgerStore", store).task_state
        task_state.set("apptoto-message-k1", {**new.to_dict(), "state": "Sent"})
        with pytest.raises(LedgerStoreError, match=r"apptoto-message-k1 .*'Sent'.* one of sending, sent"):
            TaskStateLedgerStore(task_state).find(["k1"])

    in_a_task(body)


@pytest.mark.skipif(not HAS_RETRY_POLICY, reason="came with Airflow 3.3")
@pytest.mark.usefixtures("airflow_database")
def test_what_a_person_edits_in_task_state_is_what_the_next_try_reads() -> None:
    def body(store: LedgerStore) -> None:
        store.hash_keys()
        begun(store, entry()).record(State.UNKNOWN, http_status=500)
        task_state = cast("TaskStateLedgerStore", store).task_state
        value = task_state.get("apptoto-message-k1")
        task_state.set("apptoto-message-k1", {**value, "state": "sent"})
        assert refused(TaskStateLedgerStore(task_state), entry(SECOND)).state is State.SENT

    in_a_task(body)


def test_task_state_does_not_count_what_is_unresolved_as_it_sees_one_task_alone() -> None:
    store: LedgerStore = TaskStateLedgerStore(None)
    assert store.unresolved() is None
