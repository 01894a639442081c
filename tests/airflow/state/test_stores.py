"""What every store of the ledger promises: one suite, over a state database and over Airflow's real task state."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from airflow.providers.common.compat.sdk import get_current_context, task

from airflow_provider_apptoto._airflow import HAS_RETRY_POLICY
from airflow_provider_apptoto.client import ApptotoValidationError
from airflow_provider_apptoto.state.database import StateDatabase
from airflow_provider_apptoto.state.ledger import Claim, LedgerTiming, TakenOverError, claim
from airflow_provider_apptoto.state.sql_ledger import SqlLedgerStore
from airflow_provider_apptoto.state.store import Entry, LedgerStore, LedgerStoreError, State
from airflow_provider_apptoto.state.task_state import TaskStateLedgerStore
from tests.support.dag_runs import run_dag
from tests.support.entries import FIRST, SECOND, entry
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
        "sqlite",
        "postgresql",
        pytest.param("task_state", marks=pytest.mark.skipif(not HAS_RETRY_POLICY, reason="came with Airflow 3.3")),
    ]
)
def on_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OnStore]:
    """Give a function that runs a test's body on a store that nobody has used."""
    if request.param == "task_state":
        request.getfixturevalue("airflow_database")
        yield in_a_task
    else:
        database = StateDatabase(url_of(request.param, request, tmp_path))
        yield lambda body: body(SqlLedgerStore(database, "resolve"))
        database._engine.dispose()


class Watched:
    """Tells when somebody has looked for an entry, and found it."""

    def __init__(self, store: LedgerStore) -> None:
        self._store = store
        self.looked = threading.Event()

    def find(self, key: str) -> Entry | None:
        found = self._store.find(key)
        self.looked.set()
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def nothing(_: object) -> None:
    """Let a claim go on."""


def claimed(store: LedgerStore, new: Entry, *, resend: bool = False) -> Claim:
    """Claim, where nothing stands in the way."""
    result = claim(store, new, resend=resend, before_claim=nothing, timing=TIMING)
    assert isinstance(result, Claim)
    return result


def refused(store: LedgerStore, new: Entry, *, resend: bool = False) -> Entry:
    """Return what stands in the way."""
    result = claim(store, new, resend=resend, before_claim=nothing, timing=TIMING)
    assert isinstance(result, Entry)
    return result


def test_an_entry_is_found_as_it_was_written(on_store: OnStore) -> None:
    def body(store: LedgerStore) -> None:
        assert store.find("k1") is None
        first = entry().changed(State.UNKNOWN, http_status=500, reason="Bad: é, 'quoted' \u2028", reference=None)
        assert store.swap(None, first)
        assert store.find("k1") == first
        assert store.find("k2") is None

    on_store(body)


def test_the_salt_stays_the_same(on_store: OnStore) -> None:
    def body(store: LedgerStore) -> None:
        assert store.hash_keys() == store.hash_keys()
        assert [len(key) for key in store.hash_keys()] == [16]

    on_store(body)


def test_of_two_who_change_the_same_entry_the_second_is_told(on_store: OnStore) -> None:
    def body(store: LedgerStore) -> None:
        first = entry()
        assert store.swap(None, first)
        assert not store.swap(None, entry(SECOND))
        sending = first.changed(State.SENDING)
        assert store.swap(first, sending)
        assert not store.swap(first, first.changed(State.NOT_SENT))
        assert store.find("k1") == sending

    on_store(body)


def test_what_was_sent_is_not_claimed_again(on_store: OnStore) -> None:
    def body(store: LedgerStore) -> None:
        claim = claimed(store, entry())
        claim.sending(1)
        claim.record(State.SENT, http_status=200)
        for resend in (False, True):
            assert refused(store, entry(SECOND), resend=resend).state is State.SENT

    on_store(body)


@pytest.mark.parametrize("state", [State.NOT_SENT, State.REJECTED])
def test_what_was_not_sent_is_claimed_by_the_next_try(on_store: OnStore, state: State) -> None:
    def body(store: LedgerStore) -> None:
        claim = claimed(store, entry())
        claim.sending(1)
        claim.record(state, http_status=429)
        assert claimed(store, entry(SECOND)).entry.origin.try_number == 2

    on_store(body)


def test_a_try_that_was_killed_before_the_first_byte_leaves_the_message_to_the_next(on_store: OnStore) -> None:
    def body(store: LedgerStore) -> None:
        claimed(store, entry())
        claimed(store, entry(SECOND)).sending(1)
        found = store.find("k1")
        assert found is not None
        assert (found.state, found.origin.try_number) == (State.SENDING, 2)

    on_store(body)


def test_a_try_that_wakes_after_its_successor_claimed_does_not_send(on_store: OnStore) -> None:
    def body(store: LedgerStore) -> None:
        frozen = claimed(store, entry())
        claimed(store, entry(SECOND))
        with pytest.raises(TakenOverError):
            frozen.sending(1)

    on_store(body)


