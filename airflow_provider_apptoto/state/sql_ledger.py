"""The ledger in the state database: seen by all tasks, DAGs and runs, and kept when Airflow forgets."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from airflow_provider_apptoto.state.database import StateDatabase, changes, ledger
from airflow_provider_apptoto.state.secret import LedgerSecret
from airflow_provider_apptoto.state.store import Entry, State

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from sqlalchemy.sql import ColumnElement

    from airflow_provider_apptoto.state.pin import Pin

FORGOTTEN = "forgotten"
"""What a forgotten entry is said to have become."""
_LOT = 1000
"""Entries that are purged in one transaction."""
_OVER = (State.SENT, State.NOT_SENT, State.REJECTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which entries are meant; what is not given does not narrow.

    :param keys: the first characters of keys are enough.
    :param states: ``unknown`` includes what a killed task left behind as ``sending``.
    """

    keys: Collection[str] = ()
    states: Collection[str] = ()
    dag_id: str | None = None
    task_id: str | None = None
    run_id: str | None = None
    reference: str | None = None

    def condition(self) -> ColumnElement[bool]:
        """Return it as SQL."""
        columns = {"dag_id": self.dag_id, "task_id": self.task_id, "run_id": self.run_id, "reference": self.reference}
        conditions: list[ColumnElement[bool]] = [
            ledger.c[name] == value for name, value in columns.items() if value is not None
        ]
        if self.keys:
            conditions.append(or_(*(ledger.c.message_key.startswith(key, autoescape=True) for key in self.keys)))
        if self.states:
            alternatives: list[ColumnElement[bool]] = [ledger.c.state.in_(list(self.states))]
            if State.UNKNOWN in self.states:
                alternatives.append(_abandoned())
            conditions.append(or_(*alternatives))
        return and_(True, *conditions)  # noqa: FBT003  SQL's


def _abandoned() -> ColumnElement[bool]:
    doubtful = and_(ledger.c.state == State.CLAIMED, ledger.c.in_doubt)
    return and_(or_(ledger.c.state == State.SENDING, doubtful), ledger.c.updated_at + ledger.c.lease < time.time())


