"""The commands show and change the ledger; tests/unit/outbox/test_admin.py tests the changes themselves."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from sqlalchemy.engine import URL

from airflow_provider_apptoto._airflow import has_provider_cli
from airflow_provider_apptoto.cli import main
from airflow_provider_apptoto.outbox.database import StateDatabase
from airflow_provider_apptoto.outbox.schema import SCHEMA_VERSION
from airflow_provider_apptoto.outbox.stores.sql import SqlLedgerStore
from tests.support.entries import entry, filled
from tests.support.state_databases import forget_databases

if TYPE_CHECKING:
    from pytest_mock import MockerFixture


class Command(Protocol):
    """Runs ``ledger`` with these arguments; returns its output and exit code."""

    def __call__(self, *arguments: str) -> tuple[str, str]: ...


pytestmark = pytest.mark.usefixtures("airflow_database")


@pytest.fixture
def ledger(state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Provide the command, for the ledger in a file."""
    bare = {"conn_type": "apptoto", "login": "clinic@clinic.example", "password": "sekret-api-key"}
    connections = {
        "APPTOTO_DEFAULT": bare | {"extra": {"state_conn_id": "state"}},
        "STATE": {"conn_type": "sqlite", "host": str(state)},
        "BARE": bare,
    }
    for name, fields in connections.items():
        monkeypatch.setenv(f"AIRFLOW_CONN_{name}", json.dumps(fields))
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")  # the command sets it for its own process

    def run(*arguments: str) -> tuple[str, str]:
        capsys.readouterr()
        with contextlib.suppress(SystemExit):
            main(["ledger", *arguments])
        return capsys.readouterr()

    return run


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Provide the file of a ledger with one entry of each state."""
    path = tmp_path / "state.db"
    database = StateDatabase(URL.create("sqlite", database=str(path)))
    filled(database)
    database._engine.dispose()
    return path


def key(number: int) -> str:
    return str(number) * 32


def listed(ledger: Command, *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(ledger("list", *arguments, "--output", "json")[0])
    return found


def change_meanwhile(state: Path, *numbers: int) -> None:
    """Change entries as another process does."""
    with contextlib.closing(sqlite3.connect(state)) as connection, connection:
        for number in numbers:
            written = "update apptoto_ledger set version = version || 'x' where message_key = ?"
            connection.execute(written, [key(number)])


def test_the_command_lists_resolves_forgets_and_purges(ledger: Command) -> None:
    table, _ = ledger("list", "--state", "unknown")
    assert [number for number in range(7) if key(number) in table] == [5, 6]
    done, said = ledger("resolve", key(5)[:8], "--to", "not_sent", "--note", "not there", "--by", "ann")
    assert key(5) in done
    assert "ann: not there" in done
    assert said == "Resolved as not_sent: 1.\n"
    [shown] = listed(ledger, key(5))
    assert (shown["state"], shown["why"], shown["changes"][0]["note"]) == ("not_sent", "ann: not there", "not there")
    assert "No matching entry can be changed" in ledger("resolve", key(5), "--to", "sent", "--note", "it was")[1]
    assert "Resolved as sent: 1." in ledger("resolve", key(5), "--to", "sent", "--note", "it was", "--force")[1]
    assert "Removed: 1." in ledger("forget", key(1), "--note", "again")[1]
    assert key(1) not in ledger("list")[0]
    assert "Showing the newest 2 entries." in ledger("list", "--limit", "2")[1]
    purged = ledger("purge", "--older-than", "0")[0]
    assert purged == "Removed 4 entries finished more than 0 days ago.\n"
    assert "The state database is ready." in ledger("init")[0]


def test_a_purge_keeps_entries_for_the_days_of_the_configuration(
    ledger: Command, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with contextlib.closing(sqlite3.connect(state)) as connection, connection:
        connection.execute("update apptoto_ledger set updated_at = updated_at - 40 * 86400 where message_key < '3'")
        connection.execute("update apptoto_ledger set updated_at = updated_at - 30 * 86400 where message_key > '3'")
    monkeypatch.setenv("AIRFLOW__APPTOTO__KEEP_DAYS", "60")
    assert ledger("purge")[0] == "Removed 0 entries finished more than 60 days ago.\n"
    monkeypatch.delenv("AIRFLOW__APPTOTO__KEEP_DAYS")
    assert ledger("purge")[0] == "Removed 2 entries finished more than 35 days ago.\n"
    monkeypatch.setenv("AIRFLOW__APPTOTO__KEEP_DAYS", "20.5")
    file = tmp_path / "purged.jsonl"
    assert ledger("purge", "--export", str(file))[0] == "Removed 2 entries finished more than 20.5 days ago.\n"
    assert [json.loads(line)["state"] for line in file.read_text().splitlines()] == ["not_sent", "rejected"]
    for wrong in ("0", "-5", "inf", "nan", "a year"):
        monkeypatch.setenv("AIRFLOW__APPTOTO__KEEP_DAYS", wrong)
        problem = f"AIRFLOW__APPTOTO__KEEP_DAYS: {wrong!r} is not a number of days of at least 1\n"
        assert ledger("purge")[1] == problem


def test_the_table_tells_what_went_to_whom_from_where_and_why(ledger: Command) -> None:
    header = ledger("list", key(1))[0].splitlines()[0]
    columns = "key state at channel target reference dag_id task_id run_id map_index try_number why"
    assert header.split() == columns.split()


def test_a_list_can_be_narrowed_to_a_channel_and_a_period(ledger: Command) -> None:
    assert len(listed(ledger, "--channel", "sms")) == 7
    assert listed(ledger, "--channel", "call") == []
    assert len(listed(ledger, "--since", "2026-01-01T00:00Z", "--until", "9999-01-01T00:00+02:00")) == 7
    assert listed(ledger, "--until", "2026-01-01T00:00Z") == []
    assert "'2026-01-01T00:00' is not an ISO 8601 time with zone" in ledger("list", "--since", "2026-01-01T00:00")[1]
    assert "'monday' is not an ISO 8601 time with zone" in ledger("list", "--until", "monday")[1]


def test_more_than_one_entry_is_changed_only_when_somebody_says_yes(ledger: Command, mocker: MockerFixture) -> None:
    forget = ["forget", "--dag", "clinic", "--note", "again"]
    table, said = ledger(*forget)  # no terminal to ask
    assert key(2) in table
    assert key(0) not in table
    assert said == "Nothing was changed. Add --yes to change these 6 entries.\n"
    mocker.patch("sys.stdin.isatty", return_value=True)
    answer = mocker.patch("builtins.input", return_value="n")
    assert "Nothing was changed." in ledger(*forget)[1]
    assert len(listed(ledger)) == 7
    answer.return_value = "y"
    assert "Removed: 6." in ledger(*forget)[1]
    assert len(listed(ledger)) == 1


def test_yes_changes_more_than_one_entry_without_a_question(ledger: Command) -> None:
    assert "Resolved as sent: 2." in ledger("resolve", "--run", "monday", "--to", "sent", "--note", "seen", "--yes")[1]


@pytest.mark.parametrize(
    ("theirs", "summary"), [((5, 6), "in the meantime: 2.\nNothing was changed."), ((5,), "1.\nResolved as sent: 1.")]
)
def test_what_others_change_during_the_question_is_left_as_it_is(
    ledger: Command, state: Path, mocker: MockerFixture, theirs: tuple[int, ...], summary: str
) -> None:
    def answer(_: str) -> str:
        change_meanwhile(state, *theirs)
        return "y"

    mocker.patch("sys.stdin.isatty", return_value=True)
    mocker.patch("builtins.input", side_effect=answer)
    _, said = ledger("resolve", "--run", "monday", "--to", "sent", "--note", "seen")
    assert said.startswith("Skipped because they were changed in the meantime: ")
    assert said.endswith(f"{summary}\n")
    assert len(listed(ledger, "--state", "unknown")) == len(theirs)


def test_a_process_whose_user_has_no_name_is_asked_for_one(ledger: Command, mocker: MockerFixture) -> None:
    mocker.patch("getpass.getuser", side_effect=OSError("No username set in the environment"))
    resolve = ["resolve", key(5), "--to", "sent", "--note", "seen"]
    assert ledger(*resolve)[1] == "The current user has no name. Add --by NAME.\n"
    assert "Resolved as sent: 1." in ledger(*resolve, "--by", "ann")[1]


def test_a_table_obeys_nobody_who_wrote_a_reference(ledger: Command, state: Path) -> None:
    database = StateDatabase(URL.create("sqlite", database=str(state)))
    new = entry(key="a" * 32, reference="4711\x1b[2J\n\u202efake row")
    assert SqlLedgerStore(database).compare_and_swap(None, new)
    database._engine.dispose()
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


def test_the_command_prints_what_migrates_the_tables_of_an_older_version(ledger: Command) -> None:
    first, _ = ledger("init", "--sql", "--from", "0")
    later, _ = ledger("init", "--sql", "--from", "1")
    assert first == ledger("init", "--sql")[0]
    assert "CREATE TABLE IF NOT EXISTS apptoto_meta" in first
    assert "CREATE TABLE IF NOT EXISTS apptoto_meta" not in later
    assert f"from version 1 to {SCHEMA_VERSION}" in later


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
        (["init", "--sql", "--from", str(SCHEMA_VERSION)], f"--from: {SCHEMA_VERSION} is not a schema version", 2),
        (["init", "--from", "1"], "--from needs --sql", 2),
        (["purge", "--older-than", "-1"], "--older-than must be at least 0 days", 2),
        (["purge", "--older-than", "nan"], "--older-than must be at least 0 days", 2),
        (["purge", "--export", "x.txt"], "--export x.txt: the name of the file must end with .csv or .jsonl. No", 2),
        (["purge", "--export", "/nowhere/x.csv"], "/nowhere/x.csv: No such file or directory. Nothing was removed.", 2),
        (["resolve", "--to", "sent", "--note", "all of them"], "Select entries", 2),
        (["forget", "--since", "2026-01-01T00:00Z", "--note", "all of them"], "Select entries", 2),
        (["resolve", "", "--to", "sent", "--note", "all of them"], "'' is not a KEY", 2),
        (["forget", "", "--note", "all of them"], "'' is not a KEY", 2),
        (["forget", " ", "--note", "all of them"], "' ' is not a KEY", 2),
        (
            ["forget", "2222222", "--note", "too short"],
            "is not a KEY: use at least the first 8 of the 32 hex digits",
            2,
        ),
        (["forget", "%%%%%%%%", "--note", "any"], "is not a KEY", 2),
        (["forget", "--dag", "", "--note", "x"], "--dag must not be blank", 2),
        (["forget", "--dag", "clinic", "--run", " ", "--note", "x"], "--run must not be blank", 2),
        (["list", "--reference", ""], "--reference must not be blank", 2),
        (["list", "--limit", "-1"], "--limit must be at least 1", 2),
        (["resolve", "a" * 32, "--to", "sent", "--note", "x"], "No matching entry can be changed", 1),
        (["forget", "2" * 32, "--note", " "], "--note must be one line", 2),
        (["forget", "2" * 32, "--note", "a\x1b[2J"], "--note must be one line", 2),
        (["forget", "2" * 32, "--note", "x", "--by", "a\nb"], "--by must be one line", 2),
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
    assert key(1) in done.stdout
    assert state.exists()
