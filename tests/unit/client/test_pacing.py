"""An account's departures: evenly spaced, over all its clients and threads, on a clock of the test's own."""

from __future__ import annotations

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_apptoto.client import ApptotoClient, InProcessPacer, pacing
from airflow_provider_apptoto.client.pacing import DEFAULT_REQUESTS_PER_MINUTE, account_pacer
from tests.support.clock import Clock

FOREVER = float("inf")
APART = 2.04
"""Seconds between departures at 30 a minute: 2, and a little more for those that come late."""


def departures(pacer: InProcessPacer, clock: Clock, count: int) -> list[float]:
    return [clock.now + pacer.reserve(FOREVER) for _ in range(count)]


def most_in_a_minute(times: list[float]) -> int:
    """Count the departures of the fullest 60 seconds, wherever they begin; a hair's breadth is rounding."""
    return max(sum(start <= other < start + 60 - 1e-6 for other in times) for start in times)


def test_the_first_departure_is_at_once_and_the_others_follow_evenly_spaced(clock: Clock) -> None:
    pacer = InProcessPacer(30, clock)
    assert departures(pacer, clock, 4) == pytest.approx([1000 + place * APART for place in range(4)])


def test_time_that_passes_counts_towards_the_next_departure(clock: Clock) -> None:
    pacer = InProcessPacer(30, clock)
    assert pacer.reserve(FOREVER) == 0
    clock.now += 0.5
    assert pacer.reserve(FOREVER) == pytest.approx(APART - 0.5)
    clock.now += 3
    assert pacer.reserve(FOREVER) == pytest.approx(2 * APART - 3.5)


def test_an_idle_time_is_not_saved_up_for_a_burst(clock: Clock) -> None:
    pacer = InProcessPacer(30, clock)
    pacer.reserve(FOREVER)
    clock.now += 3600
    assert departures(pacer, clock, 3) == pytest.approx([4600, 4600 + APART, 4600 + 2 * APART])


def test_by_default_no_minute_holds_more_than_ninety_departures(clock: Clock) -> None:
    assert DEFAULT_REQUESTS_PER_MINUTE == 90
    assert most_in_a_minute(departures(InProcessPacer(clock=clock), clock, 500)) == 89


@pytest.mark.parametrize("a_minute", [1, 90, 600, 6000])
def test_nearly_all_of_the_pace_is_used(clock: Clock, a_minute: int) -> None:
    first, *_, last = departures(InProcessPacer(a_minute, clock), clock, 301)
    assert 300 / ((last - first) / 60) >= 0.97 * a_minute


@given(a_minute=st.integers(1, 300), late=st.lists(st.floats(0, 1.19), min_size=1, max_size=12))
def test_requests_that_come_up_to_a_second_late_do_not_make_a_minute_too_full(a_minute: int, late: list[float]) -> None:
    """Repeat a short pattern of delays: to draw one for each departure took Hypothesis seconds on a busy machine."""
    clock = Clock()
    departed = departures(InProcessPacer(a_minute, clock), clock, a_minute + 1)
    arrived = [time + delay for time, delay in zip(departed, itertools.cycle(late), strict=False)]
    assert most_in_a_minute(arrived) <= a_minute


def test_what_is_beyond_the_patience_is_not_reserved(clock: Clock) -> None:
    pacer = InProcessPacer(30, clock)
    departures(pacer, clock, 3)
    assert [pacer.reserve(6), pacer.reserve(0)] == pytest.approx([3 * APART, 3 * APART])
    assert [pacer.reserve(6.2), pacer.reserve(0)] == pytest.approx([3 * APART, 4 * APART])


@given(
    a_minute=st.integers(1, 300),
    passing=st.lists(st.floats(0, 90), max_size=60),
    rests=st.dictionaries(st.integers(0, 59), st.floats(0, 300), max_size=3),
)
def test_no_minute_ever_holds_more_departures_than_agreed(
    a_minute: int, passing: list[float], rests: dict[int, float]
) -> None:
    clock = Clock()
    pacer = InProcessPacer(a_minute, clock)
    times = []
    for place, seconds in enumerate(passing):
        clock.now += seconds
        if place in rests:
            pacer.push_back(rests[place])
            pause = pacer.reserve(FOREVER)
            assert pause >= rests[place] - 1e-6
            times.append(clock.now + pause)
        times += departures(pacer, clock, 2)
    assert times == sorted(times)
    assert not times or most_in_a_minute(times) <= a_minute


