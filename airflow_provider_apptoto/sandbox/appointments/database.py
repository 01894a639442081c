"""The SQLite tables of appointments, and access to them from several threads."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from airflow_provider_apptoto.sandbox.inbox import nothing, opened, unusable
from airflow_provider_apptoto.sandbox.search import folded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

# The ids of each kind begin elsewhere, so that a mixed-up id finds nothing.
_FIRST_IDS = {
    "address_books": 20_001,
    "events": 1_000_001,
    "contacts": 3_000_001,
    "participants": 5_000_001,
    "messages": 9_000_001,
    "calendars": 1_000_000_001,
}
# Times as they were given stand beside seconds since 1970, by which they are compared.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS calendars (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS address_books (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY AUTOINCREMENT, calendar_id INTEGER NOT NULL, external_id TEXT, title TEXT NOT NULL,
    start_time TEXT NOT NULL, start_at REAL NOT NULL, end_time TEXT NOT NULL, previous_start_time TEXT,
    time_zone TEXT, location TEXT NOT NULL DEFAULT '', content TEXT NOT NULL DEFAULT '',
    all_day INTEGER NOT NULL DEFAULT 0, show_as INTEGER, custom_data TEXT NOT NULL DEFAULT '{}',
    is_deleted INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS participants (
    id INTEGER PRIMARY KEY AUTOINCREMENT, event_id INTEGER NOT NULL, name TEXT NOT NULL DEFAULT '',
    phone TEXT NOT NULL DEFAULT '', normalized_phone TEXT, email TEXT NOT NULL DEFAULT '',
    state TEXT NOT NULL DEFAULT 'initial', contact_id INTEGER, has_answered INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT, participant_id INTEGER NOT NULL, channel TEXT NOT NULL, at REAL NOT NULL,
    event_type TEXT NOT NULL, content TEXT NOT NULL, delivery_state TEXT, delivery_error TEXT,
    delivery_failed INTEGER, send_failed INTEGER
);
CREATE TABLE IF NOT EXISTS plans (
    id INTEGER PRIMARY KEY AUTOINCREMENT, due REAL NOT NULL, participant_id INTEGER NOT NULL, message_id INTEGER,
    action TEXT NOT NULL, channel TEXT NOT NULL, text TEXT, is_magic INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS opt_outs (channel TEXT NOT NULL, address TEXT NOT NULL, PRIMARY KEY (channel, address));
CREATE TABLE IF NOT EXISTS contacts (
    id INTEGER PRIMARY KEY AUTOINCREMENT, external_id TEXT, address_book_id INTEGER NOT NULL, fields TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS events_by_start ON events (is_deleted, start_at, id);
CREATE INDEX IF NOT EXISTS all_events_by_start ON events (start_at, id);
CREATE INDEX IF NOT EXISTS events_by_external_id ON events (external_id);
CREATE INDEX IF NOT EXISTS participants_by_event ON participants (event_id);
CREATE INDEX IF NOT EXISTS participants_by_phone ON participants (normalized_phone);
CREATE INDEX IF NOT EXISTS participants_by_email ON participants (email COLLATE NOCASE);
CREATE INDEX IF NOT EXISTS messages_by_participant ON messages (participant_id);
CREATE INDEX IF NOT EXISTS plans_by_due ON plans (due);
CREATE INDEX IF NOT EXISTS contacts_by_external_id ON contacts (external_id)
"""
TABLES = ("calendars", "address_books", "events", "participants", "messages", "plans", "opt_outs", "contacts")


class Database:
    """A connection that threads share.

    :param path: an SQLite file, which may be that of the inbox; it is created if missing. None keeps all in memory.
    :param changed: called after each change, from the thread that made it.
    :raises OSError: the file can't be used.
    """

    def __init__(self, path: str | Path | None = None, changed: Callable[[], None] = nothing) -> None:
        self.lock = threading.RLock()
        """Held while something is read or changed."""
        self._changed = changed
        self.changes = 0
        """Number of changes."""
        try:
            self._connection = opened(path)
            self._connection.create_function("folded", -1, folded, deterministic=True)
            with self.writing() as connection:
                for statement in _SCHEMA.split(";"):
                    connection.execute(statement).close()
                for table, first in _FIRST_IDS.items():
                    connection.execute(
                        "INSERT INTO sqlite_sequence (name, seq) SELECT ?, ? "
                        "WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = ?)",
                        (table, first - 1, table),
                    ).close()
        except sqlite3.Error as error:
            raise unusable(path, error) from error

    def rows(self, statement: str, values: Sequence[object] = ()) -> list[Any]:
        """Return the rows of a query."""
        with self.lock, closing(self._connection.execute(statement, values)) as cursor:
            return cursor.fetchall()

    def number(self, statement: str, values: Sequence[object] = ()) -> int:
        """Return the only value of a query."""
        return int(self.rows(statement, values)[0][0])

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Change something: all of the block or, if it raises, nothing."""
        with self.lock:
            if self._connection.in_transaction:
                yield self._connection
                return
            self._connection.execute("BEGIN IMMEDIATE").close()
            with self._connection:
                yield self._connection
            self.changes += 1
        self._changed()

    def close(self) -> None:
        """Close the connection."""
        with self.lock:
            self._connection.close()


def insert(connection: sqlite3.Connection, table: str, **values: object) -> int:
    """Insert a row and return its id."""
    names = ", ".join(values)
    statement = f"INSERT INTO {table} ({names}) VALUES ({', '.join('?' * len(values))})"  # noqa: S608  fixed names
    with closing(connection.execute(statement, list(values.values()))) as cursor:
        return int(cursor.lastrowid or 0)


def update(connection: sqlite3.Connection, table: str, row_id: int, **values: object) -> None:
    """Change columns of a row."""
    if values:
        names = ", ".join(f"{name} = ?" for name in values)
        statement = f"UPDATE {table} SET {names} WHERE id = ?"  # noqa: S608  fixed names
        connection.execute(statement, [*values.values(), row_id]).close()
