"""The pytest plugin waits for messages, says what arrived instead, and costs nothing where it is not used."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_apptoto.sandbox import testing
from tests.support.sandbox_caller import Caller

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_apptoto.sandbox.testing import ApptotoSandbox

CHECKOUT = Path(__file__).parents[3]
PLUGIN = "airflow_provider_apptoto.sandbox.testing"


@pytest.fixture
def send(apptoto_sandbox: ApptotoSandbox) -> Iterator[Callable[..., None]]:
    """Provide a function that sends a message to the sandbox."""
    with Caller(apptoto_sandbox._sandbox) as caller:

        def send(to: str | None = "+16505550199", message: str = "Hi Mary", **fields: Any) -> None:
            assert caller.send({"type": "sms", "to": to, "message": message, **fields}).json() == {"success": True}

        yield send


def test_pytest_finds_the_plugin_by_its_entry_point() -> None:
    assert {entry.value for entry in importlib.metadata.entry_points(group="pytest11", name="apptoto")} == {PLUGIN}


# --- messages


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"to": "+16505550199"},
        {"to": "+1 (650) 555-0199"},
        {"to": "650-555-0199"},
        {"type": "sms", "containing": "Mary"},
        {"to": "+16505550199", "type": "sms", "containing": "Hi M", "timeout": 0},
    ],
)
def test_a_message_that_matches_is_returned(
    apptoto_sandbox: ApptotoSandbox, send: Callable[..., None], wanted: dict[str, Any]
) -> None:
    send()
    send("+16505550101", "Hi Ann")
    message = apptoto_sandbox.wait_for_message(**wanted)
    assert (message["type"], message["to"], message["message"]) == ("sms", "+16505550199", "Hi Mary")
    timeout = wanted.pop("timeout", None)
    with pytest.raises(AssertionError):
        apptoto_sandbox.assert_no_message(**wanted)
    assert timeout in (None, 0)


@pytest.mark.parametrize(
    "wanted",
    [
        {"to": "+16505550198"},
        {"to": "555-0198"},
        {"to": "+5550199"},
        {"to": "mary@clinic.example"},
        {"type": "email"},
        {"containing": "mary"},
        {"event_id": 4711},
        {"participant_id": "4711"},
        {"to": "+16505550199", "containing": "Ann"},
    ],
)
def test_a_message_that_does_not_match_is_none_of_those_wanted(
    apptoto_sandbox: ApptotoSandbox, send: Callable[..., None], wanted: dict[str, Any]
) -> None:
    send()
    apptoto_sandbox.assert_no_message(**wanted)
    with pytest.raises(AssertionError):
        apptoto_sandbox.wait_for_message(**wanted, timeout=0)


def test_subjects_addresses_events_and_participants_are_found(
    apptoto_sandbox: ApptotoSandbox, send: Callable[..., None]
) -> None:
    send("mary@clinic.example", "See you", type="email", subject="Your results")
    send(None, event_id=4711)
    send(None, participant_id="4712")
    found = [
        apptoto_sandbox.wait_for_message("Mary@clinic.example", containing="results"),
        apptoto_sandbox.wait_for_message(event_id="4711"),
        apptoto_sandbox.wait_for_message(participant_id=4712),
    ]
    assert found == apptoto_sandbox.messages()


@pytest.mark.parametrize("wanted", [{"type": "text"}, {"type": ""}, {"to": ""}, {"to": "Mary"}, {"to": "000"}], ids=str)
def test_what_no_message_can_match_is_an_error_and_not_an_absence(
    apptoto_sandbox: ApptotoSandbox, wanted: dict[str, Any]
) -> None:
    for look in (apptoto_sandbox.wait_for_message, apptoto_sandbox.assert_no_message):
        with pytest.raises(ValueError, match=rf"^{next(iter(wanted))} must be "):
            look(**wanted)


def test_a_message_is_waited_for(apptoto_sandbox: ApptotoSandbox, send: Callable[..., None]) -> None:
    began = time.monotonic()
    sender = threading.Timer(0.3, send)
    sender.start()
    assert apptoto_sandbox.wait_for_message(timeout=60)["message"] == "Hi Mary"
    assert time.monotonic() - began < 60
    sender.join()


def test_a_message_that_comes_within_the_time_is_not_absent(
    apptoto_sandbox: ApptotoSandbox, send: Callable[..., None]
) -> None:
    sender = threading.Timer(0.3, send)
    sender.start()
    apptoto_sandbox.assert_no_message()
    with pytest.raises(AssertionError, match=r"^A message arrived, and none was expected"):
        apptoto_sandbox.assert_no_message(within=30)
    sender.join()


def test_a_failure_lists_what_did_arrive(apptoto_sandbox: ApptotoSandbox, send: Callable[..., None]) -> None:
    send()
    send("ann@clinic.example", "x" * 200, type="email", subject="Results")
    send(None, event_id=4711)
    arrived = (
        "3 messages arrived:\n"
        "  sms to +16505550199: message 'Hi Mary'\n"
        f"  email to ann@clinic.example: subject 'Results', message '{'x' * 91}…\n"
        "  sms to event 4711: message 'Hi Mary'"
    )
    with pytest.raises(AssertionError) as raised:
        apptoto_sandbox.wait_for_message("+16505550198", "call", "Bob", timeout=0.1)
    assert str(raised.value) == f"No call to +16505550198 containing 'Bob' arrived within 0.1 s. {arrived}"
    with pytest.raises(AssertionError) as raised:
        apptoto_sandbox.assert_no_message(event_id=4711)
    assert str(raised.value) == f"A message to event 4711 arrived, and none was expected. {arrived}"


def test_a_failure_says_that_nothing_arrived_and_lists_only_the_last_of_many(
    apptoto_sandbox: ApptotoSandbox, send: Callable[..., None]
) -> None:
    with pytest.raises(
        AssertionError, match=r"^No message to participant 7 arrived within 0 s\. No message arrived\. "
    ):
        apptoto_sandbox.wait_for_message(participant_id=7, timeout=0)
    for number in range(31):
        send(message=f"Number {number}")
    with pytest.raises(AssertionError, match=r"31 messages arrived; the last 30:\n.*'Number 1'\n") as raised:
        apptoto_sandbox.wait_for_message(type="email", timeout=0)
    assert str(raised.value).endswith("'Number 30'")


def test_clear_forgets_messages_and_faults(apptoto_sandbox: ApptotoSandbox, send: Callable[..., None]) -> None:
    send()
    apptoto_sandbox.fault(status=503)
    apptoto_sandbox.clear()
    assert apptoto_sandbox.messages() == []
    send()


# --- environment


def test_the_environment_leads_to_the_sandbox_while_the_test_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_APPTOTO_DEFAULT", "production")
    monkeypatch.setenv("AIRFLOW__APPTOTO__DELIVERY_MODE", "dry_run")
    monkeypatch.setenv("no_proxy", "example.com")
    before = dict(os.environ)
    with testing.running_sandbox(tmp_path / "new") as sandbox:
        sandbox.connect("clinic", default_region="US")
        connections = [json.loads(os.environ[f"AIRFLOW_CONN_{name}"]) for name in ("APPTOTO_DEFAULT", "CLINIC")]
        assert [each["host"] for each in connections] == [sandbox.url, sandbox.url]
        assert connections[1]["extra"] == {"state_conn_id": "apptoto_sandbox_state", "default_region": "US"}
        state = json.loads(os.environ["AIRFLOW_CONN_APPTOTO_SANDBOX_STATE"])
        assert state == {"conn_type": "sqlite", "host": str(tmp_path / "new" / "state.db")}
        assert os.environ["APPTOTO_SANDBOX_URL"].endswith(sandbox.url.removeprefix("http://"))
        assert os.environ["AIRFLOW__APPTOTO__DELIVERY_MODE"] == "live"
        assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == "example.com,127.0.0.1"
        assert open_files(tmp_path)
    assert dict(os.environ) == before
    assert open_files(tmp_path) == set()


def open_files(folder: Path) -> set[str]:
    """Return the files of a folder that this process has open."""
    links = (os.path.realpath(link) for link in Path("/proc/self/fd").iterdir())
    return {path for path in links if path.startswith(str(folder))}


# --- cost and absence


def run_pytest(folder: Path, source: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a project's own tests, with the plugin."""
    (folder / "test_project.py").write_text(source)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV"))}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={folder}", *options, "."],
        cwd=folder,
        env=environment | {"PYTHONPATH": os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")]))},
        capture_output=True,
        text=True,
        check=False,
    )


