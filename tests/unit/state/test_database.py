"""The state database: how it comes to be, from what connections, and who may use it at once."""

from __future__ import annotations

import dataclasses
import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from sqlalchemy import event, func, select
from sqlalchemy.engine import URL

from airflow_provider_apptoto.client import ApptotoConfigurationError
from airflow_provider_apptoto.state import sql_ledger
from airflow_provider_apptoto.state.database import (
    SCHEMA_VERSION,
    StateDatabase,
    database_url,
    ledger,
    meta,
    state_database,
)
from airflow_provider_apptoto.state.sql_ledger import Selection, SqlLedgerStore
from airflow_provider_apptoto.state.store import LedgerStoreError, State
from tests.support.entries import entry, filled
from tests.support.state_databases import url_of

if TYPE_CHECKING:
    from airflow_provider_apptoto.connection import AirflowConnection


def test_the_statements_that_are_printed_make_the_database(database: StateDatabase) -> None:
    """A role that may not create tables finds them made."""
    statements = database.ddl()
    with database._engine.begin() as connection:
        for statement in statements.split(";\n")[:-1]:
            connection.exec_driver_sql(statement)
    store = SqlLedgerStore(database, "")
    assert store.swap(None, entry())
    assert store.find("k1") is not None


def test_a_database_of_a_newer_version_is_left_alone(database: StateDatabase) -> None:
    database.init()
    with database.transaction() as connection:
        newer = meta.update().where(meta.c.name == "schema_version").values(value=str(SCHEMA_VERSION + 1))
        connection.execute(newer)
    with pytest.raises(LedgerStoreError, match=r"version 2, and this package knows 1; upgrade"):
        StateDatabase(database._url).init()


def test_a_server_that_is_gone_is_named_without_its_password() -> None:
    url = URL.create(
        "postgresql+psycopg2", username="clinic", password="sekret", host="127.0.0.1", port=1, database="x"
    )
    with pytest.raises(LedgerStoreError, match="the state database can't be used: OperationalError") as raised:
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


def test_what_was_committed_though_its_answer_was_lost_counts_as_written(database: StateDatabase) -> None:
    store = SqlLedgerStore(database, "")
    first, other = entry(), entry()
    assert store.swap(None, first)
    assert store.swap(None, first)  # again, since nobody said that it had been done
    sent = first.changed(State.SENT)
    assert store.swap(first, sent)
    assert store.swap(first, sent)
    assert not store.swap(None, other)
    assert not store.swap(first, first.changed(State.NOT_SENT))
    assert store.find("k1") == sent


def test_a_purge_goes_in_lots_so_that_others_can_write_between(
    database: StateDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_ledger, "_LOT", 10)
    store = SqlLedgerStore(database, "")
    for number in range(25):
        store.swap(None, dataclasses.replace(entry(key=f"k{number}"), state=State.SENT))
    lots: list[int] = []
    left = select(func.count()).select_from(ledger)
    event.listen(database._engine, "begin", lambda connection: lots.append(connection.execute(left).scalar_one()))
    assert store.purge(older_than=-1) == 25
    assert lots == [25, 15, 5]


def test_a_disk_that_is_full_takes_nothing_and_once_there_is_room_everything(tmp_path: Path) -> None:
    database = StateDatabase(URL.create("sqlite", database=str(tmp_path / "state.db")))
    database.init()
    pages = 0

    @event.listens_for(database._engine, "checkout")
    def limit(connection: Any, *_: object) -> None:
        connection.execute(f"PRAGMA max_page_count = {pages}")

    with database.transaction() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    store = SqlLedgerStore(database, "")
    long = dataclasses.replace(entry(), reference="x" * 10_000)
    with pytest.raises(LedgerStoreError, match="full"):
        store.swap(None, long)
    assert store.find("k1") is None
    pages = 1_000_000
    assert store.swap(None, long)
    database._engine.dispose()


def test_a_forked_child_has_a_database_object_of_its_own(tmp_path: Path) -> None:
    url = URL.create("sqlite", database=str(tmp_path / "state.db"))
    parent = state_database(url)
    assert state_database(url) is parent
    child = os.fork()
    if child == 0:
        os._exit(0 if state_database(url) is not parent else 1)
    assert os.waitpid(child, 0)[1] == 0


