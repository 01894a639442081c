"""Rate limiting: when the next request of an account may start."""

from __future__ import annotations

import logging
import math
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from airflow_provider_apptoto.client.errors import ApptotoThrottledError

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

DEFAULT_REQUESTS_PER_MINUTE = 90.0
"""Apptoto documents no limit; 100 requests a minute were sometimes refused (observed with the real service)."""
_SLACK = 1.02
"""Slots are 2 % further apart than the rate requires, so that a slot used late can't exceed the limit of a minute."""
HORIZON = 0.1
"""Seconds before a slot at which a process may reserve the next one."""
LOGGED_WAIT = 2.0
"""Seconds; a longer wait is logged when it begins."""


def interval_of(requests_per_minute: float) -> float:
    """Return the seconds between two slots at this rate."""
    return 60.0 / requests_per_minute * _SLACK


class Clock(Protocol):
    """A source of time and sleep; the module ``time`` is one."""

    def monotonic(self) -> float:
        """Return the monotonic time in seconds."""

    def sleep(self, seconds: float, /) -> None:
        """Wait for a number of seconds."""


class RateLimiter(Protocol):
    """Assigns every request of an account a slot: the earliest time at which it may start."""

    @property
    def interval(self) -> float:
        """Seconds between two slots."""

    def reserve(self, max_wait: float = math.inf, lead: float = 0.0) -> float:
        """Reserve the next slot, and return the seconds until then.

        :param max_wait: seconds, 0 or more; a longer wait is returned without reserving a slot.
        :param lead: seconds, 0 or more; the slot is at least this far away.
        """

    def back_off(self, seconds: float) -> None:
        """Assign no slot for this many seconds, because the server asked for a delay."""


class InProcessRateLimiter:
    """Evenly spaced slots within one process; thread-safe.

    :param requests_per_minute: slots per minute, more than 0.
    :param clock: source of time; by default the module ``time``.
    """

    def __init__(self, requests_per_minute: float = DEFAULT_REQUESTS_PER_MINUTE, clock: Clock = time) -> None:
        self.interval = interval_of(requests_per_minute)
        self._clock = clock
        self._next = clock.monotonic()
        self._lock = threading.Lock()

    def reserve(self, max_wait: float = math.inf, lead: float = 0.0) -> float:
        """Reserve the next slot and return the seconds until then; reserve nothing beyond ``max_wait``."""
        with self._lock:
            now = self._clock.monotonic()
            slot = max(now + lead, self._next)
            if slot - now <= max_wait:
                self._next = slot + self.interval
            return slot - now

    def slow_down_to(self, requests_per_minute: float) -> None:
        """Lower the rate; a higher rate than the current one has no effect."""
        with self._lock:
            self.interval = max(self.interval, interval_of(requests_per_minute))

    def back_off(self, seconds: float) -> None:
        """Assign no slot for this many seconds."""
        with self._lock:
            self._next = max(self._next, self._clock.monotonic() + seconds)


_account_limiters: dict[tuple[str, str], InProcessRateLimiter] = {}
_account_limiters_lock = threading.Lock()


def account_rate_limiter(base_url: str, login: str, requests_per_minute: float) -> InProcessRateLimiter:
    """Return the limiter that all clients of an account share in this process; the lowest rate applies."""
    with _account_limiters_lock:
        limiter = _account_limiters.setdefault((base_url, login), InProcessRateLimiter(requests_per_minute))
        limiter.slow_down_to(requests_per_minute)
        return limiter


@dataclass(frozen=True, slots=True)
class Slot:
    """The right to make one request.

    :param at: earliest time (seconds of the clock's ``monotonic``).
    """

    at: float


class SlotQueue:
    """Distributes the slots of an account among the threads of this process.

    Only one thread at a time reserves a slot, shortly before it starts. Otherwise a batch could reserve a whole minute
    of slots, and a task with a single message would wait behind it.

    :param limiter: assigns the slots.
    :param max_wait: longest wait for a slot in seconds, 0 or more.
    """

    def __init__(self, limiter: RateLimiter, clock: Clock, max_wait: float) -> None:
        self._limiter = limiter
        self._clock = clock
        self._max_wait = max_wait
        self._turn = threading.Lock()
        self._returned: list[Slot] = []

    def take(self, sleep: Callable[[float], None]) -> Slot:
        """Wait for the next slot and return it.

        :param sleep: function that waits for a number of seconds; if it raises, no request may be made.
        :raises ApptotoThrottledError: the slot is too far away.
        """
        if not self._turn.acquire(timeout=min(self._max_wait, threading.TIMEOUT_MAX)):
            reason = f"this request waited {self._max_wait:.0f} s behind other requests of this process"
            raise _throttled(reason, self._max_wait)
        slot = None
        try:
            try:
                sleep(0.0)  # raises if the task was stopped in the meantime
                slot = self._next()
                wait = slot.at - self._clock.monotonic()
                if wait > LOGGED_WAIT:
                    log.info("Rate limited: the next slot is in %.0f s", wait)
                sleep(max(wait - HORIZON, 0.0))
            finally:
                self._turn.release()
            sleep(max(slot.at - self._clock.monotonic(), 0.0))
        except BaseException:
            if slot is not None:
                self.give_back(slot)
            raise
        return slot

    def is_late(self, slot: Slot) -> bool:
        """Return whether a slot is too old to use: after a stall, many old slots would be used at once."""
        return self._clock.monotonic() - slot.at > max(self._limiter.interval, HORIZON)

    def give_back(self, slot: Slot) -> None:
        """Return an unused slot, for the next request of this process."""
        self._returned.append(slot)

    def _next(self) -> Slot:
        while self._returned:
            slot = self._returned.pop()
            if not self.is_late(slot):
                return slot
        began = self._clock.monotonic()
        lead = 0.0
        while True:
            asked_at = self._clock.monotonic()
            wait = self._limiter.reserve(self._max_wait, lead)
            if wait > self._max_wait:
                # don't block a worker for an hour because an earlier request got a long Retry-After
                raise _throttled(
                    f"the next slot is in {wait:.0f} s (Apptoto sent Retry-After, or many requests are queued)", wait
                )
            slot = Slot(asked_at + wait)
            if not self.is_late(slot):
                return slot
            # the store answered after the slot: ask for one that is as far away as this call took
            now = self._clock.monotonic()
            lead = now - asked_at
            if now - began + lead > self._max_wait:
                raise _throttled(f"the rate limit store took {lead:.0f} s to respond", lead)


def _throttled(reason: str, retry_after: float) -> ApptotoThrottledError:
    return ApptotoThrottledError(
        f"Nothing was sent. Rate limited: {reason}", reason=f"rate limited: {reason}", retry_after=retry_after
    )
