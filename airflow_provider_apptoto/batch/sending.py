"""Send the messages of a batch concurrently, until they are done or something stops the batch."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from http import HTTPStatus
from typing import TYPE_CHECKING

from airflow_provider_apptoto.client.errors import (
    ApptotoNotSentError,
    ApptotoRejectedError,
    ApptotoStoppedError,
    ApptotoThrottledError,
    ApptotoUnknownOutcomeError,
)
from airflow_provider_apptoto.client.outcomes import Outcome
from airflow_provider_apptoto.outbox.cancellation import Cancellation
from airflow_provider_apptoto.outbox.stores.base import LedgerStoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from airflow_provider_apptoto.batch.options import BatchOptions
    from airflow_provider_apptoto.batch.plan import PlannedMessage
    from airflow_provider_apptoto.batch.results import BatchResults
    from airflow_provider_apptoto.outbox.delivery import Delivery
    from airflow_provider_apptoto.outbox.outbox import Outbox

PROGRESS_SECONDS = 5.0
MAX_WAIT = 150.0
"""Longest wait for a slot, in seconds, before the batch leaves a message to the next try."""
LOOK_AHEAD = 100
"""Number of messages whose ledger entries are looked up at once."""
ACCOUNT_REFUSED = {HTTPStatus.UNAUTHORIZED, HTTPStatus.PAYMENT_REQUIRED, HTTPStatus.FORBIDDEN}
"""Statuses that refuse the account, so every message would get the same. (402 is assumed: no credits.)"""


class Sender:
    """Sends the messages of a batch.

    :param messages: the messages, in the order in which they are sent.
    :param outbox: sends each message.
    :param results: counts the outcomes.
    :param options: at most ``concurrency`` messages are in flight at once. Sending stops after
        ``max_consecutive_failures`` messages in a row that were not sent or have an unknown outcome.
    """

    def __init__(
        self, messages: Sequence[PlannedMessage], outbox: Outbox, results: BatchResults, options: BatchOptions
    ) -> None:
        self.messages = messages
        self._parent = outbox.cancellation
        self._stop = Cancellation(outbox.cancellation)
        self._outbox = dataclasses.replace(outbox, cancellation=self._stop, on_attempt=self._on_attempt)
        self._results = results
        self._options = options
        self._lock = threading.Lock()
        self._next = 0
        self._in_a_row = 0
        self._is_over = False
        """Whether workers must stop without checking the ledger."""
        self.retry_after: float | None = None
        """Seconds after which the server asked for the next request."""
        self.held_until: datetime | None = None
        """When the first held message may be sent."""
        self.too_old = ""
        """Why messages were withheld because of the age of the run; empty if none was."""

    @property
    def stopped(self) -> str:
        """Why sending stopped; empty if it did not."""
        return self._stop.reason

    @property
    def was_begun(self) -> bool:
        """Whether an earlier try of this task started sending."""
        return self._outbox.was_begun

    def send(self, progress: Callable[[], None]) -> None:
        """Send the messages. Requests in flight are always awaited, and the remaining messages are counted.

        If sending stops because of failures, the remaining messages are still looked up in the ledger, because an
        earlier try may have sent them.

        :param progress: called every few seconds.
        """
        count = self._options.concurrency
        try:
            with ThreadPoolExecutor(count, thread_name_prefix="apptoto") as pool:
                try:
                    # Airflow's loggers find the task in the context
                    working = [pool.submit(contextvars.copy_context().run, self._work) for _ in range(count)]
                    while wait(working, PROGRESS_SECONDS).not_done:
                        progress()
                    for worker in working:
                        worker.result()
                except BaseException:
                    # Airflow raises a task timeout here, and on 2.11 also SIGTERM
                    self._end("the task was interrupted")
                    raise
        finally:
            self._results.add_untried(self.messages[self._next :], self.stopped)

    def _work(self) -> None:
        try:
            while (message := self._take()) is not None:
                self._send(message)
        except BaseException:
            self._end("an unexpected error occurred")
            raise

    def _take(self) -> PlannedMessage | None:
        with self._lock:
            is_over = self._stop.reason and (
                self._is_over or bool(self._parent.reason) or not self._outbox.may_have_entries
            )
            if is_over or self._next == len(self.messages):
                return None
            if self._next % LOOK_AHEAD == 0:
                ahead = self.messages[self._next : self._next + LOOK_AHEAD]
                with contextlib.suppress(LedgerStoreError, ApptotoStoppedError):  # the send of each message reports it
                    self._outbox.look_ahead([message.key for message in ahead])
            self._next += 1
            return self.messages[self._next - 1]

    def _send(self, message: PlannedMessage) -> None:
        try:
            delivery = self._send_in_turn(message)
        except ApptotoStoppedError as error:
            self._results.add_untried([message], error.reason)
        except ApptotoNotSentError as error:
            if error.code == Outcome.TOO_OLD:
                self.too_old = error.reason
                self._results.add(message, Outcome.TOO_OLD)
                return
            if error.retry_after is not None:
                self.retry_after = max(self.retry_after or 0.0, error.retry_after)
            self._count_failure()
            self._results.add(message, Outcome.NOT_SENT, error)
        except ApptotoRejectedError as error:
            is_account = error.status in ACCOUNT_REFUSED
            if is_account:
                self._stop.cancel(f"Apptoto rejected the account: HTTP {error.status}")
            self._results.add(message, Outcome.NOT_SENT if is_account else Outcome.REJECTED, error)
        except ApptotoUnknownOutcomeError as error:
            self._results.add(message, Outcome.UNKNOWN, error)
        else:
            self._note_withheld(delivery)
            self._results.add(message, delivery.outcome, held_until=delivery.held_until)

    def _note_withheld(self, delivery: Delivery) -> None:
        with self._lock:
            if delivery.held_until is not None:
                self.held_until = min(self.held_until or delivery.held_until, delivery.held_until)
            if delivery.is_aged:
                self.too_old = delivery.reason

    def _send_in_turn(self, planned: PlannedMessage) -> Delivery:
        """Send a message. A batch waits longer for a slot than the client does."""
        while True:
            try:
                return self._outbox.send(
                    planned.message,
                    item=planned.item,
                    reference=planned.reference,
                    labels=planned.labels,
                    recipient_timezone=planned.timezone,
                    not_after=planned.not_after,
                    of_event=planned.event_id,
                    start_time=planned.start_time,
                )
            except ApptotoThrottledError as error:
                if error.retry_after is None or error.retry_after > MAX_WAIT:
                    raise
                self._stop.sleep(error.retry_after)

    def _on_attempt(self, outcome: Outcome) -> None:
        """Count consecutive failures. This sees each attempt, even if its outcome is then assumed."""
        if outcome is Outcome.UNKNOWN:
            self._count_failure()
        elif outcome is not Outcome.NOT_SENT:
            with self._lock:
                self._in_a_row = 0

    def _count_failure(self) -> None:
        with self._lock:
            self._in_a_row += 1
            if self._in_a_row >= self._options.max_consecutive_failures:
                self._stop.cancel(f"{self._in_a_row} messages in a row were not sent or have an unknown outcome")

    def _end(self, reason: str) -> None:
        self._is_over = True
        self._stop.cancel(reason)
