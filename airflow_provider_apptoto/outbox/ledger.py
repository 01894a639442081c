"""The rules of the ledger: which try may send a message, and how an entry of an earlier try is treated.

A message is ``sending`` from before its first byte leaves, and then gets its outcome. Both are written by a
compare-and-swap, so only one of any number of concurrent tries sends, and the next one finds how far the last one got.
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
from airflow_provider_apptoto.client.rate_limit import WORTH_A_LINE
from airflow_provider_apptoto.outbox.entry import DELIVERED, Entry, State
from airflow_provider_apptoto.outbox.stores.base import (
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

    :param margin: by which the lease of ``sending`` outlasts the longest exchange. A try whose write took longer than
        this does not send.
    :param poll: between two looks at a message that another try is sending.
    :param patience: for a store that can't be reached, before a message is sent.
    :param record_retries: before each further attempt to record an outcome.
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

    The text, which may differ between tries, is no part of it; nor are try and map index.

    :param hash_key: the store's; without it nobody can find a recipient by trying all numbers.
    :param account: base URL and login.
    :param mode: the delivery mode: a redirected message does not stand for the real one.
    :param idempotency_key: the user's own name for the occasion; by default the task and its run are the occasion.
    :param item: the user's own name for one message of the occasion; by default channel and target tell them apart.
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
    """Return what tells whether two messages went to the same number or address; ``None`` if there is none."""
    return None if to is None else _hash(hash_key, ["recipient", _recipient(to)])[:32]


def fingerprint(hash_key: bytes, message: Message) -> str:
    """Return what tells whether two messages have the same text, without showing it."""
    return _hash(hash_key, [_VERSION, message.message, message.subject, message.template_id])[:16]


def _recipient(to: str | None) -> str | None:
    """Return a recipient without what is written in several ways: the case of an address, the spaces in a number."""
    if to is None or "@" in to:
        return to and to.casefold()
    return "".join(character for character in to if character.isdigit() or character == "+")


def _hash(hash_key: bytes, parts: list[Any]) -> str:
    return hmac.new(hash_key, json.dumps(parts).encode(), hashlib.sha256).hexdigest()


class LostError(Exception):
    """Another try began to send the message first: this one must not."""


class LeaseSpentError(ApptotoNotSentError):
    """The write before the first byte took so long that the lease could end during the exchange."""


class Attempt:
    """A message that this try may send, unless another one begins first.

    :param found: its entry, or ``None``.
    :param new: what to write.
    :param own: versions that this try wrote, or tried to, while no byte had left; kept up to date.
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
        """The entry that was found."""
        return self._found

    def begin(self, total_timeout: float) -> None:
        """Write that the first byte is about to leave.

        :param total_timeout: seconds that an exchange may take.
        :raises LostError: another try was first.
        :raises LedgerStoreError: the store can't be written, so nothing may leave.
        """
        if self.has_begun:  # nothing was sent in the attempt before this one
            self._own.add(self.entry.version)
        self._began = time.monotonic()
        lease = total_timeout + self._timing.margin
        new = self.entry.changed(State.SENDING, lease=lease, sent_at=time.time())
        self._own.add(new.version)
        if not self._store.compare_and_swap(self._found, new):
            raise LostError
        self._found = self.entry = new
        self.has_begun = True

    def check_lease(self) -> None:
        """Return if the first byte may leave.

        :raises LeaseSpentError: the write or what followed took so long that the lease may end too early.
        """
        # both clocks: the monotonic one stands still while a machine is suspended
        took = max(time.monotonic() - self._began, time.time() - self.entry.updated_at)
        if took >= self._timing.margin:
            reason = f"the write to the ledger and the wait after it took {took:.0f} s"
            raise LeaseSpentError(f"The message was not sent: {reason}", reason=reason)
        self._own.discard(self.entry.version)

    def record(self, state: State, **fields: Any) -> None:
        """Write the outcome. A store that fails is tried for half a minute; then the failure is logged, not raised.

        If an earlier try may have sent the message, it stays unknown unless this try sent it. A task that failed here
        would be retried, although the message was sent.
        """
        if self.entry.in_doubt and state not in DELIVERED:
            state = State.UNKNOWN
        new = self.entry.changed(state, **fields)
        for pause in (*self._timing.record_retries, None):
            try:
                if not self._store.compare_and_swap(self._found, new):
                    log.warning("Ledger entry %s was changed by another process; %s is not recorded", new.key, state)
                self._found = self.entry = new
                return  # noqa: TRY300
            except LedgerStoreError as error:
                if pause is None:
                    log.error(  # noqa: TRY400  its traceback would show the message
                        "The outcome could not be recorded: message %s (reference %s) is %s, its ledger entry still "
                        "says %s. The next try treats it as unknown. %s",
                        *(new.key, new.reference, state, self.entry.state, error),
                    )
                    self.entry = new
                    return
            if pause > WORTH_A_LINE:
                log.warning(
                    "The ledger can't be written: message %s is %s; next attempt in %.0f s", new.key, state, pause
                )
            time.sleep(pause)  # a stop of the task does not end this wait: the outcome would be lost


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
    """Return the right to try a message, or the entry that forbids it: it was sent, or may have been.

    A message that another try is sending is waited for, at most until its lease ends. Nothing of its entry is changed:
    that try may still record its outcome.

    :param entry: what to write about the message.
    :param resend: whether a message that may have been sent is sent again.
    :param sleep: waits this many seconds; if it raises, nothing is sent.
    :param own: versions of the entry that this very try wrote, or tried to, while no byte had left.
    :param found: gives the entry the first time, if it was read before.
    :raises ApptotoValidationError: another mapped task has a different text for the same recipient.
    :raises LedgerStoreError: the store can't be read.
    """
    seen_since: dict[str, float] = {}  # by version; the clock of this process, since the other's may be wrong
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
                        "Waiting up to %.0f s for try %d of %s, which is sending this message",
                        *(current.remaining, current.origin.try_number, current.origin),
                    )
                sleep(min(timing.poll, max(current.remaining, 0.01)))
                continue
            if current.state in DELIVERED or (current.may_be_sent and not resend):
                return current
        in_doubt = current.in_doubt if is_own else current.may_be_sent
        new = entry.changed(entry.state, in_doubt=in_doubt, created_at=current.created_at)
        return Attempt(store, current, new, timing, own)


