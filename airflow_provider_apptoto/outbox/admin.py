"""Show, resolve, forget and purge ledger entries in the state database."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy import and_, delete, func, insert, or_, select, update

from airflow_provider_apptoto.outbox.entry import Entry, State, iso
from airflow_provider_apptoto.outbox.export import write_export
from airflow_provider_apptoto.outbox.schema import changes, ledger
from airflow_provider_apptoto.outbox.stores.sql import entry_of, unresolved_condition, values_of
from airflow_provider_apptoto.privacy import MAX_LINE, is_one_line

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path

    from sqlalchemy.engine import Connection
    from sqlalchemy.sql import ColumnElement, Select

    from airflow_provider_apptoto.outbox.database import StateDatabase

RESOLUTIONS = (State.SENT, State.NOT_SENT)
"""States that a person may set."""
FORGOTTEN = "forgotten"
"""The new state in the change that removes an entry."""
_FINISHED = (State.SENT, State.REDIRECTED, State.NOT_SENT, State.REJECTED)
_LOT = 500
"""Keys per statement, and entries purged per transaction."""
_KEY_LENGTH = 32
_PRIVATE = ("fingerprint", "recipient", "lease", "version")
_TIMES = ("created_at", "updated_at", "sent_at")


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Filters for entries; a field that is ``None`` or empty does not filter.

    :param keys: keys or their first characters.
    :param states: ``unknown`` includes entries that a killed task left in ``sending``.
    :param channel: ``sms``, ``call`` or ``email``.
    :param reference: the whole reference.
    :param since: entries whose state was set at or after this time (seconds since 1970, UTC).
    :param until: entries whose state was set before this time (seconds since 1970, UTC).
    """

    keys: Collection[str] = ()
    states: Collection[str] = ()
    channel: str | None = None
    dag_id: str | None = None
    task_id: str | None = None
    run_id: str | None = None
    reference: str | None = None
    since: float | None = None
    until: float | None = None

    def condition(self) -> ColumnElement[bool]:
        """Return the filters as an SQL condition."""
        names = ("channel", "dag_id", "task_id", "run_id", "reference")
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        conditions: list[ColumnElement[bool]] = [ledger.c[name] == value for name, value in given.items()]
        if self.keys:
            whole = [key for key in self.keys if len(key) == _KEY_LENGTH]
            parts = (key for key in self.keys if len(key) != _KEY_LENGTH)
            begins = (ledger.c.message_key.startswith(part, autoescape=True) for part in parts)
            # LIKE can't use the primary key
            conditions.append(or_(ledger.c.message_key.in_(whole), *begins))
        if self.states:
            alternatives: list[ColumnElement[bool]] = [ledger.c.state.in_(list(self.states))]
            if State.UNKNOWN in self.states:
                alternatives.append(unresolved_condition(time.time()))
            conditions.append(or_(*alternatives))
        if self.since is not None:
            conditions.append(ledger.c.updated_at >= self.since)
        if self.until is not None:
            conditions.append(ledger.c.updated_at < self.until)
        return and_(True, *conditions)  # noqa: FBT003  an SQL constant


@dataclass(frozen=True, slots=True, kw_only=True)
class Author:
    """Who changes entries, and why; stored with each change.

    :param by: name of the person, one line of 1 to 200 characters.
    :param note: reason for the change, one line of 1 to 200 characters.
    :raises ValueError: a value is not such a line.
    """

    by: str
    note: str

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not is_one_line(value):
                raise ValueError(f"{name} must be one line of 1 to {MAX_LINE} characters")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change that a person made to an entry.

    :param at: seconds since 1970, UTC.
    :param to_state: the new state, or ``forgotten``.
    """

    at: float
    from_state: str
    to_state: str
    changed_by: str
    note: str

    @classmethod
    def of(cls, old: Entry, new: Entry | None, author: Author) -> Self:
        """Return the change from an entry to a new one; ``None``: it is removed."""
        return cls(
            at=time.time() if new is None else new.updated_at,
            from_state=str(old.state),
            to_state=FORGOTTEN if new is None else str(new.state),
            changed_by=author.by,
            note=author.note,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the change as JSON values."""
        return {**asdict(self), "at": iso(self.at)}


