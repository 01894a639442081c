"""A clinic's appointments behind a server, as Apptoto's pages and a public client describe its answers."""

from __future__ import annotations

import datetime as dt
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from tests.support.faults import accepting

if TYPE_CHECKING:
    from tests.support.faults import Exchange, Script

DAY = dt.datetime(2026, 12, 1, 8, tzinfo=dt.timezone(dt.timedelta(hours=-8)))
"""When the first appointment starts."""
NAMES = ("Gwendolyn", "6505550", "patients.example", "Root canal")
"""Parts of each appointment's personal data."""


def appointment(number: int, **person: Any) -> dict[str, Any]:
    """Return event ``number`` with participant ``number + 1000``.

    :param person: fields of the participant that differ.
    """
    start = DAY + dt.timedelta(minutes=number)
    return {
        "id": number,
        "calendar_id": 77,
        "calendar_name": "Dr Lee",
        "external_id": f"visit-{number}",
        "start_time": start.isoformat(),
        "end_time": (start + dt.timedelta(minutes=20)).isoformat(),
        "title": "Root canal",
        "content": "",
        "is_deleted": False,
        "participants": [
            {
                "id": number + 1000,
                "event_id": number,
                "name": "Gwendolyn",
                "email": f"p{number}@patients.example",
                "phone": f"650-555-0{number % 1000:03}",
                "normalized_phone": f"+16505550{number % 1000:03}",
                "state": "initial",
                "conversations": [],
                **person,
            }
        ],
    }


def row(number: int) -> dict[str, Any]:
    """Return the row that the operator lists for an appointment."""
    start = DAY + dt.timedelta(minutes=number)
    return {
        "event_id": number,
        "participant_id": number + 1000,
        "start_time": start.isoformat(),
        "state": "initial",
        "calendar_id": 77,
        "external_id": f"visit-{number}",
        "channels": ["sms", "call", "email"],
    }


def answers_meanwhile(clinic: Clinic) -> Script:
    """Return a script that takes a second for a page, while the first client answers."""

    def script(exchange: Exchange) -> None:
        page = json.dumps({"events": list(clinic.events.values())}).encode()
        clinic.say(1, "yes")
        time.sleep(1)
        exchange.answer(200, page)

    return script


@dataclass
class Clinic:
    """Answers reads from its appointments and accepts messages.

    :param events: the appointments by id, as JSON.
    :param faults: what the next reads get instead; each is used once.
    :param reads: the paths of the reads.
    :param sent: the messages that were accepted.
    :param cap: most events of a page, whatever the request asks for.
    """

    events: dict[int, dict[str, Any]] = field(default_factory=dict)
    faults: list[Script] = field(default_factory=list)
    reads: list[str] = field(default_factory=list)
    sent: list[dict[str, Any]] = field(default_factory=list)
    cap: int = 1000

    @classmethod
    def of(cls, count: int) -> Clinic:
        return cls({number: appointment(number) for number in range(1, count + 1)})

    def person(self, number: int) -> dict[str, Any]:
        """Return the participant of an appointment."""
        [person] = self.events[number]["participants"]
        return person  # type: ignore[no-any-return]  # as JSON

    def say(self, number: int, text: str, *, at: dt.datetime | None = None, **fields: Any) -> None:
        """Add a reply to the conversation of an appointment.

        :param at: by default now.
        :param fields: fields of the message that differ.
        """
        moment = at or dt.datetime.now(dt.UTC)
        message = {"id": 1, "at": moment.isoformat(), "event_type": "replied", "content": text, **fields}
        self.person(number)["conversations"].append({"messages": [message]})

    def __call__(self, exchange: Exchange) -> None:
        request = exchange.request
        if request.method != "GET":
            self.sent.append(request.json)
            accepting(exchange)
            return
        self.reads.append(request.path)
        if self.faults:
            self.faults.pop(0)(exchange)
            return
        url = urlsplit(request.path)
        asked = {name: value for name, [value] in parse_qs(url.query).items()}
        with_talk = asked.get("include_conversations") == "true"
        if url.path == "/v1/event":
            found = self.events.get(int(asked["id"]))
            exchange.answer(404) if found is None else exchange.answer(200, self._shown(found, with_talk=with_talk))
            return
        begin, end = (dt.datetime.fromisoformat(asked[name]) if name in asked else None for name in ("begin", "end"))
        events = [
            each
            for each in self.events.values()
            if not each["is_deleted"]
            and (begin is None or dt.datetime.fromisoformat(each["start_time"]) >= begin)
            and (end is None or dt.datetime.fromisoformat(each["start_time"]) <= end)
        ]
        events.sort(key=lambda each: dt.datetime.fromisoformat(each["start_time"]))
        size = min(int(asked.get("page_size", 30)), self.cap)
        first = (int(asked.get("page", 1)) - 1) * size
        page = [self._shown(each, with_talk=with_talk) for each in events[first : first + size]]
        exchange.answer(200, json.dumps({"events": page}).encode())

    def _shown(self, event: dict[str, Any], *, with_talk: bool) -> dict[str, Any]:
        if with_talk:
            return event
        people = [{name: each[name] for name in each if name != "conversations"} for each in event["participants"]]
        return {**event, "participants": people}
