"""When the next request of an account may depart."""

from __future__ import annotations

import math
import threading
import time
from typing import Protocol

DEFAULT_REQUESTS_PER_MINUTE = 90.0
"""A client of the real service saw 100 a minute refused at times (observed; Apptoto documents no limit)."""
_SLACK = 1.02
"""Departures are a little further apart than a minute asks for: one that comes late must not make a minute too full."""


def interval(requests_per_minute: float) -> float:
    """Return the seconds between two departures, so that no minute holds more of them than this."""
    return 60.0 / requests_per_minute * _SLACK


class Clock(Protocol):
    """Tells the time and waits; the module ``time`` does."""

    def monotonic(self) -> float:
        """Return seconds that never go back."""

    def sleep(self, seconds: float, /) -> None:
        """Wait."""


class Pacer(Protocol):
    """Gives every request of an account its departure time."""

    def reserve(self, patience: float = math.inf) -> float:
        """Reserve the next departure, and return the seconds to wait until then.

        :param patience: seconds, 0 or more; where the wait is longer, it is returned, and nothing is reserved.
        """

    def push_back(self, seconds: float) -> None:
        """Let nothing depart for this many seconds: the server asked for a rest."""


class InProcessPacer:
    """Evenly spaced departures within one process, for any number of threads.

    :param requests_per_minute: departures a minute, more than 0.
    :param clock: tells the time; by default the module ``time``.
    """

    def __init__(self, requests_per_minute: float = DEFAULT_REQUESTS_PER_MINUTE, clock: Clock = time) -> None:
        self._interval = interval(requests_per_minute)
        self._clock = clock
        self._next = clock.monotonic()
        self._lock = threading.Lock()

    def reserve(self, patience: float = math.inf) -> float:
        """Reserve the next departure, and return the seconds to wait until then; nothing beyond ``patience``."""
        with self._lock:
            now = self._clock.monotonic()
            departure = max(now, self._next)
            if departure - now <= patience:
                self._next = departure + self._interval
            return departure - now

    def slow_down_to(self, requests_per_minute: float) -> None:
        """Keep a pace that is slower than the one so far; a faster one changes nothing."""
        with self._lock:
            self._interval = max(self._interval, interval(requests_per_minute))

    def push_back(self, seconds: float) -> None:
        """Let nothing depart for this many seconds."""
        with self._lock:
            self._next = max(self._next, self._clock.monotonic() + seconds)


_account_pacers: dict[tuple[str, str], InProcessPacer] = {}
_account_pacers_lock = threading.Lock()


def account_pacer(base_url: str, login: str, requests_per_minute: float) -> InProcessPacer:
    """Return the one pacer that all clients of an account share in this process; the slowest pace counts."""
    with _account_pacers_lock:
        pacer = _account_pacers.setdefault((base_url, login), InProcessPacer(requests_per_minute))
        pacer.slow_down_to(requests_per_minute)
        return pacer
