"""The state database accepts the documented connections, allows concurrent use, and reports failures."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from sqlalchemy import event
from sqlalchemy.engine import URL

from airflow_provider_apptoto.client import ApptotoConfigurationError
from airflow_provider_apptoto.outbox import engine
from airflow_provider_apptoto.outbox.database import StateDatabase, host_file, state_database
from airflow_provider_apptoto.outbox.engine import database_url
from airflow_provider_apptoto.outbox.entry import State
from airflow_provider_apptoto.outbox.schema import SCHEMA_VERSION, meta
from airflow_provider_apptoto.outbox.stores.base import LedgerAwayError, LedgerStoreError
from airflow_provider_apptoto.outbox.stores.sql import SqlLedgerStore
from tests.support.entries import entry
from tests.support.state_databases import url_of

if TYPE_CHECKING:
    from airflow_provider_apptoto.connection import DatabaseConnection


def sqlite_in(folder: Path) -> StateDatabase:
    return StateDatabase(URL.create("sqlite", database=str(folder / "state.db")))


# --- failures


def test_a_server_that_is_gone_is_named_without_its_password() -> None:
    url = URL.create(
        "postgresql+psycopg2", username="clinic", password="sekret", host="127.0.0.1", port=1, database="x"
    )
    with pytest.raises(LedgerAwayError, match="the state database can't be used: OperationalError") as raised:
        StateDatabase(url).init()
    assert "sekret" not in str(raised.value)


@pytest.mark.postgresql
def test_a_dead_network_to_a_server_ends_a_wait(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    database = StateDatabase(url_of("postgresql", request, tmp_path))
    with database.transaction() as connection:
        timeout = connection.exec_driver_sql("SHOW statement_timeout").scalar()
        driver: Any = connection.connection.driver_connection
        with socket.socket(fileno=os.dup(driver.fileno())) as line:
            of_tcp = (socket.TCP_USER_TIMEOUT, socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            options = [line.getsockopt(socket.IPPROTO_TCP, option) for option in of_tcp]
            alive = line.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert (timeout, options, alive) == ("30s", [20_000, 10, 5, 3], 1)
    database._engine.dispose()


def test_a_file_that_cannot_be_opened_is_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "state.db").mkdir()
    with pytest.raises(LedgerStoreError, match="unable to open database file"):
        sqlite_in(tmp_path).init()


def test_what_was_committed_though_its_answer_was_lost_counts_as_written(database: StateDatabase) -> None:
    store = SqlLedgerStore(database)
    first, other = entry(), entry()
    assert store.compare_and_swap(None, first)
    assert store.compare_and_swap(None, first)  # again, because its end was not recorded
    sent = first.changed(State.SENT)
    assert store.compare_and_swap(first, sent)
    assert store.compare_and_swap(first, sent)
    assert not store.compare_and_swap(None, other)
    assert not store.compare_and_swap(first, first.changed(State.NOT_SENT))
    assert store.find(["k1"]) == {"k1": sent}


def test_a_disk_that_is_full_takes_nothing_and_once_there_is_room_everything(tmp_path: Path) -> None:
    database = sqlite_in(tmp_path)
    database.init()
    pages = 0

    @event.listens_for(database._engine, "checkout")
    def limit(connection: Any, *_: object) -> None:
        connection.execute(f"PRAGMA max_page_count = {pages}")

    with database.transaction() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    store = SqlLedgerStore(database)
    long = dataclasses.replace(entry(), reference="x" * 10_000)
    with pytest.raises(LedgerStoreError, match="full"):
        store.compare_and_swap(None, long)
    assert store.find(["k1"]) == {}
    pages = 1_000_000
    assert store.compare_and_swap(None, long)
    database._engine.dispose()


# --- durable, and used by many


def test_a_commit_to_a_file_survives_a_power_failure_without_a_second_file(tmp_path: Path) -> None:
    database = sqlite_in(tmp_path)
    with database.transaction() as connection:
        settings = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in ("journal_mode", "synchronous")
        ]
    assert settings == ["truncate", 2]  # FULL
    database._engine.dispose()


@pytest.mark.postgresql
def test_a_commit_to_a_server_waits_for_its_disk_whatever_the_servers_default(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = url_of("postgresql", request, tmp_path)
    database = StateDatabase(url)
    with database.transaction() as connection:
        connection.exec_driver_sql(f"ALTER DATABASE {url.database} SET synchronous_commit TO off")
    database._engine.dispose()
    with database.transaction() as connection:
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar_one() == "on"
    database._engine.dispose()


def test_a_process_that_opens_another_connection_keeps_the_locks_that_it_has(tmp_path: Path) -> None:
    database = sqlite_in(tmp_path)
    others = f"import sqlite3; sqlite3.connect({str(tmp_path / 'state.db')!r}, timeout=0).execute('BEGIN IMMEDIATE')"
    with database.transaction() as connection:
        connection.execute(meta.insert().values(name="x", value=""))
        for _ in range(2):
            refused = subprocess.run([sys.executable, "-c", others], capture_output=True, text=True, check=False)
            assert "database is locked" in refused.stderr
            with contextlib.closing(database._engine.raw_connection()):
                pass
    database._engine.dispose()


def test_a_lock_that_others_keep_is_as_good_as_a_database_that_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_SQLITE_LOCK_TIMEOUT", 0.1)
    database = sqlite_in(tmp_path)
    database.init()
    with contextlib.closing(sqlite3.connect(tmp_path / "state.db", isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(LedgerAwayError, match="locked") as raised:
            SqlLedgerStore(database).compare_and_swap(None, entry())
        assert raised.value.waited >= 0.1
    database._engine.dispose()


def test_transactions_that_follow_one_another_share_a_connection(database: StateDatabase) -> None:
    connections: list[object] = []
    event.listen(database._engine, "connect", lambda connection, _: connections.append(connection))
    for _ in range(5):
        with database.transaction() as connection:
            connection.exec_driver_sql("SELECT 1")
    assert len(connections) == 1


def test_more_threads_than_connections_all_get_their_turn(database: StateDatabase) -> None:
    database.init()
    threads = 32
    store, others, written = SqlLedgerStore(database), threading.Barrier(threads), []

    def write(number: int) -> None:
        others.wait()
        written.append(store.compare_and_swap(None, entry(key=f"k{number}")))
        assert store.find([f"k{number}"])

    workers = [threading.Thread(target=write, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert written == [True] * threads


def test_a_forked_child_has_a_database_object_of_its_own(tmp_path: Path) -> None:
    url = URL.create("sqlite", database=str(tmp_path / "state.db"))
    parent = state_database(url)
    assert state_database(url) is parent
    child = os.fork()
    if child == 0:
        os._exit(0 if state_database(url) is not parent else 1)
    assert os.waitpid(child, 0)[1] == 0


# --- connections


def connection(**fields: Any) -> DatabaseConnection:
    extra = fields.pop("extra_dejson", {})
    defaults = dict.fromkeys(("host", "login", "password", "port", "schema"))
    return cast("DatabaseConnection", SimpleNamespace(conn_id="state", extra_dejson=extra, **{**defaults, **fields}))


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ({"conn_type": "sqlite", "host": "/var/lib/state.db"}, "sqlite:////var/lib/state.db"),
        ({"conn_type": "sqlite", "schema": "/var/lib/state.db"}, "sqlite:////var/lib/state.db"),
        ({"conn_type": "generic", "host": "/var/lib/state.db"}, "sqlite:////var/lib/state.db"),
        (
            {
                "conn_type": "postgres",
                "host": "db",
                "port": 5432,
                "login": "me",
                "password": "p@ss",
                "schema": "clinic",
                "extra_dejson": {"sslmode": "verify-full", "options": "-c synchronous_commit=off"},
            },
            "postgresql+psycopg2://me:p%40ss@db:5432/clinic?sslmode=verify-full",
        ),
        ({"conn_type": "postgresql", "host": "db"}, "postgresql+psycopg2://db"),
    ],
)
def test_airflow_connections_of_sqlite_and_postgresql_can_be_state_databases(fields: dict[str, Any], url: str) -> None:
    assert database_url(connection(**fields)).render_as_string(hide_password=False) == url


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"conn_type": "http", "host": "db"}, "'http'; it must be sqlite or postgres"),
        ({"conn_type": "mysql", "host": "db"}, "'mysql'; it must be sqlite or postgres"),
        ({"conn_type": None}, "must be sqlite"),
        ({"conn_type": "generic", "host": "state.db"}, "'generic'; it must be sqlite"),
        ({"conn_type": "sqlite", "host": "state.db"}, "must have the absolute path of a file as its host"),
        ({"conn_type": "sqlite"}, "must have the absolute path"),
    ],
)
def test_others_are_refused_with_what_is_needed(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(ApptotoConfigurationError, match=problem) as raised:
        database_url(connection(**fields))
    assert "state_conn_id 'state'" in str(raised.value)


@pytest.mark.parametrize(
    ("installed", "driver"), [({"psycopg2", "psycopg"}, "psycopg2"), ({"psycopg"}, "psycopg"), (set(), None)]
)
def test_the_driver_of_postgresql_that_is_installed_is_used(
    monkeypatch: pytest.MonkeyPatch, installed: set[str], driver: str | None
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: SimpleNamespace() if name in installed else None)
    given = connection(conn_type="postgres", host="db")
    if driver is not None:
        assert database_url(given).drivername == f"postgresql+{driver}"
        return
    with pytest.raises(ApptotoConfigurationError, match="needs a PostgreSQL driver; install psycopg2 or psycopg"):
        database_url(given)


@pytest.mark.parametrize(
    ("kind", "how", "begin"),
    [
        ("sqlite", "sqlite3 -bail FILE", ["BEGIN IMMEDIATE"]),
        ("postgresql+psycopg2", "psql --set ON_ERROR_STOP=1", ["BEGIN", "SELECT pg_advisory_xact_lock("]),
    ],
)
def test_a_printed_script_says_how_to_run_it_and_is_one_transaction(kind: str, how: str, begin: list[str]) -> None:
    database = StateDatabase(URL.create(kind, database="/state.db" if kind == "sqlite" else "state"))
    title, *statements = database.ddl().splitlines()
    assert title == f"-- Apptoto state database, from version 0 to {SCHEMA_VERSION}. Run it with: {how}"
    for statement, expected in zip(statements, begin, strict=False):
        assert statement.startswith(expected)
    assert statements[-1] == "COMMIT;"
    assert database.ddl(1).splitlines()[0] == title.replace("version 0", "version 1")
    assert len(database.ddl(1)) < len(database.ddl())


def test_a_process_has_one_object_for_a_database_and_another_one_for_another_password() -> None:
    url = URL.create("postgresql+psycopg2", username="ann", password="secret-1", host="db")
    assert state_database(url) is state_database(url)
    assert state_database(url) is not state_database(url.set(password="secret-2"))


@pytest.mark.parametrize(
    ("home", "expected"), [("/opt/airflow", "/opt/airflow"), ("", "~/airflow"), (None, "~/airflow")]
)
def test_without_a_state_database_the_rate_limit_of_a_host_is_kept_in_airflows_home(
    monkeypatch: pytest.MonkeyPatch, home: str | None, expected: str
) -> None:
    monkeypatch.delenv("AIRFLOW_HOME")
    if home is not None:
        monkeypatch.setenv("AIRFLOW_HOME", home)
    assert host_file() == Path(expected).expanduser() / "apptoto-pace.db"
