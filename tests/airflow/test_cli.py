"""The commands by which people see and resolve what the ledger remembers."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Protocol

import pytest
from sqlalchemy.engine import URL

from airflow_provider_apptoto._compat import has_provider_cli
from airflow_provider_apptoto.cli import main
from airflow_provider_apptoto.state import database as databases
from airflow_provider_apptoto.state.database import StateDatabase
from tests.support.entries import filled


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


def test_init_refuses_a_database_that_is_another_one_until_it_is_accepted(ledger: Command, state: Path) -> None:
    assert "ready" in ledger("init")[0]
    state.unlink()
    databases._databases.clear()  # as in another process
    assert "'state' is empty" in ledger("init")[1]
    assert "init --accept" in ledger("init")[1]
    assert not state.stat().st_size
    assert "ready" in ledger("init", "--accept")[0]
    assert "ready" in ledger("init")[0]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["init", "--conn-id", "bare"], "has no state_conn_id"),
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
