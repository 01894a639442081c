"""The ledger in the state database: shared by all tasks, DAGs and runs, and independent of Airflow's database."""

from __future__ import annotations

import copy
import json
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, bindparam, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DataError, IntegrityError

from airflow_provider_apptoto.outbox.entry import Entry, State
from airflow_provider_apptoto.outbox.schema import ledger, recipients
from airflow_provider_apptoto.outbox.secret import LedgerSecret
from airflow_provider_apptoto.outbox.stores.base import (
    Cap,
    CapReachedError,
    LedgerAwayError,
    LedgerStoreError,
    StoreKind,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy.engine import Connection
    from sqlalchemy.sql import ColumnElement

    from airflow_provider_apptoto.outbox.database import StateDatabase
    from airflow_provider_apptoto.outbox.pin import Pin

_LOT = 500
"""Keys per query."""
_OLD_KEY, _OLD_VERSION = "old_key", "old_version"
_FIND = select(ledger).where(ledger.c.message_key.in_(bindparam("keys", expanding=True)))
_INSERT = {
    "sqlite": sqlite.insert(ledger).on_conflict_do_nothing(),
    "postgresql": postgresql.insert(ledger).on_conflict_do_nothing(),
}
_LOCKABLE = {
    "sqlite": sqlite.insert(recipients).on_conflict_do_nothing(),
    "postgresql": postgresql.insert(recipients).on_conflict_do_nothing(),
}
_COUNTED = (State.SENDING, State.SENT, State.UNKNOWN)
"""States of messages that count for a limit: the recipient got them, or may have got them."""
_UPDATE = (
    update(ledger)
    .where(and_(ledger.c.message_key == bindparam(_OLD_KEY), ledger.c.version == bindparam(_OLD_VERSION)))
    .values({column: bindparam(column.name) for column in ledger.c if not column.primary_key})
)


@dataclass(slots=True)
class _Write:
    """A queued compare-and-swap."""

    old: Entry | None
    new: Entry
    cap: Cap | None = None
    done: bool | None = None
    error: LedgerStoreError | CapReachedError | None = None

    @property
    def is_pending(self) -> bool:
        return self.done is None and self.error is None

    def result(self) -> bool:
        if self.error is not None:
            raise copy.copy(self.error) from None
        return bool(self.done)


class SqlLedgerStore:
    """Stores entries in a state database. Concurrent writes of this process share a transaction.

    :param pin: detects a lost or replaced database; ``None``: no check.
    :param secret: secret of the deployment, which keys the hashes.
    """

    kind: StoreKind = "sql"
    is_shared = True

    def __init__(
        self,
        database: StateDatabase,
        pin: Pin | None = None,
        secret: LedgerSecret = LedgerSecret(),  # noqa: B008  without state
    ) -> None:
        self._database = database
        self._pin = pin
        self._secret = secret
        self._keys: list[bytes] = []
        self._turn = threading.Lock()
        self._pending: list[_Write] = []

    def hash_keys(self) -> list[bytes]:
        """Check the database against the pin and the secrets, and return the hash keys, newest first."""
        if not self._keys:
            if self._pin is not None:
                self._pin.check()
            self._database.check_secret(self._secret)
            self._keys = self._secret.keys(self._database.salt())
        return self._keys

    def find(self, keys: Collection[str]) -> dict[str, Entry]:
        """Return the existing entries, by key."""
        wanted, found = list(keys), {}
        for start in range(0, len(wanted), _LOT):
            with self._database.transaction() as connection:
                for row in connection.execute(_FIND, {"keys": wanted[start : start + _LOT]}):
                    found[row.message_key] = entry_of(row)
        return found

    def of_targets(self, targets: Collection[str], since: float) -> list[Entry]:
        """Return the entries of messages to these events and participants whose state was set since then."""
        query = select(ledger).where(ledger.c.target.in_(list(targets)), ledger.c.updated_at >= since)
        with self._database.transaction() as connection:
            return [entry_of(row) for row in connection.execute(query)]

    def compare_and_swap(self, old: Entry | None, new: Entry) -> bool:
        """Replace ``old`` with ``new``; return whether ``old`` was still current.

        All writes that are pending when a transaction begins are part of it. Each has its own statement and row count.
        They are sorted, so that two processes can't deadlock.
        """
        return self._queue(_Write(old, new))

    def compare_and_swap_capped(self, old: Entry | None, new: Entry, cap: Cap) -> bool:
        """Do :meth:`compare_and_swap`, if the new message respects the limits."""
        return self._queue(_Write(old, new, cap))

    def _queue(self, write: _Write) -> bool:
        self._pending.append(write)
        with self._turn:
            if write.is_pending:
                self._write_pending()
        return write.result() or self._is_written(write.new)

    def check_cap(self, cap: Cap, planned: int = 0) -> None:
        """Check limits without writing."""
        with self._database.transaction() as connection:
            _check_cap(connection, cap, planned=planned)

    def unresolved(self) -> int:
        """Count the messages that may have been sent."""
        condition = unresolved_condition(time.time())
        with self._database.transaction() as connection:
            return connection.execute(select(func.count()).select_from(ledger).where(condition)).scalar_one()

    def _write_pending(self) -> None:
        group: list[_Write] = []
        while self._pending:  # don't replace the list: another thread may be about to append to it
            group.append(self._pending.pop())
        try:
            self._write(sorted(group, key=lambda each: (each.new.recipient or "", each.new.key)))
        finally:
            for write in group:
                if write.is_pending:  # interrupted by the task timeout
                    write.error = LedgerAwayError("the write to the state database was interrupted")

    def _write(self, group: Sequence[_Write]) -> None:
        try:
            with self._database.transaction() as connection:
                self._lock_recipients(connection, group)
                results = [self._execute(connection, write) for write in group]
                if any(write.new.state is State.SENDING for write in group):
                    self._database.confirm_secret(self._secret, connection)
        except LedgerStoreError as error:
            # The commit may have succeeded. Each writer checks by version.
            for write in group:
                write.error = error
        except (DataError, IntegrityError, ValueError, ArithmeticError) as error:
            if len(group) > 1:
                for write in group:  # one of them is invalid
                    self._write([write])
                return
            group[0].error = LedgerStoreError(f"the state database rejected the ledger entry: {type(error).__name__}")
        else:
            for write, done in zip(group, results, strict=True):
                if write.error is None:
                    write.done = done

    def _lock_recipients(self, connection: Connection, group: Sequence[_Write]) -> None:
        """Lock the rows of recipients with a cap, in order, so that their messages are counted one at a time."""
        hashes = sorted({each for write in group if write.cap is not None for each in write.cap.recipients})
        if hashes:
            connection.execute(_LOCKABLE[self._database.dialect], [{"recipient": each} for each in hashes])
            query = select(recipients.c.recipient).where(recipients.c.recipient.in_(hashes))
            connection.execute(query.order_by(recipients.c.recipient).with_for_update()).all()

    def _execute(self, connection: Connection, write: _Write) -> bool:
        if write.cap is not None:
            try:
                _check_cap(connection, write.cap, write.new.key)
            except CapReachedError as error:
                write.error = error
                return False
        values = values_of(write.new)
        if write.old is None:
            return bool(connection.execute(_INSERT[self._database.dialect], values).rowcount)
        here = {_OLD_KEY: write.old.key, _OLD_VERSION: write.old.version}
        return bool(connection.execute(_UPDATE, {**values, **here}).rowcount)

    def _is_written(self, new: Entry) -> bool:
        """Return whether an earlier commit, which seemed to fail, wrote the entry."""
        found = self.find([new.key]).get(new.key)
        return found is not None and found.version == new.version


def _check_cap(connection: Connection, cap: Cap, key: str = "", planned: int = 0) -> None:
    """Check limits.

    :param key: key of the message itself, which does not count.
    :param planned: further messages that count.
    :raises CapReachedError: a limit is reached.
    """
    for limit in cap.limits:
        condition = and_(
            ledger.c.recipient.in_(cap.recipients),
            ledger.c.account == cap.account,
            ledger.c.state.in_(_COUNTED),
            ledger.c.message_key != key,
            func.coalesce(ledger.c.sent_at, ledger.c.created_at) > time.time() - limit.seconds,
        )
        sent = connection.execute(select(func.count()).select_from(ledger).where(condition)).scalar_one()
        if sent + planned >= limit.count:
            raise CapReachedError(limit, sent + planned)


def unresolved_condition(now: float) -> ColumnElement[bool]:
    """Return the SQL condition for entries that may have been sent and are not in flight.

    :param now: seconds since 1970.
    """
    abandoned = and_(ledger.c.state == State.SENDING, ledger.c.updated_at + ledger.c.lease < now)
    return or_(ledger.c.state == State.UNKNOWN, abandoned)


def values_of(entry: Entry) -> dict[str, Any]:
    """Return the column values of an entry."""
    values = entry.to_dict()
    labels = None if entry.labels is None else json.dumps(dict(entry.labels), sort_keys=True)
    return {"message_key": values.pop("key"), **values, "labels": labels}


def entry_of(row: Any) -> Entry:
    """Return the entry of a row."""
    values = dict(row._mapping)  # noqa: SLF001  SQLAlchemy's public name
    labels = None if values["labels"] is None else json.loads(values["labels"])
    return Entry.from_dict({"key": values.pop("message_key"), **values, "labels": labels})
