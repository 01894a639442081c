"""Read the ledger in the state database page by page, newest entries first, for the outbox page.

No query reads more entries than it returns, unless nothing but a rare value is asked for: each page starts at an entry,
not at an offset. For SQLite, which has no statistics, each query is written so that only one index fits: it would often
choose one that leads to most of the table.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy import and_, func, or_, select, true

from airflow_provider_apptoto.outbox.admin import Record, changes_of
from airflow_provider_apptoto.outbox.entry import State
from airflow_provider_apptoto.outbox.schema import ledger
from airflow_provider_apptoto.outbox.stores.sql import entry_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from sqlalchemy.sql import ColumnElement, Select

    from airflow_provider_apptoto.outbox.admin import Selection
    from airflow_provider_apptoto.outbox.database import StateDatabase

    Condition = ColumnElement[bool]

MAX_OPEN = 500
"""Maximum number of open cases that are shown."""
_SEPARATOR = "~"
_PLAIN = ("channel", "task_id")


@dataclass(frozen=True, slots=True)
class Cursor:
    """An entry after which the next page starts.

    :param updated_at: seconds since 1970.
    """

    updated_at: float
    key: str

    def __str__(self) -> str:
        """Return a text that :meth:`parse` reads."""
        return f"{self.updated_at!r}{_SEPARATOR}{self.key}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a cursor.

        :raises ValueError: the text is not a cursor.
        """
        moment, separator, key = text.partition(_SEPARATOR)
        if not separator:
            raise ValueError("not a cursor")
        return cls(float(moment), key)


@dataclass(frozen=True, slots=True)
class Page:
    """Some entries, newest first.

    :param after: start of the next page; ``None`` after the last one.
    """

    records: tuple[Record, ...] = ()
    after: Cursor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What a person typed in to find a message: a reference or a recipient, whichever matches.

    :param recipients: keyed hashes of the recipient; empty if it can't be one.
    """

    reference: str
    recipients: Collection[str] = ()


class LedgerPages:
    """Reads pages of the ledger.

    Every method raises :class:`~airflow_provider_apptoto.outbox.stores.base.LedgerStoreError` if the database can't be
    used.

    :param database: the state database.
    :param dag_ids: the DAGs whose entries may be read. Entries without a DAG are never returned.
    """

    def __init__(self, database: StateDatabase, dag_ids: Collection[str]) -> None:
        self._database = database
        self._dag_ids = frozenset(dag_ids)

    def page(
        self, selection: Selection, *, search: Search | None = None, after: Cursor | None = None, limit: int
    ) -> Page:
        """Return a page of the selected entries.

        :param search: further condition.
        :param after: where the page starts; ``None``: at the newest entry.
        :param limit: maximum number of entries, at least 1.
        """
        is_sqlite = self._database.dialect == "sqlite"
        with self._database.transaction() as connection:
            present = set(connection.execute(_DAG_IDS).scalars())
            dag_ids = present & self._dag_ids
            if selection.dag_id is not None:
                dag_ids &= {selection.dag_id}
            found = {
                row.message_key: row
                for query in queries(selection, search, after, dag_ids, are_all=dag_ids == present, is_sqlite=is_sqlite)
                for row in connection.execute(query.limit(limit + 1))
            }
            newest = sorted(found.values(), key=lambda row: (-row.updated_at, row.message_key))
            shown = [entry_of(row) for row in newest[:limit]]
            history = changes_of(connection, [entry.key for entry in shown])
        is_last = len(newest) <= limit
        return Page(
            tuple(Record(entry, tuple(history[entry.key])) for entry in shown),
            None if is_last else Cursor(shown[-1].updated_at, shown[-1].key),
        )


def queries(
    selection: Selection,
    search: Search | None,
    after: Cursor | None,
    dag_ids: Collection[str],
    *,
    are_all: bool,
    is_sqlite: bool,
) -> list[Select[Any]]:
    """Return queries whose results are together the selected entries, each newest first.

    :param dag_ids: the DAGs whose entries may be returned.
    :param are_all: whether the ledger has no other DAGs.
    """
    if not dag_ids:
        return []
    paths, rest = _paths(selection, search, sorted(dag_ids), are_all=are_all, is_sqlite=is_sqlite)
    rest += [ledger.c[name] == value for name in _PLAIN if (value := getattr(selection, name)) is not None]
    at: ColumnElement[float] = ledger.c.updated_at
    key = ledger.c.message_key
    if selection.run_id is not None and is_sqlite:
        at = at + 0  # otherwise SQLite prefers the index of all entries of the DAG, which is in this order
    if selection.since is not None:
        rest.append(at >= selection.since)
    if selection.until is not None:
        rest.append(at < selection.until)
    if after is not None:
        rest += [at <= after.updated_at, or_(at < after.updated_at, key > after.key)]
    return [select(ledger).where(and_(path, *rest)).order_by(at.desc(), key) for path in paths]


def _paths(
    selection: Selection, search: Search | None, dag_ids: list[str], *, are_all: bool, is_sqlite: bool
) -> tuple[list[Condition], list[Condition]]:
    """Return alternative conditions, each of which has an index, and the other conditions."""
    column = ledger.c
    dag_id, state = (_no_index(each) if is_sqlite else each for each in (column.dag_id, column.state))
    rest: dict[str, list[Condition]] = {
        "dags": [] if are_all else [dag_id.in_(dag_ids)],
        "states": [or_(*_of_states(selection.states, state))] if selection.states else [],
        "run": [] if selection.run_id is None else [column.run_id == selection.run_id],
        "reference": [] if selection.reference is None else [column.reference == selection.reference],
        "keys": [column.message_key.in_(list(selection.keys))] if selection.keys else [],
    }
    if search is not None:
        paths: list[Condition] = [column.reference == search.reference]
        if search.recipients:
            paths.append(column.recipient.in_(list(search.recipients)))
    elif rest["keys"]:
        paths = rest.pop("keys")
    elif rest["reference"]:
        paths = rest.pop("reference")
    elif rest["states"] and not rest["run"] and (are_all or State.SENT not in selection.states):
        paths = _of_states(selection.states, column.state)
        del rest["states"]
    elif rest["run"] or not are_all:
        paths = [column.dag_id == each for each in dag_ids]
        del rest["dags"]
    else:
        paths = [true()]
    return paths, [condition for conditions in rest.values() for condition in conditions]


def _of_states(states: Iterable[str], column: ColumnElement[str]) -> list[Condition]:
    """Return a condition for each state; ``unknown`` includes entries that a killed task left in ``sending``."""
    paths = [column == state for state in dict.fromkeys(states)]
    if State.UNKNOWN in states and State.SENDING not in states:
        abandoned = ledger.c.updated_at + ledger.c.lease < time.time()
        paths.append(and_(column == State.SENDING, abandoned))
    return paths


def _no_index(column: ColumnElement[str]) -> ColumnElement[str]:
    """Return an expression that is equal to a column, but has no index."""
    return column.concat("")


def _distinct_dag_ids() -> Select[Any]:
    """Return a query for the DAGs in the ledger that reads one index entry for each."""
    dag_id = ledger.c.dag_id
    found = select(func.min(dag_id).label("dag_id")).cte("found", recursive=True)
    following = select(func.min(dag_id)).where(dag_id > found.c.dag_id).scalar_subquery()
    found = found.union_all(select(following).where(found.c.dag_id.is_not(None)))
    return select(found.c.dag_id).where(found.c.dag_id.is_not(None))


_DAG_IDS = _distinct_dag_ids()