@dataclass(frozen=True, slots=True)
class Record:
    """An entry and the changes that people made to it.

    :param changes: oldest first.
    """

    entry: Entry
    changes: tuple[Change, ...] = ()

    @property
    def decision(self) -> Change | None:
        """The change that set the current state; ``None`` if a try set it."""
        last = self.changes[-1] if self.changes else None
        is_decision = last is not None and last.to_state == self.entry.state and last.at >= self.entry.updated_at
        return last if is_decision else None

    @property
    def why(self) -> str:
        """Reason for the current state: a person's note, or Apptoto's answer."""
        if (decision := self.decision) is not None:
            return f"{decision.changed_by}: {decision.note}"
        if self.entry.state is State.SENDING:
            return "in flight" if self.entry.is_live else "no outcome was recorded"
        status = None if self.entry.http_status is None else f"HTTP {self.entry.http_status}"
        return ", ".join(part for part in (status, self.entry.reason) if part)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that may be shown, as JSON values. Times are ISO 8601 in UTC."""
        entry = self.entry
        fields = {name: value for name, value in entry.to_dict().items() if name not in _PRIVATE}
        times = {name: None if fields[name] is None else iso(fields[name]) for name in _TIMES}
        head = {"key": entry.key, "state": str(entry.state), "at": entry.at, "is_unresolved": entry.is_unresolved}
        return {**head, **fields, **times, "why": self.why, "changes": [each.to_dict() for each in self.changes]}


class LedgerAdmin:
    """Selects and changes entries for the command line and the outbox page.

    Every method raises :class:`~airflow_provider_apptoto.outbox.stores.base.LedgerStoreError` if the database can't be
    used.

    :param database: the state database.
    """

    def __init__(self, database: StateDatabase) -> None:
        self._database = database

    def select(self, selection: Selection, *, limit: int | None = None) -> list[Record]:
        """Return the selected entries, newest first.

        :param limit: maximum number of entries, at least 1; ``None``: no limit.
        """
        return self._select(selection.condition(), limit)

    def count(self, selection: Selection) -> int:
        """Count the selected entries."""
        query = select(func.count()).select_from(ledger).where(selection.condition())
        with self._database.transaction() as connection:
            return connection.execute(query).scalar_one()

    def resolvable(self, selection: Selection, *, force: bool = False) -> list[Record]:
        """Return the selected entries that a person may resolve, because their messages may have been sent.

        :param force: include entries whose state was set by a person.
        """
        condition = unresolved_condition(time.time())
        if force:
            condition = or_(condition, ledger.c.message_key.in_(select(changes.c.message_key)))
        found = self._select(and_(selection.condition(), condition))
        return [record for record in found if record.entry.is_unresolved or (force and record.decision is not None)]

    def forgettable(self, selection: Selection) -> list[Record]:
        """Return the selected entries that are not in flight."""
        return [record for record in self.select(selection) if not record.entry.is_live]

    def resolve(self, records: Iterable[Record], state: State, author: Author) -> list[Record]:
        """Record whether messages were sent. Entries that have changed since they were selected are skipped.

        :param state: ``sent`` or ``not_sent``.
        :return: the resolved entries, with their new state.
        :raises ValueError: invalid state.
        """
        if state not in RESOLUTIONS:
            raise ValueError(f"{state!r} is not one of {', '.join(RESOLUTIONS)}")
        changed = (self._change(record, record.entry.changed(state, in_doubt=False), author) for record in records)
        return [record for record in changed if record is not None]

    def forget(self, records: Iterable[Record], author: Author) -> list[Record]:
        """Remove entries, so that their messages may be sent again. Entries changed since selection are skipped.

        :return: the removed entries.
        """
        changed = (self._change(record, None, author) for record in records)
        return [record for record in changed if record is not None]

    def purge(self, older_than: float, export: Path | None = None) -> int:
        """Remove finished entries and their changes, never entries that are in flight or unresolved.

        :param older_than: minimum age in seconds since the entry was finished.
        :param export: new file for these entries, ``.csv`` or ``.jsonl``; it is on disk before one is removed.
        :return: number of removed entries.
        :raises ValueError: the file exists, or has another suffix.
        :raises OSError: the file can't be written; nothing was removed.
        """
        old = and_(ledger.c.state.in_(_FINISHED), ledger.c.updated_at < time.time() - older_than)
        if export is not None:
            write_export(export, (record.to_dict() for lot in self._lots(old) for record in lot))
        lot = select(ledger.c.message_key).where(old).limit(_LOT)
        same_key = select(ledger.c.message_key).where(ledger.c.message_key == changes.c.message_key)
        is_gone = ~same_key.correlate(changes).exists()
        removed = 0
        while True:
            began = time.monotonic()
            with self._database.transaction() as connection:
                keys = list(connection.execute(lot).scalars())
                removed += connection.execute(delete(ledger).where(ledger.c.message_key.in_(keys), old)).rowcount
                connection.execute(delete(changes).where(changes.c.message_key.in_(keys), is_gone))
            if len(keys) < _LOT:
                return removed
            time.sleep(time.monotonic() - began)  # SQLite allows one writer at a time: let others write

    def _select(self, condition: ColumnElement[bool], limit: int | None = None) -> list[Record]:
        query = select(ledger).where(condition).order_by(ledger.c.updated_at.desc(), ledger.c.message_key).limit(limit)
        return self._records(query)

    def _lots(self, condition: ColumnElement[bool]) -> Iterator[list[Record]]:
        """Yield the entries that match, in the order of their keys."""
        last = ""
        while True:
            query = select(ledger).where(condition, ledger.c.message_key > last).order_by(ledger.c.message_key)
            found = self._records(query.limit(_LOT))
            yield found
            if len(found) < _LOT:
                return
            last = found[-1].entry.key

    def _records(self, query: Select[Any]) -> list[Record]:
        with self._database.transaction() as connection:
            entries = [entry_of(row) for row in connection.execute(query)]
            history = changes_of(connection, [entry.key for entry in entries])
        return [Record(entry, tuple(history[entry.key])) for entry in entries]

    def _change(self, record: Record, new: Entry | None, author: Author) -> Record | None:
        """Replace or (``None``) remove an entry and record the change; return ``None`` if it has changed since."""
        old = record.entry
        here = and_(ledger.c.message_key == old.key, ledger.c.version == old.version)
        change = Change.of(old, new, author)
        statement = delete(ledger).where(here) if new is None else update(ledger).where(here).values(values_of(new))
        with self._database.transaction() as connection:
            if not connection.execute(statement).rowcount:
                return None
            connection.execute(insert(changes).values(message_key=old.key, **asdict(change)))
        return Record(old if new is None else new, (*record.changes, change))


def changes_of(connection: Connection, keys: list[str]) -> dict[str, list[Change]]:
    """Return the changes that people made to each entry, oldest first, by key."""
    history: dict[str, list[Change]] = {key: [] for key in keys}
    for start in range(0, len(keys), _LOT):
        of_these = changes.c.message_key.in_(keys[start : start + _LOT])
        for row in connection.execute(select(changes).where(of_these).order_by(changes.c.id)):
            change = Change(
                at=row.at, from_state=row.from_state, to_state=row.to_state, changed_by=row.changed_by, note=row.note
            )
            history[row.message_key].append(change)
    return history
