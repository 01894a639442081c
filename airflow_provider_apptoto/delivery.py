"""The one road of a message from a task to Apptoto: guard, claim, send, record."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, AirflowSkipException

from airflow_provider_apptoto import metrics
from airflow_provider_apptoto.client.errors import (
    ApptotoConfigurationError,
    ApptotoError,
    ApptotoNotSentError,
    ApptotoRejectedError,
    ApptotoUnknownOutcomeError,
)
from airflow_provider_apptoto.client.routing import DeliveryMode
from airflow_provider_apptoto.privacy import LONGEST_LINE, is_one_line, remove_frames, reveal
from airflow_provider_apptoto.state.ledger import (
    Claim,
    LedgerTiming,
    TakenOverError,
    claim,
    fingerprint,
    message_key,
)
from airflow_provider_apptoto.state.store import Entry, LedgerAwayError, LedgerStoreError, Origin, State

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_provider_apptoto.client import ApptotoClient, Message
    from airflow_provider_apptoto.hooks.apptoto import ApptotoHook
    from airflow_provider_apptoto.state.store import LedgerStore

log = logging.getLogger(__name__)

T = TypeVar("T")

DEDUPLICATED = "deduplicated"
ASSUMED_SENT = "assumed_sent"
STOP_POLL = 0.2
"""Seconds within which a wait ends once sending was stopped."""
_STATES = {
    ApptotoNotSentError: State.NOT_SENT,
    ApptotoRejectedError: State.REJECTED,
    ApptotoUnknownOutcomeError: State.UNKNOWN,
}


class OnUnknown(StrEnum):
    """What to do with a message of which nobody can tell whether it was sent."""

    FAIL = "fail"
    RESEND = "resend"
    ASSUME_SENT = "assume_sent"


def _nothing(*_: object) -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """On whose behalf messages are sent, and what has to be kept to.

    :param origin: the try of the task.
    :param store: where the ledger is kept; ``None``: nowhere.
    :param idempotency_key: the occasion of the message, by the user's own name for it.
    :param item: which of the occasion's messages it is, by the user's own name for it.
    :param reference: the user's own id of the thing.
    :param on_unknown: what to do where nobody can tell.
    :param why_too_old: why the run is too old for anything to be sent, if it is.
    :param is_retry: whether an earlier try of the task failed.
    :param why_stop: why nothing more may be sent, if that is so.
    :param ended: called with what became of each attempt to send.
    :param timing: how long the ledger waits.
    :param log_level: of the lines that say that a message was sent, or had been.
    """

    origin: Origin
    store: LedgerStore | None = None
    idempotency_key: str | None = None
    item: str | None = None
    reference: str | None = None
    on_unknown: str = OnUnknown.FAIL
    why_too_old: Callable[[], str] = str
    is_retry: bool = False
    why_stop: Callable[[], str] = str
    ended: Callable[[State], None] = _nothing
    timing: LedgerTiming = field(default_factory=LedgerTiming)
    log_level: int = logging.INFO

    def __post_init__(self) -> None:
        """Check what the user gave.

        :raises ApptotoConfigurationError: names what is allowed.
        """
        if self.on_unknown not in set(OnUnknown):
            raise ApptotoConfigurationError("on_unknown", f"{self.on_unknown!r} is not one of {', '.join(OnUnknown)}")
        if self.reference is not None and not is_one_line(self.reference):
            msg = f"has to be one line of text, 1 to {LONGEST_LINE} characters"
            raise ApptotoConfigurationError("reference", msg)
        if self.idempotency_key is None:
            return
        if not self.idempotency_key.strip():
            raise ApptotoConfigurationError("idempotency_key", "is blank; name the occasion, or leave it out")
        if self.store is None or not self.store.spans_tasks:
            msg = "needs the state database, which other tasks and runs see: set state_conn_id on the connection"
            raise ApptotoConfigurationError("idempotency_key", msg)

    def check_stop(self) -> None:
        """Let nothing more leave once sending was stopped.

        :raises ApptotoNotSentError: it was.
        """
        if reason := self.why_stop():
            raise ApptotoNotSentError(f"the message was not sent: {reason}", reason=reason)

    def check_age(self, found: Entry | None) -> None:
        """Let nothing leave where the run is too old.

        :param found: what the ledger says of the message.
        :raises TooOldError: it is too old.
        """
        if reason := self.why_too_old():
            was_tried = found is not None and found.origin.task == self.origin.task
            raise TooOldError(reason, was_tried=was_tried or self.is_retry)

    def sleep(self, seconds: float) -> None:
        """Wait, until sending is stopped at the longest.

        :raises ApptotoNotSentError: it was.
        """
        until = time.monotonic() + seconds
        self.check_stop()
        while (remaining := until - time.monotonic()) > 0:
            time.sleep(min(remaining, STOP_POLL))
            self.check_stop()


class TooOldError(Exception):
    """The run is too old for what is left to send.

    :param reason: says so.
    :param was_tried: whether an earlier try was to send it, and did not.
    """

    def __init__(self, reason: str, *, was_tried: bool) -> None:
        super().__init__(reason)
        self.was_tried = was_tried

    def ending(self, what: str, *, was_tried: bool = False) -> AirflowException:
        """Return how the task ends: skipped, but not where that would hide that a try could not send.

        :param what: is not sent, with its verb.
        :param was_tried: whether it is known from elsewhere.
        """
        advice = "To send it all the same, give the task max_age=None, or a longer one, and clear it"
        if self.was_tried or was_tried:
            return AirflowFailException(
                f"Failed, {what} not sent: an earlier try began, and by now {self}. A skip would hide that. {advice}"
            )
        return AirflowSkipException(f"Skipped, {what} not sent: {self}. {advice}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What became of a message.

    :param outcome: ``sent``, ``deduplicated`` (an earlier try or task had sent it), ``assumed_sent``, ``redirected`` or
        ``dry_run``.
    :param key: its key in the ledger, or ``None``.
    :param sent_at: when it was sent (ISO 8601, UTC), or when a person said that it had been.
    :param origin: the try that sent it.
    """

    outcome: str
    type: str
    target: str
    origin: Origin
    key: str | None = None
    http_status: int | None = None
    sent_at: str | None = None
    response: Mapping[str, Any] = field(default_factory=dict)


