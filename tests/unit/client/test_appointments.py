"""Events are read from every odd answer without an error, and show no personal data."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from airflow_provider_apptoto.client import ConversationMessage, Event, Participant
from airflow_provider_apptoto.client.appointments import read_id, read_time

OREGON = dt.timezone(dt.timedelta(hours=-8))
NINE = dt.datetime(2026, 11, 30, 9, tzinfo=OREGON)
DOCUMENTED: dict[str, Any] = {
    "id": 123,
    "calendar_id": 1000026606,
    "calendar_name": "Dr Lee",
    "external_id": "visit-7",
    "start_time": "2026-11-30T09:00:00-08:00",
    "end_time": "2026-11-30T09:30:00-08:00",
    "title": "[CONFIRMED] Mary",
    "location": "",
    "content": "Bring the card",
    "is_deleted": False,
    "custom_data": {"room": "4"},
    "participants": [
        {
            "id": 789,
            "event_id": 123,
            "name": "Mary",
            "email": "mary@clinic.example",
            "phone": "650-555-0199",
            "normalized_phone": "+16505550199",
            "state": "reminded",
            "conversations": [
                {
                    "messages": [
                        {"id": 1, "at": "2026-11-29T10:00:00-08:00", "event_type": "sent", "content": "Coming?"}
                    ]
                },
                {
                    "messages": [
                        {"id": 2, "at": "2026-11-29T10:05:00Z", "event_type": "replied", "content": "Yes"},
                        {"id": 3, "event_type": "sent", "delivery_failed": True, "delivery_state": "undelivered"},
                    ]
                },
            ],
        }
    ],
}


def event_of(**fields: Any) -> Event:
    event = Event.read({**DOCUMENTED, **fields})
    assert event is not None
    return event


def person_of(**fields: Any) -> Participant:
    person = Participant.read({**DOCUMENTED["participants"][0], **fields})
    assert person is not None
    return person


def test_an_event_is_read_as_documented() -> None:
    event = event_of()
    assert (event.id, event.calendar_id, event.calendar_name, event.external_id) == (
        123,
        1000026606,
        "Dr Lee",
        "visit-7",
    )
    assert (event.start_time, event.end_time) == (NINE, NINE + dt.timedelta(minutes=30))
    assert event.start_time is not None
    assert event.start_time.utcoffset() == dt.timedelta(hours=-8)
    assert (event.title, event.location, event.content) == ("[CONFIRMED] Mary", "", "Bring the card")
    assert (event.is_deleted, event.custom_data) == (False, {"room": "4"})
    [person] = event.participants
    assert (person.id, person.name, person.email) == (789, "Mary", "mary@clinic.example")
    assert (person.phone, person.normalized_phone, person.state) == ("650-555-0199", "+16505550199", "reminded")


def test_the_messages_of_all_conversations_are_read_as_observed() -> None:
    messages = person_of().messages
    assert messages is not None
    assert [(each.id, each.content, each.is_sent, each.is_reply, each.is_undelivered) for each in messages] == [
        (1, "Coming?", True, False, False),
        (2, "Yes", False, True, False),
        (3, "", True, False, True),
    ]
    assert messages[0].at == dt.datetime(2026, 11, 29, 10, tzinfo=OREGON)
    assert messages[2].at is None


def test_a_participant_without_conversations_is_told_from_one_with_none() -> None:
    assert person_of(conversations=[]).messages == ()
    assert person_of(conversations=None).messages is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (123, 123),
        ("123", 123),
        (" 123 ", 123),
        (123.0, 123),
        ("abc-1", "abc-1"),
        ("007", 7),
        ("9" * 40, "9" * 40),
        ("\u0661", "\u0661"),  # a digit of another script
        ("", None),
        (" ", None),
        (None, None),
        (True, None),
        (1.5, None),
        ([1], None),
        ({}, None),
    ],
)
def test_ids_are_numbers_or_texts(value: Any, expected: Any) -> None:
    assert read_id(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-11-30T09:00:00-08:00", NINE),
        ("2026-11-30T09:00:00.000-08:00", NINE),
        ("2026-11-30T09:00:00-0800", NINE),
        ("2026-11-30 09:00:00 -0800", NINE),
        ("2026-11-30T17:00:00Z", NINE),
        ("2026-11-30 17:00:00 UTC", NINE),
        (" 2026-11-30T09:00-08:00 ", NINE),
        (1796058000, NINE),
        (1796058000.0, NINE),
        (1796058000000, NINE),
        ("2026-11-30T09:00:00", None),  # without an offset, it names no moment
        ("2026-11-30", None),
        ("tomorrow", None),
        ("", None),
        (None, None),
        (True, None),
        (1e300, None),
        (float("nan"), None),
        ({"at": 1}, None),
    ],
)
def test_times_need_an_offset_and_keep_it(value: Any, expected: Any) -> None:
    assert read_time(value) == expected
    if isinstance(value, str) and "08" in value and expected is not None:
        found = read_time(value)
        assert found is not None
        assert found.utcoffset() == dt.timedelta(hours=-8)


ODD: list[Any] = [None, "text", 7, [], {}, {"title": "no id"}, {"id": None}, {"id": True}, {"id": ""}, {"id": []}]


@pytest.mark.parametrize("found", ODD, ids=repr)
def test_what_has_no_id_is_no_event(found: Any) -> None:
    assert Event.read(found) is None


@pytest.mark.parametrize("value", [None, "x", 5, True, {}, {"a": 1}, [], [None], ["x"], [{}], [[]]], ids=repr)
@pytest.mark.parametrize("name", sorted(set(DOCUMENTED) - {"id"}))
def test_an_event_with_any_odd_field_is_read(name: str, value: Any) -> None:
    event = event_of(**{name: value})
    assert event.id == 123
    for text in (event.title, event.location, event.content, event.calendar_name):
        assert isinstance(text, str)
    for person in event.participants:
        assert person.id == 789
    assert Event.read({key: each for key, each in DOCUMENTED.items() if key != name}) is not None


@pytest.mark.parametrize(
    "value", [None, "x", 5, True, {}, [], [None], [{}], [{"messages": 5}], [{"messages": [3]}]], ids=repr
)
@pytest.mark.parametrize("name", sorted(set(DOCUMENTED["participants"][0]) - {"id"}))
def test_a_participant_with_any_odd_field_is_read(name: str, value: Any) -> None:
    person = person_of(**{name: value})
    assert person.id == 789
    assert isinstance(person.state, str)
    assert person.messages is None or all(isinstance(each, ConversationMessage) for each in person.messages)


@pytest.mark.parametrize("value", [None, 5, True, {}, [], ["x"]], ids=repr)
@pytest.mark.parametrize("name", ["id", "at", "event_type", "content", "delivery_state", "delivery_error"])
def test_a_message_with_any_odd_field_is_read(name: str, value: Any) -> None:
    message = ConversationMessage.read({"id": 1, "event_type": "replied", "content": "Yes", name: value})
    assert message.is_reply == (name != "event_type")
    assert message.is_undelivered is False


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *((value, True) for value in (True, "true", 1, "1", "yes")),
        *((value, False) for value in (False, None, 0, "", "false", "0", "no", (), 2)),
    ],
)
@pytest.mark.parametrize("name", ["delivery_failed", "send_failed"])
def test_a_failure_is_read_in_several_spellings(name: str, value: Any, *, expected: bool) -> None:
    assert ConversationMessage.read({name: value}).is_undelivered is expected


def test_participants_without_an_id_are_left_out() -> None:
    event = event_of(participants=[{"name": "Ann"}, {"id": "9"}, None, {"id": 8}])
    assert [each.id for each in event.participants] == [9, 8]


@pytest.mark.parametrize(
    ("fields", "channels"),
    [
        ({}, ("sms", "call", "email")),
        ({"email": ""}, ("sms", "call")),
        ({"phone": "", "normalized_phone": None}, ("email",)),
        ({"normalized_phone": ""}, ("sms", "call", "email")),
        ({"phone": None, "normalized_phone": None, "email": None}, ()),
    ],
)
def test_the_channels_of_a_participant_follow_from_what_is_known(
    fields: dict[str, Any], channels: tuple[str, ...]
) -> None:
    assert person_of(**fields).channels == channels


def test_no_repr_shows_personal_data() -> None:
    person = person_of()
    assert person.messages is not None
    text = repr([event_of(), person, *person.messages])
    for private in ("Mary", "650", "clinic.example", "Coming", "Yes", "card", "Lee"):
        assert private not in text
    assert "789" in text
