"""The ledger decides which try may send, with a store in memory and a clock that the test controls."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from airflow_provider_apptoto.client import ApptotoValidationError
from airflow_provider_apptoto.outbox.entry import Entry, State
from airflow_provider_apptoto.outbox.ledger import Attempt, LeaseSpentError, LedgerTiming, LostError, look_up
from airflow_provider_apptoto.outbox.stores.base import LedgerAwayError, LedgerStoreError
from tests.support.entries import FIRST, SECOND, entry
from tests.support.memory_store import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.clock import Clock

TOTAL_TIMEOUT = 150.0
TIMING = LedgerTiming(margin=30.0, poll=1.0, record_retries=(1.0, 3.0))


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def looked_up(
    store: MemoryStore,
    clock: Clock,
    *,
    new: Entry | None = None,
    resend: bool = False,
    own: set[str] | None = None,
    sleep: Callable[[float], None] | None = None,
) -> Attempt | Entry:
    return look_up(
        store,
        new or entry(SECOND),
        resend=resend,
        sleep=sleep or clock.sleep,
        timing=TIMING,
        own=set() if own is None else own,
    )


def attempt_of(store: MemoryStore, clock: Clock, new: Entry | None = None, *, resend: bool = False) -> Attempt:
    found = looked_up(store, clock, new=new, resend=resend)
    assert isinstance(found, Attempt)
    return found


def kept(store: MemoryStore, state: State, *, lease: float = 0.0, **fields: object) -> Entry:
    """Put an entry into the store, of the task's first try."""
    found = entry(FIRST).changed(state, lease=lease, **fields)
    store.entries[found.key] = found
    return found


# --- which message may be tried


def test_a_message_without_an_entry_may_be_tried(store: MemoryStore, clock: Clock) -> None:
    found = attempt_of(store, clock)
    assert (found.previous, found.has_begun, store.entries) == (None, False, {})


@pytest.mark.parametrize("resend", [False, True])
@pytest.mark.parametrize("state", [State.NOT_SENT, State.REJECTED])
def test_a_message_that_was_not_sent_may_be_tried(store: MemoryStore, clock: Clock, state: State, resend: bool) -> None:
    previous = kept(store, state)
    found = attempt_of(store, clock, resend=resend)
    assert (found.previous, found.entry.in_doubt) == (previous, False)


@pytest.mark.parametrize("resend", [False, True])
@pytest.mark.parametrize("state", [State.SENT, State.REDIRECTED])
def test_a_message_that_was_sent_is_not_tried_again(
    store: MemoryStore, clock: Clock, state: State, resend: bool
) -> None:
    previous = kept(store, state)
    assert looked_up(store, clock, resend=resend) == previous


@pytest.mark.parametrize("state", [State.UNKNOWN, State.SENDING])
def test_a_message_that_may_have_been_sent_is_tried_again_only_with_resend(
    store: MemoryStore, clock: Clock, state: State
) -> None:
    previous = kept(store, state, lease=60.0)
    clock.now += 60
    assert looked_up(store, clock) == previous
    assert attempt_of(store, clock, resend=True).entry.in_doubt
    assert store.only == previous
    assert clock.now == 1060  # the lease is over: nobody waits


def test_another_mapped_task_with_another_text_for_the_same_recipient_is_an_error(
    store: MemoryStore, clock: Clock
) -> None:
    other = dataclasses.replace(FIRST, map_index=3)
    store.entries["k1"] = entry(other, text="another")
    with pytest.raises(ApptotoValidationError, match=r"mapped task 3 .* idempotency_key") as raised:
        looked_up(store, clock)
    assert raised.value.field == "idempotency_key"
    assert raised.value.code == "ambiguous"
    store.entries["k1"] = entry(other).changed(State.SENT)
    assert isinstance(looked_up(store, clock), Entry)  # its list changed its order


# --- while another try sends


@pytest.mark.parametrize("resend", [False, True])
def test_a_message_that_another_try_is_sending_is_waited_for(
    store: MemoryStore, clock: Clock, provider_log: list[str], resend: bool
) -> None:
    attempt = attempt_of(store, clock, entry(FIRST))
    attempt.begin(TOTAL_TIMEOUT)
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        clock.sleep(seconds)
        if len(waits) == 5:
            attempt.record(State.SENT, http_status=200)

    found = looked_up(store, clock, resend=resend, sleep=sleep)
    assert isinstance(found, Entry)
    assert (found.state, found.http_status, waits) == (State.SENT, 200, [1.0] * 5)
    assert provider_log == [
        "Waiting up to 180 s for try 1 of clinic.remind, run monday, which is sending the sms to +1•••0199"
    ]


