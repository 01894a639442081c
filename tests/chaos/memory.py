"""Where the arms keep their ledger, and what a person does to it."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy.engine import URL

from airflow_provider_apptoto.state.database import StateDatabase
from airflow_provider_apptoto.state.pin import Pin
from airflow_provider_apptoto.state.sql_ledger import Selection, SqlLedgerStore
from airflow_provider_apptoto.state.store import Entry, LedgerStore, State
from airflow_provider_apptoto.state.task_state import TaskStateLedgerStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airflow_provider_apptoto.state.store import Origin


class Memory(Protocol):
    """A ledger as a run of all tasks has it."""

    def store(self, origin: Origin) -> LedgerStore:
        """Return the ledger as a try sees it."""

    def lost(self, origin: Origin) -> LedgerStore:
        """Return what a try sees where the ledger was lost."""

    def entries(self) -> list[Entry]:
        """Return all entries."""

    def resolve(self, entry: Entry, state: State) -> None:
        """Do as a person who has looked whether the message was sent."""


class _Variables(dict[str, str]):
    """Airflow's Variables, as far as a pin needs them."""

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
        return SqlLedgerStore(self._database, "resolve")

    def lost(self, _origin: Origin) -> SqlLedgerStore:
        variables = _Variables()
        Pin("state", self._database, variables, "").accept()
        empty = self._file("empty.db")
        return SqlLedgerStore(empty, "resolve", Pin("state", empty, variables, "ledger init --accept"))

    def entries(self) -> list[Entry]:
        return [entry for entry, _ in SqlLedgerStore(self._database, "").entries(Selection())]

    def resolve(self, entry: Entry, state: State) -> None:
        selection = Selection(keys=[entry.key])
        store = SqlLedgerStore(self._database, "")
        resolved = store.resolve(store.resolvable(selection), state, by="me", note="looked")
        assert [each.state for each in resolved] == [state], f"{entry.state} could not be resolved"


class TaskStateMemory:
    """A stand-in for Airflow's task state: a file of SQLite, so that it outlives who is killed.

    As Airflow's, it has no compare-and-set, the last write wins, and a try that is not the newest finds nothing and may
    write nothing: Airflow answers 404 to both.
    ``tests/scheduler/test_kills.py`` does it with the real one.
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
        """Give a connection whose changes are kept where nothing is raised."""
        if self._opened is None or self._opened[0] != os.getpid():  # a connection is no child's to inherit
            self._opened = os.getpid(), sqlite3.connect(self._path, timeout=30)
            self._opened[1].execute("PRAGMA synchronous=NORMAL")
        with self._opened[1]:
            yield self._opened[1]

    def store(self, origin: Origin) -> TaskStateLedgerStore:
        with self.connection() as connection:
            newest = (origin.map_index, origin.try_number)
            connection.execute("INSERT OR REPLACE INTO tries VALUES (?, ?)", newest)
        return TaskStateLedgerStore(_Accessor(self, origin))

    def lost(self, origin: Origin) -> TaskStateLedgerStore:
        """Return the ledger: it is Airflow's own, which is lost with the task."""
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