def deliver(fields: Mapping[str, Any], hook: ApptotoHook, scope: Scope) -> Delivery:
    """Check one message, send it unless it was sent, and end the task as is right for what became of it.

    What was certainly not sent raises as it is, and Airflow may try again. What was refused would be again, and what
    may have been sent must not be sent twice: both fail the task at once, whatever its ``retries``.

    Tracebacks end here: the frames below hold recipient and text, and some log handlers print what frames hold.

    :param fields: the parameters of :class:`~airflow_provider_apptoto.client.Message`, hidden or not.
    :param hook: sends it.
    :raises ApptotoNotSentError: certainly not sent.
    :raises ApptotoUnknownOutcomeError: it may have been sent, and ``on_unknown`` is ``resend``.
    :raises AirflowFailException: refused, or it may have been sent; its cause is the error of the client. Or the run is
        too old by now, and an earlier try began to send.
    :raises AirflowSkipException: the run is too old, and no try began.
    """
    try:
        message = hook.build_message(**{name: reveal(value) for name, value in fields.items()})
        delivery = send_once(message, hook.get_conn(), scope)
    except (ApptotoRejectedError, ApptotoUnknownOutcomeError) as error:
        remove_frames(error)
        if isinstance(error, ApptotoUnknownOutcomeError):
            show_unresolved(scope)
            if scope.on_unknown == OnUnknown.RESEND:
                raise
        raise AirflowFailException(str(error)) from error
    except TooOldError as error:
        remove_frames(error)
        raise error.ending("the message is") from None
    except BaseException as error:  # the task's timeout too
        remove_frames(error)
        raise
    if delivery.outcome == ASSUMED_SENT:
        show_unresolved(scope)
    return delivery


def show_unresolved(scope: Scope) -> None:
    """Let metrics show how many messages wait for a person; counted once a task, for it may take a scan."""
    if scope.store is not None:
        with contextlib.suppress(LedgerStoreError):
            metrics.unresolved(scope.store.unresolved())


