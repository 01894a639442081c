"""The state database: SQLite for one host, PostgreSQL or MySQL for many; its engine and its schema."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import stat
import tempfile
import threading
import time
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    event,
    literal_column,
)
from sqlalchemy.engine import URL
from sqlalchemy.exc import IntegrityError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.schema import CreateIndex, CreateTable

from airflow_provider_apptoto.client.errors import ApptotoConfigurationError
from airflow_provider_apptoto.privacy import safe_text
from airflow_provider_apptoto.state.secret import other_secret
from airflow_provider_apptoto.state.store import LedgerAwayError, LedgerStoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import Connection, Engine

    from airflow_provider_apptoto.connection import AirflowConnection
    from airflow_provider_apptoto.state.secret import LedgerSecret

SCHEMA_VERSION = 1
_CHECK = "check:"
"""Begins the names of rows that tell a secret of the deployment from another one."""

_DRIVERS = {
    "sqlite": {"sqlite3": "sqlite"},
    "postgres": {"psycopg2": "postgresql+psycopg2", "psycopg": "postgresql+psycopg"},
    "mysql": {"MySQLdb": "mysql+mysqldb", "pymysql": "mysql+pymysql", "mysql.connector": "mysql+mysqlconnector"},
}
"""Kinds of connections, the modules that can serve each, and what SQLAlchemy calls those."""
_TLS = ("sslmode", "sslrootcert", "sslcert", "sslkey")
_CLOCKS = {"postgresql": "extract(epoch from clock_timestamp())", "mysql": "unix_timestamp(now(6))"}
_OPTIONS: dict[str, dict[str, Any]] = {
    "sqlite": {"timeout": 30.0},  # seconds to wait for a lock
    # A network that went dead ends a wait within half a minute. (libpq; seconds, but tcp_user_timeout: milliseconds)
    "postgresql": {
        "connect_timeout": 10,
        "tcp_user_timeout": 20_000,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
    },
    "mysql": {"connect_timeout": 10},
}
_SETTINGS = {
    # A commit comes back only when it would survive a power failure: a message may follow it. Not a write-ahead log:
    # that is a second file, and without it the database would be whole, and have forgotten.
    "sqlite": ["PRAGMA journal_mode=TRUNCATE", "PRAGMA synchronous=FULL"],
    "postgresql": ["SET synchronous_commit TO on", "SET statement_timeout TO '30s'"],
}
"""What each connection is told, by dialect."""

_metadata = MetaData()
meta = Table(
    "apptoto_meta",
    _metadata,
    Column("name", String(32), primary_key=True),
    Column("value", String(128), nullable=False),
)
ledger = Table(
    "apptoto_ledger",
    _metadata,
    Column("message_key", String(32), primary_key=True),
    Column("version", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("fingerprint", String(16), nullable=False),
    Column("type", String(8), nullable=False),
    Column("dag_id", String(250), nullable=False),
    Column("task_id", String(250), nullable=False),
    Column("run_id", String(250), nullable=False),
    Column("map_index", Integer, nullable=False),
    Column("try_number", Integer, nullable=False),
    Column("reference", Text),
    Column("in_doubt", Boolean(create_constraint=False), nullable=False),
    Column("lease", Float(53), nullable=False),
    Column("updated_at", Float(53), nullable=False),
    Column("sent_at", Float(53)),
    Column("http_status", Integer),
    Column("reason", Text, nullable=False),
    Index("apptoto_ledger_state", "state"),
    Index("apptoto_ledger_run", "dag_id", "run_id"),
)
changes = Table(
    "apptoto_ledger_change",
    _metadata,
    Column("id", Integer, primary_key=True),
    Column("message_key", String(32), nullable=False, index=True),
    Column("at", Float(53), nullable=False),
    Column("from_state", String(16), nullable=False),
    Column("to_state", String(16), nullable=False),
    Column("changed_by", String(250), nullable=False),
    Column("note", Text, nullable=False),
)
pace = Table(
    "apptoto_pace",
    _metadata,
    Column("account", String(32), primary_key=True),
    Column("departs_at", BigInteger, nullable=False),
)


def database_url(connection: AirflowConnection) -> URL:
    """Return what SQLAlchemy needs to know of an Airflow connection.

    :raises ApptotoConfigurationError: not a connection that a state database can have.
    """
    where = f"state_conn_id {connection.conn_id!r}"
    kind = "postgres" if connection.conn_type == "postgresql" else connection.conn_type or ""
    if kind == "generic" and Path(connection.host or "").is_absolute():
        kind = "sqlite"  # as Airflow stores one where the provider of SQLite is not installed
    if kind not in _DRIVERS:
        msg = f"is a connection of type {connection.conn_type!r}; one of sqlite, postgres and mysql is needed"
        raise ApptotoConfigurationError(where, msg)
    if kind == "sqlite":
        path = Path(connection.host or connection.schema or "")
        if not path.is_absolute():
            raise ApptotoConfigurationError(where, "needs the absolute path of a file as its host")
        return URL.create("sqlite", database=str(path))
    driver = next((name for module, name in _DRIVERS[kind].items() if _is_installed(module)), None)
    if driver is None:
        raise ApptotoConfigurationError(where, f"needs one of {', '.join(_DRIVERS[kind])} to be installed")
    extra = connection.extra_dejson
    return URL.create(
        driver,
        username=connection.login,
        password=connection.password,
        host=connection.host,
        port=connection.port,
        database=connection.schema,
        query={name: extra[name] for name in _TLS if name in extra} if kind == "postgres" else {},
    )


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


class StateDatabase:
    """One state database. Its tables are made on first use, if they are not there.

    :param url: as SQLAlchemy has it.
    :param start_attempts: attempts to make the tables, where others may be making them too; twice as far apart each
        time, from 50 ms.
    """

    def __init__(self, url: URL, *, start_attempts: int = 6) -> None:
        self._url = url
        self._start_attempts = start_attempts

    @property
    def dialect(self) -> str:
        """``sqlite``, ``postgresql`` or ``mysql``."""
        return self._url.get_backend_name()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Give a connection; what is done with it is committed, durably, where nothing is raised.

        :raises LedgerStoreError: the database can't be used.
        """
        self.init()
        with self._readable_errors(), self._engine.begin() as connection:
            yield connection

    def salt(self) -> bytes:
        """Return the secret that hashes are keyed with; made along with the tables."""
        with self._readable_errors():
            return bytes.fromhex(self._salt)

    def existing_salt(self) -> bytes | None:
        """Return the secret as it stands in the database now, or ``None`` where there is none; makes nothing.

        :raises LedgerStoreError: the database can't be used.
        """
        with self._readable_errors():
            if not sqlalchemy.inspect(self._engine).has_table(meta.name):
                return None
            found = self._meta().get("salt")
            return None if found is None else bytes.fromhex(found)

    def check_secret(self, secret: LedgerSecret, *, accept: bool = False) -> None:
        """Remember with which secrets this database is used.

        :param accept: forget those that are not among these: what was written under them is not found any more.
        :raises LedgerStoreError: it was used with a secret that is not among these.
        """
        checks = [f"{_CHECK}{check}" for check in secret.checks(self.salt())]
        others = {name for name in self._read_meta() if name.startswith(_CHECK)} - set(checks)
        if others and not accept:
            raise LedgerStoreError(other_secret("the state database"))
        with contextlib.suppress(IntegrityError), self.transaction() as connection:
            if others:
                connection.execute(meta.delete().where(meta.c.name.in_(others)))
            connection.execute(meta.insert().values(name=checks[0], value=""))

    def _read_meta(self) -> dict[str, str]:
        with self._readable_errors():
            return self._meta()

    def clock(self) -> Any:
        """Return an SQL expression: seconds since 1970, the same for all who use this database."""
        return literal_column(_CLOCKS[self.dialect] if self.dialect in _CLOCKS else repr(time.time()))

    def ddl(self) -> str:
        """Return the statements that make the tables, for somebody who may."""
        statements: list[str] = []
        for table in _metadata.sorted_tables:
            indexes = sorted(table.indexes, key=lambda index: str(index.name))
            parts: list[CreateTable | CreateIndex] = [CreateTable(table), *map(CreateIndex, indexes)]
            statements += [str(part.compile(self._engine)).strip() for part in parts]
        return "".join(f"{statement};\n" for statement in statements)

    def init(self) -> None:
        """Make the tables, if they are not there; what is found is remembered.

        :raises LedgerStoreError: they can't be made, or are of a newer version of this package.
        """
        self.salt()

    @cached_property
    def _engine(self) -> Engine:
        engine = sqlalchemy.create_engine(
            self._url, future=True, hide_parameters=True, pool_pre_ping=True, connect_args=_OPTIONS[self.dialect]
        )
        if self.dialect == "sqlite":
            event.listen(engine, "do_connect", lambda *_: _make_private(self._url.database))
        event.listen(engine, "connect", self._set_up)
        return engine

    def _set_up(self, connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        for setting in _SETTINGS.get(self.dialect, []):
            cursor.execute(setting)
        cursor.close()
        connection.commit()

    @cached_property
    def _salt(self) -> str:
        attempt = 0
        while True:
            attempt += 1
            try:
                return self._prepare()
            except SQLAlchemyError as error:
                # others may be making them at this very moment; who can't even connect to a server need not wait
                unreachable = self.dialect != "sqlite" and getattr(error, "statement", None) is None
                if unreachable or attempt == self._start_attempts:
                    raise
                time.sleep(0.025 * 2**attempt)

    def _prepare(self) -> str:
        """Make what is missing, and return the salt."""
        inspector = sqlalchemy.inspect(self._engine)
        if not all(inspector.has_table(table.name) for table in _metadata.sorted_tables):
            _metadata.create_all(self._engine)
        values = {"schema_version": str(SCHEMA_VERSION), "salt": secrets.token_hex(16)}
        found = self._meta()
        for name in values.keys() - found.keys():
            with contextlib.suppress(IntegrityError), self._engine.begin() as connection:
                connection.execute(meta.insert().values(name=name, value=values[name]))
        found = self._meta()
        if int(found["schema_version"]) > SCHEMA_VERSION:
            msg = (
                f"its tables are of version {found['schema_version']}, and this package knows {SCHEMA_VERSION}; upgrade"
            )
            raise LedgerStoreError(f"the state database can't be used: {msg}")
        return found["salt"]

    def _meta(self) -> dict[str, str]:
        with self._engine.connect() as connection:
            return {row.name: row.value for row in connection.execute(sqlalchemy.select(meta))}

    @contextlib.contextmanager
    def _readable_errors(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError:
            raise
        except SQLAlchemyError as error:
            cause = getattr(error, "orig", None) or error
            msg = f"the state database can't be used: {safe_text(f'{type(cause).__name__}: {cause}')}"
            # SQLite has waited for its lock
            is_away = self.dialect != "sqlite" and isinstance(error, OperationalError | InterfaceError)
            raise (LedgerAwayError if is_away else LedgerStoreError)(msg) from None


def _make_private(path: str | None) -> None:
    """Make a file that nobody else may read; what prevents that, SQLite says better."""
    with contextlib.suppress(OSError):
        if path:
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))


_databases: dict[tuple[int, str], StateDatabase] = {}
_databases_lock = threading.Lock()


def state_database(url: URL) -> StateDatabase:
    """Return the one object that all of this process share; a forked child gets its own, with its own connections."""
    with _databases_lock:
        key = os.getpid(), url.render_as_string(hide_password=False)
        return _databases.setdefault(key, StateDatabase(url))


def host_file() -> Path:
    """Return the SQLite file in which the processes of this host share their pace, where no database is set."""
    return Path(os.environ.get("AIRFLOW_HOME") or "~/airflow").expanduser() / "apptoto-pace.db"


def spare_database() -> StateDatabase | None:
    """Return a SQLite file for the pace of this user's processes on this host, where the other can't be used.

    ``None`` where the folder for temporary files has none that is this user's alone.
    """
    folder = Path(tempfile.gettempdir()) / f"apptoto-{os.getuid()}"
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
            return state_database(URL.create("sqlite", database=str(folder / "pace.db")))
    return None
