"""The threads of a process get its slots one after another, on a clock that the test controls."""

from __future__ import annotations

import itertools
import math
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from airflow_provider_apptoto.client import (
    ApptotoNotSentError,
    ApptotoThrottledError,
    InProcessRateLimiter,
    RateLimiter,
)
from airflow_provider_apptoto.client.rate_limit import HORIZON, Slot, SlotQueue
from tests.support.clock import Clock, ParallelClock

INTERVAL = 2.04
"""Seconds between slots at 30 a minute."""
MAX_WAIT = 60.0
ROUNDING = 1e-6


class _NotingLimiter:
    """Passes on the slots of a limiter, and records them."""

    def __init__(self, limiter: RateLimiter, clock: Clock) -> None:
        self._limiter = limiter
        self._clock = clock
        self.asked_at: list[float] = []
        self.waits: list[float] = []
        self.slots: list[float] = []

    @property
    def interval(self) -> float:
        return self._limiter.interval

    def reserve(self, max_wait: float = math.inf, lead: float = 0.0) -> float:
        now = self._clock.monotonic()
        wait = self._limiter.reserve(max_wait, lead)
        self.asked_at.append(now)
        self.waits.append(wait)
        self.slots.append(now + wait)
        return wait

    def back_off(self, seconds: float) -> None:
        self._limiter.back_off(seconds)


def apart(times: list[float]) -> float:
    """Return the seconds between the two nearest of some times."""
    return min(later - earlier for earlier, later in itertools.pairwise(sorted(times)))


@pytest.mark.parametrize("a_minute", [30, 90, 600, 6000])
def test_a_process_reserves_no_slot_before_the_last_one_is_a_tenth_of_a_second_away(a_minute: int) -> None:
    clock = ParallelClock()
    limiter = _NotingLimiter(InProcessRateLimiter(a_minute, clock), clock)
    queue = SlotQueue(limiter, clock, MAX_WAIT)

    def take(_: int) -> float:
        slot = queue.take(clock.sleep)
        assert clock.now >= slot.at - ROUNDING
        return slot.at

    with ThreadPoolExecutor(16) as pool:
        taken = list(pool.map(take, range(100)))
    assert apart(taken) >= limiter.interval - ROUNDING
    for earlier, asked_at in zip(limiter.slots, limiter.asked_at[1:], strict=False):
        assert earlier - asked_at <= HORIZON + ROUNDING


def test_while_a_thread_waits_for_a_slot_that_is_not_near_no_other_thread_reserves_one(clock: Clock) -> None:
    limiter = _NotingLimiter(InProcessRateLimiter(400, clock), clock)
    queue = SlotQueue(limiter, clock, max_wait=0.2)  # for which the other thread waits in vain
    errors: list[BaseException | None] = []

    def sleep(seconds: float) -> None:
        if seconds > 0 and not errors:
            with ThreadPoolExecutor(1) as pool:
                errors.append(pool.submit(queue.take, clock.sleep).exception())
        clock.sleep(seconds)

    queue.take(sleep)
    queue.take(sleep)
    assert limiter.slots == pytest.approx([1000, 1000 + limiter.interval])
    assert [type(error) for error in errors] == [ApptotoThrottledError]


def test_a_message_of_another_process_waits_for_two_slots_at_most_however_large_the_batch_is() -> None:
    clock = ParallelClock()
    shared = InProcessRateLimiter(30, clock)
    batch, single = _NotingLimiter(shared, clock), _NotingLimiter(shared, clock)
    queue_of_batch, queue_of_single = SlotQueue(batch, clock, MAX_WAIT), SlotQueue(single, clock, MAX_WAIT)
    is_under_way, is_over = threading.Event(), threading.Event()

    def send_batch(_: int) -> None:
        while not is_over.is_set():
            queue_of_batch.take(clock.sleep)
            is_under_way.set()

    with ThreadPoolExecutor(8) as pool:
        for thread in range(8):
            pool.submit(send_batch, thread)
        is_under_way.wait()
        for _ in range(20):
            queue_of_single.take(clock.sleep)
        is_over.set()
    assert len(single.waits) == 20
    assert max(single.waits) <= 2 * INTERVAL + HORIZON + ROUNDING


def test_a_slot_is_too_late_to_be_used_one_interval_after_it_began(clock: Clock) -> None:
    for a_minute, grace in {30: INTERVAL, 6000: HORIZON}.items():
        queue = SlotQueue(InProcessRateLimiter(a_minute, clock), clock, MAX_WAIT)
        slot = Slot(clock.now)
        clock.now += grace - 0.001
        assert not queue.is_late(slot)
        clock.now += 0.002
        assert queue.is_late(slot)


