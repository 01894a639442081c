"""Each reply is new once, however late Apptoto lists it and however long nobody looks."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_apptoto.answers.reading import ReadFailure
from airflow_provider_apptoto.answers.replies import OVERLAP, FoundReply, Outage, Position, _of_event
from airflow_provider_apptoto.client.appointments import Event

START = 1_780_000_000.0
MINUTE = 60.0
ID = "0123456789abcdef0123"


def reply(name: str, at: float | None) -> FoundReply:
    """Return a reply that came ``at`` seconds after the start."""
    return FoundReply(name, 7, 70, "visit-7", None if at is None else START + at, "Yes, said Gwendolyn")


def shown(position: Position, *polls: tuple[float, list[FoundReply]]) -> list[list[str]]:
    """Return the ids of the replies that are new in each poll."""
    new = []
    for read_at, found in polls:
        new.append([each.reply_id for each in position.new(found)])
        position = Position.unpack(json.loads(json.dumps(position.after(found, START + read_at).pack())))
    return new


OLD, FIRST, SECOND = reply("old", -300), reply("first", 30), reply("second", 90)


@pytest.mark.parametrize(
    ("polls", "new"),
    [
        ([(1, [OLD]), (60, [OLD, FIRST]), (120, [OLD, FIRST])], [[], ["first"], []]),
        # the first read failed for ten hours
        ([(36_000, [OLD, FIRST])], [["first"]]),
        # nobody looked for two days
        ([(1, []), (172_800, [FIRST, SECOND])], [[], ["first", "second"]]),
        # Apptoto lists it 50 minutes late, after a later one
        ([(1, []), (120, [SECOND]), (3000, [SECOND, FIRST])], [[], ["second"], ["first"]]),
        # it came shortly before the start, and is listed later
        ([(1, []), (60, [OLD])], [[], ["old"]]),
        # it is away for a read, because its event is moved
        ([(1, []), (60, [FIRST]), (120, []), (180, [FIRST])], [[], ["first"], [], []]),
        # Apptoto's clock is ahead
        ([(1, []), (60, [reply("ahead", 600)]), (5000, [reply("ahead", 600)])], [[], ["ahead"], []]),
        ([(1, []), (60, [SECOND, FIRST])], [[], ["first", "second"]]),
        # its time can't be read: it is known while it is listed
        ([(1, [reply("a", None)]), (60, [reply("a", None), reply("b", None)])], [[], ["b"]]),
        ([(1, []), (60, [reply("b", None)]), (20_000, [reply("b", None)])], [[], ["b"], []]),
        ([(1, []), (60, [reply("b", None), FIRST])], [[], ["first", "b"]]),
    ],
)
def test_a_reply_is_new_once(polls: list[tuple[float, list[FoundReply]]], new: list[list[str]]) -> None:
    assert shown(Position(START), *polls) == new


def test_what_was_listed_too_late_is_old() -> None:
    """More would have to be remembered."""
    assert shown(Position(START), (1, []), (OVERLAP + 100, []), (OVERLAP + 160, [FIRST])) == [[], [], []]


def test_a_position_remembers_an_hour_and_nothing_personal() -> None:
    position = Position(START)
    for minute in range(600):
        found = [reply(f"{number}", number * MINUTE) for number in range(minute)]
        position = position.after(found, START + minute * MINUTE)
    packed = position.pack()
    assert len(packed["seen"]) == 60
    assert "Gwendolyn" not in json.dumps(packed) + repr(position) + repr(FIRST)


EARLY = "2026-01-01T00:00Z"


@pytest.mark.parametrize(
    "stored",
    [
        None,
        "x",
        5,
        [],
        {},
        {"since": None},
        {"since": "yesterday"},
        {"since": EARLY, "seen": ["a"]},
        {"since": EARLY, "seen": {"a": "x"}},
        {"since": EARLY, "seen": {"a": True}},
    ],
)
def test_a_position_that_was_changed_by_hand_is_refused(stored: Any) -> None:
    with pytest.raises(ValueError, match="no position"):
        Position.unpack(stored)


# --- ids of replies


def event_of(*messages: dict[str, Any], **fields: Any) -> Event:
    person = {"id": 70, "conversations": [{"messages": [{"event_type": "replied", **each} for each in messages]}]}
    event = Event.read({"id": 7, "external_id": "visit-7", "participants": [person], **fields})
    assert event is not None
    return event


AT = "2026-11-30T12:00:00+00:00"


def test_a_reply_has_the_same_id_whenever_and_wherever_it_stands() -> None:
    messages: list[dict[str, Any]] = [
        {"id": 1, "at": AT, "content": "Yes"},
        {"id": 2, "at": AT, "content": "Yes"},
        {"id": 2, "at": "2026-11-30T12:00:01+00:00", "content": "Yes"},
        {"at": AT, "content": "Yes"},
        {"at": AT, "content": "Yes"},
        {"content": "Yes"},
    ]
    found = [each.reply_id for each in _of_event(event_of(*messages))]
    assert len(set(found)) == len(messages)
    assert [each.reply_id for each in _of_event(event_of(*messages, start_time=AT, title="moved"))] == found
    assert [each.reply_id for each in _of_event(event_of(messages[1], messages[0]))] == [found[1], found[0]]
    other_zone = {"at": "2026-11-30T04:00:00-08:00", "content": "Yes"}
    assert [each.reply_id for each in _of_event(event_of(other_zone))] == [found[3]]
    twice = [each.reply_id for each in _of_event(event_of(messages[0], messages[0]))]
    assert twice == [found[0], found[0]]  # listed in two conversations


def test_an_id_that_is_a_number_of_a_phone_is_not_shown() -> None:
    [found] = _of_event(event_of({"id": "+16505550107-1", "at": AT, "content": "Yes"}))
    packed = found.pack("yes")
    assert packed.pop("reply_id").isalnum()
    assert packed == {
        "event_id": 7,
        "participant_id": 70,
        "reference": "visit-7",
        "answer": "yes",
        "at": "2026-11-30T12:00:00.000Z",
    }
    assert "6505550107" not in str(found.pack("yes"))


def test_only_what_the_participant_wrote_is_a_reply() -> None:
    assert list(_of_event(event_of({"id": 1, "event_type": "sent"}, {"id": 2, "event_type": "opened"}))) == []


# --- errors


def test_an_outage_is_told_once_and_the_next_one_again() -> None:
    error = ReadFailure("502", "not_sent")
    refused = ReadFailure("401", "credentials_refused", is_final=True)
    busy = ReadFailure("wait", "rate_limited", counts=False)
    outage = Outage(3)
    steps = [error, error, busy, error, error, refused, None, error, refused, refused, None, *[busy] * 9]
    told = [outage.to_tell(each) is not None for each in steps]
    assert [number for number, is_told in enumerate(told) if is_told] == [3, 8]