def test_the_wait_ends_with_the_lease_and_the_entry_is_left_as_it_is(store: MemoryStore, clock: Clock) -> None:
    sending = kept(store, State.SENDING, lease=60.5)
    assert looked_up(store, clock) == sending
    assert clock.now == pytest.approx(1060.5)
    assert store.only == sending


def test_a_clock_that_was_put_back_makes_nobody_wait_longer_than_the_lease(store: MemoryStore, clock: Clock) -> None:
    ahead = dataclasses.replace(kept(store, State.SENDING, lease=60.0), updated_at=clock.now + 86_400)
    store.entries["k1"] = ahead
    assert looked_up(store, clock) == ahead
    assert clock.now == 1060


def test_each_further_write_of_the_sending_try_starts_the_wait_anew(store: MemoryStore, clock: Clock) -> None:
    ahead = dataclasses.replace(kept(store, State.SENDING, lease=60.0), updated_at=clock.now + 86_400)
    store.entries["k1"] = ahead

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        if clock.now == 1050:
            store.entries["k1"] = dataclasses.replace(ahead, version="another")

    assert looked_up(store, clock, sleep=sleep) == store.only
    assert clock.now == 1110


def test_a_task_that_is_stopped_while_it_waits_changes_nothing(store: MemoryStore, clock: Clock) -> None:
    def stopped(_: float) -> None:
        raise InterruptedError

    sending = kept(store, State.SENDING, lease=60.0)
    with pytest.raises(InterruptedError):
        looked_up(store, clock, sleep=stopped)
    assert store.only == sending


# --- the write before the first byte


@pytest.mark.parametrize("state", [None, State.NOT_SENT, State.REJECTED])
def test_sending_is_written_from_nothing_and_from_what_was_not_sent(
    store: MemoryStore, clock: Clock, state: State | None
) -> None:
    previous = kept(store, state) if state else None
    clock.now += 5
    attempt = attempt_of(store, clock)
    attempt.begin(TOTAL_TIMEOUT)
    written = store.only
    assert (written.state, written.origin, written.lease) == (State.SENDING, SECOND, 180.0)
    assert (written.updated_at, written.sent_at) == (1005, 1005)
    assert written.created_at == (previous.created_at if previous else attempt.entry.created_at)
    assert attempt.has_begun


def test_with_resend_sending_is_written_from_unknown_and_stays_in_doubt(store: MemoryStore, clock: Clock) -> None:
    kept(store, State.UNKNOWN)
    attempt_of(store, clock, resend=True).begin(TOTAL_TIMEOUT)
    assert (store.only.state, store.only.in_doubt) == (State.SENDING, True)


@pytest.mark.parametrize("state", [None, State.NOT_SENT, State.REJECTED, State.UNKNOWN])
def test_of_two_tries_that_found_the_same_the_second_one_loses(
    store: MemoryStore, clock: Clock, state: State | None
) -> None:
    if state:
        kept(store, state)
    older, newer = (attempt_of(store, clock, entry(origin), resend=True) for origin in (FIRST, SECOND))
    newer.begin(TOTAL_TIMEOUT)
    with pytest.raises(LostError):
        older.begin(TOTAL_TIMEOUT)
    assert store.only.origin == SECOND
    assert not older.has_begun


@pytest.mark.parametrize("state", [State.SENT, State.NOT_SENT])
def test_a_try_that_wakes_after_its_successor_has_ended_loses(store: MemoryStore, clock: Clock, state: State) -> None:
    frozen = attempt_of(store, clock, entry(FIRST))
    successor = attempt_of(store, clock)
    successor.begin(TOTAL_TIMEOUT)
    successor.record(state)
    with pytest.raises(LostError):
        frozen.begin(TOTAL_TIMEOUT)
    assert (store.only.state, store.only.origin) == (state, SECOND)


def test_a_try_that_was_killed_before_it_wrote_leaves_nothing_to_wait_for(store: MemoryStore, clock: Clock) -> None:
    attempt_of(store, clock, entry(FIRST))
    attempt_of(store, clock).begin(TOTAL_TIMEOUT)
    assert (store.only.origin, clock.now) == (SECOND, 1000)


