"""Send a message at most once: look up, check, send, record."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_apptoto.client.errors import (
    ApptotoConfigurationError,
    ApptotoError,
    ApptotoNotSentError,
    ApptotoRejectedError,
    ApptotoUnknownOutcomeError,
    ApptotoValidationError,
)
from airflow_provider_apptoto.client.outcomes import Outcome
from airflow_provider_apptoto.client.routing import DeliveryMode
from airflow_provider_apptoto.outbox.cancellation import Cancellation
from airflow_provider_apptoto.outbox.draft import draft_of, take_event
from airflow_provider_apptoto.outbox.entry import Entry, State
from airflow_provider_apptoto.outbox.errors import final
from airflow_provider_apptoto.outbox.exchange import Exchange
from airflow_provider_apptoto.outbox.guards import Guards, WithheldError, capped
from airflow_provider_apptoto.outbox.identity import NO_LEDGER, Identity
from airflow_provider_apptoto.outbox.ledger import (
    Attempt,
    LeaseSpentError,
    LedgerTiming,
    LostError,
    look_up,
    patiently,
)
from airflow_provider_apptoto.outbox.origin import NO_ORIGIN, Origin
from airflow_provider_apptoto.outbox.policy import OnUnknown, SendPolicy
from airflow_provider_apptoto.outbox.report import Reporter, show_unresolved
from airflow_provider_apptoto.outbox.settling import Settler
from airflow_provider_apptoto.outbox.stores.base import CapReachedError, LedgerStoreError, RateLimitAwayError
from airflow_provider_apptoto.privacy import remove_frames, unwrap

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from datetime import datetime

    from airflow_provider_apptoto.client import ApptotoClient, Message
    from airflow_provider_apptoto.outbox.delivery import Delivery
    from airflow_provider_apptoto.outbox.draft import Draft
    from airflow_provider_apptoto.outbox.stores.base import LedgerStore

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class Outbox:
    """Sends the messages of one task or callback; thread-safe.

    Create it with :meth:`~airflow_provider_apptoto.hooks.apptoto.ApptotoHook.outbox`.

    :param client: the HTTP client.
    :param build: creates a validated message from its fields.
    :param policy: how to send.
    :param origin: the task or callback that sends; ``None`` outside Airflow.
    :param store: storage of the ledger; ``None``: no ledger.
    :param conn_id: the Apptoto connection.
    :param guards: who may be messaged, and when.
    :param on_departure: called right before the ledger write of each message; may raise :class:`WithheldError`.
    :param is_retry: whether an earlier try of the task failed.
    :param is_resumed: whether this try continues after a wait, so that its own earlier outcomes stand.
    :param cancellation: cancels sends.
    :param timing: timing of the ledger.
    :param log_level: level of log lines about messages that were sent, now or earlier.
    :param on_attempt: called with the outcome of each attempt to send.
    :param texts: fingerprints of the messages without ``item`` that this try processed, by key.
    """

    client: ApptotoClient
    build: Callable[..., Message]
    policy: SendPolicy = field(default_factory=SendPolicy)
    origin: Origin | None = None
    store: LedgerStore | None = None
    conn_id: str = ""
    guards: Guards = field(default_factory=Guards)
    on_departure: Callable[[Message], None] | None = None
    is_retry: bool = False
    is_resumed: bool = False
    cancellation: Cancellation = field(default_factory=Cancellation)
    timing: LedgerTiming = field(default_factory=LedgerTiming)
    log_level: int = logging.INFO
    on_attempt: Callable[[Outcome], None] | None = None
    texts: dict[str, str] = field(default_factory=dict)
    was_begun: bool = field(init=False)
    """Whether an earlier try of the task is known to have started."""
    _identity: Identity = field(init=False)
    _report: Reporter = field(init=False)
    _looked_up: dict[str, Entry | None] = field(init=False, default_factory=dict)
    _settler: Settler = field(init=False)

    def __post_init__(self) -> None:
        """Derive the remaining attributes."""
        self.was_begun = self.is_retry
        self._settler = Settler(self.client)
        self._identity = Identity(self.client, self.policy, self.origin or NO_ORIGIN)
        self._report = Reporter(
            client=self.client,
            on_unknown=OnUnknown(self.policy.on_unknown),
            kind=None if self.store is None else self.store.kind,
            conn_id=self.conn_id,
            try_number=None if self.origin is None else self.origin.try_number,
            log_level=self.log_level,
        )

    def send(
        self,
        checked: Message | None = None,
        /,
        *,
        item: str | None = None,
        reference: str | None = None,
        labels: Mapping[str, str] | None = None,
        recipient_timezone: str | None = None,
        not_after: datetime | str | None = None,
        of_event: int | None = None,
        start_time: datetime | None = None,
        **fields: Any,
    ) -> Delivery:
        """Send one message, unless it was already sent, and return its delivery.

        :param checked: the message; by default it is built from ``fields``.
        :param item: identifies the message within the occasion; by default channel and recipient do.
        :param reference: your own id, such as an appointment id, stored in clear; one line of up to 200 characters.
        :param labels: at most four names and values for grouping in reports, stored in clear: clinic, campaign.
        :param recipient_timezone: time zone of the recipient for ``send_window``, such as ``America/Chicago``; by
            default the connection's ``timezone``, else that of the phone number if it has only one.
        :param not_after: latest time to send it, as ISO 8601 with a zone or an aware ``datetime``.
        :param of_event: event of a checked message to a participant, for ``only_if_state``.
        :param start_time: when the event starts; it lets ``only_if_state`` read the events of a batch together.
        :param fields: the parameters of :class:`~airflow_provider_apptoto.client.Message`. A ``participant_id`` may
            come with its ``event_id``, which ``only_if_state`` needs; the message goes to the participant alone.
        :return: ``delivery.outcome`` is ``sent``, ``deduplicated`` (sent earlier), ``assumed_sent``, ``redirected``,
            ``dry_run``, or why it was withheld: ``suppressed`` (opted out), ``too_old``, ``outside_window``,
            ``wrong_state``, ``capped``.
        :raises ApptotoNotSentError: the message was not sent; a retry is safe.
        :raises ApptotoRejectedError: it was rejected, by Apptoto or by validation. Airflow does not retry the task.
        :raises ApptotoUnknownOutcomeError: it may have been sent. Airflow does not retry the task, unless
            ``on_unknown="resend"``.
        :raises ApptotoConfigurationError: a parameter is invalid. Airflow does not retry the task.
        """
        if checked is not None and fields:
            raise TypeError(f"Pass a Message or its fields, not both; also passed: {', '.join(fields)}")
        given = {"item": item, "reference": reference, "labels": labels, "timezone": recipient_timezone}
        event = {"of_event": of_event, "start_time": start_time}
        try:
            return self._send_or_fail(checked, fields, {**given, **event, "not_after": not_after})
        except BaseException as error:  # also the task timeout
            # the frames hold recipient and text, and some log handlers print local variables
            remove_frames(error)
            raise

    def key_of(self, message: Message, item: str | None = None) -> str:
        """Return the ledger key of a message; without a ledger, a key that is unique within this process."""
        return self._keys_of(message, item)[0]

    def keys_of_older_secrets(self, messages: Iterable[tuple[Message, str | None]]) -> dict[str, str]:
        """Map newest to older keys, for messages whose entries were created under an older secret.

        :param messages: messages with their ``item``.
        :raises LedgerStoreError: the store can't be read.
        """
        store = self.store
        if store is None or len(self.patiently(store.hash_keys)) == 1:
            return {}
        newest_by_older = {
            older: newest for newest, *others in (self._keys_of(*each) for each in messages) for older in others
        }
        found = self.patiently(lambda: store.find(newest_by_older.keys()))
        return {newest_by_older[older]: older for older in found}

    def look_ahead(self, keys: Collection[str]) -> None:
        """Look up many messages at once. :meth:`send` uses each result once.

        :raises LedgerStoreError: the store can't be read.
        """
        if store := self.store:
            found = self.patiently(lambda: store.find(keys))
            self._looked_up.update({key: found.get(key) for key in keys})

    @property
    def may_have_entries(self) -> bool:
        """Whether the ledger may have entries of other processes."""
        if self.store is None:
            return False
        return self.store.is_shared or self.origin is None or self.origin.try_number > 1

    def patiently(self, call: Callable[[], T]) -> T:
        """Call a function that needs the ledger, and retry while the ledger is unreachable for a short time.

        :param call: must not have sent anything if it raises :class:`LedgerStoreError`.
        :raises LedgerStoreError: the ledger can't be used, or was unreachable for too long.
        """
        return patiently(call, self.timing, self.cancellation.sleep)

    def show_unresolved(self) -> None:
        """Emit the number of unresolved messages; call it once per task, because it may scan the ledger."""
        if self.store is not None:
            show_unresolved(self.store, self.conn_id)

    def _send_or_fail(self, checked: Message | None, fields: Mapping[str, Any], given: Mapping[str, Any]) -> Delivery:
        """Send a message; make errors final for Airflow if a retry would be useless or harmful."""
        try:
            plain, event_id = take_event({name: unwrap(value) for name, value in fields.items()})
            return self._send(draft_of(checked or self.build(**plain), event_id, given))
        except ApptotoError as error:
            is_final = isinstance(error, ApptotoRejectedError | ApptotoConfigurationError) or (
                isinstance(error, ApptotoUnknownOutcomeError) and self.policy.on_unknown != OnUnknown.RESEND
            )
            if not is_final:
                raise
            raise final(error) from error.__cause__

    def _send(self, draft: Draft) -> Delivery:
        own: set[str] = set()
        has_ledger = self.store is not None and self.client.mode is not DeliveryMode.DRY_RUN
        try:
            return self.patiently(lambda: self._send_once(draft, own) if has_ledger else self._send_unrecorded(draft))
        except RateLimitAwayError:
            raise
        except LedgerStoreError as error:
            msg = f"The message was not sent: {error}. Nothing is sent while the ledger can't be used"
            raise ApptotoNotSentError(msg, reason=str(error), code="ledger_unusable") from None

    def _send_unrecorded(self, draft: Draft) -> Delivery:
        if withheld := self._withheld(draft, None):
            return withheld
        if self.guards.caps is not None and self.client.mode is DeliveryMode.DRY_RUN:
            try:
                self.guards.caps.rehearse(draft.message)
            except CapReachedError as reached:
                return self._report.withheld(draft, capped(reached))
        return self._exchange(draft, None)

    def _send_once(self, draft: Draft, own: set[str]) -> Delivery:
        assert self.store is not None  # noqa: S101  see _send
        while True:
            entry, other_keys = self._new_entry(draft)
            found = look_up(
                self.store,
                entry,
                resend=self.policy.on_unknown == OnUnknown.RESEND,
                sleep=self.cancellation.sleep,
                timing=self.timing,
                own=own,
                found=self._looked_up_before(entry.key),
            )
            doubtful = found if isinstance(found, Entry) else found.previous
            is_own = doubtful is not None and doubtful.version in own
            if doubtful is not None and not is_own and self._settler.settle(self.store, draft, doubtful, entry):
                continue
            if isinstance(found, Entry):
                self._note_begun(found)
                other_text = found.fingerprint != entry.fingerprint
                return self._report.known(draft, found, other_text=other_text, is_own=self._is_of_this_try(found))
            previous = found.previous
            if previous is not None and previous.state is State.REJECTED and self._is_of_this_try(previous):
                raise ApptotoRejectedError(
                    "Rejected before this task waited", status=previous.http_status, reason=previous.reason
                )
            if withheld := self._withheld(draft, found.previous):
                return withheld
            self.cancellation.check()
            try:
                return self._exchange(draft, found, other_keys)
            except LostError:
                log.info(_WAITING, draft.message.type, draft.message.target, entry.key)
            except LeaseSpentError as error:
                log.warning("%s. Looking it up again", error)

    def _keys_of(self, message: Message, item: str | None) -> list[str]:
        hash_keys = NO_LEDGER if self.store is None else self.patiently(self.store.hash_keys)
        return self._identity.keys(hash_keys, message, item)

    def _new_entry(self, draft: Draft) -> tuple[Entry, list[str]]:
        """Return the entry to write, under the secret of an existing entry, and the keys under the other secrets."""
        assert self.store is not None  # noqa: S101  see _send
        hash_keys = self.store.hash_keys()
        keys = self._identity.keys(hash_keys, draft.message, draft.item)
        existing = self.store.find(keys) if len(keys) > 1 else {}
        number = next((number for number, key in enumerate(keys) if key in existing), 0)
        entry = self._identity.entry(hash_keys[number], keys[number], draft)
        if draft.item is None and self.texts.setdefault(entry.key, entry.fingerprint) != entry.fingerprint:
            msg = "is required: this task sends different texts to one recipient, and a retry could not tell them apart"
            raise ApptotoValidationError("item", msg, code="ambiguous")
        return entry, [key for key in keys if key != entry.key]

    def _looked_up_before(self, key: str) -> Callable[[], Entry | None] | None:
        if key not in self._looked_up:
            return None
        found = self._looked_up.pop(key)
        return lambda: found

    def _withheld(self, draft: Draft, found: Entry | None) -> Delivery | None:
        """Return the delivery of a message that the guards withhold.

        :raises ApptotoNotSentError: it is too old, but an earlier try started in time, so skipping would hide an unsent
            message.
        """
        self._note_begun(found)
        try:
            self.guards.plan(draft)
        except WithheldError as why:
            return self._withhold(draft, found, why)
        return None

    def _withhold(self, draft: Draft, found: Entry | None, why: WithheldError) -> Delivery:
        is_begun = self.is_retry or (found is not None and self._is_of_this_task(found))
        if not (is_begun and why.outcome is Outcome.TOO_OLD):
            return self._report.withheld(draft, why)
        msg = f"The message was not sent: an earlier try started sending, but now {why.reason}"
        raise final(ApptotoNotSentError(msg, reason=why.reason, code=Outcome.TOO_OLD)) from None

    def _is_of_this_task(self, found: Entry) -> bool:
        return self.origin is not None and found.origin.task == self.origin.task

    def _is_of_this_try(self, found: Entry) -> bool:
        """Return whether this try wrote an entry before it waited for the sending window."""
        is_of_task = self.is_resumed and self._is_of_this_task(found)
        return is_of_task and self.origin is not None and found.origin.try_number == self.origin.try_number

    def _note_begun(self, found: Entry | None) -> None:
        if found is not None and self._is_of_this_task(found):
            self.was_begun = True

    def _exchange(self, draft: Draft, attempt: Attempt | None, other_keys: Collection[str] = ()) -> Delivery:
        found = None if attempt is None else attempt.previous
        return Exchange(
            client=self.client,
            guards=self.guards,
            report=self._report,
            cancellation=self.cancellation,
            draft=draft,
            attempt=attempt,
            caps=None if self.client.mode is DeliveryMode.REDIRECT else self.guards.caps,
            check_others=lambda: self._check_other_keys(other_keys),
            withhold=lambda why: self._withhold(draft, found, why),
            on_departure=self.on_departure,
            on_attempt=self.on_attempt or (lambda _: None),
            sender=None if self.origin is None else self.origin.to_dict(),
        ).run()

    def _check_other_keys(self, keys: Collection[str]) -> None:
        """Check again for an entry under another secret, which a process with the old secret may have written.

        :raises LostError: there is one.
        """
        if keys and self.store is not None and self.store.find(keys):
            raise LostError


_WAITING = "%s to %s: another try started sending it first; waiting for the outcome (key %s)"
