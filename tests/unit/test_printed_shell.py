"""The shell commands of the documentation that need no Airflow run as printed: the sandbox, curl, make."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import requests

from airflow_provider_apptoto.sandbox import Sandbox
from tests.support.printed import ROOT, blocks
from tests.support.printed_runs import run_by

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.processes

PRINTED = run_by(__name__, "sh", "sentence")
PORT = "8025"
SENDER = {"X-Apptoto-Sandbox-Sender": json.dumps({"dag_id": "remind"})}


def starting(start: str) -> list[str]:
    """Return the different commands that start so."""
    return list(dict.fromkeys(each.text for each in PRINTED if each.text.startswith(start)))


def test_all_commands_are_run_here() -> None:
    known = ("make", "python -m airflow_provider_apptoto.sandbox", "curl ")
    assert [str(each) for each in PRINTED if not each.text.startswith(known)] == []


# --- make


@pytest.mark.parametrize("command", starting("make"))
def test_a_target_of_make_exists(command: str) -> None:
    words = shlex.split(command)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "PYTEST"))}
    done = subprocess.run([*words, "--dry-run"], cwd=ROOT, env=inherited, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for argument in words[2:]:
        assert argument.partition("=")[2].replace("'", "") in done.stdout


# --- the sandbox


@pytest.mark.parametrize("command", starting("python -m airflow_provider_apptoto.sandbox"))
def test_a_command_starts_a_sandbox_that_says_how_to_use_it(command: str) -> None:
    words = [sys.executable, *shlex.split(command)[1:], "--port", "0"]
    [sample] = [block.text for block in blocks() if block.text.startswith("Apptoto sandbox: http://127.0.0.1:")]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            says: list[str] = []
            while not says or not says[-1].startswith("Press Ctrl-C"):
                says.append(process.stdout.readline().rstrip("\n"))
            [port] = re.findall(r"^Apptoto sandbox: http://127\.0\.0\.1:(\d+)$", "\n".join(says), re.MULTILINE)
            appointments = requests.get(f"http://127.0.0.1:{port}/sandbox/appointments", timeout=60)
        finally:
            process.terminate()
    assert len(appointments.json()) == (40 if "--demo-data" in words else 0)
    printed = sample.replace(PORT, port).splitlines()
    for line, start in zip(says[-len(printed) :], printed, strict=True):
        assert line.startswith(re.split(r",? \.\.\.", start)[0])


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, list[str]]]:
    """Run all curl commands of the pages in their order against one sandbox, and yield the answers."""
    folder = tmp_path_factory.mktemp("curl")
    # an error status is an error of curl, too
    (folder / ".curlrc").write_text("fail-with-body\nsilent\nshow-error\nnoproxy = *\n")
    found: dict[str, list[str]] = {}
    with Sandbox() as sandbox:
        sandbox.appointments.add_clinic_day()
        sms = {"type": "sms", "to": "+16505550199", "message": "Hi"}
        account = (sandbox.login, sandbox.api_key)
        requests.post(f"{sandbox.url}/v1/send_message", json=sms, auth=account, headers=SENDER, timeout=60)
        for command in starting("curl "):
            shell = ["bash", "-euo", "pipefail", "-c", command.replace(f"http://127.0.0.1:{PORT}", sandbox.url)]
            curl_home = {"CURL_HOME": str(folder)}
            done = subprocess.run(shell, env=os.environ | curl_home, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
            found.setdefault(command, []).append(done.stdout)
        yield found


def answer_to(answers: dict[str, list[str]], part: str) -> str:
    [answer] = [answer for command, [answer] in answers.items() if part in command]
    return answer


def test_a_message_by_curl_is_answered_as_printed(answers: dict[str, list[str]]) -> None:
    assert {block.text for block in blocks() if block.text.startswith('{"success"')} == {answer_to(answers, '"Hello"')}
    assert json.loads(answer_to(answers, '"event_id"'))["success"] is True


def test_messages_are_listed_and_deleted_by_curl(answers: dict[str, list[str]]) -> None:
    path = f"curl http://127.0.0.1:{PORT}/sandbox/messages"
    assert [each["message"] for each in json.loads(answers[path][0])] == ["Hi", "Hello"]
    assert [each["dag_id"] for each in json.loads(answer_to(answers, "wait=10"))] == ["remind"]
    assert json.loads(answer_to(answers, "outcome=refused")) == []
    assert json.loads(answer_to(answers, "-X DELETE 'http://127.0.0.1:8025/sandbox/messages"))["deleted"] == 1


def test_appointments_are_listed_added_and_answered_by_curl(answers: dict[str, list[str]]) -> None:
    events = json.loads(answer_to(answers, "include_conversations"))["events"]
    assert len(events) == 40
    assert answer_to(answers, '"visit-1"')
    states = [json.loads(answer_to(answers, f"participants/{number}"))["state"] for number in (5000001, 5000002)]
    assert states[0] == "confirmed"


def test_faults_are_added_listed_and_removed_by_curl(answers: dict[str, list[str]]) -> None:
    path = f"http://127.0.0.1:{PORT}/sandbox/faults"
    listed = json.loads(answers[f"curl {path}"][0])
    assert len(listed) == len([command for command in answers if f"{path} -d" in command])
    assert answers[f"curl -X DELETE {path}"]