def send_once(message: Message, client: ApptotoClient, scope: Scope) -> Delivery:
    """Send a message unless it was sent, and remember it: the one road that all messages take.

    :raises ApptotoNotSentError: certainly not sent.
    :raises ApptotoRejectedError: refused.
    :raises ApptotoUnknownOutcomeError: it may have been sent, now or by an earlier try.
    :raises TooOldError: the run is too old.
    """
    unsent: set[str] = set()
    try:
        return patiently(scope, lambda: _send_once(message, client, scope, unsent))
    except LedgerStoreError as error:
        msg = f"Nothing is sent now: {error}. A message is not sent without its ledger, so that it can't be sent twice"
        raise ApptotoNotSentError(msg, reason=str(error)) from None


def patiently(scope: Scope, call: Callable[[], T]) -> T:
    """Do what needs the ledger, again where it can't be reached for some seconds.

    :param call: sends nothing where it raises :class:`LedgerStoreError`.
    :raises LedgerStoreError: it can't be used, or not be reached for longer than the ledger's timing allows.
    """
    away_since = last = -math.inf
    while True:
        try:
            return call()
        except LedgerAwayError as error:
            now = time.monotonic()
            if now - last > scope.timing.patience:  # it was there meanwhile
                away_since = now
                line = "The ledger can't be reached: waiting up to %.0f s, and sending nothing meanwhile (%s)"
                log.warning(line, scope.timing.patience, error)
            if now - away_since >= scope.timing.patience:
                raise
            last = now
        scope.sleep(scope.timing.poll)


def _send_once(message: Message, client: ApptotoClient, scope: Scope, unsent: set[str]) -> Delivery:
    if scope.store is None or client.mode is DeliveryMode.DRY_RUN:
        scope.check_age(None)
        return _send(message, client, scope, None)

    def before_claim(found: Entry | None) -> None:
        scope.check_age(found)
        scope.check_stop()

    while True:
        entry = _new_entry(message, client, scope, _hash_key(message, client, scope, scope.store))
        resend = scope.on_unknown == OnUnknown.RESEND
        claimed = claim(
            scope.store,
            entry,
            resend=resend,
            before_claim=before_claim,
            sleep=scope.sleep,
            timing=scope.timing,
            unsent=unsent,
        )
        if isinstance(claimed, Entry):
            return _settled(message, scope, claimed, other_text=claimed.fingerprint != entry.fingerprint)
        try:
            return _send(message, client, scope, claimed)
        except TakenOverError:
            log.info("Another try took message %s over while this one waited: looking what became of it", entry.key)


def _hash_key(message: Message, client: ApptotoClient, scope: Scope, store: LedgerStore) -> bytes:
    """Return what a message's hashes are keyed with: an older secret where its entry was made under that."""
    newest, *older = store.hash_keys()
    return next((key for key in older if store.find(key_of(message, client, scope, key)) is not None), newest)


def key_of(message: Message, client: ApptotoClient, scope: Scope, hash_key: bytes) -> str:
    """Return a message's key in the ledger.

    :param hash_key: one of the store's.
    """
    return message_key(
        hash_key,
        message,
        account=client.account,
        mode=client.mode,
        origin=scope.origin,
        idempotency_key=scope.idempotency_key,
        item=scope.item,
    )


def _new_entry(message: Message, client: ApptotoClient, scope: Scope, hash_key: bytes) -> Entry:
    return Entry(
        key=key_of(message, client, scope, hash_key),
        fingerprint=fingerprint(hash_key, message),
        type=message.type,
        origin=scope.origin,
        reference=scope.reference,
        state=State.CLAIMED,
        lease=scope.timing.claim_lease,
    )


