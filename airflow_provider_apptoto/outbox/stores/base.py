"""The interface of ledger stores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from airflow_provider_apptoto.client.errors import ApptotoNotSentError

if TYPE_CHECKING:
    from collections.abc import Collection

    from airflow_provider_apptoto.outbox.entry import Entry
    from airflow_provider_apptoto.outbox.limit import Limit

StoreKind = Literal["sql", "task_state"]


class LedgerStoreError(Exception):
    """A store can't be read or written."""


class LedgerAwayError(LedgerStoreError):
    """A store is temporarily unreachable or locked."""

    waited = 0.0
    """Seconds until the call failed."""


class RateLimitAwayError(ApptotoNotSentError, LedgerAwayError):
    """The message was not sent: the rate limit store is temporarily unreachable."""


class LedgerStore(Protocol):
    """Stores entries. A write of :meth:`compare_and_swap` survives a crash of this process.

    Every method raises :class:`LedgerStoreError` if the store can't be read or written.
    """

    kind: StoreKind
    is_shared: bool
    """Whether other tasks, DAGs and runs share the entries."""

    def hash_keys(self) -> list[bytes]:
        """Return the hash keys, newest first, followed by those of older secrets."""

    def find(self, keys: Collection[str]) -> dict[str, Entry]:
        """Return the existing entries, by key."""

    def of_targets(self, targets: Collection[str], since: float) -> list[Entry]:
        """Return the known entries of messages to these events and participants whose state was set since then."""

    def compare_and_swap(self, old: Entry | None, new: Entry) -> bool:
        """Replace ``old`` (``None``: no entry) with ``new``; return whether ``old`` was still current."""

    def unresolved(self) -> int | None:
        """Count the messages that may have been sent; ``None`` if the store can't count them."""


class CapReachedError(Exception):
    """The recipient got as many messages as a limit allows, so the entry was not written.

    :param sent: messages that the recipient got or may have got within the time of the limit.
    """

    def __init__(self, limit: Limit, sent: int) -> None:
        super().__init__(limit, sent)  # each thread raises a copy, made from these
        self.limit = limit
        self.sent = sent


class SharedLedgerStore(LedgerStore, Protocol):
    """A store that knows the messages of all tasks, DAGs and runs, and so can limit those to one recipient."""

    def compare_and_swap_capped(self, old: Entry | None, new: Entry, cap: Cap) -> bool:
        """Do :meth:`compare_and_swap`, if the new message respects the limits.

        :raises CapReachedError: it would exceed one.
        """

    def check_cap(self, cap: Cap, planned: int = 0) -> None:
        """Check limits without writing.

        :param planned: further messages that count.
        :raises CapReachedError: one is reached.
        """


@dataclass(frozen=True, slots=True)
class Cap:
    """Limits on the messages of an account to one recipient.

    :param limits: all of them apply.
    :param recipients: keyed hashes of the recipient, under all keys of the store.
    :param account: masked login of the account.
    """

    store: SharedLedgerStore
    limits: tuple[Limit, ...]
    recipients: tuple[str, ...]
    account: str
