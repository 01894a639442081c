"""What Airflow remembers of a state database, so that one that lost its memory is noticed before anything is sent."""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING, Protocol

from airflow_provider_apptoto.outbox.stores.base import LedgerStoreError

if TYPE_CHECKING:
    from airflow_provider_apptoto.outbox.database import StateDatabase


log = logging.getLogger(__name__)


class Memory(Protocol):
    """Where pins are kept: apart from the state database, and seen by all tries of all tasks."""

    def get(self, name: str) -> str | None:
        """Return a value, or ``None``."""

    def set(self, name: str, value: str) -> None:
        """Keep a value."""


class Pin:
    """Tells whether a state database is the one that earlier tasks used.

    :param conn_id: of the connection to the database.
    :param memory: keeps the pin.
    :param accept_command: the command line that accepts a database that is another one.
    """

    def __init__(self, conn_id: str, database: StateDatabase, memory: Memory, accept_command: str) -> None:
        self._conn_id = conn_id
        self._database = database
        self._memory = memory
        self._accept_command = accept_command

    @property
    def name(self) -> str:
        """The name under which it is kept."""
        return f"apptoto_ledger_{self._conn_id}"

    def check(self) -> None:
        """Pin a database that is used for the first time; make its tables only then.

        :raises LedgerStoreError: it is not the one that was pinned, or can't be used.
        """
        try:
            pinned = self._memory.get(self.name)
        except Exception as error:
            msg = f"Airflow's Variable {self.name}, which tells a database that lost its memory, can't be read"
            raise LedgerStoreError(f"{msg}: {type(error).__name__}") from error
        if pinned is None:
            self._pin()
            return
        salt = self._database.existing_salt()
        if salt is not None and _digest(salt) == pinned:
            return
        what = "is empty" if salt is None else "is not the one that earlier tasks used"
        msg = (
            f"the state database of connection {self._conn_id!r} {what}: which messages were sent is no longer known. "
            "Restore it (a SQLite file serves one host only), or accept the loss, and that messages may be sent again: "
            f"{self._accept_command}"
        )
        raise LedgerStoreError(msg)

    def _pin(self) -> None:
        digest = _digest(self._database.salt())
        try:
            self._memory.set(self.name, digest)
        except Exception:
            line = "Airflow's Variable %s can't be set: if the state database loses its memory, nobody will notice"
            log.warning(line, self.name, exc_info=True)

    def accept(self) -> None:
        """Pin the database as it is now."""
        self._memory.set(self.name, _digest(self._database.salt()))


def _digest(salt: bytes) -> str:
    return hashlib.sha256(b"pin" + salt).hexdigest()[:16]
