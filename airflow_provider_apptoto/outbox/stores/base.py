"""What the ledger asks of the place where its entries are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

from airflow_provider_apptoto.client.errors import ApptotoNotSentError

if TYPE_CHECKING:
    from collections.abc import Collection

    from airflow_provider_apptoto.outbox.entry import Entry

StoreKind = Literal["sql", "task_state"]


class LedgerStoreError(Exception):
    """A store can't be read or written."""


class LedgerAwayError(LedgerStoreError):
    """A store can't be reached right now, or others keep it locked. It may be back in some seconds."""

    waited = 0.0
    """Seconds that passed before this was known."""


class RateLimitAwayError(ApptotoNotSentError, LedgerAwayError):
    """The message was not sent: the store of the rate limit can't be reached right now."""


class LedgerStore(Protocol):
    """Keeps entries. What :meth:`compare_and_swap` has written survives the death of this process.

    Every method raises :class:`LedgerStoreError` if the store can't be read or written.
    """

    kind: StoreKind
    is_shared: bool
    """Whether other tasks, DAGs and runs see the entries."""

    def hash_keys(self) -> list[bytes]:
        """Return what hashes are keyed with, the newest first; the others are those of older secrets."""

    def find(self, keys: Collection[str]) -> dict[str, Entry]:
        """Return the entries that exist, by key."""

    def compare_and_swap(self, old: Entry | None, new: Entry) -> bool:
        """Replace ``old`` (``None``: nothing) by ``new``, and tell whether ``old`` was still there."""

    def unresolved(self) -> int | None:
        """Count the messages that may have been sent; ``None`` if that can't be seen."""
