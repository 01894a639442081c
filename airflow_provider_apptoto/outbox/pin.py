"""Detect a lost or replaced state database before anything is sent, with a digest stored in Airflow."""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING, Protocol

from airflow_provider_apptoto.outbox.stores.base import LedgerStoreError

if TYPE_CHECKING:
    from airflow_provider_apptoto.outbox.database import StateDatabase


log = logging.getLogger(__name__)


class Memory(Protocol):
    """Storage for pins: separate from the state database, and visible to all tries of all tasks."""

    def get(self, name: str) -> str | None:
        """Return a value, or ``None``."""

    def set(self, name: str, value: str) -> None:
        """Store a value."""


class Pin:
    """Checks whether a state database is the one that earlier tasks used.

    :param conn_id: id of the connection to the database.
    :param memory: stores the pin.
    :param accept_command: the command line that accepts a different database.
    """

    def __init__(self, conn_id: str, database: StateDatabase, memory: Memory, accept_command: str) -> None:
        self._conn_id = conn_id
        self._database = database
        self._memory = memory
        self._accept_command = accept_command

    @property
    def name(self) -> str:
        """The name of the stored pin."""
        return f"apptoto_ledger_{self._conn_id}"

    def check(self) -> None:
        """Check the database against the pin. On first use, create its tables and pin it.

        :raises LedgerStoreError: the database is not the pinned one, or can't be used.
        """
        try:
            pinned = self._memory.get(self.name)
        except Exception as error:
            msg = f"the Airflow Variable {self.name}, which identifies the state database, can't be read"
            raise LedgerStoreError(f"{msg}: {type(error).__name__}") from error
        if pinned is None:
            self._pin()
            return
        salt = self._database.existing_salt()
        if salt is not None and _digest(salt) == pinned:
            return
        what = "is empty" if salt is None else "is not the one that earlier tasks used"
        msg = (
            f"the state database of connection {self._conn_id!r} {what}, so it does not show which messages were sent. "
            "Restore it (a SQLite file serves one host only), or accept the loss and possible resends with: "
            f"{self._accept_command}"
        )
        raise LedgerStoreError(msg)

    def _pin(self) -> None:
        digest = _digest(self._database.salt())
        try:
            self._memory.set(self.name, digest)
        except Exception:
            line = "Can't set the Airflow Variable %s: a lost or replaced state database will not be detected"
            log.warning(line, self.name, exc_info=True)

    def accept(self) -> None:
        """Pin the database as it is now."""
        self._memory.set(self.name, _digest(self._database.salt()))


def _digest(salt: bytes) -> str:
    return hashlib.sha256(b"pin" + salt).hexdigest()[:16]