def test_a_try_whose_write_got_no_answer_finds_by_the_version_that_it_may_go_on(
    store: MemoryStore, clock: Clock
) -> None:
    own: set[str] = set()
    store.lost_answers = [State.SENDING]
    attempt = looked_up(store, clock, own=own)
    assert isinstance(attempt, Attempt)
    with pytest.raises(LedgerAwayError):
        attempt.begin(TOTAL_TIMEOUT)
    again = looked_up(store, clock, own=own)
    assert isinstance(again, Attempt)
    again.begin(TOTAL_TIMEOUT)
    assert (clock.now, store.history, store.only.in_doubt) == (1000, [State.SENDING] * 2, False)


def test_what_its_own_lost_write_found_in_doubt_stays_in_doubt(store: MemoryStore, clock: Clock) -> None:
    kept(store, State.UNKNOWN)
    own: set[str] = set()
    store.lost_answers = [State.SENDING]
    attempt = looked_up(store, clock, own=own, resend=True)
    assert isinstance(attempt, Attempt)
    with pytest.raises(LedgerAwayError):
        attempt.begin(TOTAL_TIMEOUT)
    again = looked_up(store, clock, own=own, resend=True)
    assert isinstance(again, Attempt)
    again.begin(TOTAL_TIMEOUT)
    again.check_lease()
    again.record(State.REJECTED)
    assert store.only.state is State.UNKNOWN


def test_a_try_that_was_refused_may_begin_again_by_itself(store: MemoryStore, clock: Clock) -> None:
    attempt = attempt_of(store, clock)
    attempt.begin(TOTAL_TIMEOUT)
    attempt.check_lease()
    clock.now += 40
    attempt.begin(TOTAL_TIMEOUT)  # the server said "too many requests"
    attempt.check_lease()
    assert (store.only.updated_at, store.only.lease) == (1040, 180.0)


def test_a_try_that_was_refused_and_then_can_not_reach_the_store_need_not_wait_for_its_own_lease(
    store: MemoryStore, clock: Clock
) -> None:
    own: set[str] = set()
    attempt = looked_up(store, clock, own=own)
    assert isinstance(attempt, Attempt)
    attempt.begin(TOTAL_TIMEOUT)
    attempt.check_lease()
    store.refusals = [LedgerAwayError("gone")]
    with pytest.raises(LedgerAwayError):
        attempt.begin(TOTAL_TIMEOUT)
    assert isinstance(looked_up(store, clock, own=own), Attempt)
    assert clock.now == 1000


def test_what_a_try_may_have_sent_is_not_its_own_to_try_again(store: MemoryStore, clock: Clock) -> None:
    own: set[str] = set()
    attempt = looked_up(store, clock, own=own)
    assert isinstance(attempt, Attempt)
    attempt.begin(TOTAL_TIMEOUT)
    attempt.check_lease()
    assert looked_up(store, clock, own=own) == attempt.entry
    assert clock.now == 1180


# --- the last look before the first byte


@pytest.mark.parametrize(("stall", "may_write"), [(0.0, True), (29.9, True), (30.0, False), (3600.0, False)])
def test_a_try_that_stalls_for_longer_than_the_margin_writes_no_byte(
    store: MemoryStore, clock: Clock, stall: float, may_write: bool
) -> None:
    attempt = attempt_of(store, clock)
    attempt.begin(TOTAL_TIMEOUT)
    clock.now += stall
    if may_write:
        attempt.check_lease()
    else:
        with pytest.raises(LeaseSpentError, match=rf"waiting for a slot took {stall:.0f} s"):
            attempt.check_lease()


def test_the_time_that_the_write_itself_takes_counts_too(clock: Clock) -> None:
    class Slow(MemoryStore):
        def compare_and_swap(self, old: Entry | None, new: Entry) -> bool:
            clock.now += 31
            return super().compare_and_swap(old, new)

    attempt = attempt_of(Slow(), clock)
    attempt.begin(TOTAL_TIMEOUT)
    with pytest.raises(LeaseSpentError):
        attempt.check_lease()


