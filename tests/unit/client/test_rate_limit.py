"""The slots of an account are evenly spaced across its clients and threads, on a clock that the test controls."""

from __future__ import annotations

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_apptoto.client import (
    ApptotoClient,
    InProcessRateLimiter,
    rate_limit,
)
from airflow_provider_apptoto.client.rate_limit import (
    DEFAULT_REQUESTS_PER_MINUTE,
    account_rate_limiter,
)
from tests.support.clock import Clock, slots

INTERVAL = 2.04
"""Seconds between slots at 30 a minute: 2, and a little more for those that are used late."""
ROUNDING = 1e-6


def fullest_minute(times: list[float]) -> int:
    """Return the maximum number of times in any 60 seconds."""
    return max(sum(start <= other < start + 60 - ROUNDING for other in times) for start in times)


def test_the_first_slot_is_at_once_and_the_others_follow_evenly_spaced(clock: Clock) -> None:
    limiter = InProcessRateLimiter(30, clock)
    assert limiter.interval == INTERVAL
    assert slots(limiter, clock, 4) == pytest.approx([1000 + place * INTERVAL for place in range(4)])


def test_time_that_passes_counts_towards_the_next_slot(clock: Clock) -> None:
    limiter = InProcessRateLimiter(30, clock)
    assert limiter.reserve() == 0
    clock.now += 0.5
    assert limiter.reserve() == pytest.approx(INTERVAL - 0.5)
    clock.now += 3
    assert limiter.reserve() == pytest.approx(2 * INTERVAL - 3.5)


def test_idle_time_is_not_saved_up_for_a_burst(clock: Clock) -> None:
    limiter = InProcessRateLimiter(30, clock)
    limiter.reserve()
    clock.now += 3600
    assert slots(limiter, clock, 3) == pytest.approx([4600, 4600 + INTERVAL, 4600 + 2 * INTERVAL])


def test_by_default_no_minute_holds_more_than_ninety_slots(clock: Clock) -> None:
    assert DEFAULT_REQUESTS_PER_MINUTE == 90
    assert fullest_minute(slots(InProcessRateLimiter(clock=clock), clock, 500)) == 89


@pytest.mark.parametrize("a_minute", [1, 90, 600, 6000])
def test_nearly_all_of_the_rate_is_used(clock: Clock, a_minute: int) -> None:
    first, *_, last = slots(InProcessRateLimiter(a_minute, clock), clock, 301)
    assert 300 / ((last - first) / 60) >= 0.97 * a_minute


@given(a_minute=st.integers(1, 300), late=st.lists(st.floats(0, 1.19), min_size=1, max_size=12))
def test_requests_that_come_up_to_a_second_late_do_not_make_a_minute_too_full(a_minute: int, late: list[float]) -> None:
    """Repeat a short pattern of delays: to draw one for each slot took Hypothesis seconds on a busy machine."""
    clock = Clock()
    given_slots = slots(InProcessRateLimiter(a_minute, clock), clock, a_minute + 1)
    arrived = [at + delay for at, delay in zip(given_slots, itertools.cycle(late), strict=False)]
    assert fullest_minute(arrived) <= a_minute


def test_a_slot_beyond_max_wait_is_not_reserved(clock: Clock) -> None:
    limiter = InProcessRateLimiter(30, clock)
    slots(limiter, clock, 3)
    assert [limiter.reserve(6), limiter.reserve(0)] == pytest.approx([3 * INTERVAL, 3 * INTERVAL])
    assert [limiter.reserve(6.2), limiter.reserve(0)] == pytest.approx([3 * INTERVAL, 4 * INTERVAL])


def test_a_slot_is_no_earlier_than_the_lead_and_the_next_one_keeps_its_distance(clock: Clock) -> None:
    limiter = InProcessRateLimiter(30, clock)
    assert limiter.reserve(lead=5) == 5
    assert limiter.reserve(lead=6) == pytest.approx(5 + INTERVAL)
    assert limiter.reserve(6, lead=7) > 6
    assert limiter.reserve() == pytest.approx(5 + 2 * INTERVAL)


@given(
    a_minute=st.integers(1, 300),
    passing=st.lists(st.floats(0, 90), max_size=60),
    rests=st.dictionaries(st.integers(0, 59), st.floats(0, 300), max_size=3),
)
def test_no_minute_ever_holds_more_slots_than_agreed(
    a_minute: int, passing: list[float], rests: dict[int, float]
) -> None:
    clock = Clock()
    limiter = InProcessRateLimiter(a_minute, clock)
    times = []
    for place, seconds in enumerate(passing):
        clock.now += seconds
        if place in rests:
            limiter.back_off(rests[place])
            wait = limiter.reserve()
            assert wait >= rests[place] - ROUNDING
            times.append(clock.now + wait)
        times += slots(limiter, clock, 2)
    assert times == sorted(times)
    assert not times or fullest_minute(times) <= a_minute


