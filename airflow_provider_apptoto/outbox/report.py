"""Report the outcome of a message to the caller, the log, and Airflow's metrics."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_apptoto import metrics
from airflow_provider_apptoto.client.answers import describe_status
from airflow_provider_apptoto.client.errors import (
    ApptotoConfigurationError,
    ApptotoError,
    ApptotoRejectedError,
    ApptotoStoppedError,
    ApptotoThrottledError,
    ApptotoUnknownOutcomeError,
    ApptotoValidationError,
)
from airflow_provider_apptoto.client.outcomes import Outcome
from airflow_provider_apptoto.outbox.delivery import Delivery
from airflow_provider_apptoto.outbox.entry import DELIVERED, Entry, State
from airflow_provider_apptoto.outbox.errors import final
from airflow_provider_apptoto.outbox.instructions import how_to_resolve
from airflow_provider_apptoto.outbox.ledger import LeaseSpentError
from airflow_provider_apptoto.outbox.policy import OnUnknown
from airflow_provider_apptoto.outbox.states import StateUnreadError
from airflow_provider_apptoto.outbox.stores.base import LedgerStoreError, RateLimitAwayError

if TYPE_CHECKING:
    from airflow_provider_apptoto.client import ApptotoClient, Message
    from airflow_provider_apptoto.client.client import SendResult
    from airflow_provider_apptoto.outbox.draft import Draft
    from airflow_provider_apptoto.outbox.guards import WithheldError
    from airflow_provider_apptoto.outbox.stores.base import LedgerStore, StoreKind

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporter:
    """Logs and counts the outcome of a message, and returns a delivery or raises an error.

    :param client: estimates segments.
    :param on_unknown: what to do if a message may have been sent.
    :param kind: kind of the ledger store; ``None``: no ledger.
    :param conn_id: the Apptoto connection.
    :param try_number: try number of the task.
    :param log_level: level of log lines about messages that were sent.
    """

    client: ApptotoClient
    on_unknown: OnUnknown
    kind: StoreKind | None
    conn_id: str
    try_number: int | None
    log_level: int

    def sent(self, draft: Draft, result: SendResult, entry: Entry | None, took: float) -> Delivery:
        """Report a message that was just sent, or that was not sent because of ``dry_run``.

        :param took: duration in seconds, waits included.
        """
        message = draft.message
        metrics.message(message.type, result.outcome, self.conn_id)
        if result.outcome is Outcome.DRY_RUN:
            shown = "" if message.redact or message.message is None else f": {message.message!r}"
            line = "%s to %s: dry_run, nothing was sent%s%s"
            log.log(self.log_level, line, message.type, message.target, message.size, shown)
        else:
            _log_attempt(self.log_level, message, result.outcome, result.http_status, took)
        if entry is not None:
            return Delivery.of_entry(result.outcome, message, entry)
        return self._without_entry(
            draft, result.outcome, http_status=result.http_status, sent_at=result.sent_at, response=result.response
        )

    def withheld(self, draft: Draft, why: WithheldError) -> Delivery:
        """Report a message that was withheld or is held."""
        message = draft.message
        metrics.message(message.type, why.outcome, self.conn_id)
        log.log(self.log_level, "%s to %s: %s, not sent: %s", message.type, message.target, why.outcome, why.reason)
        return self._without_entry(draft, why.outcome, reason=why.reason, held_until=why.until, is_aged=why.is_aged)

    def known(self, draft: Draft, found: Entry, *, other_text: bool, is_own: bool = False) -> Delivery:
        """Report a message that was sent earlier, or may have been sent.

        :param other_text: whether the text has changed since.
        :param is_own: whether this try sent it, before it waited.
        """
        message = draft.message
        if found.state not in DELIVERED:
            return self._unknown(draft, found, None)
        if is_own:
            return Delivery.of_entry(Outcome(found.state.value), message, found)
        log.log(
            logging.WARNING if other_text else self.log_level,
            "%s to %s: already sent at %s by try %d of %s%s",
            *(message.type, message.target, found.at, found.origin.try_number, found.origin),
            ". The text has changed since; the new text is not sent" if other_text else "",
        )
        metrics.message(message.type, Outcome.DEDUPLICATED, self.conn_id)
        return Delivery.of_entry(Outcome.DEDUPLICATED, message, found)

    def failed(self, draft: Draft, outcome: Outcome, error: ApptotoError, entry: Entry | None, took: float) -> Delivery:
        """Report an attempt that failed or whose outcome is unknown; raise unless it is assumed sent.

        :param outcome: outcome of the attempt.
        :param took: duration in seconds, waits included.
        """
        message = draft.message
        _log_attempt(logging.WARNING, message, outcome, error.status, took)
        if isinstance(error, ApptotoUnknownOutcomeError):
            return self._unknown(draft, entry, error)
        metrics.message(message.type, outcome, self.conn_id)
        if entry is None or outcome is not Outcome.REJECTED:
            raise error
        advice = "Correct the message, then clear the task to send it"
        raise final(error, f"{error}\n{_about(message, entry)}\n{advice}") from error

    def _unknown(self, draft: Draft, entry: Entry | None, error: ApptotoUnknownOutcomeError | None) -> Delivery:
        """Apply ``on_unknown`` to a message that may have been sent.

        :param entry: the ledger entry, if there is a ledger.
        :param error: the error, if this try sent it.
        """
        message = draft.message
        metrics.message(message.type, Outcome.UNKNOWN, self.conn_id)
        if self.on_unknown is OnUnknown.ASSUME_SENT:
            what = error or "an earlier try may have sent it"
            line = '%s to %s: assumed sent (on_unknown="assume_sent"): %s'
            log.warning(line, message.type, message.target, what)
            if entry is None:
                return self._without_entry(draft, Outcome.ASSUMED_SENT)
            return Delivery.of_entry(Outcome.ASSUMED_SENT, message, entry)
        if entry is None or self.kind is None or self.on_unknown is OnUnknown.RESEND:
            raise error or ApptotoUnknownOutcomeError("The message may have been sent by an earlier try")
        answer = "an earlier try ended while sending it" if entry.state is State.SENDING else entry.answer
        text = (
            f"The message may have been sent: {answer}.\n{_about(message, entry)}\n"
            f"Check in Apptoto whether it was sent; {how_to_resolve(self.kind, self.conn_id, entry.key, entry.origin)}."
        )
        raise ApptotoUnknownOutcomeError(text, status=entry.http_status, reason=entry.reason or answer) from error

    def _without_entry(self, draft: Draft, outcome: Outcome, **fields: Any) -> Delivery:
        return Delivery.without_entry(
            outcome,
            draft.message,
            reference=draft.reference,
            try_number=self.try_number,
            segments=self.client.segments(draft.message),
            **fields,
        )


def show_unresolved(store: LedgerStore, conn_id: str) -> None:
    """Emit the number of ledger entries that may have been sent."""
    try:
        metrics.unresolved(store.unresolved(), conn_id)
    except LedgerStoreError as error:
        log.debug("Could not count the messages that may have been sent: %s", error)


def outcome_of(error: ApptotoError) -> Outcome:
    """Return the outcome of an attempt that raised an error."""
    if isinstance(error, ApptotoUnknownOutcomeError):
        return Outcome.UNKNOWN
    return Outcome.REJECTED if isinstance(error, ApptotoRejectedError) else Outcome.NOT_SENT


def is_no_attempt(error: ApptotoError) -> bool:
    """Return whether no attempt was made: the message failed validation, or sending never started."""
    refused = ApptotoValidationError | ApptotoConfigurationError
    no_turn = ApptotoThrottledError | ApptotoStoppedError | LeaseSpentError | RateLimitAwayError | StateUnreadError
    return isinstance(error, refused | no_turn)


def _log_attempt(level: int, message: Message, outcome: Outcome, status: int | None, took: float) -> None:
    line = "%s to %s: %s, %s, %d ms%s"
    answer = describe_status(status)
    log.log(level, line, message.type, message.target, outcome, answer, took * 1000, message.size)


def _about(message: Message, entry: Entry) -> str:
    """Describe a message in lines short enough for a log page."""
    return (
        f"  {message.type} to {message.target}, reference {entry.reference or 'none'}, at {entry.at}\n"
        f"  try {entry.origin.try_number} of {entry.origin}\n"
        f"  key {entry.key}"
    )
