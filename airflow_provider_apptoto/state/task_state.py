"""The ledger in Airflow's own task state (Airflow 3.3 and newer): nothing to set up, kept for one task instance."""

from __future__ import annotations

import logging
import secrets
import threading
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_provider_apptoto._airflow import never_expire
from airflow_provider_apptoto.state.secret import LedgerSecret, other_secret
from airflow_provider_apptoto.state.store import Entry, LedgerStoreError, State

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

log = logging.getLogger(__name__)

_lock = threading.RLock()
"""Around all that goes through Airflow's supervisor: its channel is one a process."""
_SALT = "apptoto-salt"


class TaskStateLedgerStore:
    """Keeps entries in the state of the running task instance.

    Airflow's store has no compare-and-set, and needs none here: it takes writes from the newest try only.

    :param task_state: the context's ``task_state_store``.
    :param secret: the deployment's, which keys the hashes.
    """

    spans_tasks = False

    def __init__(self, task_state: Any, secret: LedgerSecret = LedgerSecret()) -> None:  # noqa: B008  without state
        self._task_state = task_state
        self._secret = secret

    def hash_keys(self) -> list[bytes]:
        """Return what hashes are keyed with, the newest first; the salt is made by the first try."""
        return self._hash_keys

    @cached_property
    def _hash_keys(self) -> list[bytes]:
        with _lock:
            found = self._ask(lambda: self._task_state.get(_SALT))
            if found is None:
                salt = secrets.token_bytes(16)
                found = {"salt": salt.hex(), "secret": self._secret.checks(salt)[0]}
                self._set(_SALT, found)
        salt = bytes.fromhex(found["salt"])
        if found["secret"] not in self._secret.checks(salt):
            raise LedgerStoreError(other_secret("the task's state"))
        return self._secret.keys(salt)

    def find(self, key: str) -> Entry | None:
        """Return an entry."""
        with _lock:
            value = self._ask(lambda: self._task_state.get(_name(key)))
        if value is None:
            return None
        try:
            return Entry.from_dict(value)
        except ValueError as error:
            msg = f"{_name(key)} in the task's state can't be read ({error})"
            raise LedgerStoreError(f'{msg}; its "state" has to be one of {", ".join(State)}') from None

    def swap(self, old: Entry | None, new: Entry) -> bool:
        """Put ``new`` in the place of ``old``, and tell whether that was still there."""
        with _lock:
            if self.find(new.key) != old:
                return False
            self._set(_name(new.key), new.to_dict())
        return True

    def unresolved(self) -> None:
        """Return nothing: other tasks' states can't be seen from here."""

    def how_to_resolve(self, key: str) -> str:
        """Say which entry a person has to edit."""
        return (
            "then,\nin Airflow, open the task instance, Storage, Task State Store, and edit\n"
            f"  {_name(key)}\n"
            'Set its "state" to "sent" if Apptoto has the message, else to "not_sent".\n'
            "Then clear the task: it succeeds without sending, or sends"
        )

    def _set(self, name: str, value: Any) -> None:
        self._ask(lambda: _set(self._task_state, name, value))

    @staticmethod
    def _ask(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:
            raise LedgerStoreError(f"Airflow's task state can't be used: {type(error).__name__}: {error}") from error


def show(context: Mapping[str, Any], name: str, value: Any) -> None:
    """Let people see a value in the task's state while it runs, where Airflow has that; it is worth no failure."""
    task_state = context.get("task_state_store")
    if task_state is None:
        return
    try:
        with _lock:
            _set(task_state, name, value)
    except Exception:
        log.debug("%s could not be shown in the task's state", name, exc_info=True)


def _set(task_state: Any, name: str, value: Any) -> None:
    task_state.set(name, value, retention=never_expire())


def _name(key: str) -> str:
    return f"apptoto-message-{key}"
