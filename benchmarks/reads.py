"""What is read and planned, and measured. Only this module and :mod:`.ways` use internals of the provider."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import os
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.people import number_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from sqlalchemy.engine import URL, Connection

DAGS, RUN = 20, 200
"""DAGs of the ledger, and messages of each of their runs."""
RARE = 1_000
"""One of so many messages is open."""
NEWEST = 1_795_953_600.0
"""2026-11-29, 12:00 UTC: when the newest message was sent; the others are 10 s apart."""
_LOT = 10_000
_GAP = 10.0


class Planned(NamedTuple):
    """A plan that was made.

    :param rows: number of its rows.
    :param messages: number of its messages.
    :param seconds: wall time.
    """

    rows: int
    messages: int
    seconds: float


@contextlib.contextmanager
def plans() -> Iterator[list[Planned]]:
    """Collect the plans that batches make: from the first row to the last message."""
    from airflow_provider_apptoto.batch.plan import Plan, Planner

    made: list[Planned] = []
    original = Planner.plan

    def plan(self: Planner, rows: Iterable[Any]) -> Plan:
        start = time.perf_counter()
        found = original(self, rows)
        made.append(Planned(found.rows, len(found.messages), time.perf_counter() - start))
        return found

    Planner.plan = plan  # type: ignore[method-assign]
    try:
        yield made
    finally:
        Planner.plan = original  # type: ignore[method-assign]


def fill_ledger(url: URL, count: int) -> None:
    """Create a state database with this many messages, newest first in :func:`_entries`."""
    from airflow_provider_apptoto.outbox.database import state_database
    from airflow_provider_apptoto.outbox.schema import ledger
    from airflow_provider_apptoto.outbox.stores.sql import SqlLedgerStore, values_of

    database = state_database(url)
    [key, *_] = SqlLedgerStore(database).hash_keys()  # creates the tables
    entries = _entries(count, key)
    while lot := [values_of(each) for each in itertools.islice(entries, _LOT)]:
        with database.transaction() as connection:
            if database.dialect == "sqlite":
                connection.execute(ledger.insert(), lot)
            else:
                _copy(connection, ledger.name, lot)
    if database.dialect != "sqlite":  # as autovacuum does within a minute
        with database.transaction() as connection:
            connection.exec_driver_sql("ANALYZE")


def _copy(connection: Connection, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows to PostgreSQL with COPY, ten times as fast as INSERT."""
    text = io.StringIO()
    csv.DictWriter(text, list(rows[0])).writerows(rows)
    text.seek(0)
    copy = f"COPY {table} ({', '.join(rows[0])}) FROM STDIN WITH (FORMAT csv, FORCE_NOT_NULL (reason))"
    connection.connection.cursor().copy_expert(copy, text)


def page(conn_id: str, dag_ids: Iterable[str], text: str | None = None, **filters: Any) -> Callable[[], int]:
    """Return a function that reads one page of messages as the outbox page does, and returns the number of rows.

    :param dag_ids: the DAGs that the user may read.
    :param text: a reference or a recipient to search for.
    :param filters: of the page.
    """
    from pydantic import SecretStr

    from airflow_provider_apptoto.ui.reading import Reader
    from airflow_provider_apptoto.ui.requests import Filters

    chosen = Filters(source=conn_id, **filters)
    readable = set(dag_ids)
    searched = None if text is None else SecretStr(text)

    def read() -> int:
        reader = Reader(chosen, readable, searched)
        found = reader.page(chosen)
        if reader.problems:
            raise RuntimeError(f"Not everything was read, so the times mean nothing: {reader.problems}")
        return len(found.records)

    return read


def allow_page(conn_ids: Iterable[str]) -> None:
    """Let the outbox page show the state databases of these connections."""
    os.environ["AIRFLOW__APPTOTO__OUTBOX_CONN_IDS"] = ",".join(conn_ids)


def start_of(number: int) -> str:
    """Return the start of the page that begins after a message.

    :param number: of the message; 0 is the newest.
    """
    return f"{NEWEST - _GAP * number!r}~{number:032x}"


def dag_ids(count: int = DAGS) -> list[str]:
    """Return the ids of the first DAGs of the ledger."""
    return [f"dag_{number}" for number in range(count)]


def answers(conn_id: str, begin: str, end: str) -> Callable[[], int]:
    """Return a function that reads once as ``ApptotoAnswerSensor`` does, and returns the number of events."""
    from airflow_provider_apptoto.answers.appointment import Window
    from airflow_provider_apptoto.answers.reading import AnswerReader

    return _counted(AnswerReader(conn_id, Window(begin, end)).read)


def replies(conn_id: str, days_ahead: int) -> Callable[[], int]:
    """Return a function that reads once as ``ApptotoReplyTrigger`` does, and returns the number of replies."""
    from airflow_provider_apptoto.answers.replies import Position, ReplyReader

    now = datetime.now(UTC).timestamp()
    reader = ReplyReader(conn_id, days_back=1, days_ahead=days_ahead)
    return _counted(lambda: reader.read(Position(now - 3600), now))


def _counted(read: Callable[[], Mapping[Any, Any] | list[Any] | object]) -> Callable[[], int]:
    def counted() -> int:
        found = read()
        if not isinstance(found, dict | list):
            raise TypeError(f"Apptoto was not read, so the times mean nothing: {found}")
        return len(found)

    return counted


def _entries(count: int, hash_key: bytes) -> Iterator[Any]:
    """Yield the messages of a ledger, newest first: runs of some DAGs, four messages a person, nearly all sent."""
    from airflow_provider_apptoto.outbox.entry import Entry, State
    from airflow_provider_apptoto.outbox.ledger import recipient_hash
    from airflow_provider_apptoto.outbox.origin import Origin

    for number in range(count):
        run = number // RUN
        origin = Origin(dag_id=f"dag_{run % DAGS}", task_id="remind", run_id=f"run_{run}", map_index=-1, try_number=1)
        at = NEWEST - _GAP * number
        yield Entry(
            key=f"{number:032x}",
            state=State.UNKNOWN if number % RARE == 0 else State.SENT,
            fingerprint=f"{number:016x}",
            channel="sms",
            origin=origin,
            target=f"+1•••{number % 10_000:04}",
            recipient=recipient_hash(hash_key, number_of(number // 4)),
            reference=f"appointment-{number}",
            segments=1,
            created_at=at,
            updated_at=at,
            sent_at=at,
            http_status=200,
        )
