"""Every example DAG does what it says, against the sandbox."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

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
    "example_apptoto_two_languages": {("sms", 4711)},
}


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
        run = run_file(name, (EXAMPLES / f"{name}.py").read_text())
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
