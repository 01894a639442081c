"""An unavailable store is awaited for a limited time, on a clock that the test controls."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_provider_apptoto.outbox.ledger import LedgerTiming, patiently
from airflow_provider_apptoto.outbox.stores.base import LedgerAwayError, LedgerStoreError, RateLimitAwayError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.clock import Clock

TIMING = LedgerTiming(patience=30.0, poll=1.0)


def away(after: float = 0.0, *, rate_limit: bool = False) -> LedgerAwayError:
    """Return the error of an unavailable store.

    :param after: seconds until that was known.
    """
    error = (
        RateLimitAwayError("The message was not sent: away", reason="away") if rate_limit else LedgerAwayError("away")
    )
    error.waited = after
    return error


def calls(clock: Clock, outcomes: list[tuple[float, LedgerStoreError | None]]) -> Callable[[], None]:
    """Return a call with these durations and results; the last ones repeat."""

    def call() -> None:
        seconds, error = outcomes.pop(0) if len(outcomes) > 1 else outcomes[0]
        clock.now += seconds
        if error is not None:
            raise error

    return call


@pytest.mark.parametrize(
    ("rate_limit", "line"),
    [
        (False, "Can't reach the ledger; sending is paused for up to 30 s: away"),
        (True, "Can't reach the rate limit store; sending is paused for up to 30 s: away"),
    ],
)
def test_a_store_that_is_back_in_time_costs_nothing_and_is_named_once(
    clock: Clock, provider_log: list[str], rate_limit: bool, line: str
) -> None:
    patiently(calls(clock, [(0, away(rate_limit=rate_limit))] * 29 + [(0, None)]), TIMING, clock.sleep)
    assert clock.now == 1029
    assert provider_log == [line]


@pytest.mark.parametrize(("each", "ends_at"), [(0, 1030), (8, 1035), (20, 1041), (29, 1059), (30, 1030), (31, 1031)])
def test_a_store_that_stays_away_ends_the_wait_however_long_each_failure_takes(
    clock: Clock, each: float, ends_at: float
) -> None:
    with pytest.raises(LedgerAwayError):
        patiently(calls(clock, [(each, away(each))]), TIMING, clock.sleep)
    assert clock.now == ends_at


def test_a_store_that_was_there_meanwhile_is_waited_for_anew(clock: Clock, provider_log: list[str]) -> None:
    first, later = [(0.0, away())] * 20, [(60.0, away(5.0)), *[(0.0, away())] * 20]
    patiently(calls(clock, [*first, *later, (0.0, None)]), TIMING, clock.sleep)
    assert len(provider_log) == 2


def test_a_store_that_can_not_be_used_is_not_waited_for(clock: Clock) -> None:
    with pytest.raises(LedgerStoreError, match="full"):
        patiently(calls(clock, [(0, LedgerStoreError("full"))]), TIMING, clock.sleep)
    assert clock.now == 1000
