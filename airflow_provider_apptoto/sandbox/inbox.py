"""The requests that the sandbox got, stored in SQLite: messages that people got, and what was refused."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeAlias

from airflow_provider_apptoto.sandbox.search import ANY, Search, folded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

Value: TypeAlias = str | int | None
Entry: TypeAlias = dict[str, Value]

#: The fields in the order of the endpoint's documentation.
FIELDS = ("type", "to", "event_id", "participant_id", "message", "subject", "template_id")
#: The ids of the task that sent a message, as :meth:`Origin.to_dict` names them.
SENDER = ("origin", "dag_id", "run_id", "task_id", "map_index", "try_number")
#: What a message to an event or a participant has beside: the person's name, and the text before it was filled.
COPY = ("recipient_name", "unfilled")
#: Number of requests that are kept, by default.
KEEP = 5000

# The columns have no type, so SQLite stores an id as it was sent: a number or a string.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS inbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    received_at, type, "to", event_id, participant_id, message, subject, template_id
)
"""
# Columns that the first version of the table lacks, with the values of its messages: only accepted ones were stored.
_LATER_COLUMNS = {
    "outcome": "DEFAULT 'accepted'",
    "delivered": "DEFAULT 1",
    "status": "DEFAULT 200",
    "error": "",
    **dict.fromkeys(SENDER, ""),
    **dict.fromkeys(COPY, ""),
}
_INDEXES = (
    'CREATE INDEX IF NOT EXISTS inbox_by_recipient ON inbox ("to")',
    "CREATE INDEX IF NOT EXISTS inbox_by_dag ON inbox (dag_id)",
)
_COLUMNS = ("received_at", *FIELDS, *_LATER_COLUMNS)
_NAMES = ", ".join(f'"{name}"' for name in _COLUMNS)
_INSERT = f"INSERT INTO inbox ({_NAMES}) VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608  no value in it


def nothing() -> None:
    """Do nothing, for callers that need not know of changes."""


