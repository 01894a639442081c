"""The commands by which people see and resolve what the ledger remembers."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Protocol

import pytest
from sqlalchemy.engine import URL

from airflow_provider_apptoto._airflow import has_provider_cli
from airflow_provider_apptoto.cli import main
from airflow_provider_apptoto.state.database import StateDatabase
from airflow_provider_apptoto.state.sql_ledger import SqlLedgerStore
from tests.support.entries import entry, filled
from tests.support.state_databases import forget_databases


class Command(Protocol):
    """Runs ``ledger`` with these arguments; gives what it printed, and how it ended."""

    def __call__(self, *arguments: str) -> tuple[str, str]: ...


pytestmark = pytest.mark.usefixtures("airflow_database")


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
        with contextlib.suppress(SystemExit):
            main(["ledger", *arguments])
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


def key(number: int) -> str:
    return str(number) * 32


def test_the_command_lists_resolves_forgets_and_purges(ledger: Command) -> None:
    table, _ = ledger("list", "--state", "unknown")
    assert key(1) in table
    assert key(5) in table
    assert key(2) not in table
    done, said = ledger("resolve", key(5)[:8], "--to", "not_sent", "--note", "not there", "--by", "ann")
    assert key(5) in done
    assert "1 resolved as not_sent" in said
    [shown] = json.loads(ledger("list", key(5), "--output", "json")[0])
    assert (shown["state"], shown["changes"][0]["note"]) == ("not_sent", "not there")
    assert "ann: not there" in ledger("list", key(5))[0]
    assert "No matching entry can be changed" in ledger("resolve", key(5), "--to", "sent", "--note", "it was")[1]
    assert "1 resolved as sent" in ledger("resolve", key(5), "--to", "sent", "--note", "it was", "--force")[1]
    assert "1 forgotten" in ledger("forget", key(2), "--note", "again")[1]
    assert "ann" not in ledger("list", "--state", "rejected")[0]
    assert "These are the newest 2" in ledger("list", "--limit", "2")[1]
    assert "Removed 3 entries" in ledger("purge", "--older-than", "-1")[0]
    assert "The state database is ready." in ledger("init")[0]


def test_more_than_one_entry_is_changed_only_when_somebody_says_yes(
    ledger: Command, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def count() -> int:
        return len(json.loads(ledger("list", "--output", "json")[0]))

    assert state.exists()
    forget = ["forget", "--dag", "clinic", "--note", "again"]
    table, said = ledger(*forget)  # nobody to ask
    assert key(2) in table
    assert key(0) not in table
    assert "These are 5 entries. Add --yes to change them all; nothing was changed." in said
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda _: "n")
    assert "Nothing was changed." in ledger(*forget)[1]
    assert count() == 6
    monkeypatch.setattr("builtins.input", lambda _: "y")
    assert "5 forgotten" in ledger(*forget)[1]
    assert count() == 1


def test_yes_changes_more_than_one_entry_without_a_question(ledger: Command) -> None:
    assert "2 resolved as sent" in ledger("resolve", "--run", "monday", "--to", "sent", "--note", "seen", "--yes")[1]


def test_a_table_obeys_nobody_who_wrote_a_reference(ledger: Command, state: Path) -> None:
    database = StateDatabase(URL.create("sqlite", database=str(state)))
    store = SqlLedgerStore(database, "")
    store.swap(None, dataclasses.replace(entry(key="a" * 32), reference="4711\x1b[2J\n\u202efake row"))
    table, _ = ledger("list", "a" * 32)
    assert "4711 [2J fake row" in table
    assert len(table.splitlines()) == 3


def test_the_command_prints_what_makes_the_tables_without_making_them(ledger: Command, state: Path) -> None:
    state.unlink()
    statements, _ = ledger("init", "--sql")
    assert not state.exists()
    with contextlib.closing(sqlite3.connect(state)) as connection:
        connection.executescript(statements)
    assert ledger("list") == ("", "")


def test_init_refuses_a_database_that_is_another_one_until_it_is_accepted(ledger: Command, state: Path) -> None:
    assert "ready" in ledger("init")[0]
    state.unlink()
    forget_databases()
    assert "'state' is empty" in ledger("init")[1]
    assert "init --accept" in ledger("init")[1]
    assert not state.stat().st_size
    assert "ready" in ledger("init", "--accept")[0]
    assert "ready" in ledger("init")[0]


@pytest.mark.parametrize(
    ("arguments", "problem", "code"),
    [
        (["init", "--conn-id", "bare"], "has no state_conn_id", 2),
        (["resolve", "--to", "sent", "--note", "all of them"], "Say which", 2),
        (["resolve", "", "--to", "sent", "--note", "all of them"], "'' is not a KEY", 2),
        (["forget", "", "--note", "all of them"], "'' is not a KEY", 2),
        (["forget", " ", "--note", "all of them"], "' ' is not a KEY", 2),
        (["forget", "2222222", "--note", "too short"], "is not a KEY: it has at least 8 of the 32 hex digits", 2),
        (["forget", "%%%%%%%%", "--note", "any"], "is not a KEY", 2),
        (["forget", "--dag", "", "--note", "x"], "--dag is blank", 2),
        (["forget", "--dag", "clinic", "--run", " ", "--note", "x"], "--run is blank", 2),
        (["list", "--reference", ""], "--reference is blank", 2),
        (["list", "--limit", "-1"], "--limit is at least 1", 2),
        (["resolve", "a" * 32, "--to", "sent", "--note", "x"], "No matching entry can be changed", 1),
        (["forget", "2" * 32, "--note", " "], "--note has to be one line of text", 2),
        (["forget", "2" * 32, "--note", "a\x1b[2J"], "--note has to be one line of text", 2),
        (["forget", "2" * 32, "--note", "x", "--by", "a\nb"], "--by has to be one line of text", 2),
        (["list", "--conn-id", "bare"], "has no state_conn_id", 2),
        (["list", "--conn-id", "nowhere"], "nowhere", 2),
    ],
)
@pytest.mark.usefixtures("ledger")
def test_the_command_says_in_one_line_what_it_can_not_do(
    arguments: list[str], problem: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["ledger", *arguments])
    printed, said = capsys.readouterr()
    assert (ended.value.code, printed) == (code, "")
    assert problem in said
    assert len(said.splitlines()) == 1


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
    assert key(2) in done.stdout
    assert state.exists()
