"""A message counts as sent only if its text is in the conversation, after its first byte, for everybody it was for."""

from __future__ import annotations

import datetime as dt
import time
from typing import Any

import pytest

from airflow_provider_apptoto.client import Event, Participant
from airflow_provider_apptoto.outbox.settling import addressed, got_it, matcher_of

SINCE = dt.datetime(2026, 11, 30, 12, tzinfo=dt.UTC)
TEXT = "Hi {{ name }}, see you {{ event.start_time | date_and_time_phrase }}."


def person(*messages: dict[str, Any]) -> Participant:
    made = [
        {"at": SINCE.isoformat(), "event_type": "sent", "content": "Your scan is ready", **each} for each in messages
    ]
    found = Participant.read({"id": 7, "state": "initial", "conversations": [{"messages": made}]})
    assert found is not None
    return found


def at(seconds: float) -> dict[str, Any]:
    return {"at": (SINCE + dt.timedelta(seconds=seconds)).isoformat()}


@pytest.mark.parametrize(
    ("text", "found", "expected"),
    [
        (TEXT, "Hi Mary, see you Tuesday at 9.", True),
        (TEXT, "Hi Mary,  see you\nTuesday at 9.", True),
        (TEXT, "Clinic: Hi Mary, see you Tuesday at 9.", False),
        (TEXT, "Hi Mary, see you Tuesday at 9. Reply STOP to end", False),
        (TEXT, "Hi Mary, see you Tuesday at 9. And please pay for your last visit" + "s" * 200 + ".", False),
        ("See you at {{ event.time }} at {{ event.time }} at", "See you at at", False),
        (TEXT, "Hi Mary, we will see you", False),
        (TEXT, "Hello Mary, see you Tuesday.", False),
        (TEXT, "", False),
        (TEXT, TEXT, True),
        ("Your scan is ready", "Your scan is ready", True),
        ("Your scan is ready", " Your  scan is ready\n", True),
        ("Your scan is ready", "Your scan is ready!", False),
        ("Your scan is ready", "Is it true? Your scan is ready", False),
        ("Scan (1.5 h)", "Scan (1.5 h)", True),
        ("Scan (1.5 h)", "Scan (125 h)", False),
        ("{% if event.custom.a %}Bring your card{% endif %} on Tuesday", "Bring your card on Tuesday", True),
        ("{% if event.custom.a %}Bring your card{% endif %} on Tuesday", "on Tuesday", False),
    ],
)
def test_a_text_is_recognized_with_its_fields_filled_in(text: str, found: str, *, expected: bool) -> None:
    matches = matcher_of(text)
    assert matches is not None
    assert matches(found) is expected


def test_a_long_text_does_not_hold_a_worker_up() -> None:
    matches = matcher_of("Hello {{ a }} {{ b }} {{ c }} {{ d }}, see you {{ e }} there")
    assert matches is not None
    began = time.process_time()
    assert not matches("Hello " + "see " * 5_000)
    assert time.process_time() - began < 1


@pytest.mark.parametrize("text", [None, "", "{{ event.custom.text }}", "Hi {{ name }}!", "{% if a %}{% endif %}"])
def test_a_text_that_could_be_any_is_no_evidence(text: str | None) -> None:
    assert matcher_of(text) is None


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({}, True),
        (at(3600), True),
        (at(3601), False),  # another run sends the same text
        (at(-59), True),  # Apptoto's clock may be behind
        (at(-61), False),
        ({"at": None}, False),
        ({"at": "soon"}, False),
        ({"event_type": "replied"}, False),
        ({"event_type": "scheduled"}, False),
        ({"content": "Another text"}, False),
        ({"delivery_failed": True}, True),  # Apptoto had sent it
        ({"send_failed": True}, False),
    ],
)
def test_only_what_was_sent_since_counts(message: dict[str, Any], expected: bool) -> None:
    is_text = matcher_of("Your scan is ready")
    assert is_text is not None
    assert got_it([person(message)], SINCE.timestamp(), is_text) is expected


def test_everybody_must_have_got_it() -> None:
    is_text = matcher_of("Your scan is ready")
    assert is_text is not None
    got, other = person({}), person({"content": "Another text"})
    for people, expected in (
        ([got, got], True),
        ([got, other], False),
        ([other], False),
        ([], False),
        ([person()], False),
    ):
        assert got_it(people, SINCE.timestamp(), is_text) is expected


def test_participants_who_can_not_be_read_may_not_have_got_it() -> None:
    people = [{"id": 7, "state": "initial"}, {"id": None, "state": "initial"}]
    event = Event.read({"id": 1, "participants": people})
    assert event is not None
    assert addressed(event, None) == []
    assert [each.id for each in addressed(event, 7)] == [7]
