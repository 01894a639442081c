"""The SQLAlchemy engine of a state database: connection, driver and settings."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import random
import sqlite3
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import event
from sqlalchemy.engine import URL
from sqlalchemy.pool import QueuePool

from airflow_provider_apptoto.client.errors import ApptotoConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy.engine import Dialect, Engine

    from airflow_provider_apptoto.connection import DatabaseConnection

_POSTGRES_DRIVERS = {"psycopg2": "postgresql+psycopg2", "psycopg": "postgresql+psycopg"}
"""PostgreSQL drivers: module, and SQLAlchemy's name."""
_TLS = ("sslmode", "sslrootcert", "sslcert", "sslkey")

_SQLITE_LOCK_TIMEOUT = 30.0
"""Seconds to wait for an SQLite lock."""
_SQLITE_POOL_SIZE = 4
"""Connections per process. Only one can write at a time, so further threads wait for a connection, not for a lock."""
# A commit must survive a power failure, because a message may follow it. No write-ahead log: it is a second file, and
# if that is lost, the database is valid but lacks the last commits.
_SQLITE_SETTINGS = ("PRAGMA journal_mode=TRUNCATE", "PRAGMA synchronous=FULL")

# On a dead network, waits end within half a minute. (libpq; seconds, but tcp_user_timeout: milliseconds)
_POSTGRES_OPTIONS = {
    "connect_timeout": 10,
    "tcp_user_timeout": 20_000,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}
_POSTGRES_SETTINGS = ("SET synchronous_commit TO on", "SET statement_timeout TO '30s'")


def database_url(connection: DatabaseConnection) -> URL:
    """Return the database URL of an Airflow connection.

    :raises ApptotoConfigurationError: the connection can't be used for a state database.
    """
    where = f"state_conn_id {connection.conn_id!r}"
    kind = "postgres" if connection.conn_type == "postgresql" else connection.conn_type or ""
    if kind == "generic" and Path(connection.host or "").is_absolute():
        kind = "sqlite"  # Airflow stores it so if the SQLite provider is not installed
    if kind not in {"sqlite", "postgres"}:
        msg = f"is a connection of type {connection.conn_type!r}; it must be sqlite or postgres"
        raise ApptotoConfigurationError(where, msg)
    if kind == "sqlite":
        path = Path(connection.host or connection.schema or "")
        if not path.is_absolute():
            raise ApptotoConfigurationError(where, "must have the absolute path of a file as its host")
        return URL.create("sqlite", database=str(path))
    driver = next((name for module, name in _POSTGRES_DRIVERS.items() if importlib.util.find_spec(module)), None)
    if driver is None:
        raise ApptotoConfigurationError(where, f"needs a PostgreSQL driver; install {' or '.join(_POSTGRES_DRIVERS)}")
    extra = connection.extra_dejson
    return URL.create(
        driver,
        username=connection.login,
        password=connection.password,
        host=connection.host,
        port=connection.port,
        database=connection.schema,
        query={name: extra[name] for name in _TLS if name in extra},
    )


def make_engine(url: URL) -> Engine:
    """Return an engine with durable commits; it connects on first use."""
    options: dict[str, Any] = {"future": True, "hide_parameters": True}
    if url.get_backend_name() != "sqlite":
        engine = sqlalchemy.create_engine(url, pool_pre_ping=True, connect_args=_POSTGRES_OPTIONS, **options)
        event.listen(engine, "connect", _set_up_postgres)
        return engine
    # SQLAlchemy 1.4 would reopen the file for each transaction
    engine = sqlalchemy.create_engine(
        url,
        poolclass=QueuePool,
        pool_size=_SQLITE_POOL_SIZE,
        max_overflow=0,
        connect_args={"timeout": _SQLITE_LOCK_TIMEOUT, "check_same_thread": False},
        **options,
    )
    event.listen(engine, "do_connect", functools.partial(_connect_sqlite, url.database or ""))
    return engine


def _set_up_postgres(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    for setting in _POSTGRES_SETTINGS:
        cursor.execute(setting)
    cursor.close()
    connection.commit()


def _connect_sqlite(
    path: str, dialect: Dialect, _record: Any, arguments: Sequence[Any], options: Mapping[str, Any]
) -> Any:
    """Open a file that only its owner can read.

    The first version used a write-ahead log. SQLite turns it off only if no other connection is open, and fails at once
    otherwise, so concurrent processes close their connections and retry.
    """
    _make_private(path)
    deadline = time.monotonic() + _SQLITE_LOCK_TIMEOUT
    while True:
        connection: Any = dialect.connect(*arguments, **options)
        try:
            for setting in _SQLITE_SETTINGS:
                connection.execute(setting)
        except sqlite3.Error as error:
            connection.close()
            is_locked = isinstance(error, sqlite3.OperationalError) and "locked" in str(error)
            if not is_locked or time.monotonic() > deadline:
                raise
            time.sleep(random.uniform(0.01, 0.1))  # noqa: S311  not a secret
        else:
            return connection


_making = threading.Lock()


def _make_private(path: str) -> None:
    """Create the file, if it is missing, with access for its owner only. If that fails, SQLite's own error says more.

    An existing file is not opened: closing it would release all locks that SQLite holds on it in this process (POSIX),
    and another process could write in the middle of a transaction.
    """
    with _making, contextlib.suppress(OSError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