class Inbox:
    """The requests to send a message. Safe to use from several threads.

    :param database: path of an SQLite file, which is created if missing; None keeps the requests in memory.
    :param keep: number of requests that are kept, the newest ones, at least 1.
    :param changed: called after each change, from the thread that made it.
    :raises OSError: the file can't be used.
    """

    def __init__(
        self, database: str | Path | None = None, *, keep: int = KEEP, changed: Callable[[], None] = nothing
    ) -> None:
        self._lock = threading.Lock()
        self.keep = keep
        self._changed = changed
        self.deletions = 0
        """Number of times that messages were deleted by a caller."""
        try:
            self._connection = opened(database)
        except sqlite3.Error as error:
            raise unusable(database, error) from error
        try:
            self._connection.create_function("folded", -1, folded, deterministic=True)
            self._migrate()
            self._count = self._number("SELECT count(*) FROM inbox")
            self._prune()
        except sqlite3.Error as error:
            self._connection.close()
            raise unusable(database, error) from error

    def add(
        self,
        message: Mapping[str, Value],
        *,
        outcome: str = "accepted",
        delivered: bool = True,
        status: int | None = 200,
        error: str | None = None,
        sender: Mapping[str, Value] | None = None,
    ) -> None:
        """Store one request.

        :param message: the endpoint's fields; a missing field is stored as None.
        :param outcome: ``accepted``, ``refused`` or ``fault``.
        :param delivered: whether the recipient gets the message.
        :param status: HTTP status of the answer; None if there was no answer.
        :param error: why it was not accepted, or the fault.
        :param sender: ids of the task that sent it.
        """
        row = {
            **message,
            **(sender or {}),
            "received_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "outcome": outcome,
            "delivered": int(delivered),
            "status": status,
            "error": error,
        }
        with self._lock:
            self._connection.execute(_INSERT, [row.get(name) for name in _COLUMNS]).close()
            self._count += 1
            self._prune()
        self._changed()

    def entries(self, search: Search | None = None, limit: int | None = None) -> list[Entry]:
        """Return requests in the order of arrival.

        :param search: which; by default the messages that people got.
        :param limit: maximum number: the newest ones, or after ``since_id`` the oldest ones, so that a reader who
            goes on from the last id misses none. None returns all.
        """
        search = search or Search()
        where, values = search.where()
        is_forward = search.since_id is not None
        order = "ASC" if is_forward else "DESC"
        statement = f"SELECT * FROM inbox WHERE {where} ORDER BY id {order} LIMIT ?"  # noqa: S608  conditions of Search
        rows = self._rows(statement, [*values, -1 if limit is None else limit])
        return [_entry(row) for row in (rows if is_forward else reversed(rows))]

    def get(self, number: int) -> Entry | None:
        """Return the request with this id, if it is still there."""
        rows = self._rows("SELECT * FROM inbox WHERE id = ?", [number])
        return _entry(rows[0]) if rows else None

    def ids(self, since_id: int) -> list[int]:
        """Return the ids of all requests after this id."""
        return [row[0] for row in self._rows("SELECT id FROM inbox WHERE id > ? ORDER BY id", [since_id])]

    def last_id(self) -> int:
        """Return the newest id, or 0."""
        with self._lock:
            return self._number("SELECT coalesce(max(id), 0) FROM inbox")

    def dags(self) -> list[str]:
        """Return the ids of the DAGs that sent a request, in alphabetical order."""
        return [row[0] for row in self._rows("SELECT DISTINCT dag_id FROM inbox WHERE dag_id <> '' ORDER BY 1", [])]

    def count(self, search: Search) -> int:
        """Return the number of requests that a search finds."""
        where, values = search.where()
        with self._lock:
            return self._number(f"SELECT count(*) FROM inbox WHERE {where}", values)  # noqa: S608  conditions of Search

    def delete(self, search: Search) -> int:
        """Delete the requests that a search finds, and return their number."""
        where, values = search.where()
        return self._delete(f"DELETE FROM inbox WHERE {where}", values)  # noqa: S608  conditions of Search

    def delete_one(self, number: int) -> int:
        """Delete the request with this id, and return 1, or 0 if it is not there."""
        return self._delete("DELETE FROM inbox WHERE id = ?", [number])

    def clear(self) -> int:
        """Delete all requests and return their number."""
        return self.delete(Search(outcome=ANY))

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._connection.close()

    def _migrate(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE").close()
        with self._connection:
            self._connection.execute(_SCHEMA).close()
            with closing(self._connection.execute("PRAGMA table_info(inbox)")) as cursor:
                existing = {row["name"] for row in cursor.fetchall()}
            for name, default in _LATER_COLUMNS.items():
                if name not in existing:
                    self._connection.execute(f"ALTER TABLE inbox ADD COLUMN {name} {default}").close()
            for statement in _INDEXES:
                self._connection.execute(statement).close()

    def _prune(self) -> None:
        if self._count > self.keep:
            statement = "DELETE FROM inbox WHERE id IN (SELECT id FROM inbox ORDER BY id LIMIT ?)"
            with closing(self._connection.execute(statement, [self._count - self.keep])) as cursor:
                self._count -= cursor.rowcount

    def _delete(self, statement: str, values: Sequence[Value]) -> int:
        with self._lock, closing(self._connection.execute(statement, values)) as cursor:
            self._count -= cursor.rowcount
            self.deletions += 1
            deleted = cursor.rowcount
        self._changed()
        return deleted

    def _rows(self, statement: str, values: Sequence[Value]) -> list[Any]:
        with self._lock, closing(self._connection.execute(statement, values)) as cursor:
            return cursor.fetchall()

    def _number(self, statement: str, values: Sequence[Value] = ()) -> int:
        with closing(self._connection.execute(statement, values)) as cursor:
            return int(cursor.fetchone()[0])


def by_recipient(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """Group messages by recipient, in their order. A message with several targets is listed under each.

    Messages to the participants of an appointment are listed by name and number.

    :param entries: messages as :meth:`Inbox.entries` returns them.
    """
    people: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.get("recipient_name") is not None:
            person = ", ".join(str(part) for part in (entry["recipient_name"], entry["to"]) if part)
            people.setdefault(person, []).append(entry)
            continue
        for field, label in (
            ("to", "{}"),
            ("participant_id", "Participant {}"),
            # "Each participant in the event will receive a copy" (endpoint page).
            ("event_id", "Everybody at event {}"),
        ):
            if entry[field] is not None:
                people.setdefault(label.format(entry[field]), []).append(entry)
    return people


def _entry(row: sqlite3.Row) -> Entry:
    return {**dict(row), "delivered": bool(row["delivered"])}


def opened(database: str | Path | None) -> sqlite3.Connection:
    """Open a database for several threads, which must take turns.

    :param database: path of an SQLite file, which is created for its owner alone; None keeps the data in memory.
    :raises sqlite3.Error: it can't be used.
    """
    if database is not None:
        with contextlib.suppress(OSError):  # SQLite reports the cause better
            os.close(os.open(database, os.O_CREAT | os.O_WRONLY, 0o600))
    # Autocommit: a message is on disk before it is answered with success.
    connection = sqlite3.connect(database or ":memory:", check_same_thread=False, isolation_level=None)
    connection.row_factory = sqlite3.Row
    return connection


def unusable(database: str | Path | None, error: sqlite3.Error) -> OSError:
    """Return the error that names a file which can't be used."""
    return OSError(f"Can't store the sandbox's messages in {database}: {error}")
