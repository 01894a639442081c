"""The messages that the sandbox accepted, stored in SQLite."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

Value: TypeAlias = str | int | None
Entry: TypeAlias = dict[str, Value]

#: The fields in the order of the endpoint's documentation.
FIELDS = ("type", "to", "event_id", "participant_id", "message", "subject", "template_id")

# The columns have no type, so SQLite stores an id as it was sent: a number or a string.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS inbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    received_at, type, "to", event_id, participant_id, message, subject, template_id
)
"""
_INSERT = """
INSERT INTO inbox (received_at, type, "to", event_id, participant_id, message, subject, template_id)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""


class Inbox:
    """The messages that were accepted. Safe to use from several threads.

    :param database: path of an SQLite file, which is created if missing; None keeps the messages in memory.
    :raises OSError: the file can't be used.
    """

    def __init__(self, database: str | Path | None = None) -> None:
        self._lock = threading.Lock()
        try:
            # Autocommit: a message is on disk before it is answered with success.
            if database is not None:
                with contextlib.suppress(OSError):  # SQLite reports the cause better
                    os.close(os.open(database, os.O_CREAT | os.O_WRONLY, 0o600))
            self._connection = sqlite3.connect(database or ":memory:", check_same_thread=False, isolation_level=None)
        except sqlite3.Error as error:
            raise _unusable(database, error) from error
        self._connection.row_factory = sqlite3.Row
        try:
            self._connection.execute(_SCHEMA)
        except sqlite3.Error as error:
            self._connection.close()
            raise _unusable(database, error) from error

    def add(self, message: Mapping[str, Value]) -> None:
        """Store one message.

        :param message: the endpoint's fields; a missing field is stored as None.
        """
        row = (datetime.now(UTC).isoformat(timespec="milliseconds"), *map(message.get, FIELDS))
        with self._lock:
            self._connection.execute(_INSERT, row).close()

    def entries(self, newest: int | None = None) -> list[Entry]:
        """Return the messages in the order of arrival.

        :param newest: maximum number of messages, the newest ones; None returns all.
        """
        with (
            self._lock,
            closing(
                self._connection.execute(
                    "SELECT * FROM inbox ORDER BY id DESC LIMIT ?", (-1 if newest is None else newest,)
                )
            ) as cursor,
        ):
            return [dict(row) for row in reversed(cursor.fetchall())]

    def __len__(self) -> int:
        """Return the number of messages."""
        with self._lock, closing(self._connection.execute("SELECT count(*) FROM inbox")) as cursor:
            return int(cursor.fetchone()[0])

    def clear(self) -> int:
        """Delete all messages and return their number."""
        with self._lock, closing(self._connection.execute("DELETE FROM inbox")) as cursor:
            return cursor.rowcount

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._connection.close()


def by_recipient(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """Group messages by recipient, in their order. A message with several targets is listed under each.

    :param entries: messages as :meth:`Inbox.entries` returns them.
    """
    people: dict[str, list[Entry]] = {}
    for entry in entries:
        for field, label in (
            ("to", "{}"),
            ("participant_id", "Participant {}"),
            # "Each participant in the event will receive a copy" (endpoint page).
            ("event_id", "Everybody at event {}"),
        ):
            if entry[field] is not None:
                people.setdefault(label.format(entry[field]), []).append(entry)
    return people


def _unusable(database: str | Path | None, error: sqlite3.Error) -> OSError:
    return OSError(f"Can't store the sandbox's messages in {database}: {error}")
