"""The SQLAlchemy engine of a state database: what connections it takes, with which driver and which settings."""

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

    from airflow_provider_apptoto.connection import AirflowConnection

_POSTGRES_DRIVERS = {"psycopg2": "postgresql+psycopg2", "psycopg": "postgresql+psycopg"}
"""Modules that can serve PostgreSQL, and SQLAlchemy's name of each."""
_TLS = ("sslmode", "sslrootcert", "sslcert", "sslkey")

_SQLITE_LOCK_TIMEOUT = 30.0
"""Seconds to wait for a lock of SQLite."""
_SQLITE_POOL_SIZE = 4
"""Connections of a process. One of them writes at a time: more threads wait better for a connection than for a lock."""
# A commit returns only once it would survive a power failure: a message may follow it. No write-ahead log: it is a
# second file, and without that file the database is whole but has forgotten what it last committed.
_SQLITE_SETTINGS = ("PRAGMA journal_mode=TRUNCATE", "PRAGMA synchronous=FULL")

# A network that went dead ends a wait within half a minute. (libpq; seconds, but tcp_user_timeout: milliseconds)
_POSTGRES_OPTIONS = {
    "connect_timeout": 10,
    "tcp_user_timeout": 20_000,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}
_POSTGRES_SETTINGS = ("SET synchronous_commit TO on", "SET statement_timeout TO '30s'")


def database_url(connection: AirflowConnection) -> URL:
    """Return the URL of the database that an Airflow connection names.

    :raises ApptotoConfigurationError: a state database can't have such a connection.
    """
    where = f"state_conn_id {connection.conn_id!r}"
    kind = "postgres" if connection.conn_type == "postgresql" else connection.conn_type or ""
    if kind == "generic" and Path(connection.host or "").is_absolute():
        kind = "sqlite"  # as Airflow stores one where the provider of SQLite is not installed
    if kind not in {"sqlite", "postgres"}:
        msg = f"is a connection of type {connection.conn_type!r}; it has to be sqlite or postgres"
        raise ApptotoConfigurationError(where, msg)
    if kind == "sqlite":
        path = Path(connection.host or connection.schema or "")
        if not path.is_absolute():
            raise ApptotoConfigurationError(where, "needs the absolute path of a file as its host")
        return URL.create("sqlite", database=str(path))
    driver = next((name for module, name in _POSTGRES_DRIVERS.items() if _is_installed(module)), None)
    if driver is None:
        raise ApptotoConfigurationError(where, f"needs one of {', '.join(_POSTGRES_DRIVERS)} to be installed")
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


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def make_engine(url: URL) -> Engine:
    """Return an engine whose commits are durable; it connects when it is first used."""
    options: dict[str, Any] = {"future": True, "hide_parameters": True}
    if url.get_backend_name() != "sqlite":
        engine = sqlalchemy.create_engine(url, pool_pre_ping=True, connect_args=_POSTGRES_OPTIONS, **options)
        event.listen(engine, "connect", _set_up_postgres)
        return engine
    # SQLAlchemy 1.4 would open the file anew for each transaction
    engine = sqlalchemy.create_engine(
        url,
        poolclass=QueuePool,
        pool_size=_SQLITE_POOL_SIZE,
        max_overflow=0,
        connect_args={"timeout": _SQLITE_LOCK_TIMEOUT, "check_same_thread": False},
        **options,
    )
    event.listen(engine, "do_connect", functools.partial(_connect_sqlite, url.database))
    return engine


def _set_up_postgres(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    for setting in _POSTGRES_SETTINGS:
        cursor.execute(setting)
    cursor.close()
    connection.commit()


def _connect_sqlite(
    path: str | None, dialect: Dialect, _record: Any, arguments: Sequence[Any], options: Mapping[str, Any]
) -> Any:
    """Open a file that nobody else may read.

    The first version used a write-ahead log. SQLite ends that for a connection that is alone, and refuses at once else:
    of processes that come at the same time, each closes its connection and tries again.
    """
    _make_private(path)
    deadline = time.monotonic() + _SQLITE_LOCK_TIMEOUT
    while True:
        connection: Any = dialect.connect(*arguments, **options)
        try:
            for setting in _SQLITE_SETTINGS:
                connection.execute(setting)
        except sqlite3.OperationalError as error:
            connection.close()
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(random.uniform(0.01, 0.1))  # noqa: S311  not a secret
        else:
            return connection


_making = threading.Lock()


def _make_private(path: str | None) -> None:
    """Make the file, if it is not there, for its owner alone. If that fails, SQLite's own error says more.

    A file that is there is not opened. To close it would end all locks that SQLite holds on it in this process (POSIX),
    and another process could write in the middle of a transaction.
    """
    with _making, contextlib.suppress(OSError):
        if path:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