def test_no_slot_begins_before_the_server_allows_it(clock: Clock) -> None:
    limiter = InProcessRateLimiter(30, clock)
    limiter.back_off(45)
    assert slots(limiter, clock, 3) == pytest.approx([1045, 1045 + INTERVAL, 1045 + 2 * INTERVAL])


def test_a_shorter_rest_never_cuts_a_longer_one(clock: Clock) -> None:
    limiter = InProcessRateLimiter(30, clock)
    limiter.back_off(45)
    limiter.back_off(5)
    limiter.back_off(0)
    assert slots(limiter, clock, 1) == [1045]
    limiter.back_off(5)
    assert slots(limiter, clock, 1) == pytest.approx([1045 + INTERVAL])


def test_a_rest_that_is_over_holds_nothing_back(clock: Clock) -> None:
    limiter = InProcessRateLimiter(30, clock)
    limiter.back_off(45)
    clock.now += 50
    assert limiter.reserve() == 0


class _Slow(float):
    """A clock that yields to other threads when read: without a lock, two would get the same slot."""

    def __gt__(self, other: float, /) -> bool:
        time.sleep(0.0005)
        return super().__gt__(other)

    def __add__(self, other: float, /) -> _Slow:
        return _Slow(super().__add__(other))


class _SlowClock(Clock):
    def monotonic(self) -> float:
        return _Slow(self.now)


def test_threads_never_share_a_slot() -> None:
    clock = _SlowClock()
    limiter = InProcessRateLimiter(30, clock)
    together = threading.Barrier(8)

    def reserve(_: int) -> list[float]:
        together.wait()
        return slots(limiter, clock, 10)

    with ThreadPoolExecutor(8) as pool:
        times = sorted(itertools.chain.from_iterable(pool.map(reserve, range(8))))
    assert times == pytest.approx([1000 + INTERVAL * place for place in range(80)])


# --- one limiter an account


def test_all_clients_of_an_account_share_one_limiter() -> None:
    mine = account_rate_limiter("https://clinic.example/v1", "mary@clinic.example", 90)
    assert account_rate_limiter("https://clinic.example/v1", "mary@clinic.example", 90) is mine
    assert account_rate_limiter("https://clinic.example/v1", "jo@clinic.example", 90) is not mine
    assert account_rate_limiter("https://other.example/v1", "mary@clinic.example", 90) is not mine


def test_a_client_uses_its_accounts_limiter_unless_it_is_given_one() -> None:
    shared = account_rate_limiter("https://shared.example/v1", "mary@clinic.example", DEFAULT_REQUESTS_PER_MINUTE)
    own = InProcessRateLimiter()
    with (
        ApptotoClient(base_url="shared.example", login="mary@clinic.example", api_key="a") as first,
        ApptotoClient(base_url="https://shared.example/", login="mary@clinic.example", api_key="b") as second,
        ApptotoClient(base_url="shared.example", login="mary@clinic.example", api_key="a", rate_limiter=own) as third,
    ):
        assert tuple(each._attempts._limiter for each in (first, second, third)) == (shared, shared, own)


def test_the_rate_that_is_asked_for_is_kept() -> None:
    limiter = account_rate_limiter("https://pace.example/v1", "mary@clinic.example", 1)
    limiter.reserve()
    assert limiter.reserve() == pytest.approx(61.2, abs=20)


@pytest.mark.parametrize("rates", [(1, 2), (2, 1)])
def test_two_connections_to_one_account_share_the_slower_rate(rates: tuple[int, int]) -> None:
    limiters = [account_rate_limiter(f"https://{rates[0]}.example/v1", "mary@clinic.example", rate) for rate in rates]
    assert limiters[0] is limiters[1]
    limiters[0].reserve()
    assert limiters[1].reserve() == pytest.approx(61.2, abs=20)


def test_threads_that_ask_first_at_once_get_the_same_limiter(monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[InProcessRateLimiter] = []

    def ask() -> None:
        got.append(account_rate_limiter("https://race.example/v1", "mary@clinic.example", 90))

    class Interrupted(InProcessRateLimiter):
        def __init__(self, requests_per_minute: float) -> None:
            super().__init__(requests_per_minute)
            if not got and threading.current_thread() is threading.main_thread():
                other = threading.Thread(target=ask)
                others.append(other)
                other.start()
                # times out if a lock keeps the other thread out, as it should
                other.join(0.2)

    others: list[threading.Thread] = []
    monkeypatch.setattr(rate_limit, "InProcessRateLimiter", Interrupted)
    ask()
    for other in others:
        other.join()
    first, second = got
    assert first is second
