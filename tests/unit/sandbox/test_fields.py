"""Dynamic fields are filled as Apptoto's manual shows them."""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("liquid", reason="needs python-liquid")

if TYPE_CHECKING:
    from airflow_provider_apptoto.sandbox import Sandbox
    from tests.support.sandbox_caller import Caller


def shown(sandbox: Sandbox, caller: Caller, text: str, **fields: Any) -> Any:
    given: dict[str, Any] = {"start_time": "2022-03-08T14:00:00-08:00", "custom_data": {"service": "exam"}, **fields}
    visit = sandbox.appointments.add("Ana Lopez", "650-555-0141", "ana@example.com", **given)
    answer = caller.send({"type": "sms", "participant_id": visit.participant_id, "message": text})
    return sandbox.messages()[-1]["message"] if answer.ok else answer


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("{{ name }}", "Ana Lopez"),
        ("{{ event.time }}", "2022-03-08 14:00:00 -0800"),
        ("{{ event.start_time }}", "2022-03-08 14:00:00 -0800"),
        ("{{ event.end_time }}", "2022-03-08 14:30:00 -0800"),
        ("{{ event.time_phrase }}", "2:00pm"),
        ("{{ event.end_time_phrase }}", "2:30pm"),
        ("{{ event.time_hour }} {{ event.time_hhmm }}", "14 1400"),
        ("{{ event.date }}", "3-8"),
        ("{{ event.date_phrase }}", "Tuesday, March 8th"),
        ("{{ event.date_abbreviated_phrase }}", "Tue, Mar 8th"),
        ("{{ event.date_phrase_and_time }}", "Tuesday, March 8th at 2:00 pm"),
        ("{{ event.date_abbreviated_phrase_and_time }}", "Tue, Mar 8th at 2:00pm"),
        ("{{ event.date_with_year }}", "2022-03-08"),
        ("{{ event.day_and_time_phrase }}", "on Tuesday, March 8th at 2:00pm"),
        ("{{ event.custom.service | capitalize }}", "Exam"),
        ("{{ event.start_time | time }}", "2:00 PM"),
        ("{{ event.start_time | add_minutes: 180 | time }}", "5:00 PM"),
        ("{{ event.start_time | date: '%A %-d' }}", "Tuesday 8"),
        ("{{ event.start_time | date_full }}", "Tuesday, March 8th"),
        ("{{ event.start_time | date_and_time_full }}", "Tuesday, March 8th at 2:00pm"),
        ("{{ event.start_time | date_phrase }}", "3/8"),
        ("{{ event.start_time | date_with_year }}", "3/8/2022"),
        ("{{ '2022-03-22 09:05:00 -0800' | date_and_time_phrase }}", "3/22 at 9:05am"),
        ("{{ participant.phone }}, {{ participant.email }}", "650-555-0141, ana@example.com"),
        ("{% if event.time_hour > 12 %}after lunch{% endif %}", "after lunch"),
        ("{{ event.nothing }}{{ nothing.at.all }}|{{ name | time }}", "|Ana Lopez"),
        ("{{ event.start_time | add_minutes: 'x' | date: '' }}", "2022-03-08 14:00:00 -0800"),
        ("{{ event.start_time | add_minutes: 1e300 | time }}", "2:00 PM"),
        ("{{ 'now' | date: '%Q-20' | slice: -2, 2 }}", "20"),
        ("No fields: 5 { 6 }", "No fields: 5 { 6 }"),
    ],
)
def test_a_field_is_filled(sandbox: Sandbox, caller: Caller, text: str, filled: str) -> None:
    assert shown(sandbox, caller, text) == filled


@pytest.mark.parametrize(
    ("text", "filled", "missing"),
    [
        ("Hi {{ nmae }}, {{ event.servcie | upcase }}{{ nmae }}!", "Hi , !", "nmae, event.servcie"),
        ("{{ event.custom.service }}{{ participant.custom.room }}", "exam", "participant.custom.room"),
        ("Hi {{ nmae | default: 'there' }}{% if nmae %}!{% endif %}", "Hi there", None),
        ("Hi {{ name | shout }}", "Hi Ana Lopez", None),
        ("{{ event.location }}", "", None),
    ],
)
def test_a_field_that_does_not_exist_is_blank_and_named(
    sandbox: Sandbox, caller: Caller, text: str, filled: str, missing: str | None
) -> None:
    assert shown(sandbox, caller, text) == filled
    [entry] = sandbox.messages()
    error = None if missing is None else f"The text has gaps, because these fields do not exist: {missing}."
    assert (entry["error"], entry["delivered"], entry["outcome"]) == (error, True, "accepted")


def test_the_events_time_zone_is_used(sandbox: Sandbox, caller: Caller) -> None:
    text = "{{ event.start_time | time }} {{ event.time_zone }}"
    assert shown(sandbox, caller, text, time_zone="America/New_York") == "5:00 PM EST"
    assert shown(sandbox, caller, text, time_zone="Nowhere/At all").startswith("2:00 PM")


def test_the_contact_and_the_previous_time_can_be_named(sandbox: Sandbox, caller: Caller) -> None:
    contact = {"address_book": "Clients", "first_name": "Ana", "last_name": "Lopez", "phone": "+16505550141"}
    caller.call("POST", "/v1/contacts", json={"contacts": [{**contact, "custom_data": {"card": "blue"}}]})
    visit = sandbox.appointments.add("Ana L.", "(650) 555-0141", start_time="2022-03-08T14:00:00-08:00")
    changed = {"id": visit.event_id, "start_time": "2022-03-09T14:00:00-08:00"}
    caller.call("PUT", "/v1/events", json={"events": [changed]})
    text = "{{ contact.first_name }} {{ contact.custom.card }} {{ event.previous_start_time | date_phrase }}"
    caller.send({"type": "sms", "event_id": visit.event_id, "message": text})

    assert sandbox.messages()[-1]["message"] == "Ana blue 3/8"


def test_a_text_that_can_not_be_filled_is_refused_and_nobody_gets_it(
    sandbox: Sandbox, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_module = builtins.__import__

    def without_liquid(name: str, *rest: Any, **options: Any) -> Any:
        if name.partition(".")[0] == "liquid":
            raise ModuleNotFoundError(name=name)
        return import_module(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without_liquid)
    answer = shown(sandbox, caller, "Hi {{ name }}")
    assert answer.status_code == 400
    assert "pip install 'airflow-provider-apptoto[sandbox]'" in answer.json()["error"]
    assert shown(sandbox, caller, "Hi") == "Hi"