UNUSED = """
import sys

HEAVY = ("airflow", "sqlalchemy", "requests", "starlette", "uvicorn", "jinja2", "pendulum", "phonenumbers")

def test_that_does_not_use_it():
    assert "airflow_provider_apptoto.sandbox.testing" in sys.modules
    ours = {name for name in sys.modules if name.startswith("airflow_provider_apptoto")}
    assert len(ours) == 3, ours
    assert not set(HEAVY) & set(sys.modules)
"""


@pytest.mark.processes
def test_a_project_that_does_not_use_the_fixture_imports_nothing_for_it(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, UNUSED, "-p", "no:anyio", "-p", "no:hypothesispytest", "-p", "no:logfire")
    assert done.returncode == 0, done.stdout


WITHOUT_EXTRA = """
import sys

sys.modules["uvicorn"] = None  # as if it were not installed

def test_that_uses_it(apptoto_sandbox):
    pass
"""


@pytest.mark.processes
def test_without_the_extra_the_fixture_says_what_to_install(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, WITHOUT_EXTRA)
    assert "The sandbox needs uvicorn: pip install 'airflow-provider-apptoto[sandbox]'" in done.stdout
    assert "1 error" in done.stdout
    assert "Traceback" not in done.stdout


IN_PARALLEL = """
import os
import time

import pytest
import requests


@pytest.mark.parametrize("number", range(6))
def test_each_has_its_own(apptoto_sandbox, number):
    account = os.environ["APPTOTO_SANDBOX_URL"]
    for count in range(5):
        message = {"type": "sms", "to": f"+1650555010{number}", "message": str(count)}
        assert requests.post(f"{account}/v1/send_message", json=message, timeout=30).ok
        time.sleep(0.02)
    assert {message["to"] for message in apptoto_sandbox.messages()} == {f"+1650555010{number}"}
    assert len(apptoto_sandbox.messages()) == 5
"""


