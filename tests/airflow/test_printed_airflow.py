"""Airflow's own commands that the documentation prints run as printed, in an Airflow of their own."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.airflow_home import copy_database
from tests.support.printed import ROOT
from tests.support.printed_runs import run_by

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_apptoto.sandbox.testing import ApptotoSandbox

TEST = "AIRFLOW__CORE__TEST_CONNECTION=Enabled "
PRINTED = [each.text for each in run_by(__name__, "sh", "sentence")]
SHOWS = {
    "connections add": "apptoto_default",
    "connections test": "Connection success!",
    "config list": "allowed_regions",
    "config get-value": "dags",
    "dags list-import-errors": "",
}
"""A part of what a command prints."""


@pytest.mark.usefixtures("airflow_database")
def test_the_commands_run(tmp_path: Path, apptoto_sandbox: ApptotoSandbox) -> None:
    copy_database(tmp_path)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_CONN_APPTOTO_DEF")}
    home = {"AIRFLOW_HOME": str(tmp_path), "AIRFLOW__CORE__TEST_CONNECTION": "Enabled"}
    commands = [text.removeprefix(TEST).replace("\\\n", "").removeprefix("airflow ") for text in dict.fromkeys(PRINTED)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.airflow_commands", *dict.fromkeys(commands)],
        cwd=ROOT,
        env=inherited | home,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    printed = json.loads(done.stdout.splitlines()[-1])
    for command, output in printed.items():
        [shown] = [part for start, part in SHOWS.items() if command.startswith(start)]
        assert shown in output, f"{command}\n{output}"
    assert {" ".join(shlex.split(command)[:2]) for command in printed} == SHOWS.keys()
    assert apptoto_sandbox.messages() == []
