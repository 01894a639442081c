"""The commands change and show the lists; tests/unit/outbox/test_optouts.py tests the lists themselves."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import pytest

from airflow_provider_apptoto._airflow import has_provider_cli
from airflow_provider_apptoto.cli import main
from airflow_provider_apptoto.client import ApptotoConfigurationError
from airflow_provider_apptoto.hooks.apptoto import ApptotoHook
from tests.support.state_databases import forget_databases

if TYPE_CHECKING:
    from pytest_mock import MockerFixture

pytestmark = pytest.mark.usefixtures("airflow_database")

ANN, BEN, CAT = "+16505550199", "+16505550198", "cat@clinic.example"


class Ended(NamedTuple):
    """What a command printed, and its exit code."""

    out: str
    err: str
    code: int


class Command(Protocol):
    """Runs ``optout`` with these arguments and standard input."""

    def __call__(self, *arguments: str, stdin: bytes = b"") -> Ended: ...


@pytest.fixture
def optout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Provide the command, for the lists in a file."""
    bare = {"conn_type": "apptoto", "login": "clinic@clinic.example", "password": "sekret-api-key"}
    connections: dict[str, Any] = {
        "APPTOTO_DEFAULT": bare | {"extra": {"state_conn_id": "state"}},
        "AMERICA": bare | {"extra": {"state_conn_id": "state", "default_region": "US"}},
        "STATE": {"conn_type": "sqlite", "host": str(tmp_path / "state.db")},
        "BARE": bare,
    }
    for name, fields in connections.items():
        monkeypatch.setenv(f"AIRFLOW_CONN_{name}", json.dumps(fields))
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")  # the command sets it for its own process

    def run(*arguments: str, stdin: bytes = b"") -> Ended:
        capsys.readouterr()
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = 0
        try:
            main(["optout", *arguments])
        except SystemExit as ended:
            code = int(ended.code or 0)
        return Ended(*capsys.readouterr(), code)

    return run


def test_recipients_are_added_checked_and_removed(optout: Command) -> None:
    assert optout("add", ANN, CAT, "--by", "ann", "--note", "by phone") == (
        *("Added to list all: 2 of 2 entries.\n", "", 0),
    )
    assert optout("add", "+1 650-555-0199") == ("Added to list all: 0 of 1 entries.\n", "", 1)
    assert optout("add", ANN, BEN, "--list", "campaigns") == ("Added to list campaigns: 2 of 2 entries.\n", "", 0)
    checked = "+1•••0199: all, campaigns\n+1•••0197: on no list\n"
    assert optout("check", "+1 650 555 0199", "+16505550197") == (checked, "", 0)
    assert optout("check", "+16505550197").code == 1
    assert optout("remove", ANN, CAT, "--list", "campaigns") == (
        *("Removed from list campaigns: 1 of 2 entries.\n", "", 0),
    )
    assert optout("remove", ANN, "--list", "campaigns").code == 1
    assert optout("check", ANN).out == "+1•••0199: all\n"


def test_recipients_can_be_read_from_standard_input(optout: Command) -> None:
    given = "\ufeff+1 650 555 0199\r\n\r\nCat@Clinic.Example\n".encode()
    assert optout("add", "-", stdin=given).out == "Added to list all: 2 of 2 entries.\n"
    assert optout("check", "-", stdin=given).out.count(": all\n") == 2
    assert optout("remove", "-", stdin=given).out == "Removed from list all: 2 of 2 entries.\n"
    assert optout("add", "-", stdin=b"\n") == ("", "Standard input has no recipients.\n", 1)
    assert optout("add", "-", stdin=b"\xff\n") == (
        *("", "Standard input is not encoded as UTF-8. Nothing was changed.\n", 2),
    )
    refused = optout("add", "-", stdin=b"+16505550199\n\n555\n")
    assert "line 3: " in refused.err
    assert "line 1" not in refused.err