@pytest.mark.processes
def test_tests_that_run_at_the_same_time_do_not_see_each_other(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, IN_PARALLEL, "-n2")
    assert "6 passed" in done.stdout, done.stdout


# --- appointments


def test_a_test_adds_appointments_answers_as_a_client_and_checks_who_got_what(
    apptoto_sandbox: ApptotoSandbox, send: Callable[..., None]
) -> None:
    ana = apptoto_sandbox.appointments.add("Ana", "650-555-0141", start_time="2026-12-01T09:00:00-08:00")
    ben = apptoto_sandbox.appointments.add("Ben", "650-555-0142")
    send(to=None, event_id=ana.event_id)
    apptoto_sandbox.appointments.confirm(ana)

    assert apptoto_sandbox.wait_for_message("+16505550141")["participant_id"] == ana.participant_id
    apptoto_sandbox.assert_no_message("+16505550142")
    apptoto_sandbox.assert_no_message(event_id=ben.event_id)
    assert apptoto_sandbox.appointments.participant(ana)["state"] == "confirmed"
    assert [message["content"] for message in apptoto_sandbox.appointments.conversation(ana)] == ["Hi Mary", "YES"]
    with pytest.raises(AssertionError, match=r"sms to \+16505550141: message 'Hi Mary'"):
        apptoto_sandbox.wait_for_message("+16505550142", timeout=0)
    apptoto_sandbox.clear()
    with pytest.raises(ValueError, match="no event"):
        apptoto_sandbox.appointments.event(ana)


@pytest.mark.parametrize("number", range(3))
def test_each_test_has_appointments_of_its_own(apptoto_sandbox: ApptotoSandbox, number: int) -> None:
    assert apptoto_sandbox.appointments.add(f"Client {number}").event_id == 1_000_001


@pytest.mark.parametrize(
    "fields", [{"calendar": ""}, {"title": ""}, {"participants": [1]}, {"custom_data": []}, {"start_time": "soon"}]
)
def test_an_appointment_that_is_not_possible_is_an_error(
    apptoto_sandbox: ApptotoSandbox, fields: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        apptoto_sandbox.appointments.add("Ana", **fields)


def test_many_appointments_are_added_at_once_in_any_state(apptoto_sandbox: ApptotoSandbox) -> None:
    times = {"start_time": "2026-12-01T09:00:00-08:00", "end_time": "2026-12-01T09:30:00-08:00"}
    couple = [{"name": "Ana"}, {"name": "Ben"}]
    events = [{"calendar": "Front desk", "title": "Visit", "participants": people, **times} for people in (couple, [])]
    assert apptoto_sandbox.appointments.add_events([]) == []
    first, second = apptoto_sandbox.appointments.add_events(events)
    apptoto_sandbox.appointments.set_state(first.participant_ids[1], "reminded")

    people = apptoto_sandbox.appointments.event(first)["participants"]
    assert [(person["id"], person["state"]) for person in people] == [
        (first.participant_ids[0], "initial"),
        (first.participant_ids[1], "reminded"),
    ]
    assert second.participant_ids == ()
    with pytest.raises(ValueError, match="The state must be one of initial"):
        apptoto_sandbox.appointments.set_state(first, "late")
    with pytest.raises(ValueError, match=r"events\[1\].title is required"):
        apptoto_sandbox.appointments.add_events([events[0], {**events[1], "title": ""}])
