"""The state database: how it comes to be, from what connections, and who may use it at once."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol, cast

import pytest
import sqlalchemy
from sqlalchemy.engine import URL

from airflow_provider_apptoto._compat import has_provider_cli
from airflow_provider_apptoto.cli import main
from airflow_provider_apptoto.client import ApptotoConfigurationError
from airflow_provider_apptoto.state.database import SCHEMA_VERSION, StateDatabase, database_url, meta, state_database
from airflow_provider_apptoto.state.sql_ledger import Selection, SqlLedgerStore
from airflow_provider_apptoto.state.store import LedgerStoreError, State
from tests.state.conftest import url_of
from tests.state.test_stores import entry

if TYPE_CHECKING:
    from airflow_provider_apptoto.connection import AirflowConnection

_processes = multiprocessing.get_context("spawn")


def salt_of(url: str, start: Any, found: Any) -> None:
    """Use a database for the first time, at the same moment as others."""
    database = StateDatabase(sqlalchemy.engine.make_url(url))
    start.wait()
    found.put(database.salt())
    database._engine.dispose()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_many_that_start_at_once_make_one_database(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    url = url_of(kind, request, tmp_path).render_as_string(hide_password=False)
    start, found = _processes.Barrier(6), _processes.Queue()
    children = [_processes.Process(target=salt_of, args=(url, start, found)) for _ in range(6)]
    for child in children:
        child.start()
    salts = {found.get(timeout=120) for _ in children}
    for child in children:
        child.join()
        assert child.exitcode == 0
    assert len(salts) == 1


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


def filled(database: StateDatabase) -> SqlLedgerStore:
    store = SqlLedgerStore(database, "")
    for number, state in enumerate(State):
        assert store.swap(None, entry(key=f"{number}{state}").changed(state, lease=60.0 if state == "claimed" else 0.0))
    return store


def test_unknown_means_also_what_a_killed_task_left_behind(database: StateDatabase) -> None:
    store = filled(database)
    found = {str(entry.state) for entry, _ in store.entries(Selection(states=["unknown"]))}
    assert found == {"unknown", "sending"}
    assert store.unresolved() == 2


def test_only_what_nobody_can_tell_is_resolved_and_who_and_why_is_kept(database: StateDatabase) -> None:
    store = filled(database)
    resolved = store.resolve(Selection(dag_id="clinic"), State.SENT, by="ann", note="it is in the conversation")
    assert sorted(entry.key for entry in resolved) == ["1sending", "5unknown"]
    history = {entry.key: changes for entry, changes in store.entries(Selection())}
    [change] = history["5unknown"]
    assert {**change, "id": 0, "at": 0} == {
        "id": 0,
        "at": 0,
        "from_state": "unknown",
        "to_state": "sent",
        "changed_by": "ann",
        "note": "it is in the conversation",
    }
    assert history["2sent"] == []
    assert store.unresolved() == 0


def test_what_is_under_way_is_not_forgotten(database: StateDatabase) -> None:
    store = filled(database)
    forgotten = store.forget(Selection(), by="ann", note="again, please")
    assert {str(entry.state) for entry in forgotten} == set(State) - {"claimed"}
    assert [entry.key for entry, _ in store.entries(Selection())] == ["0claimed"]


def test_purging_leaves_what_is_young_or_unresolved(database: StateDatabase) -> None:
    store = filled(database)
    assert store.purge(60) == 0
    assert store.purge(-1) == 3
    assert {str(entry.state) for entry, _ in store.entries(Selection())} == {"claimed", "sending", "unknown"}


@pytest.mark.parametrize(
    ("selection", "count"),
    [
        ({"keys": ["5unk", "2sent"]}, 2),
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


# --- the command line


class Command(Protocol):
    """Runs ``ledger`` with these arguments; gives what it printed, and how it ended."""

    def __call__(self, *arguments: str) -> tuple[str, str]: ...


@pytest.fixture
def ledger(state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Give the command, for the ledger of a file."""
    bare = {"conn_type": "apptoto", "login": "clinic@clinic.example", "password": "sekret-api-key"}
    connections = {
        "APPTOTO_DEFAULT": bare | {"extra": {"state_conn_id": "state"}},
        "STATE": {"conn_type": "sqlite", "host": str(state)},
        "BARE": bare,
    }
    for name, fields in connections.items():
        monkeypatch.setenv(f"AIRFLOW_CONN_{name}", json.dumps(fields))
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")  # the command sets it, for itself

    def run(*arguments: str) -> tuple[str, str]:
        capsys.readouterr()
        try:
            main(["ledger", *arguments])
        except SystemExit as end:
            return "", str(end)
        return capsys.readouterr()

    return run


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Give the file of a ledger that holds one entry of each state."""
    path = tmp_path / "state.db"
    database = StateDatabase(URL.create("sqlite", database=str(path)))
    filled(database)
    database._engine.dispose()
    return path


def test_the_command_lists_resolves_forgets_and_purges(ledger: Command) -> None:
    table, _ = ledger("list", "--state", "unknown")
    assert "1sending" in table
    assert "5unknown" in table
    assert "2sent" not in table
    done, said = ledger("resolve", "5unk", "--to", "not_sent", "--note", "not there", "--by", "ann")
    assert "5unknown" in done
    assert "1 resolved as not_sent" in said
    [shown] = json.loads(ledger("list", "5unknown", "--output", "json")[0])
    assert (shown["state"], shown["changes"][0]["note"]) == ("not_sent", "not there")
    assert "ann: not there" in ledger("list", "5unknown")[0]
    assert "1 forgotten" in ledger("forget", "2sent", "--note", "again")[1]
    assert "ann" not in ledger("list", "--state", "rejected")[0]
    assert "These are the newest 2" in ledger("list", "--limit", "2")[1]
    assert "Removed 3 entries" in ledger("purge", "--older-than", "-1")[0]
    assert "The state database is ready." in ledger("init")[0]


def test_the_command_prints_what_makes_the_tables_without_making_them(ledger: Command, state: Path) -> None:
    state.unlink()
    statements, _ = ledger("init", "--sql")
    assert not state.exists()
    with contextlib.closing(sqlite3.connect(state)) as connection:
        connection.executescript(statements)
    assert ledger("list") == ("", "")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["resolve", "--to", "sent", "--note", "all of them"], "Say which"),
        (["resolve", "nope", "--to", "sent", "--note", "x"], "None of what you named"),
        (["forget", "2sent", "--note", " "], "--note is blank"),
        (["list", "--conn-id", "bare"], "has no state_conn_id"),
        (["list", "--conn-id", "nowhere"], "nowhere"),
    ],
)
def test_the_command_says_in_one_line_what_it_can_not_do(ledger: Command, arguments: list[str], problem: str) -> None:
    printed, said = ledger(*arguments)
    assert printed == ""
    assert problem in said
    assert "\n" not in said


def test_the_command_is_a_program(tmp_path: Path) -> None:
    fields = {"conn_type": "apptoto", "login": "clinic@clinic.example", "password": "sekret-api-key"}
    connections = {
        "AIRFLOW_CONN_APPTOTO_DEFAULT": json.dumps(fields | {"extra": {"state_conn_id": "state"}}),
        "AIRFLOW_CONN_STATE": json.dumps({"conn_type": "sqlite", "host": str(tmp_path / "state.db")}),
    }
    program = [sys.executable, "-m", "airflow_provider_apptoto", "ledger", "list", "--output", "json"]
    done = subprocess.run(program, env={**os.environ, **connections}, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


@pytest.mark.skipif(not has_provider_cli(), reason="came with Airflow 3.2")
@pytest.mark.usefixtures("ledger")
def test_airflow_has_the_commands_too(state: Path) -> None:
    program = [str(Path(sys.executable).with_name("airflow")), "apptoto", "ledger", "list", "--state", "sent"]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    assert "2sent" in done.stdout
    assert state.exists()


# --- a process that is frozen

FROZEN = """
import os, signal, sys
from sqlalchemy.engine import make_url
from airflow_provider_apptoto.client import ApptotoClient, InProcessPacer, Message
from airflow_provider_apptoto.delivery import Scope, deliver
from airflow_provider_apptoto.state.database import StateDatabase
from airflow_provider_apptoto.state.sql_ledger import SqlLedgerStore
from airflow_provider_apptoto.state.ledger import Claim
from airflow_provider_apptoto.state.store import Origin
from airflow_provider_apptoto.state import ledger