def patiently(call: Callable[[], T], timing: LedgerTiming, sleep: Callable[[float], None]) -> T:
    """Call what needs a store, again while the store can't be reached for some seconds.

    :param sleep: waits this many seconds.
    :raises LedgerStoreError: the store can't be used, or was out of reach for longer than the timing allows.
    """
    away_since = last = -math.inf
    while True:
        try:
            return call()
        except LedgerAwayError as error:
            now = time.monotonic()
            lost = now - error.waited
            is_new = lost - last > timing.patience  # it was there meanwhile
            if is_new:
                away_since = lost
            left = timing.patience - (now - away_since)
            if left <= 0:
                raise
            if is_new:
                what, why = "ledger", str(error)
                if isinstance(error, RateLimitAwayError):
                    what, why = "store of the rate limit", error.reason
                log.warning("The %s can't be reached. Sending pauses, for up to %.0f s (%s)", what, left, why)
            last = now
        sleep(timing.poll)


def _check_same(found: Entry, entry: Entry) -> None:
    mapped = found.origin.task[:3] == entry.origin.task[:3] and found.origin.map_index != entry.origin.map_index
    if mapped and found.fingerprint != entry.fingerprint:
        raise ApptotoValidationError(
            "idempotency_key",
            f"mapped task {found.origin.map_index} has a different text for the same recipient, or had one before the "
            "list changed its order; give each message an idempotency_key of its own",
            code="ambiguous",
        )
