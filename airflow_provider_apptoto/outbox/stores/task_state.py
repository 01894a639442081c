"""The ledger in Airflow's task state (Airflow 3.3 and newer): no setup needed, limited to one task instance."""

from __future__ import annotations

import secrets
import threading
from typing import TYPE_CHECKING, Any

from airflow_provider_apptoto._airflow import never_expire
from airflow_provider_apptoto.outbox.entry import Entry, State
from airflow_provider_apptoto.outbox.instructions import TASK_STATE_PREFIX
from airflow_provider_apptoto.outbox.secret import LedgerSecret, other_secret
from airflow_provider_apptoto.outbox.stores.base import LedgerStoreError, StoreKind

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

supervisor_lock = threading.RLock()
"""Guards calls to Airflow's supervisor: a process has only one channel to it."""
SALT = "apptoto-salt"
"""Name of the value that holds the salt of a task instance."""


class TaskStateLedgerStore:
    """Stores entries in the state of the running task instance, one value per message.

    Airflow's store needs no compare-and-swap, because it accepts writes from the newest try only. A call takes about
    10 ms, so entries are not read if the salt is new: then all of them are from this process.

    :param task_state: the ``task_state_store`` of the context.
    :param secret: secret of the deployment, which keys the hashes.
    """

    kind: StoreKind = "task_state"
    is_shared = False

    def __init__(self, task_state: Any, secret: LedgerSecret = LedgerSecret()) -> None:  # noqa: B008  without state
        self.task_state = task_state
        self._secret = secret
        self._keys: list[bytes] = []
        self._is_empty = False
        """Whether no earlier process wrote entries."""
        self._known: dict[str, Entry] = {}
        """Entries that this process last read or wrote, by key."""

    def hash_keys(self) -> list[bytes]:
        """Return the hash keys, newest first. The first try creates the salt."""
        with supervisor_lock:
            if not self._keys:
                self._keys = self._read_keys()
        return self._keys

    def find(self, keys: Collection[str]) -> dict[str, Entry]:
        """Return the existing entries, by key."""
        found = {}
        for key in keys:
            entry = self._find(key)
            if entry is not None:
                found[key] = entry
        return found

    def of_targets(self, targets: Collection[str], since: float) -> list[Entry]:
        """Return those of the entries that this process read; those of other tasks are not accessible."""
        return [entry for entry in list(self._known.values()) if entry.target in targets and entry.updated_at >= since]

    def compare_and_swap(self, old: Entry | None, new: Entry) -> bool:
        """Replace ``old`` with ``new``; return whether ``old`` was still current."""
        with supervisor_lock:
            if self._known.get(new.key) != old:
                return False
            self._set(f"{TASK_STATE_PREFIX}{new.key}", value_of(new))
            self._known[new.key] = new
        return True

    def unresolved(self) -> None:
        """Return ``None``: the state of other tasks is not accessible."""

    def _read_keys(self) -> list[bytes]:
        found = self._ask(lambda: self.task_state.get(SALT))
        if found is None:
            salt = secrets.token_bytes(16)
            found = {"salt": salt.hex(), "secret": self._secret.checks(salt)[0]}
            self._set(SALT, found)
            self._is_empty = True
        salt = bytes.fromhex(found["salt"])
        if found["secret"] not in self._secret.checks(salt):
            raise LedgerStoreError(other_secret("Airflow's task state"))
        return self._secret.keys(salt)

    def _find(self, key: str) -> Entry | None:
        with supervisor_lock:
            if self._is_empty:
                return self._known.get(key)
            value = self._ask(lambda: self.task_state.get(f"{TASK_STATE_PREFIX}{key}"))
            if value is None:
                self._known.pop(key, None)
                return None
            try:
                entry = Entry.from_dict(value)
            except ValueError as error:
                msg = f"{TASK_STATE_PREFIX}{key} in Airflow's task state can't be read ({error})"
                raise LedgerStoreError(f'{msg}; its "state" must be one of {", ".join(State)}') from None
            self._known[key] = entry
            return entry

    def _set(self, name: str, value: Any) -> None:
        # the value is deleted with the DAG run
        self._ask(lambda: self.task_state.set(name, value, retention=never_expire()))

    @staticmethod
    def _ask(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:
            raise LedgerStoreError(f"Airflow's task state can't be used: {type(error).__name__}: {error}") from error


def value_of(entry: Entry) -> dict[str, Any]:
    """Return the value that is stored for an entry."""
    return {name: value for name, value in entry.to_dict().items() if value not in (None, "")}
