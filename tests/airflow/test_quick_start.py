"""The quick start works as it is printed, in an Airflow that is new."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.printed import blocks
from tests.support.printed_runs import run_by

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CHECKOUT = Path(__file__).parents[2]
PAGE = (CHECKOUT / "docs" / "index.rst").read_text()
SANDBOX = "python -m airflow_provider_apptoto.sandbox"
PORT = "8025"


def environment(home: Path) -> dict[str, str]:
    """Return the environment of a user who has just installed the provider, and has a new Airflow in a folder."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "APPTOTO", "PYTEST"))
    }
    return inherited | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")])),
    }


def shell(commands: str, env: Mapping[str, str]) -> str:
    """Run commands, and return what they printed."""
    command = ["bash", "-euo", "pipefail", "-c", commands]
    done = subprocess.run(
        command, env=dict(env), check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@contextmanager
def second_terminal(port: int, env: Mapping[str, str]) -> Iterator[None]:
    """Run the sandbox as the page starts it, on another port."""
    command = [sys.executable, *SANDBOX.split()[1:], "--port", str(port)]
    with subprocess.Popen(command, env=dict(env), stdout=subprocess.PIPE, text=True) as sandbox:
        try:
            assert sandbox.stdout is not None
            next(line for line in sandbox.stdout if line.startswith("Press Ctrl-C"))
            yield
        finally:
            sandbox.terminate()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.mark.contract
@pytest.mark.processes
def test_the_quick_start_works_as_it_is_printed(tmp_path: Path) -> None:
    install, sandbox, connect, run, go_live = [
        printed.text for printed in blocks() if (printed.page, printed.language) == ("index.rst", "sh")
    ]
    env, port = environment(tmp_path), free_port()
    dags = tmp_path / "dags"
    dags.mkdir()
    [dag_file] = re.findall(r"literalinclude:: \.\./(example_dags/first_message\.py)", PAGE)
    (dags / "first_message.py").write_text((CHECKOUT / dag_file).read_text())

    assert sandbox == SANDBOX
    pip, *others = install.splitlines()
    assert pip == "pip install 'airflow-provider-apptoto[sandbox]'"
    shell("\n".join(others), env)
    with second_terminal(port, env):
        assert f"{PORT}" in connect
        shell(connect.replace(PORT, str(port)), env)
        log = shell(run, env)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/sandbox/messages") as answer:
            [message] = json.load(answer)

    assert message["to"] == "+16505550199"
    assert message["message"] == "Hi Mary, your results are in. Please call us."
    assert message["dag_id"] == "first_message"
    [line] = re.findall(r"^   (sms to .*)$", PAGE, re.MULTILINE)
    assert re.search(re.sub(r"\d+ ms", r"\\d+ ms", re.escape(line).replace(r"\ ", " ")), log), log

    [one_command] = {printed.text for printed in run_by(__name__, "sh") if "DAG_ID" in printed.text}
    report = shell(one_command.replace("DAG_ID", "first_message"), env)
    [sample] = [printed.text for printed in blocks() if printed.text.startswith("What each person got (1 message):")]
    shape = [re.escape(line) for line in sample.splitlines()[:3]]
    at, text = r"  sms at \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", f"    {message['message']}"
    assert re.search("\n".join([*shape, at, re.escape(text)]), report), report

    shell(go_live, env)
    assert "name@clinic.example" in shell("airflow connections get apptoto_default --output plain", env)