def _send(message: Message, client: ApptotoClient, scope: Scope, claimed: Claim | None) -> Delivery:
    """Send a message that is this try's to send, and write down how it ended."""
    written_at: list[float] = []

    def before_write() -> None:
        scope.check_stop()
        if claimed is not None:
            claimed.sending(client.total_timeout)
        written_at.append(time.monotonic())

    try:
        result = client.send(message, before_write, sleep=scope.sleep, log_level=scope.log_level)
    except ApptotoError as error:
        state = next((state for kind, state in _STATES.items() if isinstance(error, kind)), None)
        if state is None:
            raise
        _note_end(written_at, claimed, state, error.status, error.reason)
        scope.ended(state)
        if isinstance(error, ApptotoUnknownOutcomeError):
            return _unresolved(message, scope, None if claimed is None else claimed.entry, error)
        metrics.message(message.type, state)
        if claimed is None or state is not State.REJECTED or error.status is None:
            raise
        text = (
            f"{error}\n{_about(message, claimed.entry)}\nCorrect what was refused, then clear the task: it sends again"
        )
        raise type(error)(text, status=error.status, reason=error.reason) from None
    _note_end(written_at, claimed, State.SENT, result.http_status, "")
    scope.ended(State.SENT)
    metrics.message(message.type, result.outcome)
    return Delivery(
        outcome=str(result.outcome),
        type=result.type,
        target=result.target,
        key=None if claimed is None else claimed.entry.key,
        http_status=result.http_status,
        sent_at=None if result.sent_at is None else result.sent_at.to_iso8601_string(),
        origin=scope.origin,
        response=dict(result.response),
    )


def _note_end(written_at: list[float], claimed: Claim | None, state: State, status: int | None, reason: str) -> None:
    took = time.monotonic() - written_at[-1] if written_at else None
    if claimed is not None:
        claimed.record(state, http_status=status, reason=reason)
    if took is not None:
        metrics.request_took(took, status)


def _settled(message: Message, scope: Scope, found: Entry, *, other_text: bool) -> Delivery:
    """Say what becomes of a message that was sent before, or may have been."""
    if found.state is not State.SENT:
        return _unresolved(message, scope, found, None)
    log.log(
        logging.WARNING if other_text else scope.log_level,
        "%s to %s: already sent at %s by try %d of %s%s",
        *(message.type, message.target, found.at, found.origin.try_number, found.origin),
        ". The text has changed since then, and the new one is not sent" if other_text else "",
    )
    metrics.message(message.type, DEDUPLICATED)
    return _known_before(message, found, scope, DEDUPLICATED)


def _unresolved(
    message: Message, scope: Scope, entry: Entry | None, error: ApptotoUnknownOutcomeError | None
) -> Delivery:
    """Do what ``on_unknown`` says of a message of which nobody can tell whether it was sent.

    :param entry: its entry in the ledger, if there is a ledger.
    :param error: what went wrong, if it went wrong just now.
    """
    metrics.message(message.type, State.UNKNOWN)
    if scope.on_unknown == OnUnknown.ASSUME_SENT:
        what = error or "nobody can tell whether an earlier try sent it"
        log.warning("%s to %s: taken for sent, as on_unknown says: %s", message.type, message.target, what)
        return _known_before(message, entry, scope, ASSUMED_SENT)
    if entry is None or scope.store is None or scope.on_unknown == OnUnknown.RESEND:
        raise error or ApptotoUnknownOutcomeError("it is not known whether the message was sent")
    answer = "the try ended while it sent" if entry.state is State.SENDING else entry.answer
    text = (
        f"it is not known whether this message was sent: {answer}.\n{_about(message, entry)}\n"
        f"Check in Apptoto whether the message was sent; {scope.store.how_to_resolve(entry.key)}."
    )
    raise ApptotoUnknownOutcomeError(text, status=entry.http_status, reason=entry.reason or answer) from error


def _about(message: Message, entry: Entry) -> str:
    """Name a message, in lines that a log page shows whole."""
    return (
        f"  {message.type} to {message.target}, reference {entry.reference or 'none'}, at {entry.at}\n"
        f"  try {entry.origin.try_number} of {entry.origin}\n"
        f"  key {entry.key}"
    )


def _known_before(message: Message, entry: Entry | None, scope: Scope, outcome: str) -> Delivery:
    """Return a success that nothing was sent for, just now."""
    return Delivery(
        outcome=outcome,
        type=message.type,
        target=message.target,
        key=entry.key if entry else None,
        http_status=entry.http_status if entry else None,
        sent_at=entry.at if entry else None,
        origin=entry.origin if entry else scope.origin,
    )