@pytest.mark.parametrize(
    ("content", "arguments", "added"),
    [
        (f"{ANN}\n{CAT}\n", (), [ANN, CAT]),
        (f"phone\n{ANN}\n\n  \n{CAT}", (), [ANN, CAT]),
        (f"\ufeff{CAT}\r\n{ANN}\r\n", (), [ANN, CAT]),
        (f"\ufeffphone,id\r\n{ANN},4711\r\n", ("--column", "phone"), [ANN]),
        (f"\ufeffPhone or e-mail\r\n{ANN}\r\n", (), [ANN]),
        ('"+1 650\n555-0199"\n', (), [ANN]),
        (f"id,phone\n4711,{ANN}\n4712,\n4713,{BEN}\n", ("--column", "phone"), [ANN, BEN]),
        (f'\n id ; phone \n"47;11";{ANN}\n', ("--column", "phone"), [ANN]),
        (f"phone\n{ANN}\n", ("--column", "phone"), [ANN]),
        (f"phone1\n{ANN}\n", ("--column", "phone1"), [ANN]),
        ("650 555 0199\n", ("--conn-id", "america"), [ANN]),
    ],
)
def test_a_file_is_imported(
    optout: Command, tmp_path: Path, content: str, arguments: tuple[str, ...], added: list[str]
) -> None:
    file = tmp_path / "list.csv"
    file.write_bytes(content.encode())
    said = f"Added to list campaigns: {len(added)} of {len(added)} entries.\n"
    assert optout("import", str(file), "--list", "campaigns", *arguments) == (said, "", 0)
    assert optout("check", *added).out.count(": campaigns") == len(added)
    assert optout("import", "-", "--list", "campaigns", *arguments, stdin=content.encode()).code == 1


@pytest.mark.parametrize(
    ("content", "arguments", "problem"),
    [
        (f"650 555 0199\n{CAT}\n", (), "line 1: •••0199 has no country code"),
        (f"555-0199 Ann\n{CAT}\n", (), "line 1: "),
        (f"cat\uff20clinic.example\n{CAT}\n", (), "line 1: "),
        (f"{CAT}\nAnn Smith\n", (), "line 2: "),
        (f"phone\n{CAT}\nphone\n", (), "line 3: "),
        (f'phone\n"{CAT}\n\n"\n\nsmith', (), "line 6: "),
        (f"{CAT}\n{ANN},Smith\n", (), "line 2 has 2 columns; choose one with --column"),
        (f"id,phone\nSmith,{CAT}\nSmith\n", ("--column", "phone"), "line 3 has 1 columns, but the first line names 2"),
        (f"id,phone\nSmith,{CAT}\nx,Smith\n", ("--column", "phone"), "line 3: "),
        (f"Smith,{ANN}\n", ("--column", "phone"), "the first line must name the column of --column, once"),
        (f"phone,phone\n{ANN},{BEN}\n", ("--column", "phone"), "the first line must name the column of --column, once"),
        ("", ("--column", "phone"), "the first line must name the column of --column, once"),
        (f'{CAT}\n"Smith', (), "can't be imported: unexpected end of data"),
    ],
)
def test_nothing_of_a_file_is_imported_if_a_line_is_wrong(
    optout: Command, tmp_path: Path, content: str, arguments: tuple[str, ...], problem: str
) -> None:
    file = tmp_path / "list.csv"
    file.write_text(content)
    refused = optout("import", str(file), *arguments)
    assert (refused.out, refused.code) == ("", 2)
    assert problem in refused.err
    assert "othing was changed" in refused.err
    for private in ("Smith", CAT, ANN, "5550199"):
        assert private not in refused.err
    assert optout("check", CAT, ANN).code == 1