def test_nothing_departs_for_as_long_as_the_server_asked(clock: Clock) -> None:
    pacer = InProcessPacer(30, clock)
    pacer.push_back(45)
    assert departures(pacer, clock, 3) == pytest.approx([1045, 1045 + APART, 1045 + 2 * APART])


def test_a_shorter_rest_never_cuts_a_longer_one(clock: Clock) -> None:
    pacer = InProcessPacer(30, clock)
    pacer.push_back(45)
    pacer.push_back(5)
    pacer.push_back(0)
    assert departures(pacer, clock, 1) == [1045]
    pacer.push_back(5)
    assert departures(pacer, clock, 1) == pytest.approx([1045 + APART])


def test_a_rest_that_is_over_holds_nothing_back(clock: Clock) -> None:
    pacer = InProcessPacer(30, clock)
    pacer.push_back(45)
    clock.now += 50
    assert pacer.reserve(FOREVER) == 0


class _Slow(float):
    """A time whose reading lets other threads in: without a lock, two of them would take the same departure."""

    def __gt__(self, other: float, /) -> bool:
        time.sleep(0.0005)
        return super().__gt__(other)

    def __add__(self, other: float, /) -> _Slow:
        return _Slow(super().__add__(other))


class _SlowClock(Clock):
    def monotonic(self) -> float:
        return _Slow(self.now)


def test_threads_never_share_a_departure() -> None:
    clock = _SlowClock()
    pacer = InProcessPacer(30, clock)
    together = threading.Barrier(8)

    def depart(_: int) -> list[float]:
        together.wait()
        return departures(pacer, clock, 10)

    with ThreadPoolExecutor(8) as pool:
        times = sorted(itertools.chain.from_iterable(pool.map(depart, range(8))))
    assert times == pytest.approx([1000 + APART * place for place in range(80)])


# --- one pacer an account


def test_all_clients_of_an_account_share_one_pacer() -> None:
    mine = account_pacer("https://clinic.example/v1", "mary@clinic.example", 90)
    assert account_pacer("https://clinic.example/v1", "mary@clinic.example", 90) is mine
    assert account_pacer("https://clinic.example/v1", "jo@clinic.example", 90) is not mine
    assert account_pacer("https://other.example/v1", "mary@clinic.example", 90) is not mine


def test_a_client_uses_its_accounts_pacer_unless_it_is_given_one() -> None:
    shared = account_pacer("https://shared.example/v1", "mary@clinic.example", DEFAULT_REQUESTS_PER_MINUTE)
    own = InProcessPacer()
    with (
        ApptotoClient(base_url="shared.example", login="mary@clinic.example", api_key="a") as first,
        ApptotoClient(base_url="https://shared.example/", login="mary@clinic.example", api_key="b") as second,
        ApptotoClient(base_url="shared.example", login="mary@clinic.example", api_key="a", pacer=own) as third,
    ):
        assert (first._pacer, second._pacer, third._pacer) == (shared, shared, own)


def test_the_pace_that_is_asked_for_is_kept() -> None:
    pacer = account_pacer("https://pace.example/v1", "mary@clinic.example", 30)
    pacer.reserve()
    assert pacer.reserve() == pytest.approx(APART, abs=1)


@pytest.mark.parametrize("paces", [(30, 60), (60, 30)])
def test_two_connections_to_one_account_take_turns_at_the_slower_pace(paces: tuple[int, int]) -> None:
    pacers = [account_pacer(f"https://{paces[0]}.example/v1", "mary@clinic.example", pace) for pace in paces]
    assert pacers[0] is pacers[1]
    pacers[0].reserve()
    assert pacers[1].reserve() == pytest.approx(APART, abs=1)


def test_threads_that_ask_first_at_once_get_the_same_pacer(monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[InProcessPacer] = []

    def ask() -> None:
        got.append(account_pacer("https://race.example/v1", "mary@clinic.example", 90))

    class Interrupted(InProcessPacer):
        def __init__(self, requests_per_minute: float) -> None:
            super().__init__(requests_per_minute)
            if not got and threading.current_thread() is threading.main_thread():
                other = threading.Thread(target=ask)
                others.append(other)
                other.start()
                # in vain where a lock keeps the other one out, which is as it should be
                other.join(0.2)

    others: list[threading.Thread] = []
    monkeypatch.setattr(pacing, "InProcessPacer", Interrupted)
    ask()
    for other in others:
        other.join()
    first, second = got
    assert first is second
