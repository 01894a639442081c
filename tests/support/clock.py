"""A clock that advances only when somebody sleeps."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_apptoto.client import RateLimiter


class Clock:
    """Replaces the module ``time``."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += seconds


class ParallelClock(Clock):
    """Lets threads sleep concurrently: the longest sleep sets the time."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        until = self.now + seconds
        time.sleep(0.0005)  # the other threads run before the time advances
        with self._lock:
            self.now = max(self.now, until)


def slots(limiter: RateLimiter, clock: Clock, count: int) -> list[float]:
    """Return the times of the next slots."""
    return [clock.now + limiter.reserve() for _ in range(count)]