def test_a_file_that_can_not_be_read_is_named(optout: Command, tmp_path: Path) -> None:
    missing, latin, empty = (tmp_path / name for name in ("missing.csv", "latin.csv", "empty.csv"))
    latin.write_bytes(b"\xe9\n")
    empty.touch()
    problem = f"{missing} can't be read: No such file or directory. Nothing was changed.\n"
    assert optout("import", str(missing)) == ("", problem, 2)
    assert (
        optout("import", str(latin)).err == f"{latin} is not encoded as UTF-8. Save it as UTF-8. Nothing was changed.\n"
    )
    assert optout("import", str(empty)) == ("Added to list all: 0 of 0 entries.\n", "", 1)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["add", ANN, "--conn-id", "bare"], "has no state_conn_id, so there is no state database. Set it: the lists"),
        (["check", ANN, "--conn-id", "nowhere"], "nowhere"),
        (["add", ANN, "--list", "lab results"], "list: is not the name of a list"),
        (["remove", ANN, "--list", ""], "list: is not the name of a list"),
        (["add", ANN, "--by", " "], "by: must be one line"),
        (["add", ANN, "--note", "a\nb"], "note: must be one line"),
        (["check", "6505550199"], "recipient 1: •••0199 has no country code"),
        (["add", ANN, "6505550199"], "recipient 2: •••0199 has no country code"),
        (["add", ANN, "-"], "recipient 2: ••• has 0 digits"),
        (["add"], "required: RECIPIENT"),
    ],
)
def test_the_command_says_what_it_can_not_do(optout: Command, arguments: list[str], problem: str) -> None:
    refused = optout(*arguments)
    assert (refused.out, refused.code) == ("", 2)
    assert problem in refused.err
    assert ANN not in refused.err


def test_an_author_is_stored(optout: Command, mocker: MockerFixture) -> None:
    mocker.patch("getpass.getuser", side_effect=OSError("No username set in the environment"))
    assert optout("add", ANN) == ("", "The current user has no name. Add --by NAME.\n", 2)
    assert optout("add", ANN, "--by", "ann").code == 0


def test_lists_of_a_database_that_is_another_one_are_not_changed(optout: Command, tmp_path: Path) -> None:
    """Otherwise nobody would notice that the lists are lost."""
    assert optout("add", ANN).code == 0
    (tmp_path / "state.db").unlink()
    forget_databases()
    for command in ("add", "check", "remove"):
        refused = optout(command, ANN)
        assert "The state database of connection 'state' is empty" in refused.err
        assert refused.code == 2


@pytest.mark.usefixtures("optout")
def test_a_hook_has_the_lists_that_the_command_shows(optout: Command) -> None:
    lists = ApptotoHook("america").optouts
    assert lists.replace("campaigns", ["650 555 0199", CAT], by="clinic.refresh")["added"] == 2
    assert optout("check", ANN, CAT).out.count(": campaigns\n") == 2
    assert ApptotoHook().optouts.lists_holding([ANN], ("campaigns",)) == {ANN: "campaigns"}


@pytest.mark.usefixtures("optout")
def test_a_hook_without_a_state_database_has_no_lists() -> None:
    with pytest.raises(ApptotoConfigurationError, match=r"state_conn_id: is required for opt-outs.*'bare'") as raised:
        _ = ApptotoHook("bare").optouts
    assert raised.value.code == "state_database_needed"


@pytest.mark.parametrize("program", [(sys.executable, "-m", "airflow_provider_apptoto"), ("airflow", "apptoto")])
@pytest.mark.usefixtures("optout")
def test_the_commands_are_programs(program: tuple[str, ...]) -> None:
    if program[0] == "airflow":
        if not has_provider_cli():
            pytest.skip("came with Airflow 3.2")
        program = (str(Path(sys.executable).with_name("airflow")), *program[1:])
    command = [*program, "optout", "add", "-"]
    done = subprocess.run(command, input=f"{ANN}\n", env=os.environ, capture_output=True, text=True, check=True)
    assert done.stdout == "Added to list all: 1 of 1 entries.\n"
