"""The state database: SQLite for one host, PostgreSQL for several."""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import stat
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy
from sqlalchemy.engine import URL
from sqlalchemy.exc import (
    DataError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    ProgrammingError,
    SQLAlchemyError,
)

from airflow_provider_apptoto.outbox import migrations
from airflow_provider_apptoto.outbox.engine import make_engine
from airflow_provider_apptoto.outbox.schema import SCHEMA_VERSION, meta
from airflow_provider_apptoto.outbox.secret import other_secret
from airflow_provider_apptoto.outbox.stores.base import LedgerAwayError, LedgerStoreError
from airflow_provider_apptoto.privacy import safe_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy.engine import Connection

    from airflow_provider_apptoto.outbox.secret import LedgerSecret

_VERSION, _SALT = "schema_version", "salt"
_CHECK = "check:"
"""Prefix of the rows that identify the secrets of the deployment."""
_CHECKS = sqlalchemy.select(meta.c.name).where(meta.c.name.startswith(_CHECK))
_PRIMARY_CODE = 0xFF
"""Mask for the primary part of SQLite's error codes."""
_MIGRATION_LOCK = int.from_bytes(b"apptoto")
"""Number of the PostgreSQL advisory lock for creating and migrating the tables."""


class StateDatabase:
    """A state database. Its tables are created or migrated on first use.

    :param url: SQLAlchemy URL.
    """

    def __init__(self, url: URL) -> None:
        self._url = url
        self._engine = make_engine(url)
        self._known_salt: bytes | None = None

    @property
    def dialect(self) -> str:
        """``sqlite`` or ``postgresql``."""
        return self._url.get_backend_name()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Yield a connection in a transaction, which is committed durably unless an exception is raised.

        :raises LedgerStoreError: the database can't be used.
        """
        self.init()
        with self._readable_errors(), self._engine.begin() as connection:
            yield connection

    def init(self) -> None:
        """Create or migrate the tables if needed, once per object.

        :raises LedgerStoreError: that failed, or the tables are from a newer version of this package.
        """
        self.salt()

    def salt(self) -> bytes:
        """Return the salt that keys the hashes. It is created together with the tables.

        :raises LedgerStoreError: as with :meth:`init`.
        """
        if self._known_salt is None:
            with self._readable_errors():
                found = self._meta()
                if found.get(_VERSION) != str(SCHEMA_VERSION) or _SALT not in found:
                    found = self._migrate()
                self._known_salt = bytes.fromhex(found[_SALT])
        return self._known_salt

    def existing_salt(self) -> bytes | None:
        """Return the salt that is in the database now, or ``None``, without creating or migrating anything.

        :raises LedgerStoreError: the database can't be used.
        """
        with self._readable_errors():
            found = self._meta().get(_SALT)
        return None if found is None else bytes.fromhex(found)

    def version(self) -> int:
        """Return the schema version of the tables, 0 without tables, without creating or migrating anything.

        :raises LedgerStoreError: the database can't be used.
        """
        with self._readable_errors():
            return int(self._meta().get(_VERSION, 0))

    def check_secret(self, secret: LedgerSecret, *, accept: bool = False) -> None:
        """Check that the database was used only with these secrets, and store the newest.

        :param accept: remove other secrets; entries written under them can no longer be found.
        :raises LedgerStoreError: the database was used with another secret.
        """
        checks = self._checks_of(secret)
        with self._readable_errors():
            found = self._meta()
        others = {name for name in found if name.startswith(_CHECK)} - set(checks)
        if others and not accept:
            raise LedgerStoreError(other_secret("the state database"))
        if not others and checks[0] in found:
            return
        with contextlib.suppress(IntegrityError), self.transaction() as connection:
            if self.dialect != "sqlite":
                # wait for transactions that confirmed their secret, and block later ones
                connection.exec_driver_sql(f"LOCK TABLE {meta.name} IN ACCESS EXCLUSIVE MODE")
            if others:
                connection.execute(meta.delete().where(meta.c.name.in_(others)))
            if checks[0] not in found:
                connection.execute(meta.insert().values(name=checks[0], value=""))

    def confirm_secret(self, secret: LedgerSecret, connection: Connection) -> None:
        """Check that no other secret was stored since :meth:`check_secret`: its entries could not be found.

        :param connection: in a transaction that has written, so that SQLite has locked the file.
        :raises LedgerStoreError: another secret was stored.
        """
        found = set(connection.execute(_CHECKS).scalars())
        if found - set(self._checks_of(secret)):
            raise LedgerStoreError(other_secret("the state database"))

    def _checks_of(self, secret: LedgerSecret) -> list[str]:
        return [f"{_CHECK}{check}" for check in secret.checks(self.salt())]

    @property
    def clock(self) -> str:
        """SQL expression for the database's clock in seconds since 1970; ``null`` if it has none."""
        return "extract(epoch from clock_timestamp())" if self.dialect == "postgresql" else "null"

    def ddl(self, from_version: int = 0) -> str:
        """Return a script that creates or migrates the tables in one transaction, for a privileged role.

        :param from_version: schema version of the database, from 0 (no tables) to ``SCHEMA_VERSION - 1``.
        :raises ValueError: the version is out of range.
        """
        if from_version not in range(SCHEMA_VERSION):
            raise ValueError(f"{from_version!r} is not a schema version from 0 to {SCHEMA_VERSION - 1}")
        is_sqlite = self.dialect == "sqlite"
        how = "sqlite3 -bail FILE" if is_sqlite else "psql --set ON_ERROR_STOP=1"
        begin = ["BEGIN IMMEDIATE"] if is_sqlite else ["BEGIN", f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"]
        script = [*begin, *migrations.statements(self.dialect, from_version), "COMMIT"]
        title = f"-- Apptoto state database, from version {from_version} to {SCHEMA_VERSION}. Run it with: {how}\n"
        return title + "".join(f"{statement};\n" for statement in script)

    def close(self) -> None:
        """Close the connections that no transaction uses."""
        self._engine.dispose()

    def _meta(self) -> dict[str, str]:
        """Return the rows of the table ``apptoto_meta``; empty if there are no tables."""
        try:
            with self._engine.connect() as connection:
                return _read_meta(connection)
        except (OperationalError, ProgrammingError) as error:
            if error.statement is None:  # the connection failed
                raise
        with self._engine.connect() as connection:  # another process may have created the table since
            return _read_meta(connection) if sqlalchemy.inspect(connection).has_table(meta.name) else {}

    def _migrate(self) -> dict[str, str]:
        """Apply the missing migrations in one transaction, and return the rows of ``apptoto_meta``."""
        with self._alone() as connection:
            found = _read_meta(connection) if sqlalchemy.inspect(connection).has_table(meta.name) else {}
            version = int(found.get(_VERSION, 0))
            if version > SCHEMA_VERSION:
                msg = (
                    f"the state database can't be used: its schema version is {version}, but this version of "
                    f"airflow-provider-apptoto supports only up to {SCHEMA_VERSION}. Upgrade the package"
                )
                raise LedgerStoreError(msg)
            try:
                if version < SCHEMA_VERSION:
                    for statement in migrations.statements(self.dialect, version):
                        connection.exec_driver_sql(statement)
                if _SALT not in found:
                    connection.execute(meta.insert().values(name=_SALT, value=secrets.token_hex(16)))
            except ProgrammingError as error:
                msg = (
                    f"the state database can't be used: the migration from schema version {version} to "
                    f"{SCHEMA_VERSION} failed: {_cause(error)}. If the role lacks privileges, print the SQL with this "
                    "command and run it with another role: "
                    f"python -m airflow_provider_apptoto ledger init --conn-id APPTOTO_CONN_ID --sql --from {version}"
                )
                raise LedgerStoreError(msg) from None
            return _read_meta(connection)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[Connection]:
        """Yield a connection in a transaction that excludes other migrations."""
        is_sqlite = self.dialect == "sqlite"
        with self._engine.connect() as connection:
            if not is_sqlite:
                # a stricter server default would hide what was committed during the wait for the lock
                connection = connection.execution_options(isolation_level="READ COMMITTED")  # noqa: PLW2901
            with connection.begin():
                if is_sqlite:
                    # sqlite3 itself begins a transaction only at the first INSERT, UPDATE or DELETE
                    connection.exec_driver_sql("BEGIN IMMEDIATE")
                else:
                    # migrating a large table may be slow, but waiting for a lock must not
                    connection.exec_driver_sql("SET LOCAL statement_timeout TO 0")
                    connection.exec_driver_sql("SET LOCAL lock_timeout TO '30s'")
                    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})")
                yield connection

    @contextlib.contextmanager
    def _readable_errors(self) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        except (DataError, IntegrityError):
            raise
        except SQLAlchemyError as error:
            msg = f"the state database can't be used: {_cause(error)}"
            if not _is_away(error):
                raise LedgerStoreError(msg) from None
            away = LedgerAwayError(msg)
            away.waited = time.monotonic() - began
            raise away from None


