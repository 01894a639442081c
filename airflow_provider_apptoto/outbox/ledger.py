"""The rules of the ledger: which try may send a message, and how the entry of an earlier try is treated.

An entry is ``sending`` before the first byte is written, and then gets the outcome. Both are written by a
compare-and-swap, so only one of any number of concurrent tries sends, and the next try sees how far the last one got.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_apptoto.client.errors import ApptotoNotSentError, ApptotoValidationError
from airflow_provider_apptoto.client.rate_limit import LOGGED_WAIT
from airflow_provider_apptoto.outbox.entry import DELIVERED, Entry, State
from airflow_provider_apptoto.outbox.stores.base import (
    Cap,
    LedgerAwayError,
    LedgerStore,
    LedgerStoreError,
    RateLimitAwayError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_apptoto.client import Message
    from airflow_provider_apptoto.outbox.origin import Origin

log = logging.getLogger(__name__)

T = TypeVar("T")

_VERSION = "v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerTiming:
    """How long the ledger waits, in seconds.

    :param margin: added to the longest exchange for the lease of ``sending``. A try whose write took longer than this
        does not send.
    :param poll: between two lookups of a message that another try is sending.
    :param patience: how long to wait for an unreachable store before sending.
    :param record_retries: pauses before further attempts to record an outcome.
    """

    margin: float = 30.0
    poll: float = 1.0
    patience: float = 30.0
    record_retries: tuple[float, ...] = (1.0, 3.0, 9.0, 17.0)


def message_key(
    hash_key: bytes,
    message: Message,
    *,
    account: tuple[str, str],
    mode: str,
    origin: Origin,
    idempotency_key: str | None,
    item: str | None = None,
) -> str:
    """Return the deduplication key: account, delivery mode, occasion, and item or recipient.

    The text is not part of the key, because it may differ between tries; nor are try and map index.

    :param hash_key: key of the store, which prevents finding recipients by hashing all phone numbers.
    :param account: base URL and login.
    :param mode: delivery mode; a redirected message does not count as the real one.
    :param idempotency_key: the user's name for the occasion; by default the task and its run.
    :param item: the user's name for one message of the occasion; by default channel and target.
    """
    if idempotency_key is not None:
        occasion = ["key", idempotency_key]
    else:
        occasion = ["run" if origin.is_task else origin.kind, *origin.task[:3]]
    target = (
        [message.type, _recipient(message.to), message.event_id, message.participant_id]
        if item is None
        else ["item", item]
    )
    return _hash(hash_key, [_VERSION, *account, mode, *occasion, *target])[:32]


def recipient_hash(hash_key: bytes, to: str | None) -> str | None:
    """Return a keyed hash that is equal for equal recipients; ``None`` without a recipient."""
    return None if to is None else _hash(hash_key, ["recipient", _recipient(to)])[:32]


def fingerprint(hash_key: bytes, message: Message) -> str:
    """Return a keyed hash that is equal for equal texts."""
    return _hash(hash_key, [_VERSION, message.message, message.subject, message.template_id])[:16]


def fingerprint_of_text(hash_key: bytes, text: str) -> str:
    """Return the fingerprint of a message that is this text, without subject and stored template."""
    return _hash(hash_key, [_VERSION, text, None, None])[:16]


def _recipient(to: str | None) -> str | None:
    """Normalise a recipient: fold the case of an address, drop the punctuation of a number."""
    if to is None or "@" in to:
        return to and to.casefold()
    return "".join(character for character in to if character.isdigit() or character == "+")


def _hash(hash_key: bytes, parts: list[Any]) -> str:
    return hmac.new(hash_key, json.dumps(parts).encode(), hashlib.sha256).hexdigest()


class LostError(Exception):
    """Another try started sending the message first, so this one must not."""


class LeaseSpentError(ApptotoNotSentError):
    """The ledger write took so long that the lease could end during the exchange."""


class Attempt:
    """The right to send a message, unless another try starts first.

    :param found: the existing entry, or ``None``.
    :param new: the entry to write.
    :param own: versions that this try wrote, or tried to write, before any byte was written; updated here.
    """

    def __init__(
        self, store: LedgerStore, found: Entry | None, new: Entry, timing: LedgerTiming, own: set[str]
    ) -> None:
        self._store = store
        self._found = found
        self._timing = timing
        self._own = own
        self._began = 0.0
        self.entry = new
        self.has_begun = False

    @property
    def previous(self) -> Entry | None:
        """The existing entry, or ``None``."""
        return self._found

    def begin(self, total_timeout: float, cap: Cap | None = None) -> None:
        """Record that the first byte is about to be written.

        :param total_timeout: maximum duration of an exchange in seconds.
        :param cap: limits on the messages to the recipient.
        :raises LostError: another try was first.
        :raises CapReachedError: the recipient got as many messages as a limit allows.
        :raises LedgerStoreError: the store can't be written, so nothing may be sent.
        """
        if self.has_begun:  # the previous attempt sent nothing
            self._own.add(self.entry.version)
        self._began = time.monotonic()
        lease = total_timeout + self._timing.margin
        new = self.entry.changed(State.SENDING, lease=lease, sent_at=time.time())
        self._own.add(new.version)
        if cap is None:
            is_written = self._store.compare_and_swap(self._found, new)
        else:
            is_written = cap.store.compare_and_swap_capped(self._found, new, cap)
        if not is_written:
            raise LostError
        self._found = self.entry = new
        self.has_begun = True

    def check_lease(self) -> None:
        """Check that the first byte may be written.

        :raises LeaseSpentError: so much time has passed since the write that the lease may end too early.
        """
        # check both clocks: the monotonic one stops while a machine is suspended
        took = max(time.monotonic() - self._began, time.time() - self.entry.updated_at)
        if took >= self._timing.margin:
            reason = f"writing to the ledger and waiting for a slot took {took:.0f} s"
            raise LeaseSpentError(f"The message was not sent: {reason}", reason=reason)
        self._own.discard(self.entry.version)

    def record(self, state: State, **fields: Any) -> None:
        """Write the outcome, with retries for half a minute; then log the failure.

        If an earlier try may have sent the message, it stays unknown unless this try sent it. Nothing is raised: a
        failed task would be retried although the message was sent.
        """
        if self.entry.in_doubt and state not in DELIVERED:
            state = State.UNKNOWN
        new = self.entry.changed(state, **fields)
        for pause in (*self._timing.record_retries, None):
            try:
                if not self._store.compare_and_swap(self._found, new):
                    log.warning("Ledger entry %s was changed by another process; not recording %s", new.key, state)
                self._found = self.entry = new
                return  # noqa: TRY300
            except LedgerStoreError as error:
                if pause is None:
                    log.error(  # noqa: TRY400  its traceback would show the message
                        "Outcome not recorded: the %s to %s (reference %s, %s, key %s) is %s, but its ledger entry "
                        "still says %s. The next try will treat it as unknown. Cause: %s",
                        *(new.channel, new.target, new.reference, new.origin, new.key, state, self.entry.state, error),
                    )
                    self.entry = new
                    return
            if pause > LOGGED_WAIT:
                log.warning(
                    "Can't write to the ledger that message %s is %s; retrying in %.0f s", new.key, state, pause
                )
            time.sleep(pause)  # not cancelled with the task: the outcome would be lost


def look_up(
    store: LedgerStore,
    entry: Entry,
    *,
    resend: bool,
    sleep: Callable[[float], None],
    timing: LedgerTiming,
    own: set[str],
    found: Callable[[], Entry | None] | None = None,
) -> Attempt | Entry:
    """Return the right to send a message, or the entry of a message that was sent or may have been sent.

    If another try is sending the message, wait for it, at most until its lease ends. Its entry is not changed, because
    that try may still record the outcome.

    :param entry: the entry to write.
    :param resend: whether to resend a message that may have been sent.
    :param sleep: function that waits for a number of seconds; if it raises, nothing is sent.
    :param own: versions of the entry that this try wrote, or tried to write, before any byte was written.
    :param found: returns the entry for the first lookup, if it was read before.
    :raises ApptotoValidationError: another mapped task has a different text for the same recipient.
    :raises LedgerStoreError: the store can't be read.
    """
    seen_since: dict[str, float] = {}  # by version; by the clock of this process, because the other clock may be wrong
    while True:
        current = store.find([entry.key]).get(entry.key) if found is None else found()
        found = None
        if current is None:
            return Attempt(store, None, entry, timing, own)
        is_own = current.version in own
        if not is_own:
            _check_same(current, entry)
            is_new = current.version not in seen_since
            waited = time.monotonic() - seen_since.setdefault(current.version, time.monotonic())
            if current.is_live and waited < current.lease:
                if is_new:
                    log.info(
                        "Waiting up to %.0f s for try %d of %s, which is sending the %s to %s",
                        *(current.remaining, current.origin.try_number, current.origin, entry.channel, entry.target),
                    )
                sleep(min(timing.poll, max(current.remaining, 0.01)))
                continue
            if current.state in DELIVERED or (current.may_be_sent and not resend):
                return current
        in_doubt = current.in_doubt if is_own else current.may_be_sent
        new = entry.changed(entry.state, in_doubt=in_doubt, created_at=current.created_at)
        return Attempt(store, current, new, timing, own)


def patiently(call: Callable[[], T], timing: LedgerTiming, sleep: Callable[[float], None]) -> T:
    """Call a function that needs a store, and retry while the store is unreachable, at most for ``timing.patience``.

    :param sleep: function that waits for a number of seconds.
    :raises LedgerStoreError: the store can't be used, or was unreachable for too long.
    """
    away_since = last = -math.inf
    while True:
        try:
            return call()
        except LedgerAwayError as error:
            now = time.monotonic()
            lost = now - error.waited
            is_new = lost - last > timing.patience  # it was reachable in between
            if is_new:
                away_since = lost
            left = timing.patience - (now - away_since)
            if left <= 0:
                raise
            if is_new:
                what, why = "ledger", str(error)
                if isinstance(error, RateLimitAwayError):
                    what, why = "rate limit store", error.reason
                log.warning("Can't reach the %s; sending is paused for up to %.0f s: %s", what, left, why)
            last = now
        sleep(timing.poll)


def _check_same(found: Entry, entry: Entry) -> None:
    mapped = found.origin.task[:3] == entry.origin.task[:3] and found.origin.map_index != entry.origin.map_index
    if mapped and found.fingerprint != entry.fingerprint:
        raise ApptotoValidationError(
            "idempotency_key",
            f"mapped task {found.origin.map_index} has a different text for the same recipient, or had one before the "
            "list was reordered; give each message its own idempotency_key",
            code="ambiguous",
        )
