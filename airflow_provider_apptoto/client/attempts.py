"""The attempts of one request: each in a slot of the rate limit, and repeated while nothing was sent."""

from __future__ import annotations

import dataclasses
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING

from airflow_provider_apptoto.client.answers import describe_status
from airflow_provider_apptoto.client.outcomes import Answer, Outcome
from airflow_provider_apptoto.client.rate_limit import LOGGED_WAIT, SlotQueue
from airflow_provider_apptoto.privacy import remove_frames

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_apptoto.client.rate_limit import Clock, RateLimiter
    from airflow_provider_apptoto.client.retry import RetryPolicy

log = logging.getLogger(__name__)


class Attempts:
    """Makes the attempts of the requests of one client; thread-safe.

    :param limiter: assigns slots to requests.
    :param policy: when a request that was not sent is made again.
    :param max_retry_after: seconds; a longer ``Retry-After`` is reduced to this.
    :param clock: source of time and sleep.
    """

    def __init__(self, limiter: RateLimiter, policy: RetryPolicy, max_retry_after: float, clock: Clock) -> None:
        self._limiter = limiter
        self._policy = policy
        self._max_retry_after = max_retry_after
        self._clock = clock
        self._slots = SlotQueue(limiter, clock, policy.window)

    def make(
        self,
        exchange: Callable[[Callable[[], None]], Answer],
        classify: Callable[[Answer], Outcome],
        sleep: Callable[[float], None] | None = None,
        before_write: Callable[[], None] | None = None,
        last_check: Callable[[], None] | None = None,
        *,
        prepare: Callable[[], None] | None = None,
    ) -> tuple[Outcome, Answer]:
        """Make a request until it has an outcome other than ``not_sent``, or the retry policy ends it.

        :param exchange: makes one attempt; calls its argument right before the first byte.
        :param classify: returns the outcome of an answer.
        :param sleep: function that waits for a number of seconds; ``None``: the clock's. If it raises, nothing is sent.
        :param before_write: called in every attempt, after connecting and before the first byte.
        :param last_check: called right before the first byte.
        :param prepare: called before ``before_write``; may take slots itself.
        """
        sleep = sleep or self._clock.sleep
        deadline = self._clock.monotonic() + self._policy.window
        attempt = 0
        while True:
            attempt += 1
            answer = self._with_bounded_wait(self._attempt(exchange, sleep, prepare, before_write, last_check))
            outcome = classify(answer)
            if outcome is not Outcome.NOT_SENT:
                return outcome, answer
            wait = answer.retry_after
            if wait is None:
                wait = self._policy.pause(attempt)
            if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
                self._limiter.back_off(wait)
            if attempt == self._policy.max_attempts or self._clock.monotonic() + wait > deadline:
                return outcome, answer
            if wait > LOGGED_WAIT:
                status = describe_status(answer.status)
                log.info("Not sent (%s); attempt %d starts in %.0f s", status, attempt + 1, wait)
            sleep(wait)

    def _attempt(
        self,
        exchange: Callable[[Callable[[], None]], Answer],
        sleep: Callable[[float], None],
        prepare: Callable[[], None] | None,
        before_write: Callable[[], None] | None,
        last_check: Callable[[], None] | None,
    ) -> Answer:
        """Make one request in its own slot. If nothing was written, the next request gets the slot."""
        slot = self._slots.take(sleep)

        def begin() -> None:
            nonlocal slot
            # the wait for another slot must not follow the ledger write if it can precede it: it uses up the lease
            for step in (prepare, before_write):
                if step is not None:
                    step()
                while self._slots.is_late(slot):
                    slot = self._slots.take(sleep)
            if last_check is not None:
                last_check()

        try:
            answer = exchange(begin)
        except BaseException as error:
            self._slots.give_back(slot)
            # the frames below hold the body and the headers of the request
            remove_frames(error)
            raise
        if not answer.written:
            self._slots.give_back(slot)
        return answer

    def _with_bounded_wait(self, answer: Answer) -> Answer:
        """Limit ``Retry-After`` to ``max_retry_after``: one refusal must not stop all messages for a day."""
        if answer.retry_after is None or answer.retry_after <= self._max_retry_after:
            return answer
        log.warning(
            "Apptoto sent Retry-After: %.0f s; waiting %.0f s instead (max_retry_after)",
            answer.retry_after,
            self._max_retry_after,
        )
        return dataclasses.replace(answer, retry_after=self._max_retry_after)