url, server, on_unknown, stop, number = sys.argv[1:]
ledger.MARGIN = ledger.CLAIM_LEASE = 0.0
class Hook:
    def get_conn(self):
        return ApptotoClient(login="a", api_key="b", base_url=server, timeout=1, pacer=InProcessPacer(6000))
    def build_message(self, **fields):
        return Message(**fields)
sending = Claim.sending
def stopping(self, timeout):
    if stop == "before":
        os.kill(os.getpid(), signal.SIGSTOP)
    sending(self, timeout)
    if stop == "after":
        os.kill(os.getpid(), signal.SIGSTOP)
Claim.sending = stopping
origin = Origin(dag_id="clinic", task_id="send", run_id="r", map_index=-1, try_number=int(number))
store = SqlLedgerStore(StateDatabase(make_url(url)), "resolve")
scope = Scope(origin=origin, store=store, on_unknown=on_unknown)
print(deliver({"type": "sms", "to": "+16505550199", "message": "Hi"}, Hook(), scope).outcome)
"""


@pytest.mark.parametrize(
    ("stop", "successor", "sleeper", "copies"),
    [("before", "sent", "deduplicated", 1), ("after", "not known whether", "sent", 1)],
)
def test_a_try_that_was_frozen_and_wakes_beside_its_successor_sends_nothing_twice(
    database: StateDatabase, stop: str, successor: str, sleeper: str, copies: int
) -> None:
    from tests.faults import FaultServer

    url = database._url.render_as_string(hide_password=False)
    with FaultServer() as server:

        def start(stop: str, number: int) -> subprocess.Popen[str]:
            command = [sys.executable, "-c", FROZEN, url, server.url, "fail", stop, str(number)]
            return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

        with start(stop, 1) as frozen:
            _, status = os.waitpid(frozen.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status)
            with start("never", 2) as second:
                assert successor in second.communicate(timeout=60)[0]
            frozen.send_signal(signal.SIGCONT)
            assert sleeper in frozen.communicate(timeout=60)[0]
    assert len(server.accepted) == copies
    [(left, _)] = SqlLedgerStore(database, "").entries(Selection())
    assert left.state is State.SENT
