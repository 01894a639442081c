"""The appointments that the server lists: each with one participant, who got a text and answered it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any
from urllib.parse import parse_qs, urlsplit

from benchmarks.people import number_of


def answer(target: str, count: int) -> bytes:
    """Return the answer to ``/v1/events``: a page of appointments.

    :param target: path and query of the request.
    :param count: number of appointments.
    """
    query = {name: values[-1] for name, values in parse_qs(urlsplit(target).query).items()}
    return _page(int(query["page"]), int(query["page_size"]), count)


def window() -> tuple[str, str]:
    """Return the start and the end of a window that holds all appointments, ISO 8601."""
    return _first().isoformat(), (_first() + timedelta(days=8)).isoformat()


@cache
def _page(number: int, size: int, count: int) -> bytes:
    numbers = range(count)[(number - 1) * size : number * size]
    return json.dumps({"events": [_event(each) for each in numbers]}).encode()


def _event(number: int) -> dict[str, Any]:
    start = _first() + timedelta(minutes=number % (7 * 24 * 60))
    sent = {"id": 2 * number, "event_type": "sent", "at": _now().isoformat(), "content": "Are you coming?"}
    replied = {"id": 2 * number + 1, "event_type": "replied", "at": _now().isoformat(), "content": "Yes, thank you"}
    person = {
        "id": number,
        "name": f"Person {number}",
        "normalized_phone": number_of(number),
        "state": "reminded",
        "conversations": [{"messages": [sent, replied]}],
    }
    return {
        "id": number,
        "calendar_id": 1,
        "external_id": f"appointment-{number}",
        "start_time": start.isoformat(),
        "end_time": (start + timedelta(minutes=15)).isoformat(),
        "title": "Check-up",
        "participants": [person],
    }


@cache
def _now() -> datetime:
    return datetime.now(UTC)


@cache
def _first() -> datetime:
    return (_now() + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