def test_the_time_that_a_machine_was_suspended_counts_too(
    store: MemoryStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = attempt_of(store, clock)
    attempt.begin(TOTAL_TIMEOUT)
    monkeypatch.setattr(clock, "time", lambda: 1000.0 + 3600)  # its monotonic clock stood still
    with pytest.raises(LeaseSpentError):
        attempt.check_lease()


def test_a_try_whose_lease_is_spent_tries_again_unless_another_one_began(store: MemoryStore, clock: Clock) -> None:
    own: set[str] = set()
    attempt = looked_up(store, clock, own=own)
    assert isinstance(attempt, Attempt)
    attempt.begin(TOTAL_TIMEOUT)
    attempt.record(State.NOT_SENT)
    assert isinstance(looked_up(store, clock, own=own), Attempt)
    kept(store, State.SENT)
    assert isinstance(looked_up(store, clock, own=own), Entry)


# --- the outcome


def test_an_outcome_is_recorded_with_what_is_known_of_it(store: MemoryStore, clock: Clock) -> None:
    attempt = attempt_of(store, clock)
    attempt.begin(TOTAL_TIMEOUT)
    clock.now += 2.5
    attempt.record(State.SENT, http_status=200, response_id="4711")
    assert store.only == attempt.entry
    assert (store.only.state, store.only.http_status, store.only.response_id) == (State.SENT, 200, "4711")
    assert (store.only.sent_at, store.only.updated_at, store.only.lease) == (1000, 1002.5, 0.0)
    assert store.only.at == "1970-01-01T00:16:40.000Z"


@pytest.mark.parametrize("state", [State.SENT, State.NOT_SENT])
def test_an_outcome_never_replaces_what_a_person_or_another_try_wrote(
    store: MemoryStore, clock: Clock, provider_log: list[str], state: State
) -> None:
    attempt = attempt_of(store, clock)
    attempt.begin(TOTAL_TIMEOUT)
    clock.now += 3600
    resolved = store.entries["k1"] = store.only.changed(State.SENT)
    attempt.record(state)
    assert store.only == resolved
    assert provider_log == [f"Ledger entry k1 was changed by another process; not recording {state}"]


@pytest.mark.parametrize("state", [State.NOT_SENT, State.REJECTED, State.UNKNOWN])
def test_a_message_in_doubt_stays_unknown_when_a_further_try_does_not_send_it(
    store: MemoryStore, clock: Clock, state: State
) -> None:
    kept(store, State.UNKNOWN)
    for _ in range(2):  # the second one finds what the first one left
        attempt = attempt_of(store, clock, resend=True)
        attempt.begin(TOTAL_TIMEOUT)
        attempt.record(state, http_status=429)
        assert (store.only.state, store.only.http_status) == (State.UNKNOWN, 429)


def test_a_message_in_doubt_is_sent_once_a_further_try_sends_it(store: MemoryStore, clock: Clock) -> None:
    kept(store, State.UNKNOWN)
    attempt = attempt_of(store, clock, resend=True)
    attempt.begin(TOTAL_TIMEOUT)
    attempt.record(State.SENT)
    assert store.only.state is State.SENT


def test_an_outcome_is_written_again_while_the_store_is_out_of_reach(
    store: MemoryStore, clock: Clock, provider_log: list[str]
) -> None:
    attempt = attempt_of(store, clock)
    attempt.begin(TOTAL_TIMEOUT)
    store.refusals = [LedgerAwayError("gone"), LedgerStoreError("disk full")]
    attempt.record(State.SENT)
    assert (store.only.state, clock.now) == (State.SENT, 1004)
    assert provider_log == ["Can't write to the ledger that message k1 is sent; retrying in 3 s"]


def test_an_outcome_whose_write_got_no_answer_counts_as_written(
    store: MemoryStore, clock: Clock, provider_log: list[str]
) -> None:
    attempt = attempt_of(store, clock)
    attempt.begin(TOTAL_TIMEOUT)
    store.lost_answers = [State.SENT]
    attempt.record(State.SENT)
    assert (store.only.state, provider_log) == (State.SENT, [])


def test_an_outcome_that_cannot_be_written_is_logged_and_not_raised(
    store: MemoryStore, clock: Clock, provider_log: list[str]
) -> None:
    """A task that failed here would be retried, although the message was sent."""
    attempt = attempt_of(store, clock)
    attempt.begin(TOTAL_TIMEOUT)
    store.refusals = [LedgerStoreError("disk full")] * 3
    attempt.record(State.SENT, http_status=200)
    assert (store.only.state, attempt.entry.state, attempt.entry.http_status) == (State.SENDING, State.SENT, 200)
    assert provider_log[-1] == (
        "Outcome not recorded: the sms to +1•••0199 (reference 4711, clinic.remind, run monday, key k1) is sent, but "
        "its ledger entry still says sending. The next try will treat it as unknown. Cause: disk full"
    )
