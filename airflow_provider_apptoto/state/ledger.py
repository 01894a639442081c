"""The rules of the ledger: who may send a message, and what becomes of one that somebody has had in hand before.

A message is ``claimed``, then ``sending`` from before its first byte leaves, then what the answer makes of it. Each
step is written down before it is done, by a compare-and-set, so that of any number of tries one alone gets on, and
the next finds out how far the one before came.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_apptoto.client.errors import ApptotoValidationError
from airflow_provider_apptoto.state.store import Entry, LedgerStore, LedgerStoreError, Origin, State

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_apptoto.client import Message

log = logging.getLogger(__name__)

_VERSION = "v1"
_WORTH_A_LINE = 2.0
"""Seconds: of a longer wait, the log tells when it begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerTiming:
    """How long the ledger waits, in seconds.

    :param claim_lease: from a claim to the first byte: a try waits for its slot, and attempts may fail.
    :param margin: after the longest that an exchange may last: then, a try has recorded its outcome, or is gone.
    :param poll: between two looks at a message that another try is sending.
    :param patience: for a store that can't be reached, before a message is sent.
    :param record_retries: before each further attempt to record an outcome.
    """

    claim_lease: float = 150.0
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
    """Return what makes a message this one: whose, how, on what occasion, to whom or about what.

    Neither its text, which may differ between tries, nor try and map index belong to it.

    :param hash_key: the store's; without it nobody can find a recipient out by trying all numbers.
    :param account: base URL and login.
    :param mode: the delivery mode: a redirected message does not stand for the real one.
    :param idempotency_key: the occasion, by the user's own name for it; else the task and its run are the occasion.
    :param item: which of the occasion's messages it is, by the user's own name for it; else channel and target tell.
    """
    occasion = ["key", idempotency_key] if idempotency_key is not None else ["run", *origin.task[:3]]
    target = (
        [message.type, _recipient(message.to), message.event_id, message.participant_id]
        if item is None
        else ["item", item]
    )
    return _hash(hash_key, [_VERSION, *account, mode, *occasion, *target])[:32]


def _recipient(to: str | None) -> str | None:
    """Return a recipient without what is written in several ways: the case of an address, the spaces in a number."""
    if to is None or "@" in to:
        return to and to.casefold()
    return "".join(character for character in to if character.isdigit() or character == "+")


def fingerprint(hash_key: bytes, message: Message) -> str:
    """Return what shows whether two messages say the same, and nothing of what they say."""
    return _hash(hash_key, [_VERSION, message.message, message.subject, message.template_id])[:16]


def _hash(hash_key: bytes, parts: list[Any]) -> str:
    return hmac.new(hash_key, json.dumps(parts).encode(), hashlib.sha256).hexdigest()


class TakenOverError(Exception):
    """Another try has the message in hand: this one must not send it."""


class Claim:
    """A message that this try, and no other, may send.

    :param entry: as it stands in the store.
    :param unsent: versions of entries that this try wrote, or tried to, before any byte left.
    """

    def __init__(self, store: LedgerStore, entry: Entry, timing: LedgerTiming, unsent: set[str]) -> None:
        self._store = store
        self._timing = timing
        self._unsent = unsent
        self.entry = entry

    def sending(self, timeout: float) -> None:
        """Write down that the first byte is about to leave.

        :param timeout: seconds that the answer may take.
        :raises TakenOverError: it must not leave.
        :raises LedgerStoreError: the store can't be written: it must not leave either.
        """
        new = self.entry.changed(State.SENDING, lease=timeout + self._timing.margin, sent_at=time.time())
        self._unsent.add(new.version)
        if not self._store.swap(self.entry, new):
            raise TakenOverError
        self._unsent.discard(new.version)
        self.entry = new

    def record(self, state: State, *, http_status: int | None = None, reason: str = "") -> None:
        """Write down what became of it. A store that fails is tried for half a minute, and then logged, not raised.

        That this try did not send a message is not all that counts where an earlier one may have: it stays unknown.
        The message is where it is, whatever the ledger says: a task that failed for this would be run again.
        """
        if self.entry.in_doubt and state is not State.SENT:
            state = State.UNKNOWN
        new = self.entry.changed(state, http_status=http_status, reason=reason)
        for pause in (*self._timing.record_retries, None):
            try:
                if not self._store.swap(self.entry, new):
                    log.warning("Entry %s of the ledger was changed meanwhile; it was to become %s", new.key, state)
                self.entry = new
                return  # noqa: TRY300
            except LedgerStoreError as error:
                if pause is None:
                    log.error(  # noqa: TRY400  its traceback would show the message
                        "THE LEDGER COULD NOT BE WRITTEN: message %s (reference %s) is %s, its entry still says %s. "
                        "A further try takes it for unknown. %s",
                        *(new.key, new.reference, state, self.entry.state, error),
                    )
                    return
            if pause > _WORTH_A_LINE:
                log.warning(
                    "The ledger could not be written: message %s is %s; trying again in %.0f s", new.key, state, pause
                )
            time.sleep(pause)