def test_a_slot_that_was_given_back_goes_to_the_next_message_unless_it_is_late(clock: Clock) -> None:
    limiter = _NotingLimiter(InProcessRateLimiter(30, clock), clock)
    queue = SlotQueue(limiter, clock, MAX_WAIT)
    first = queue.take(clock.sleep)
    queue.give_back(first)
    clock.now += 1
    assert queue.take(clock.sleep) == first
    queue.give_back(first)
    clock.now += INTERVAL
    assert queue.take(clock.sleep).at == clock.now
    assert limiter.slots == [first.at, clock.now]


class _StopError(Exception):
    pass


def test_a_slot_goes_to_the_next_message_if_the_one_that_waits_for_it_is_stopped(clock: Clock) -> None:
    def stopped_in(call: int) -> None:
        calls = itertools.count(1)

        def sleep(_: float) -> None:
            if next(calls) == call:
                raise _StopError

        with pytest.raises(_StopError):
            queue.take(sleep)

    limiter = _NotingLimiter(InProcessRateLimiter(30, clock), clock)
    queue = SlotQueue(limiter, clock, MAX_WAIT)
    stopped_in(1)  # before a slot is reserved
    assert limiter.slots == []
    stopped_in(2)  # during the wait that blocks the others
    stopped_in(3)  # in the last tenth of a second
    assert queue.take(clock.sleep).at == 1000
    assert limiter.slots == [1000]


class _StalledLimiter(InProcessRateLimiter):
    """A limiter with a slow store, before or after it decides on the slot."""

    def __init__(self, clock: Clock, before: float, after: float) -> None:
        super().__init__(30, clock)
        self._stalls = before, after
        self.reserved = 0

    def reserve(self, max_wait: float = math.inf, lead: float = 0.0) -> float:
        before, after = self._stalls
        self.reserved += 1
        self._clock.sleep(before)
        wait = super().reserve(max_wait, lead)
        self._clock.sleep(after)
        return wait


@pytest.mark.parametrize(("before", "after"), [(20, 0), (0, 20), (10, 10)])
def test_a_store_that_stalls_for_20_s_neither_bunches_requests_nor_stops_them(before: float, after: float) -> None:
    clock = ParallelClock()
    limiter = _StalledLimiter(clock, before, after)
    queue = SlotQueue(limiter, clock, MAX_WAIT)

    def take(_: int) -> tuple[float, bool]:
        slot = queue.take(clock.sleep)
        return slot.at, queue.is_late(slot)

    with ThreadPoolExecutor(4) as pool:
        taken = list(pool.map(take, range(12)))
    assert apart([at for at, _ in taken]) >= INTERVAL - ROUNDING
    assert limiter.reserved <= 2 * 12


@pytest.mark.parametrize(("before", "after"), [(20, 0), (0, 20)])
def test_a_slot_from_a_store_that_stalls_is_used_in_time(clock: Clock, before: float, after: float) -> None:
    queue = SlotQueue(_StalledLimiter(clock, before, after), clock, MAX_WAIT)
    for _ in range(5):
        slot = queue.take(clock.sleep)
        assert slot.at <= clock.now
        assert not queue.is_late(slot)


def test_a_store_that_is_too_slow_to_be_waited_for_ends_the_wait_and_frees_the_queue(clock: Clock) -> None:
    limiter = _StalledLimiter(clock, 0, 40)
    queue = SlotQueue(limiter, clock, MAX_WAIT)
    for _ in range(2):
        with pytest.raises(
            ApptotoThrottledError, match=r"Rate limited: the rate limit store took 40 s to respond"
        ) as raised:
            queue.take(clock.sleep)
        assert raised.value.retry_after == 40
    assert limiter.reserved == 2


def test_a_store_that_gets_slower_and_slower_is_not_asked_for_ever(clock: Clock) -> None:
    class Slowing(_StalledLimiter):
        def reserve(self, max_wait: float = math.inf, lead: float = 0.0) -> float:
            self._stalls = 0.0, 4.0**self.reserved
            return super().reserve(max_wait, lead)

    limiter = Slowing(clock, 0, 0)
    queue = SlotQueue(limiter, clock, MAX_WAIT)
    queue.take(clock.sleep)
    with pytest.raises(ApptotoThrottledError):
        queue.take(clock.sleep)
    assert clock.now - 1000 <= 2 * MAX_WAIT
    assert limiter.reserved == 4


def test_a_slot_beyond_the_window_is_left_to_others_and_the_error_says_when_it_is(clock: Clock) -> None:
    limiter = InProcessRateLimiter(30, clock)
    queue = SlotQueue(limiter, clock, MAX_WAIT)
    limiter.back_off(MAX_WAIT)
    assert queue.take(clock.sleep).at == 1000 + MAX_WAIT
    limiter.back_off(90)
    with pytest.raises(
        ApptotoThrottledError, match=r"^Nothing was sent\. Rate limited: the next slot is in 90 s"
    ) as found:
        queue.take(clock.sleep)
    assert isinstance(found.value, ApptotoNotSentError)
    assert (found.value.retry_after, found.value.status, found.value.code) == (90, None, "rate_limited")
    assert clock.now == 1000 + MAX_WAIT  # at once
    assert limiter.reserve() == 90
