"""A ledger in memory, to test the rules of the ledger. It passes the same suite as the real stores."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from airflow_provider_apptoto.outbox.stores.base import LedgerAwayError, StoreKind

if TYPE_CHECKING:
    from collections.abc import Collection

    from airflow_provider_apptoto.outbox.entry import Entry, State

KEYS = (b"salt",)


class MemoryStore:
    """Keeps entries in memory.

    :param keys: what hashes are keyed with, the newest first.
    """

    kind: StoreKind = "sql"
    is_shared = True

    def __init__(self, *keys: bytes) -> None:
        self._keys = keys or KEYS
        self._lock = threading.Lock()
        self.entries: dict[str, Entry] = {}
        self.history: list[State] = []
        """The state of each write that was done."""
        self.lost_answers: list[State] = []
        """States whose next write is done, but the writer gets no answer."""
        self.refusals: list[Exception] = []
        """What the next calls raise, with nothing done."""

    @property
    def only(self) -> Entry:
        """The one entry."""
        [found] = self.entries.values()
        return found

    def hash_keys(self) -> list[bytes]:
        return list(self._keys)

    def find(self, keys: Collection[str]) -> dict[str, Entry]:
        self._refuse()
        return {key: self.entries[key] for key in keys if key in self.entries}

    def of_targets(self, targets: Collection[str], since: float) -> list[Entry]:
        self._refuse()
        return [each for each in self.entries.values() if each.target in targets and each.updated_at >= since]

    def compare_and_swap(self, old: Entry | None, new: Entry) -> bool:
        self._refuse()
        with self._lock:
            current = self.entries.get(new.key)
            if current != old:
                return current is not None and current.version == new.version
            self.entries[new.key] = new
            self.history.append(new.state)
        if new.state in self.lost_answers:
            self.lost_answers.remove(new.state)
            raise LedgerAwayError("the answer was lost")
        return True

    def unresolved(self) -> int:
        return sum(entry.is_unresolved for entry in self.entries.values())

    def _refuse(self) -> None:
        if self.refusals:
            raise self.refusals.pop(0)
