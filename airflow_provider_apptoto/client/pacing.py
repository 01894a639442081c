"""When the next request of an account may depart."""

from __future__ import annotations

import functools
import threading
import time
from typing import Protocol

DEFAULT_REQUESTS_PER_MINUTE = 90.0
"""A client of the real service saw 100 a minute refused at times (observed; Apptoto documents no limit)."""


class Pacer(Protocol):
    """Gives every request of an account its departure time."""

    def reserve(self) -> float:
        """Reserve the next departure; return the seconds (0 or more) to wait until then."""

    def push_back(self, seconds: float) -> None:
        """Let nothing depart for this many seconds: the server asked for a rest."""


class InProcessPacer:
    """Evenly spaced departures within one process, for any number of threads.

    :param requests_per_minute: departures a minute, more than 0.
    """

    def __init__(self, requests_per_minute: float = DEFAULT_REQUESTS_PER_MINUTE) -> None:
        self._interval = 60.0 / requests_per_minute
        self._next = time.monotonic()
        self._lock = threading.Lock()

    def reserve(self) -> float:
        """Reserve the next departure; return the seconds (0 or more) to wait until then."""
        with self._lock:
            now = time.monotonic()
            departure = max(now, self._next)
            self._next = departure + self._interval
            return departure - now

    def push_back(self, seconds: float) -> None:
        """Let nothing depart for this many seconds."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)


@functools.cache
def account_pacer(base_url: str, login: str, requests_per_minute: float) -> InProcessPacer:
    """Return the one pacer that all clients of an account share in this process."""
    del base_url, login  # they make the account, and so the cache's key
    return InProcessPacer(requests_per_minute)