@pytest.mark.parametrize("state", [State.UNKNOWN, State.SENDING])
def test_what_may_have_been_sent_is_claimed_only_on_demand(on_store: OnStore, state: State) -> None:
    def body(store: LedgerStore) -> None:
        left = entry().changed(state, lease=0.0)
        assert store.swap(None, left)
        assert refused(store, entry(SECOND)) == left
        assert store.find("k1") == left
        claimed(store, entry(SECOND), resend=True)

    on_store(body)


@pytest.mark.parametrize("state", [State.NOT_SENT, State.REJECTED])
def test_what_may_have_been_sent_stays_in_doubt_when_a_further_try_is_refused(on_store: OnStore, state: State) -> None:
    def body(store: LedgerStore) -> None:
        assert store.swap(None, entry().changed(State.UNKNOWN))
        claimed(store, entry(SECOND), resend=True)
        third = claimed(store, entry(dataclasses.replace(FIRST, try_number=3)), resend=True)  # the second was killed
        third.sending(1)
        third.record(state, http_status=429)
        assert refused(store, entry()).state is State.UNKNOWN

    on_store(body)


def test_a_claim_upon_one_in_doubt_is_not_one_that_anybody_may_take(on_store: OnStore) -> None:
    def body(store: LedgerStore) -> None:
        assert store.swap(None, entry().changed(State.SENDING))
        claimed(store, entry(SECOND), resend=True)
        assert refused(store, entry()).state is State.CLAIMED

    on_store(body)


def test_the_end_of_a_send_that_another_try_has_in_hand_is_waited_for(on_store: OnStore) -> None:
    def body(store: LedgerStore) -> None:
        claim = claimed(store, entry())
        claim.sending(60)
        seen: list[Entry] = []
        watched = Watched(store)
        waiting = threading.Thread(target=lambda: seen.append(refused(cast("LedgerStore", watched), entry(SECOND))))
        waiting.start()
        watched.looked.wait()
        claim.record(State.SENT, http_status=200)
        waiting.join()
        assert [found.state for found in seen] == [State.SENT]

    on_store(body)


def test_a_send_whose_lease_has_run_out_is_judged_and_left_as_it_is(on_store: OnStore) -> None:
    def body(store: LedgerStore) -> None:
        sending = entry().changed(State.SENDING, lease=0.05)
        assert store.swap(None, sending)
        assert refused(store, entry(SECOND)) == sending
        assert store.find("k1") == sending
        assert time.time() >= sending.updated_at + sending.lease

    on_store(body)


def test_a_clock_that_was_put_back_makes_nobody_wait_longer_than_the_lease(on_store: OnStore) -> None:
    def body(store: LedgerStore) -> None:
        ahead = dataclasses.replace(entry().changed(State.SENDING, lease=0.05), updated_at=time.time() + 86_400)
        assert store.swap(None, ahead)
        assert refused(store, entry(SECOND)) == ahead

    on_store(body)


def test_a_run_that_is_too_old_claims_nothing(on_store: OnStore) -> None:
    def too_old(_: object) -> None:
        raise LookupError

    def body(store: LedgerStore) -> None:
        with pytest.raises(LookupError):
            claim(store, entry(), resend=False, before_claim=too_old, timing=TIMING)
        assert store.find("k1") is None

    on_store(body)


def test_another_mapped_task_with_another_text_for_the_same_recipient_is_told_so(on_store: OnStore) -> None:
    def body(store: LedgerStore) -> None:
        other = dataclasses.replace(FIRST, map_index=3)
        claimed(store, entry(other, text="another"))
        with pytest.raises(ApptotoValidationError, match=r"mapped task 3 .* idempotency_key"):
            claim(store, entry(), resend=False, before_claim=nothing, timing=TIMING)

    on_store(body)


def test_a_person_can_say_of_an_unknown_message_whether_it_was_sent(on_store: OnStore) -> None:
    def body(store: LedgerStore) -> None:
        for key, word in {"k1": State.SENT, "k2": State.NOT_SENT}.items():
            unknown = entry(key=key).changed(State.UNKNOWN)
            assert store.swap(None, unknown)
            assert store.swap(unknown, dataclasses.replace(unknown, state=word))
        assert refused(store, entry(SECOND)).state is State.SENT
        claimed(store, entry(SECOND, key="k2"))

    on_store(body)


@pytest.mark.skipif(not HAS_RETRY_POLICY, reason="came with Airflow 3.3")
@pytest.mark.usefixtures("airflow_database")
def test_an_entry_of_task_state_that_was_edited_wrongly_is_named_with_what_is_allowed() -> None:
    def body(store: LedgerStore) -> None:
        new = entry()
        assert store.swap(None, new)
        task_state = cast("TaskStateLedgerStore", store)._task_state
        task_state.set("apptoto-message-k1", {**new.to_dict(), "state": "Sent"})
        with pytest.raises(LedgerStoreError, match=r"apptoto-message-k1 .*'Sent'.* one of claimed, sending, sent"):
            store.find("k1")

    in_a_task(body)


def test_task_state_does_not_count_what_is_unresolved_as_it_sees_one_task_alone() -> None:
    store: LedgerStore = TaskStateLedgerStore(None)
    assert store.unresolved() is None
