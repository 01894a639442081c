"""Databases of older versions for tests, and processes that migrate them.

This module imports little, because a process that migrates a database imports it first.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import MetaData, create_engine, event, inspect, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.pool import NullPool

from airflow_provider_apptoto.outbox.database import StateDatabase

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection
    from multiprocessing.queues import Queue
    from multiprocessing.synchronize import Barrier

Tables = dict[str, list[dict[str, Any]]]

DATA = Path(__file__).parents[1] / "data"
FACTS: dict[str, Any] = json.loads((DATA / "state_v1.json").read_text())
"""What is known about the messages of version 1."""
SCHEMA_CHANGES = ("CREATE", "ALTER", "DROP")
DEADLINE = 60
"""Timeout for other processes, in seconds."""


def load_v1(url: URL) -> None:
    """Fill an empty database as version 1 did."""
    tables = (DATA / f"state_v1.{url.get_backend_name()}.sql").read_text()
    rows = (DATA / "state_v1.sql").read_text()
    run_script(url, ("PRAGMA journal_mode=WAL;" if url.get_backend_name() == "sqlite" else "") + tables + rows)


def run_script(url: URL, script: str) -> None:
    """Run statements as ``sqlite3`` and ``psql`` do."""
    if url.get_backend_name() == "sqlite":
        with contextlib.closing(sqlite3.connect(str(url.database))) as connection:
            connection.executescript(script)
        return
    import psycopg2

    address = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with contextlib.closing(psycopg2.connect(address)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(script)


@contextlib.contextmanager
def opened(url: URL) -> Iterator[Any]:
    """Yield a connection that the code under test did not create."""
    engine = create_engine(url, poolclass=NullPool, future=True)
    with engine.connect() as connection:
        yield connection


def rows_of(url: URL) -> Tables:
    """Return all that is in a database."""
    with opened(url) as connection:
        tables = MetaData()
        tables.reflect(connection)
        return {
            table.name: sorted((dict(row._mapping) for row in connection.execute(select(table))), key=repr)
            for table in tables.sorted_tables
        }


def schema_of(url: URL) -> dict[str, Any]:
    """Return the tables, indexes and views of a database, without the order of columns."""
    with opened(url) as connection:
        found = inspect(connection)
        described: dict[str, Any] = {}
        for table in found.get_table_names():
            described[table] = {
                "columns": {
                    column["name"]: (repr(column["type"]), column["nullable"], column["default"])
                    for column in found.get_columns(table)
                },
                "key": found.get_pk_constraint(table)["constrained_columns"],
                "indexes": {
                    str(index["name"]): (
                        index["column_names"],
                        bool(index["unique"]),
                        index.get("dialect_options", {}).get("postgresql_using", "btree"),
                    )
                    for index in found.get_indexes(table)
                },
            }
        for view in found.get_view_names():
            described[view] = ([column["name"] for column in found.get_columns(view)], found.get_view_definition(view))
        return described


def use(url: str, others: Barrier, salts: Queue[tuple[str, list[str]]]) -> None:
    """Use a database for the first time, and tell its salt and which statements changed the schema."""
    database = StateDatabase(make_url(url))
    statements: list[str] = []
    event.listen(database._engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    others.wait(DEADLINE)
    salt = database.salt().hex()
    salts.put((salt, [each for each in statements if each.startswith(SCHEMA_CHANGES)]))


def stop_in_mid_migration(url: str, parent: Connection) -> None:
    """Migrate up to the last statement, and wait to be killed."""
    database = StateDatabase(make_url(url))

    def stop(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("CREATE VIEW"):
            parent.send("here")
            parent.recv()

    if database.dialect == "sqlite":
        # little memory, so that SQLite writes to the file before the commit
        event.listen(database._engine, "connect", lambda connection, _: connection.execute("PRAGMA cache_size=1"))
    event.listen(database._engine, "before_cursor_execute", stop)
    database.init()
