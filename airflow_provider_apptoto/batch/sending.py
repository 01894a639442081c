"""The sending of a batch: several messages under way at once, and when to stop."""

from __future__ import annotations

import contextvars
import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from http import HTTPStatus
from typing import TYPE_CHECKING

from airflow_provider_apptoto.client.errors import (
    ApptotoError,
    ApptotoNotSentError,
    ApptotoRejectedError,
    ApptotoUnknownOutcomeError,
)
from airflow_provider_apptoto.delivery import DEDUPLICATED, TooOldError, send_once
from airflow_provider_apptoto.state.store import State

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow_provider_apptoto.batch.plan import PlannedMessage
    from airflow_provider_apptoto.batch.report import Tally
    from airflow_provider_apptoto.client import ApptotoClient
    from airflow_provider_apptoto.delivery import Delivery, Scope

PROGRESS_SECONDS = 5.0
PATIENCE = 150.0
"""Seconds that a message's turn may be away, without the batch being left to the next try."""
ACCOUNT_REFUSED = {HTTPStatus.UNAUTHORIZED, HTTPStatus.PAYMENT_REQUIRED, HTTPStatus.FORBIDDEN}
"""Refusals that are not of a message: the next one would meet the same. (402 is assumed: no credits.)"""


class Sender:
    """Sends the messages of a batch.

    :param messages: in this order.
    :param scope: on whose behalf; what is a message's own is filled in.
    :param tally: counts what becomes of them.
    :param concurrency: how many may be under way at once.
    :param stop_after_unknown: how many messages in a row may not be sent, or go without an answer.
    """

    def __init__(
        self,
        messages: Sequence[PlannedMessage],
        client: ApptotoClient,
        scope: Scope,
        tally: Tally,
        *,
        concurrency: int,
        stop_after_unknown: int,
    ) -> None:
        self.messages = messages
        self._client = client
        self._told_to_end = scope.why_stop
        self._scope = dataclasses.replace(scope, why_stop=self._why_stop, ended=self._ended)
        # a store of this task alone holds nothing of what is left when its first try stops
        self._may_be_sent_before = scope.store is not None and (scope.store.spans_tasks or scope.origin.try_number > 1)
        self._tally = tally
        self._concurrency = concurrency
        self._stop_after_unknown = stop_after_unknown
        self._lock = threading.Lock()
        self._next = 0
        self._in_a_row = 0
        self._is_over = False
        """Whether not even the ledger is to be looked into any more."""
        self.stopped = ""
        """Why nothing more is sent, if that is so."""
        self.retry_after: float | None = None
        """Seconds after which the server asked to be tried again."""
        self.too_old: TooOldError | None = None
        """Why nothing of what is left is to be sent, where the run is too old."""
        self.was_begun = scope.is_retry
        """Whether an earlier try of this task began to send."""

    def send(self, progress: Callable[[], None]) -> None:
        """Send them. Whatever happens, those under way are waited for, and all that is left is counted.

        When it stops by itself, what is left is still looked for in the ledger: what an earlier try sent was sent.

        :param progress: called every few seconds.
        """
        try:
            with ThreadPoolExecutor(self._concurrency, thread_name_prefix="apptoto") as pool:
                try:
                    # the context tells Airflow's loggers which task this is
                    working = [
                        pool.submit(contextvars.copy_context().run, self._work) for _ in range(self._concurrency)
                    ]
                    while wait(working, PROGRESS_SECONDS).not_done:
                        progress()
                    for worker in working:
                        worker.result()
                except BaseException:
                    # a task timeout strikes here, and 2.11's SIGTERM
                    self._stop("the task was interrupted", at_once=True)
                    raise
        finally:
            self._tally.add_untried(self.messages[self._next :], self._why_stop())

    def _work(self) -> None:
        try:
            while (message := self._take()) is not None:
                self._send(message)
        except BaseException:
            self._stop("something unexpected happened", at_once=True)
            raise

    def _take(self) -> PlannedMessage | None:
        with self._lock:
            is_over = self._why_stop() and (self._is_over or not self._may_be_sent_before)
            if is_over or self._next == len(self.messages):
                return None
            self._next += 1
            return self.messages[self._next - 1]

    def _send(self, message: PlannedMessage) -> None:
        scope = dataclasses.replace(self._scope, item=message.item, reference=message.reference)
        try:
            delivery = self._send_in_turn(message, scope)
        except TooOldError as error:
            self.too_old = error
            self.was_begun |= error.was_tried
            self._tally.add_untried([message], "the run is older than max_age")
        except ApptotoNotSentError as error:
            if self.stopped and error.reason == self.stopped:
                self._tally.add_untried([message], self.stopped)
                return
            if error.retry_after is not None:
                self.retry_after = max(self.retry_after or 0.0, error.retry_after)
            self._count_unanswered()
            self._fail(message, State.NOT_SENT, error)
        except ApptotoRejectedError as error:
            if error.status in ACCOUNT_REFUSED:
                self._stop(f"Apptoto refused the account: HTTP {error.status}")
            self._fail(message, State.NOT_SENT if error.status in ACCOUNT_REFUSED else State.REJECTED, error)
        except ApptotoUnknownOutcomeError as error:
            self._fail(message, State.UNKNOWN, error)
        else:
            self.was_begun |= delivery.outcome == DEDUPLICATED and delivery.origin.task == scope.origin.task
            self._tally.add(message, delivery.outcome)

    def _send_in_turn(self, message: PlannedMessage, scope: Scope) -> Delivery:
        """Send a message, also where its turn is further away than the client waits for: a batch has time."""
        while True:
            try:
                return send_once(message.message, self._client, scope)
            except ApptotoNotSentError as error:
                # an answer has a status; without one, it is the pace that says when
                if error.status is not None or error.retry_after is None or error.retry_after > PATIENCE:
                    raise
                scope.sleep(error.retry_after)

    def _fail(self, message: PlannedMessage, outcome: State, error: ApptotoError) -> None:
        self._tally.add(message, outcome, status=error.status, reason=error.reason)

    def _ended(self, state: State) -> None:
        """Look at what became of an attempt to send, whether it then counts as sent or not."""
        if state is State.UNKNOWN:
            self._count_unanswered()
        elif state is not State.NOT_SENT:
            with self._lock:
                self._in_a_row = 0

    def _count_unanswered(self) -> None:
        with self._lock:
            self._in_a_row += 1
            if self._in_a_row >= self._stop_after_unknown:
                self._stop(f"{self._in_a_row} messages in a row could not be sent, or got no answer that tells")

    def _stop(self, reason: str, *, at_once: bool = False) -> None:
        self.stopped = self.stopped or reason
        self._is_over = self._is_over or at_once

    def _why_stop(self) -> str:
        if reason := self._told_to_end():
            self._stop(reason, at_once=True)
        return self.stopped