def claim(
    store: LedgerStore,
    entry: Entry,
    *,
    resend: bool,
    before_claim: Callable[[Entry | None], None],
    sleep: Callable[[float], None] | None = None,
    timing: LedgerTiming,
    unsent: set[str] | None = None,
) -> Claim | Entry:
    """Claim a message, or return what stands in the way: its entry, ``sent`` or one of which nobody can tell.

    Where another try has it in hand, its end is waited for, as long as its lease runs. Nothing of it is changed
    before: it may yet write down how it ended.

    :param entry: what is to be written, ``claimed``.
    :param resend: claim also what may have been sent.
    :param before_claim: called with what was found, when nothing stands in the way; if it raises, nothing is claimed.
    :param sleep: waits this many seconds, by default ``time.sleep``; if it raises, nothing is claimed.
    :param timing: how long to wait.
    :param unsent: versions of the entry that this very try wrote, or tried to, before any byte left; kept up to date.
    :raises ApptotoValidationError: another mapped task has another text for the same recipient.
    :raises LedgerStoreError: the store can't be read or written.
    """
    unsent = set() if unsent is None else unsent
    looked_on: dict[str, float] = {}  # since when, by version
    while True:
        found = store.find(entry.key)
        is_ours = found is not None and found.version in unsent
        if found is not None and not is_ours:
            _check_same(found, entry)
            # by this clock too: the other one's may be wrong
            is_new = found.version not in looked_on
            waited = time.monotonic() - looked_on.setdefault(found.version, time.monotonic())
            if found.is_live and waited < found.lease and not _is_predecessor(found, entry):
                if is_new:
                    log.info("Waiting for try %d of %s, which has it in hand", found.origin.try_number, found.origin)
                (sleep or time.sleep)(min(timing.poll, max(found.remaining, 0.01)))
                continue
            if found.state is State.SENT:
                return found
            if found.may_be_sent and not resend:
                return found
        before_claim(found)
        in_doubt = found is not None and (found.in_doubt if is_ours else found.may_be_sent)
        new = dataclasses.replace(entry, in_doubt=in_doubt)
        unsent.add(new.version)
        if store.swap(found, new):
            return Claim(store, new, timing, unsent)


def _is_predecessor(found: Entry, entry: Entry) -> bool:
    """Whether it is an earlier try of this very task that had not sent yet: it is gone, or will notice."""
    return found.state is State.CLAIMED and found.origin.task == entry.origin.task


def _check_same(found: Entry, entry: Entry) -> None:
    mapped = found.origin.task[:3] == entry.origin.task[:3] and found.origin.map_index != entry.origin.map_index
    if mapped and found.fingerprint != entry.fingerprint:
        raise ApptotoValidationError(
            "idempotency_key",
            f"mapped task {found.origin.map_index} has another text for the same recipient, or had, before the list "
            "changed its order: which is which can't be told; give each message an idempotency_key of its own",
        )
