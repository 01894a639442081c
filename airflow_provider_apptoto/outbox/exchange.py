"""Send one message: the last checks, the ledger write, the request, and the record of its outcome."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_apptoto import metrics
from airflow_provider_apptoto.client.errors import ApptotoError
from airflow_provider_apptoto.client.outcomes import Outcome
from airflow_provider_apptoto.outbox.entry import State
from airflow_provider_apptoto.outbox.guards import WithheldError, capped
from airflow_provider_apptoto.outbox.report import is_no_attempt, outcome_of
from airflow_provider_apptoto.outbox.states import StateOutdatedError
from airflow_provider_apptoto.outbox.stores.base import CapReachedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_provider_apptoto.client import ApptotoClient, Message
    from airflow_provider_apptoto.client.client import SendResult
    from airflow_provider_apptoto.outbox.cancellation import Cancellation
    from airflow_provider_apptoto.outbox.caps import Caps
    from airflow_provider_apptoto.outbox.delivery import Delivery
    from airflow_provider_apptoto.outbox.draft import Draft
    from airflow_provider_apptoto.outbox.guards import Guards
    from airflow_provider_apptoto.outbox.ledger import Attempt
    from airflow_provider_apptoto.outbox.report import Reporter

log = logging.getLogger(__name__)

_MAX_LAPS = 3
"""How often a message waits for a slot and finds that the state of its appointment is too old."""


@dataclass(slots=True, kw_only=True)
class Exchange:
    """One exchange with Apptoto.

    :param attempt: the right to send the message; ``None`` without a ledger.
    :param caps: limits on the messages to each recipient.
    :param check_others: raises :class:`~airflow_provider_apptoto.outbox.ledger.LostError` if the message has an entry
        under another secret.
    :param withhold: returns the delivery of a message that must not be sent after all, or raises.
    :param on_departure: called right before the ledger write; may raise :class:`WithheldError`.
    :param on_attempt: called with the outcome.
    :param sender: ids of the sending task, for a sandbox.
    """

    client: ApptotoClient
    guards: Guards
    report: Reporter
    cancellation: Cancellation
    draft: Draft
    attempt: Attempt | None
    caps: Caps | None
    check_others: Callable[[], None]
    withhold: Callable[[WithheldError], Delivery]
    on_departure: Callable[[Message], None] | None
    on_attempt: Callable[[Outcome], None]
    sender: Mapping[str, str | int] | None
    _written_at: float = field(init=False, default=0.0)
    """When the first byte was written (``time.monotonic``); 0 if none was."""

    def run(self) -> Delivery:
        """Send the message and return its delivery."""
        started = time.monotonic()
        try:
            result = self._send()
        except (WithheldError, CapReachedError) as error:
            return self._withheld(error)
        except ApptotoError as error:
            return self._failed(error, started)
        return self._sent(result, started)

    def _send(self) -> SendResult:
        """Send it, and start over if the state of the appointment gets too old before the first byte."""
        for _ in range(_MAX_LAPS - 1):
            try:
                return self._send_once()
            except StateOutdatedError as error:
                log.info("%s. Reading it again", error)
                if self.attempt is not None and self.attempt.has_begun:
                    self.attempt.record(State.NOT_SENT)  # the lease could end during the waits below
            self.guards.check_state(self.draft, is_departure=False)
        return self._send_once()

    def _send_once(self) -> SendResult:
        return self.client.send(
            self.draft.message,
            prepare=self._prepare,
            before_write=self._before_write,
            last_check=self._last_check,
            sleep=self.cancellation.sleep,
            sender=self.sender,
        )

    def _prepare(self) -> None:
        self.cancellation.check()
        self.guards.check_state(self.draft, is_departure=True)

    def _before_write(self) -> None:
        self.cancellation.check()
        self.guards.depart(self.draft)
        if self.on_departure is not None:
            self.on_departure(self.draft.message)
        # the wait for another slot may have followed the read
        self.guards.check_state(self.draft, is_departure=True, may_read=False)
        if self.attempt is not None:
            self.check_others()
            cap = None if self.caps is None else self.caps.of(self.draft.message)
            self.attempt.begin(self.client.total_timeout, cap)

    def _last_check(self) -> None:
        self.cancellation.check()
        self.guards.check_state(self.draft, is_departure=True, may_read=False)
        if self.attempt is not None:
            self.attempt.check_lease()
        self._written_at = time.monotonic()

    def _sent(self, result: SendResult, started: float) -> Delivery:
        attempt = self.attempt
        if attempt is not None:
            state = State(result.outcome.value)
            attempt.record(state, http_status=result.http_status, response_id=result.response.get("id"))
        if result.outcome is not Outcome.DRY_RUN:
            self._note_request(result.http_status)
            metrics.sent_now(self.report.conn_id)
            self.on_attempt(result.outcome)
        took = time.monotonic() - started
        return self.report.sent(self.draft, result, None if attempt is None else attempt.entry, took)

    def _failed(self, error: ApptotoError, started: float) -> Delivery:
        attempt, is_attempt = self.attempt, not is_no_attempt(error)
        outcome = outcome_of(error)
        if attempt is not None and (is_attempt or attempt.has_begun):
            state = State(outcome.value) if is_attempt else State.NOT_SENT
            attempt.record(state, http_status=error.status, code=error.code, reason=error.reason)
        if not is_attempt:
            raise error
        self._note_request(error.status)
        self.on_attempt(outcome)
        entry, took = (None if attempt is None else attempt.entry), time.monotonic() - started
        return self.report.failed(self.draft, outcome, error, entry, took)

    def _withheld(self, error: WithheldError | CapReachedError) -> Delivery:
        if self.attempt is not None and self.attempt.has_begun:  # an earlier request of this try was refused
            self.attempt.record(State.NOT_SENT)
        return self.withhold(capped(error) if isinstance(error, CapReachedError) else error)

    def _note_request(self, status: int | None) -> None:
        """Emit the duration of the request, if a byte was written."""
        if self._written_at:
            metrics.request_took(time.monotonic() - self._written_at, status, self.report.conn_id)
