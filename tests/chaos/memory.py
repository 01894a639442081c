"""The ledger of each arm, and how a person resolves its entries."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy.engine import URL

from airflow_provider_apptoto.outbox.admin import Author, LedgerAdmin, Selection
from airflow_provider_apptoto.outbox.database import StateDatabase
from airflow_provider_apptoto.outbox.entry import Entry, State
from airflow_provider_apptoto.outbox.pin import Pin
from airflow_provider_apptoto.outbox.stores.sql import SqlLedgerStore
from airflow_provider_apptoto.outbox.stores.task_state import TaskStateLedgerStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airflow_provider_apptoto.outbox.origin import Origin
    from airflow_provider_apptoto.outbox.stores.base import LedgerStore


class Memory(Protocol):
    """A ledger as a run of all tasks has it."""

    def store(self, origin: Origin) -> LedgerStore:
        """Return the ledger as a try sees it."""

    def lost(self, origin: Origin) -> LedgerStore:
        """Return what a try sees if the ledger was lost."""

    def entries(self) -> list[Entry]:
        """Return all entries."""

    def resolve(self, entry: Entry, state: State) -> None:
        """Resolve a message as a person who checked whether it was sent."""


def resolve(database: StateDatabase, entry: Entry, state: State) -> None:
    """Resolve a message as a person who checked whether it was sent."""
    admin = LedgerAdmin(database)
    found = admin.resolvable(Selection(keys=[entry.key]))
    resolved = admin.resolve(found, state, Author(by="me", note="looked"))
    assert [each.entry.state for each in resolved] == [state], f"{entry.state} could not be resolved"


class _Variables(dict[str, str]):
    """A fake of Airflow's Variables, as a pin uses them."""

    def set(self, name: str, value: str) -> None:
        self[name] = value


class SqlMemory:
    """A state database: a file of SQLite."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._database = self._file("state.db")

    def _file(self, name: str) -> StateDatabase:
        return StateDatabase(URL.create("sqlite", database=str(self._folder / name)))

    def store(self, _origin: Origin) -> SqlLedgerStore:
        return SqlLedgerStore(self._database)

    def lost(self, _origin: Origin) -> SqlLedgerStore:
        variables = _Variables()
        Pin("state", self._database, variables, "").accept()
        empty = self._file("empty.db")
        return SqlLedgerStore(empty, Pin("state", empty, variables, "ledger init --accept"))

    def entries(self) -> list[Entry]:
        return [record.entry for record in LedgerAdmin(self._database).select(Selection())]

    def resolve(self, entry: Entry, state: State) -> None:
        resolve(self._database, entry, state)


class TaskStateMemory:
    """A fake of Airflow's task state in a SQLite file, so that it outlives killed tries.

    Like Airflow's, it has no compare-and-swap, the last write wins, and a try that is not the newest finds nothing and
    can write nothing: Airflow answers 404 to both.
    ``tests/scheduler/test_kills.py`` uses the real one.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "task_state.db"
        self._opened: tuple[int, sqlite3.Connection] | None = None
        with self.connection() as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("CREATE TABLE IF NOT EXISTS tries (map_index PRIMARY KEY, newest)")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS states (map_index, key, value, PRIMARY KEY (map_index, key))"
            )

    @contextlib.contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """Provide a connection whose changes are kept unless something is raised."""
        if self._opened is None or self._opened[0] != os.getpid():  # a child must not use that of its parent
            self._opened = os.getpid(), sqlite3.connect(self._path, timeout=30, check_same_thread=False)
            self._opened[1].execute("PRAGMA synchronous=NORMAL")
        with self._opened[1]:
            yield self._opened[1]

    def store(self, origin: Origin) -> TaskStateLedgerStore:
        this = (origin.map_index, origin.try_number)
        newest = "INSERT INTO tries VALUES (?, ?) ON CONFLICT DO UPDATE SET newest = max(newest, excluded.newest)"
        with self.connection() as connection:
            connection.execute(newest, this)
        return TaskStateLedgerStore(_Accessor(self, origin))

    def lost(self, origin: Origin) -> TaskStateLedgerStore:
        """Return the ledger, which Airflow deletes only with the task."""
        return self.store(origin)

    def entries(self) -> list[Entry]:
        with self.connection() as connection:
            rows = connection.execute("SELECT value FROM states WHERE key LIKE 'apptoto-message-%'").fetchall()
        return [Entry.from_dict(json.loads(value)) for (value,) in rows]

    def resolve(self, entry: Entry, state: State) -> None:
        edit = "UPDATE states SET value = json_set(value, '$.state', ?) WHERE map_index = ? AND key LIKE ?"
        with self.connection() as connection:
            edited = connection.execute(edit, (str(state), entry.origin.map_index, f"%{entry.key}")).rowcount
        assert edited == 1


@dataclass(frozen=True, slots=True)
class _Accessor:
    """What a task's context holds as ``task_state_store``."""

    memory: TaskStateMemory
    origin: Origin

    def get(self, key: str) -> Any:
        with self.memory.connection() as connection:
            if not self._is_newest(connection):
                return None
            query = "SELECT value FROM states WHERE map_index = ? AND key = ?"
            found = connection.execute(query, (self.origin.map_index, key)).fetchone()
        return None if found is None else json.loads(found[0])

    def set(self, key: str, value: Any, *, retention: Any) -> None:  # noqa: ARG002  Airflow's
        with self.memory.connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            if not self._is_newest(connection):
                raise LookupError("404")
            row = (self.origin.map_index, key, json.dumps(value))
            connection.execute("INSERT OR REPLACE INTO states VALUES (?, ?, ?)", row)

    def _is_newest(self, connection: sqlite3.Connection) -> bool:
        query = "SELECT newest FROM tries WHERE map_index = ?"
        newest: tuple[int] = connection.execute(query, (self.origin.map_index,)).fetchone()
        return newest == (self.origin.try_number,)
