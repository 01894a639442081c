"""A snapshot has each event once, and none that was deleted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from airflow_provider_apptoto.answers.appointment import Window
from airflow_provider_apptoto.answers.reading import AnswerReader
from airflow_provider_apptoto.answers.replies import Position, ReplyReader
from airflow_provider_apptoto.client import Event

NOW = 1_780_000_000.0
REPLY = {"id": 9, "at": NOW, "event_type": "replied", "content": "Yes"}


def event(number: int, *people: int, is_deleted: bool = False) -> Event:
    participants = [{"id": each, "state": "confirmed", "conversations": [{"messages": [REPLY]}]} for each in people]
    found = Event.read({"id": number, "is_deleted": is_deleted, "participants": participants})
    assert found is not None
    return found


LISTED = [event(1, 11), event(2, 21, is_deleted=True), event(1, 12)]
ALONE = {3: event(3, 31), 4: event(4, 41, is_deleted=True), 5: None}


def reading(reader: Any, asked: list[int]) -> Any:
    """Let a reader read these events, and note which it asked for alone."""

    def get_event(**given: Any) -> Event | None:
        assert given["include_conversations"]
        asked.append(given["id"])
        return ALONE[given["id"]]

    reader._client = SimpleNamespace(get_event=get_event, iter_events=lambda *_, **__: iter(LISTED), close=asked.clear)
    return reader


def test_a_snapshot_has_the_participants_of_all_lists_and_no_deleted_event() -> None:
    asked: list[int] = []
    reader = reading(AnswerReader("apptoto", Window("2026-05-28T00:00Z", "2026-05-29T00:00Z"), [1, 3, 4, 5]), asked)
    found = cast("dict[int, dict[int, Any]]", reader.read())
    assert {number: sorted(people) for number, people in found.items()} == {1: [11, 12], 3: [31]}
    assert asked == [3, 4, 5]


def test_replies_about_deleted_events_are_not_told() -> None:
    found = reading(ReplyReader("apptoto", 1, 7), []).read(Position(NOW), NOW)
    assert [(each.event_id, each.participant_id) for each in found] == [(1, 11), (1, 12)]