def _read_meta(connection: Connection) -> dict[str, str]:
    rows: Mapping[str, str] = {row.name: row.value for row in connection.execute(sqlalchemy.select(meta))}
    return dict(rows)


def _is_away(error: SQLAlchemyError) -> bool:
    """Return whether the error is temporary: the database is unreachable or locked, or has no free connection."""
    cause = getattr(error, "orig", None)
    if isinstance(cause, sqlite3.Error):
        return getattr(cause, "sqlite_errorcode", 0) & _PRIMARY_CODE == sqlite3.SQLITE_BUSY
    return isinstance(error, OperationalError | InterfaceError | sqlalchemy.exc.TimeoutError)


def _cause(error: SQLAlchemyError) -> str:
    cause = getattr(error, "orig", None) or error
    return safe_text(f"{type(cause).__name__}: {cause}")


_databases: dict[tuple[int, str], StateDatabase] = {}


def state_database(url: URL) -> StateDatabase:
    """Return the object that this process shares; a forked child gets its own, with its own connections.

    The child keeps the parent's connections open but unused: closing one could roll back the parent's writes.
    """
    key = os.getpid(), url.render_as_string(hide_password=False)
    found = _databases.get(key)
    return _databases.setdefault(key, StateDatabase(url)) if found is None else found


def forget_database(url: URL) -> None:
    """Close the connections of this process to a database that nothing uses anymore."""
    found = _databases.pop((os.getpid(), url.render_as_string(hide_password=False)), None)
    if found is not None:
        found.close()


def host_file() -> Path:
    """Return the SQLite file for the rate limit of this host if no state database is set."""
    return Path(os.environ.get("AIRFLOW_HOME") or "~/airflow").expanduser() / "apptoto-pace.db"


def spare_database() -> StateDatabase | None:
    """Return a fallback SQLite file for the rate limit of this user's processes on this host.

    ``None`` if there is no temporary directory that only this user can access.
    """
    folder = Path(tempfile.gettempdir()) / f"apptoto-{os.getuid()}"
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
            return state_database(URL.create("sqlite", database=str(folder / "pace.db")))
    return None
