"""Each command of the provider that the documentation prints runs as printed."""

from __future__ import annotations

import io
import json
import shlex
from typing import TYPE_CHECKING

import pytest

from airflow_provider_apptoto._cli_common import NOTHING
from airflow_provider_apptoto.cli import main
from airflow_provider_apptoto.hooks.apptoto import ApptotoHook
from airflow_provider_apptoto.outbox.entry import State
from airflow_provider_apptoto.outbox.stores.sql import SqlLedgerStore
from tests.support.entries import entry
from tests.support.faults import answering
from tests.support.printed_commands import PAGES, printed_commands

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.faults import FaultServer

pytestmark = pytest.mark.usefixtures("airflow_database")

STARTS = (["airflow", "apptoto"], ["python", "-m", "airflow_provider_apptoto"])
KEY = "77338e6a"
"""Of the message that the pages resolve and forget."""
COMMANDS = {
    page: found
    for page in PAGES
    if (
        found := [
            words[len(start) :] for words in printed_commands(page) for start in STARTS if words[: len(start)] == start
        ]
    )
}


class Terminal(io.TextIOWrapper):
    """Where a user types a text."""

    def __init__(self, text: str) -> None:
        super().__init__(io.BytesIO(text.encode()))

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("page", COMMANDS, ids=lambda page: page.name)
def test_the_commands_of_a_page_run(
    page: Path,
    server: FaultServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server.scripts = [answering(200, {"events": []})]
    monkeypatch.setenv("AIRFLOW__APPTOTO__DEFAULT_REGION", "US")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stopped.csv").write_text("mobile\n+16505550198\n")
    (tmp_path / "patients.csv").write_text("name,mobile\nAnn,+16505550197\n")
    database = ApptotoHook().state_database
    assert database is not None
    store = SqlLedgerStore(database)
    for words in COMMANDS[page]:
        for key in (KEY + "0" * 24, "5" * 32):
            if not store.find([key]):
                unknown = entry(key=key, target="participant 7").changed(State.UNKNOWN, lease=0.0)
                assert store.compare_and_swap(None, unknown)
        monkeypatch.setattr("sys.stdin", Terminal("+16505550196\n" if "-" in words else "yes\n"))
        code = 0
        try:
            main([word.replace("/var/lib/clinic", str(tmp_path)) for word in words])
        except SystemExit as end:
            code = int(end.code or 0)
        output, errors = capsys.readouterr()
        by_key = KEY in words
        assert code in ({0} if by_key else {0, NOTHING}), f"{shlex.join(words)}\n{errors}"
        assert output or errors
        if "json" in words:
            json.loads(output)
