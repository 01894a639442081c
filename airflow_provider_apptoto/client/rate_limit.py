"""When the next request of an account may leave."""

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
"""A client of the real service saw 100 a minute refused at times (observed; Apptoto documents no limit)."""
_SLACK = 1.02
"""Slots are a little further apart than a minute asks for: one that is used late must not make a minute too full."""
HORIZON = 0.1
"""Seconds: a process reserves its next slot when the one before it is this near."""
WORTH_A_LINE = 2.0
"""Seconds: a longer wait is logged when it begins."""


def interval_of(requests_per_minute: float) -> float:
    """Return the seconds between two slots, so that no minute holds more of them than this."""
    return 60.0 / requests_per_minute * _SLACK


class Clock(Protocol):
    """Tells the time and waits; the module ``time`` does."""

    def monotonic(self) -> float:
        """Return seconds that never go back."""

    def sleep(self, seconds: float, /) -> None:
        """Wait."""


class RateLimiter(Protocol):
    """Gives every request of an account a slot: the time from which it may leave."""

    @property
    def interval(self) -> float:
        """Seconds between two slots."""

    def reserve(self, max_wait: float = math.inf, lead: float = 0.0) -> float:
        """Reserve the next slot, and return the seconds until then.

        :param max_wait: seconds, 0 or more; if the wait is longer, it is returned, and nothing is reserved.
        :param lead: seconds, 0 or more: the slot is no earlier than this.
        """

    def back_off(self, seconds: float) -> None:
        """Give no slot for this many seconds: the server asked for a rest."""


class InProcessRateLimiter:
    """Evenly spaced slots within one process, for any number of threads.

    :param requests_per_minute: slots a minute, more than 0.
    :param clock: tells the time; by default the module ``time``.
    """

    def __init__(self, requests_per_minute: float = DEFAULT_REQUESTS_PER_MINUTE, clock: Clock = time) -> None:
        self.interval = interval_of(requests_per_minute)
        self._clock = clock
        self._next = clock.monotonic()
        self._lock = threading.Lock()

    def reserve(self, max_wait: float = math.inf, lead: float = 0.0) -> float:
        """Reserve the next slot, and return the seconds until then; nothing beyond ``max_wait``."""
        with self._lock:
            now = self._clock.monotonic()
            slot = max(now + lead, self._next)
            if slot - now <= max_wait:
                self._next = slot + self.interval
            return slot - now

    def slow_down_to(self, requests_per_minute: float) -> None:
        """Keep a rate that is slower than the one so far; a faster one changes nothing."""
        with self._lock:
            self.interval = max(self.interval, interval_of(requests_per_minute))

    def back_off(self, seconds: float) -> None:
        """Give no slot for this many seconds."""
        with self._lock:
            self._next = max(self._next, self._clock.monotonic() + seconds)


_account_limiters: dict[tuple[str, str], InProcessRateLimiter] = {}
_account_limiters_lock = threading.Lock()


def account_rate_limiter(base_url: str, login: str, requests_per_minute: float) -> InProcessRateLimiter:
    """Return the one limiter that all clients of an account share in this process; the slowest rate counts."""
    with _account_limiters_lock:
        limiter = _account_limiters.setdefault((base_url, login), InProcessRateLimiter(requests_per_minute))
        limiter.slow_down_to(requests_per_minute)
        return limiter


@dataclass(frozen=True, slots=True)
class Slot:
    """The right to make one request.

    :param at: from when on (seconds of the clock's ``monotonic``).
    """

    at: float


class SlotQueue:
    """Hands the slots of an account to the threads of this process, one after the other.

    One thread at a time reserves a slot, shortly before it begins. Otherwise a batch would hold the slots of the next
    minute, and a task with one message would have to wait behind them.

    :param limiter: gives the slots.
    :param max_wait: seconds, 0 or more: the longest wait for one slot.
    """

    def __init__(self, limiter: RateLimiter, clock: Clock, max_wait: float) -> None:
        self._limiter = limiter
        self._clock = clock
        self._max_wait = max_wait
        self._turn = threading.Lock()
        self._returned: list[Slot] = []

    def take(self, sleep: Callable[[float], None]) -> Slot:
        """Wait for the next slot, and return it.

        :param sleep: waits this many seconds; if it raises, no request may be made.
        :raises ApptotoThrottledError: the slot is too far away.
        """
        if not self._turn.acquire(timeout=min(self._max_wait, threading.TIMEOUT_MAX)):
            reason = f"this request waited {self._max_wait:.0f} s behind others of its process"
            raise _throttled(reason, self._max_wait)
        slot = None
        try:
            try:
                sleep(0.0)  # the task may have been stopped meanwhile
                slot = self._next()
                wait = slot.at - self._clock.monotonic()
                if wait > WORTH_A_LINE:
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
        """Tell whether a slot is too old to be used: after a stall, many would be used at once."""
        return self._clock.monotonic() - slot.at > max(self._limiter.interval, HORIZON)

    def give_back(self, slot: Slot) -> None:
        """Leave a slot that was not used to the next request of this process."""
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
                # a worker is not held for an hour because an earlier request was told to come back then
                raise _throttled(
                    f"the next slot is in {wait:.0f} s (Apptoto sent Retry-After, or many requests are queued)", wait
                )
            slot = Slot(asked_at + wait)
            if not self.is_late(slot):
                return slot
            # the store took so long that this slot is over: the next one begins after as long a wait
            now = self._clock.monotonic()
            lead = now - asked_at
            if now - began + lead > self._max_wait:
                raise _throttled(f"the store of the rate limit took {lead:.0f} s to answer", lead)


def _throttled(reason: str, retry_after: float) -> ApptotoThrottledError:
    return ApptotoThrottledError(
        f"Nothing was sent. Rate limited: {reason}", reason=f"rate limited: {reason}", retry_after=retry_after
    )
