"""Every example DAG does what it says, against the sandbox."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import pendulum
import pytest

from airflow_provider_apptoto.sandbox import Sandbox
from tests.airflow_runs import run_file

if TYPE_CHECKING:
    from collections.abc import Callable

EXAMPLES = Path(__file__).parent.parent / "example_dags"
RECEIVED: dict[str, set[tuple[str, str | int]]] = {
    "example_apptoto_send_message": {
        ("sms", "+16505550199"),
        ("email", "mary@clinic.example"),
        ("call", "+16505550199"),
        ("sms", 123456),
    },
    "example_apptoto_mapped": {
        ("sms", "+16505550101"),
        ("sms", "+16505550102"),
        ("email", "ann@clinic.example"),
        ("email", "bob@clinic.example"),
    },
    "example_apptoto_hook": {("sms", "+16505550199")},
    "example_apptoto_dynamic_fields": {("sms", 123456)},
    "example_apptoto_once": {("sms", "+16505550199")},
    "example_apptoto_remind_tomorrow": {
        ("sms", "+16505550101"),
        ("sms", "+16505550102"),
        ("email", "reception@clinic.example"),
    },
    "example_apptoto_two_languages": {("sms", 4711)},
}
APPOINTMENTS = """
create table patient (id integer primary key, first_name text, phone text, opted_out integer default 0);
create table appointment (id integer primary key, patient_id integer, doctor text, starts_at text);
insert into patient values (1, 'Ann', '+16505550101', 0), (2, 'Bob', '+16505550102', 0), (3, 'Cid', 'on request', 0),
    (4, 'Dan', '+16505550104', 1), (5, 'Eve', '+16505550105', 0);
insert into appointment values (4711, 1, 'Lee', :day || ' 09:00'), (4712, 2, 'Ray', :day || ' 09:30'),
    (4713, 3, 'Lee', :day || ' 10:00'), (4714, 4, 'Lee', :day || ' 11:00'), (4715, 5, 'Ray', '2026-01-05 09:00');
"""


@pytest.fixture(autouse=True)
def _clinic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the database that an example reads; somebody opted out, and one's number is none."""
    monkeypatch.setenv("AIRFLOW_CONN_CLINIC", json.dumps({"conn_type": "sqlite", "host": str(tmp_path / "clinic.db")}))
    with contextlib.closing(sqlite3.connect(tmp_path / "clinic.db")) as database:
        database.executescript(
            APPOINTMENTS.replace(":day", f"'{pendulum.tomorrow('America/New_York').to_date_string()}'")
        )


@pytest.mark.contract
@pytest.mark.usefixtures("airflow_database")
@pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.glob("*.py")))
def test_an_example_dag_sends_what_it_says(
    name: str, connection: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = {"conn_type": "sqlite", "host": str(tmp_path / "state.db")}
    monkeypatch.setenv("AIRFLOW_CONN_STATE", json.dumps(state))
    with Sandbox() as sandbox:
        connection(sandbox.url, login=sandbox.login, password=sandbox.api_key, state_conn_id="state")
        run = run_file(name, (EXAMPLES / f"{name}.py").read_text(), conf={"folder": str(tmp_path)})
        messages = sandbox.messages()
    assert run.state == "success"
    received = [
        (message["type"], message["to"] or message["participant_id"] or message["event_id"]) for message in messages
    ]
    assert sorted(received, key=str) == sorted(RECEIVED[name], key=str)


@pytest.mark.usefixtures("airflow_database")
def test_the_sandbox_example_can_rehearse_a_refusal(connection: Callable[..., None]) -> None:
    with Sandbox() as sandbox:
        connection(sandbox.url, login=sandbox.login, password=sandbox.api_key)
        sandbox.fault(kind="status", status=422)
        run = run_file("example_apptoto_hook", (EXAMPLES / "example_apptoto_hook.py").read_text())
        messages = sandbox.messages()
    assert run["text_or_mail"].state == "success"
    assert [(message["type"], message["to"]) for message in messages] == [("email", "mary@clinic.example")]


@pytest.mark.contract
@pytest.mark.usefixtures("airflow_database")
def test_the_example_of_the_endpoints_page_goes_out_verbatim(connection: Callable[..., None]) -> None:
    with Sandbox() as sandbox:
        connection(sandbox.url, login=sandbox.login, password=sandbox.api_key)
        for name in ("example_apptoto_dynamic_fields", "example_apptoto_two_languages"):
            run_file(name, (EXAMPLES / f"{name}.py").read_text())
        texts = [message["message"] for message in sandbox.messages()]
    assert texts == [
        # apidocs.apptoto.com/reference/v1send_message, spelling included
        "Hi there {{ name }}!  You're upcoming appointment is at {{ event.start_time | date_and_time_phrase }}.",
        (
            "Hi {{ name }}, Dr Lee sees you {{ event.start_time | date_and_time_phrase }}"
            "{% if event.location %} at {{ event.location }}{% endif %}."
        ),
    ]


@pytest.mark.contract
@pytest.mark.usefixtures("airflow_database")
def test_the_reminders_say_when_and_the_reception_learns_whom_to_call(
    connection: Callable[..., None], tmp_path: Path
) -> None:
    name = "example_apptoto_remind_tomorrow"
    with Sandbox() as sandbox:
        connection(sandbox.url, login=sandbox.login, password=sandbox.api_key)
        run_file(name, (EXAMPLES / f"{name}.py").read_text(), conf={"folder": str(tmp_path)})
        texts = {message["to"]: str(message["message"]) for message in sandbox.messages()}
    assert texts["+16505550101"] == "Hi Ann, Dr Lee sees you tomorrow at 09:00."
    assert texts["+16505550102"] == "Hi Bob, Dr Ray sees you tomorrow at 09:30."
    first, *rest = texts["reception@clinic.example"].splitlines()
    assert first == "2 of 3 were reminded."
    assert [line.partition(": invalid")[0] for line in rest] == ["Please call about appointment 4713"]