def connection(**fields: Any) -> AirflowConnection:
    extra = fields.pop("extra_dejson", {})
    defaults = dict.fromkeys(("host", "login", "password", "port", "schema"))
    return cast("AirflowConnection", SimpleNamespace(conn_id="state", extra_dejson=extra, **{**defaults, **fields}))


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
def test_airflow_connections_of_three_kinds_can_be_state_databases(fields: dict[str, Any], url: str) -> None:
    assert database_url(connection(**fields)).render_as_string(hide_password=False) == url


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"conn_type": "http", "host": "db"}, "'http'; one of sqlite, postgres and mysql is needed"),
        ({"conn_type": None}, "one of sqlite"),
        ({"conn_type": "generic", "host": "state.db"}, "'generic'; one of sqlite"),
        ({"conn_type": "sqlite", "host": "state.db"}, "needs the absolute path of a file as its host"),
        ({"conn_type": "sqlite"}, "needs the absolute path"),
        ({"conn_type": "mysql", "host": "db"}, "needs one of MySQLdb, pymysql, mysql.connector to be installed"),
    ],
)
def test_others_are_refused_with_what_is_needed(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(ApptotoConfigurationError, match=problem) as raised:
        database_url(connection(**fields))
    assert "state_conn_id 'state'" in str(raised.value)


def test_the_statements_for_mysql_name_no_type_that_loses_digits() -> None:
    from sqlalchemy.dialects import mysql
    from sqlalchemy.schema import CreateTable

    from airflow_provider_apptoto.state.database import ledger

    statement = str(CreateTable(ledger).compile(dialect=mysql.dialect()))
    assert "updated_at FLOAT(53) NOT NULL" in statement


# --- what people do with it


def test_unknown_means_also_what_a_killed_task_left_behind(database: StateDatabase) -> None:
    store = filled(database)
    found = {str(entry.state) for entry, _ in store.entries(Selection(states=["unknown"]))}
    assert found == {"unknown", "sending"}
    assert store.unresolved() == 2


def test_only_what_nobody_can_tell_is_resolved_and_who_and_why_is_kept(database: StateDatabase) -> None:
    store = filled(database)
    resolved = store.resolve(
        store.resolvable(Selection(dag_id="clinic")), State.SENT, by="ann", note="it is in the conversation"
    )
    assert sorted(entry.key for entry in resolved) == ["1" * 32, "5" * 32]
    history = {entry.key: changes for entry, changes in store.entries(Selection())}
    [change] = history["5" * 32]
    assert {**change, "id": 0, "at": 0} == {
        "id": 0,
        "at": 0,
        "from_state": "unknown",
        "to_state": "sent",
        "changed_by": "ann",
        "note": "it is in the conversation",
    }
    assert history["2" * 32] == []
    assert store.unresolved() == 0


def test_a_resolution_can_be_taken_back_and_what_apptoto_said_can_not(database: StateDatabase) -> None:
    store = filled(database)
    store.resolve(store.resolvable(Selection(states=["unknown"])), State.SENT, by="ann", note="seen")
    assert store.resolvable(Selection()) == []
    again = store.resolve(store.resolvable(Selection(), force=True), State.NOT_SENT, by="bob", note="of another one")
    assert sorted(entry.key for entry in again) == ["1" * 32, "5" * 32]
    changes = {entry.key: history for entry, history in store.entries(Selection())}["5" * 32]
    assert [(change["changed_by"], change["to_state"]) for change in changes] == [("ann", "sent"), ("bob", "not_sent")]


def test_what_is_resolved_as_sent_keeps_the_time_of_sending(database: StateDatabase) -> None:
    store = SqlLedgerStore(database, "")
    sending = dataclasses.replace(entry(), state=State.SENDING, lease=0.0, updated_at=1_000.0, sent_at=1_000.0)
    store.swap(None, sending)
    [resolved] = store.resolve(store.resolvable(Selection()), State.SENT, by="ann", note="seen")
    assert resolved.at == sending.at == "1970-01-01T00:16:40Z"
    assert store.find("k1") == resolved


def test_what_changed_since_it_was_chosen_is_left_as_it_is(database: StateDatabase) -> None:
    store = filled(database)
    chosen = store.resolvable(Selection())
    [first, _] = chosen
    assert store.swap(first, first.changed(State.SENT))
    assert len(store.resolve(chosen, State.NOT_SENT, by="ann", note="not there")) == 1
    assert len(store.forget([first], by="ann", note="again")) == 0


def test_what_is_under_way_is_not_forgotten(database: StateDatabase) -> None:
    store = filled(database)
    forgotten = store.forget(store.forgettable(Selection()), by="ann", note="again, please")
    assert {str(entry.state) for entry in forgotten} == set(State) - {"claimed"}
    assert [entry.key for entry, _ in store.entries(Selection())] == ["0" * 32]


def test_purging_leaves_what_is_young_or_unresolved(database: StateDatabase) -> None:
    store = filled(database)
    assert store.purge(60) == 0
    assert store.purge(-1) == 3
    assert {str(entry.state) for entry, _ in store.entries(Selection())} == {"claimed", "sending", "unknown"}


@pytest.mark.parametrize(
    ("selection", "count"),
    [
        ({"keys": ["55555555", "2" * 32]}, 2),
        ({"keys": ["%"]}, 0),
        ({"dag_id": "clinic", "task_id": "remind", "run_id": "monday"}, 6),
        ({"dag_id": "lab"}, 0),
        ({"reference": "4711"}, 6),
        ({"reference": "4712"}, 0),
        ({"states": ["sent", "rejected"]}, 2),
    ],
)
def test_entries_are_found_by_what_an_operator_knows_of_them(
    database: StateDatabase, selection: dict[str, Any], count: int
) -> None:
    assert len(filled(database).entries(Selection(**selection))) == count
