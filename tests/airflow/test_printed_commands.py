"""Each command of the provider that the documentation prints runs as printed."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import shlex
import subprocess
from typing import TYPE_CHECKING

import pytest

from airflow_provider_apptoto._cli_common import NOTHING
from airflow_provider_apptoto.cli import main
from airflow_provider_apptoto.hooks.apptoto import ApptotoHook
from airflow_provider_apptoto.outbox.entry import State
from airflow_provider_apptoto.outbox.stores.sql import SqlLedgerStore
from tests.support.entries import entry
from tests.support.faults import answering
from tests.support.old_databases import load_v1, schema_of
from tests.support.postgres import programs
from tests.support.printed_runs import run_by
from tests.support.state_databases import url_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.faults import FaultServer

pytestmark = pytest.mark.usefixtures("airflow_database")

START = "airflow apptoto "
KEY = "77338e6a"
"""Of the message that the pages resolve and forget."""
PRINTED = run_by(__name__, "sh")
PAGES = list(dict.fromkeys(printed.page for printed in PRINTED))


class Terminal(io.TextIOWrapper):
    """Where a user types a text."""

    def __init__(self, text: str) -> None:
        super().__init__(io.BytesIO(text.encode()))

    def isatty(self) -> bool:
        return True


def run(command: str, folder: Path) -> int:
    """Run a command of the provider in this process, with the redirections of a shell, and return its exit code."""
    words, code = shlex.split(command.replace("\\\n", "").replace("/var/lib/clinic", str(folder))), 0
    with contextlib.ExitStack() as stack:
        if ">" in words:
            file = stack.enter_context((folder / words[words.index(">") + 1]).open("w"))
            stack.enter_context(contextlib.redirect_stdout(file))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.stdin", Terminal("yes\n"))
            if "<" in words:
                patch.setattr("sys.stdin", stack.enter_context((folder / words[words.index("<") + 1]).open()))
            try:
                main(list(itertools.takewhile(lambda word: word not in {"<", ">"}, words[2:])))
            except SystemExit as end:
                code = int(end.code or 0)
    return code


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_run(
    page: str,
    server: FaultServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server.scripts = [answering(200, {"events": []})]
    monkeypatch.setenv("AIRFLOW__APPTOTO__DEFAULT_REGION", "US")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stopped.csv").write_text("mobile\n+16505550198\n")
    (tmp_path / "stopped.txt").write_text("+16505550196\n")
    (tmp_path / "patients.csv").write_text("name,mobile\nAnn,+16505550197\n")
    database = ApptotoHook().state_database
    assert database is not None
    store = SqlLedgerStore(database)
    commands = [each.text for each in PRINTED if each.page == page and each.text.startswith(START)]
    for command in commands:
        for key in (KEY + "0" * 24, "5" * 32):
            if not store.find([key]):
                unknown = entry(key=key, target="participant 7").changed(State.UNKNOWN, lease=0.0)
                assert store.compare_and_swap(None, unknown)
        code = run(command, tmp_path)
        output, errors = capsys.readouterr()
        by_key = KEY in command
        assert code in ({0} if by_key else {0, NOTHING}), f"{command}\n{errors}"
        assert output or errors or any(file.stat().st_size for file in tmp_path.glob("*.sql"))
        if "json" in command.split():
            json.loads(output)


@pytest.mark.postgresql
def test_the_printed_statements_migrate_a_database_by_psql(
    server: FaultServer,
    connection: Callable[..., None],
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old, new = (url_of("postgresql", request, tmp_path) for _ in range(2))
    load_v1(old)
    fields = {
        "conn_type": "postgres",
        "host": old.host,
        "port": old.port,
        "login": old.username,
        "schema": old.database,
    }
    monkeypatch.setenv("AIRFLOW_CONN_OLD", json.dumps(fields))
    connection(server.url, state_conn_id="old")
    folder = programs()
    assert folder is not None
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    for name, value in {"HOST": old.host, "PORT": old.port, "USER": old.username}.items():
        monkeypatch.setenv(f"PG{name}", str(value))
    [psql] = [each for each in PRINTED if each.text.startswith("psql ")]
    before = [each.text for each in PRINTED if (each.page, each.line) == (psql.page, psql.line) and START in each.text]
    assert [run(command, tmp_path) for command in before] == [0, 0]
    for url, file in ((old, "migrate.sql"), (new, "create.sql")):
        command = psql.text.replace("DATABASE", str(url.database)).replace("migrate.sql", file)
        done = subprocess.run(shlex.split(command), cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert schema_of(old) == schema_of(new)
    assert run(f"{START}ledger list", tmp_path) == 0