class SqlLedgerStore:
    """Keeps entries in a state database.

    :param resolve_command: the command line that resolves entries, up to the key.
    :param pin: tells a database that lost its memory; ``None``: nobody looks.
    :param secret: the deployment's, which keys the hashes.
    """

    spans_tasks = True

    def __init__(
        self,
        database: StateDatabase,
        resolve_command: str,
        pin: Pin | None = None,
        secret: LedgerSecret = LedgerSecret(),  # noqa: B008  without state
    ) -> None:
        self._database = database
        self._resolve_command = resolve_command
        self._pin = pin
        self._secret = secret
        self._is_checked = False

    def hash_keys(self) -> list[bytes]:
        """Return what hashes are keyed with, of a database that has lost nothing, and that knows the secrets."""
        if not self._is_checked:
            if self._pin is not None:
                self._pin.check()
            self._database.check_secret(self._secret)
            self._is_checked = True
        return self._secret.keys(self._database.salt())

    def find(self, key: str) -> Entry | None:
        """Return an entry."""
        with self._database.transaction() as connection:
            row = connection.execute(select(ledger).where(ledger.c.message_key == key)).one_or_none()
        return None if row is None else _entry(row)

    def swap(self, old: Entry | None, new: Entry) -> bool:
        """Put ``new`` in the place of ``old``, and tell whether that was still there."""
        values = _values(new)
        try:
            with self._database.transaction() as connection:
                if old is None:
                    connection.execute(insert(ledger).values(values))
                    return True
                here = and_(ledger.c.message_key == old.key, ledger.c.version == old.version)
                if connection.execute(update(ledger).where(here).values(values)).rowcount:
                    return True
        except IntegrityError:
            pass
        # it is there all the same where it was committed before, and the database's answer was lost
        found = self.find(new.key)
        return found is not None and found.version == new.version

    def how_to_resolve(self, key: str) -> str:
        """Give the commands."""
        command = f"{self._resolve_command} {key}"
        return (
            "if Apptoto has it, run\n"
            f"  {command} --to sent --note 'where you saw it'\n"
            "else\n"
            f"  {command} --to not_sent --note 'how you know'\n"
            "and then clear the task: it succeeds without sending, or sends"
        )

    def entries(self, selection: Selection, *, limit: int | None = None) -> list[tuple[Entry, list[dict[str, Any]]]]:
        """Return the selected entries, the newest first, each with the changes that people made to it."""
        query = select(ledger).where(selection.condition()).order_by(ledger.c.updated_at.desc()).limit(limit)
        with self._database.transaction() as connection:
            found = [_entry(row) for row in connection.execute(query)]
            history: dict[str, list[dict[str, Any]]] = {entry.key: [] for entry in found}
            keys = list(history)
            for start in range(0, len(keys), 500):
                of_these = changes.c.message_key.in_(keys[start : start + 500])
                for row in connection.execute(select(changes).where(of_these).order_by(changes.c.id)):
                    change = dict(row._mapping)  # noqa: SLF001  SQLAlchemy's public name
                    history[change.pop("message_key")].append(change)
        return [(entry, history[entry.key]) for entry in found]

    def resolvable(self, selection: Selection, *, force: bool = False) -> list[Entry]:
        """Return the selected entries that a person may resolve: it is not known whether they were sent.

        :param force: also those that a person has resolved before.
        """
        return [
            entry
            for entry, history in self.entries(selection)
            if entry.is_unresolved or (force and history and history[-1]["to_state"] == entry.state)
        ]

    def forgettable(self, selection: Selection) -> list[Entry]:
        """Return the selected entries that are not under way."""
        return [entry for entry, _ in self.entries(selection) if not entry.is_live]

    def resolve(self, entries: Iterable[Entry], state: State, *, by: str, note: str) -> list[Entry]:
        """Say of messages whether they were sent; what has changed since it was selected is left as it is.

        :param by: who says so.
        :param note: how they know.
        :return: what was resolved, as it stands now.
        """
        changed = [(entry, entry.changed(state, in_doubt=False)) for entry in entries]
        return [new for old, new in changed if self._change(old, new, state, by, note)]

    def forget(self, entries: Iterable[Entry], *, by: str, note: str) -> list[Entry]:
        """Remove entries, so that their messages may be sent (again).

        :return: what was removed.
        """
        return [entry for entry in entries if self._change(entry, None, FORGOTTEN, by, note)]

    def purge(self, older_than: float) -> int:
        """Remove entries that came to their end longer ago than this many seconds; never one that is unresolved.

        In lots, so that no message has to wait for long.

        :return: how many.
        """
        old = and_(ledger.c.state.in_(_OVER), ledger.c.updated_at < time.time() - older_than)
        lot = select(ledger.c.message_key).where(old).limit(_LOT)
        removed = 0
        while True:
            began = time.monotonic()
            with self._database.transaction() as connection:
                keys = list(connection.execute(lot).scalars())
                connection.execute(delete(changes).where(changes.c.message_key.in_(keys)))
                removed += connection.execute(delete(ledger).where(ledger.c.message_key.in_(keys), old)).rowcount
            if len(keys) < _LOT:
                return removed
            time.sleep(time.monotonic() - began)  # SQLite lets nobody else write meanwhile

    def unresolved(self) -> int:
        """Count the messages of which nobody can tell whether they were sent."""
        selection = Selection(states=[State.UNKNOWN])
        with self._database.transaction() as connection:
            return connection.execute(
                select(func.count()).select_from(ledger).where(selection.condition())
            ).scalar_one()

    def _change(self, old: Entry, new: Entry | None, to_state: str, by: str, note: str) -> bool:
        """Change an entry, and write down who did it, and why."""
        here = and_(ledger.c.message_key == old.key, ledger.c.version == old.version)
        statement = delete(ledger).where(here) if new is None else update(ledger).where(here).values(_values(new))
        change = {"message_key": old.key, "at": time.time(), "from_state": old.state, "to_state": to_state}
        with self._database.transaction() as connection:
            if not connection.execute(statement).rowcount:
                return False
            connection.execute(insert(changes).values(**change, changed_by=by, note=note))
        return True


def _values(entry: Entry) -> dict[str, Any]:
    values = entry.to_dict()
    return {"message_key": values.pop("key"), **values, "state": str(entry.state)}


def _entry(row: Any) -> Entry:
    values = dict(row._mapping)  # noqa: SLF001  SQLAlchemy's public name
    return Entry.from_dict({"key": values.pop("message_key"), **values})
