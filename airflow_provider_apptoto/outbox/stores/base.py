"""The interface of ledger stores."""

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

    def compare_and_swap(self, old: Entry | None, new: Entry) -> bool:
        """Replace ``old`` (``None``: no entry) with ``new``; return whether ``old`` was still current."""

    def unresolved(self) -> int | None:
        """Count the messages that may have been sent; ``None`` if the store can't count them."""
