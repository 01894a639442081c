"""The sandbox's command runs a server or another command, prints the messages, and ends cleanly."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
import requests

from airflow_provider_apptoto import sandbox
from airflow_provider_apptoto.sandbox.__main__ import main
from airflow_provider_apptoto.sandbox.behaviour import ASSUMED, DOCUMENTED, OBSERVED
from airflow_provider_apptoto.sandbox.report import report
from tests.support.sandbox_caller import PATIENCE, SMS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airflow_provider_apptoto.sandbox import Sandbox

pytestmark = pytest.mark.processes

COMMAND = [sys.executable, "-m", "airflow_provider_apptoto.sandbox"]

SENDER = """
import base64, json, os, sys, urllib.request
account = json.loads(os.environ["AIRFLOW_CONN_APPTOTO_DEFAULT"])
key = base64.b64encode(f"{account['login']}:{account['password']}".encode()).decode()
headers = {"Content-Type": "application/json", "Authorization": f"Basic {key}"}
for message in json.loads(sys.argv[1]):
    body = json.dumps(message).encode()
    request = urllib.request.Request(f"{account['host']}/v1/send_message", body, headers)
    with urllib.request.urlopen(request) as answer:
        assert json.load(answer) == {"success": True}
sys.exit(7)
"""


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def environment(**changes: str) -> Mapping[str, str]:
    return {**os.environ, "PYTHONWARNINGS": "error", **changes}


@contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [*COMMAND, *arguments],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    ) as process:
        try:
            yield process
        finally:
            # Otherwise a failed test would wait for it.
            process.kill()


def run(*arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        env=environment(**changes),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=PATIENCE,
        check=False,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_prints_its_address_and_connection_and_ends_well_on_a_signal(number: signal.Signals) -> None:
    with started("--port", "0", "--login", "clinic@example.com", "--api-key", "it's") as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        assert "every Apptoto connection" in process.stdout.readline()
        everything = process.stdout.readline().strip()
        assert "for one connection" in process.stdout.readline()
        name, _, value = process.stdout.readline().strip().removeprefix("export ").partition("=")
        [*command] = shlex.split(process.stdout.readline())
        assert "Ctrl-C" in process.stdout.readline()
        with requests.Session() as session:
            session.trust_env = False
            assert session.get(url, timeout=PATIENCE).status_code == 200
            process.send_signal(number)
            rest = process.communicate(timeout=PATIENCE)

    assert urlsplit(url).hostname == "127.0.0.1"
    assert everything == f"export APPTOTO_SANDBOX_URL=http://clinic%40example.com:it%27s@{urlsplit(url).netloc}"
    assert command[:4] == ["airflow", "connections", "add", "apptoto_default"]
    assert command[-3:] == ["http://127.0.0.1", "--conn-port", str(urlsplit(url).port)]
    assert name == "AIRFLOW_CONN_APPTOTO_DEFAULT"
    assert [json.loads(text) for text in shlex.split(value)] == [
        {"conn_type": "apptoto", "login": "clinic@example.com", "password": "it's", "host": url}
    ]
    assert (process.returncode, rest) == (0, ("", ""))


def test_a_command_gets_the_connection_and_its_exit_code_and_what_was_sent_are_passed_on() -> None:
    messages = [
        {"type": "sms", "to": "+16505550101", "message": "Hi Ana!\nSee you 👋"},
        {"type": "email", "to": "ana@example.com", "subject": "Your visit", "message": "Hi"},
        {"type": "call", "to": "+16505550101", "template_id": "4711"},
    ]
    done = run("--", sys.executable, "-c", SENDER, json.dumps(messages), http_proxy="http://127.0.0.1:9")

    assert (done.returncode, done.stderr) == (7, "")
    assert re.sub(r"20\S+\+00:00", "@", done.stdout) == (
        "What each person got (3 messages):\n\n"
        "+16505550101\n"
        "  sms at @\n    Hi Ana!\n    See you 👋\n"
        "  call at @\n    Template: 4711\n\n"
        "ana@example.com\n"
        "  email at @\n    Subject: Your visit\n    Hi\n"
    )


def test_a_terminal_that_can_not_show_a_message_gets_it_escaped() -> None:
    done = run("--", sys.executable, "-c", SENDER, json.dumps([SMS | {"message": "👋"}]), PYTHONIOENCODING="ascii")

    assert (done.returncode, done.stderr) == (7, "")
    assert "    \\U0001f44b\n" in done.stdout


def test_a_message_does_not_steer_the_terminal() -> None:
    entry: dict[str, str | int | None] = {
        "id": 1,
        "received_at": "2027-01-01T00:00:00.000+00:00",
        "type": "sms",
        "to": "\x1b[2J",
        "event_id": None,
        "participant_id": None,
        "message": "a\x1b]0;title\x07\r\x9bb\tc",
        "subject": None,
        "template_id": None,
    }

    assert report([entry]) == (
        "What each person got (1 message):\n\n\\x1b[2J\n"
        "  sms at 2027-01-01T00:00:00.000+00:00\n    a\\x1b]0;title\\x07\\r\\x9bb\\tc"
    )


def test_sigterm_reaches_the_command_and_the_inbox_is_printed_all_the_same() -> None:
    waiter = (
        "import signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\n"
        "print('ready', flush=True)\n"
        "while True: signal.pause()\n"
    )
    with started("--", sys.executable, "-c", waiter) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        output, errors = process.communicate(timeout=PATIENCE)

    assert (process.returncode, errors) == (5, "")
    assert output == "What each person got (0 messages):\n"


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ([sys.executable, "-c", "raise SystemExit(0)"], 0),
        ([sys.executable, "-c", "raise SystemExit(3)"], 3),
        ([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"], 137),
        (["no-such-command-anywhere"], 127),
        ([str(Path(__file__).parent)], 126),
    ],
)
def test_the_exit_code_is_the_one_a_shell_would_give(
    command: list[str], code: int, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["--", *command]) == code

    output, errors = capfd.readouterr()
    assert ("What each person got" in output) is (code not in (126, 127))
    assert (command[0] in errors) is (code in (126, 127))


@pytest.mark.parametrize("variable", ["no_proxy", "NO_PROXY"])
def test_hosts_that_are_reached_without_a_proxy_stay_so(
    variable: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv(variable, "intranet.example")
    code = "import os; print(os.environ['no_proxy'], os.environ['NO_PROXY'])"

    assert main(["--", sys.executable, "-c", code]) == 0
    both = "intranet.example,127.0.0.1 intranet.example,127.0.0.1\n"
    assert capfd.readouterr().out.startswith(both)


def test_a_command_gets_a_port_that_was_asked_for(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    busy = str(urlsplit(sandbox.url).port)

    assert main(["--port", busy, "--", sys.executable, "-c", ""]) == 1
    assert f"port {busy}" in capsys.readouterr().err


def test_without_a_command_the_port_is_8025() -> None:
    with pytest.MonkeyPatch.context() as patch:
        asked: list[int] = []

        class Refusing:
            def __init__(self, *, port: int, **_: object) -> None:
                asked.append(port)
                raise OSError(98, f"port {port} is busy")

        patch.setattr(sandbox, "Sandbox", Refusing, raising=False)
        assert main([]) == 1
    assert asked == [8025]


def test_serving_ends_at_the_first_signal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    handlers: dict[int, object] = {}

    def install(number: int, handler: object) -> None:
        handlers[number] = handler
        if len(handlers) == 2:
            assert callable(handler)
            handler(number, None)

    monkeypatch.setattr(signal, "signal", install)
    assert main(["--port", "0"]) == 0
    monkeypatch.undo()
    assert set(handlers) == {signal.SIGINT, signal.SIGTERM}
    assert "export AIRFLOW_CONN_APPTOTO_DEFAULT='{" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--"], ["--port", "no"], ["--por", "0"], ["pytest"], ["--host", "::"]])
def test_a_wrong_command_line_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)

    assert stop.value.code == 2
    assert "usage: python -m airflow_provider_apptoto.sandbox" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["--port", "70000"], ["--login", "a:b"], ["--database", "/missing/x"], ["--keep", "0"]]
)
def test_what_can_not_be_used_is_told_without_a_traceback(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--", sys.executable, "-c", ""]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "airflow_provider_apptoto.sandbox.server", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)

    assert main(["--port", "0"]) == 1
    assert "pip install 'airflow-provider-apptoto[sandbox]'" in capsys.readouterr().err


def test_help_says_what_is_documented_observed_and_assumed() -> None:
    done = run("--help")

    text = re.sub(r"\s+", " ", done.stdout)
    documented = text.index("documented by Apptoto:")
    observed = text.index("observed, in programs")
    assumed = text.index("assumed, because")
    assert all(documented < text.index(line) < observed for line in DOCUMENTED)
    assert all(observed < text.index(line) < assumed for line in OBSERVED)
    assert all(assumed < text.index(line) for line in ASSUMED)


def test_a_database_is_kept_for_later(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    database = str(tmp_path / "inbox.sqlite")
    sender = [sys.executable, "-c", SENDER, json.dumps([SMS])]

    assert main(["--database", database, "--", *sender]) == 7
    assert main(["--database", database, "--", *sender]) == 7
    assert "(2 messages)" in capfd.readouterr().out


def test_only_the_newest_are_kept_when_asked(capfd: pytest.CaptureFixture[str]) -> None:
    sender = [sys.executable, "-c", SENDER, json.dumps([SMS, SMS, SMS])]

    assert main(["--keep", "2", "--", *sender]) == 7
    assert "(2 messages)" in capfd.readouterr().out


def test_demo_data_gives_the_command_appointments_and_the_report_names_their_people(
    capfd: pytest.CaptureFixture[str],
) -> None:
    people = [{"type": "sms", "event_id": number, "message": "Hi {{ name }}"} for number in (1_000_001, 1_000_002)]
    assert main(["--demo-data", "--", sys.executable, "-c", SENDER, json.dumps(people)]) == 7

    printed = capfd.readouterr().out
    assert re.search(r"Tomorrow's appointments: http://127.0.0.1:\d+/#appointments", printed)
    assert "40 participants: 2 were texted\n" in printed
    assert re.findall(r"^\S+  (\S+ \S+) +sms  initial$", printed, re.MULTILINE) == ["Ana Lopez", "Ben Carter"]
    assert "What others got" not in printed
