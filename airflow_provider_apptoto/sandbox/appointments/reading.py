"""Read events as Apptoto's API shows them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_apptoto.sandbox.appointments.values import iso, normalized

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from airflow_provider_apptoto.sandbox.appointments.database import Database

#: DOCUMENTED defaults.
PAGE_SIZE = 30
#: ASSUMED: a longer page is cut to this.
MAX_PAGE_SIZE = 1000
_EVENTS = "SELECT events.*, calendars.name AS calendar_name FROM events JOIN calendars ON calendars.id = calendar_id"

_PAGE = _EVENTS.replace("SELECT events.*", "SELECT events.*, matching")


@dataclass(frozen=True, kw_only=True)
class EventSearch:
    """Which events a caller asks for, by the parameters of ``GET /v1/events``.

    :param begin: earliest start, in seconds since 1970.
    :param end: latest start.
    :param phone_number: only events with this participant; the entry then has this participant alone.
    :param email_address: the same, by address.
    :param page: from 1.
    :param page_size: events on a page.
    """

    begin: float | None = None
    end: float | None = None
    phone_number: str | None = None
    email_address: str | None = None
    page: int = 1
    page_size: int = PAGE_SIZE
    include_deleted: bool = False
    include_conversations: bool = False


def found_events(database: Database, search: EventSearch) -> list[dict[str, Any]]:
    """Return a page of events, the earliest first."""
    conditions: dict[str, object] = {}
    if search.begin is not None:
        conditions["start_at >= ?"] = search.begin
    if search.end is not None:
        conditions["start_at <= ?"] = search.end
    if not search.include_deleted:
        conditions["is_deleted = ?"] = 0
    people: dict[str, object] = {}
    if search.phone_number:
        people["normalized_phone = ?"] = normalized(search.phone_number) or search.phone_number
    if search.email_address:
        people["email = ? COLLATE NOCASE"] = search.email_address.strip()
    where = " AND ".join([*conditions, *people]) or "true"
    size = min(search.page_size, MAX_PAGE_SIZE)
    # The ids of a page are found in an index alone, because whole rows make the last pages of many slow.
    if people:
        # DOCUMENTED: an event appears once for each participant that matches, with this participant only.
        source, matching, last = (
            "participants JOIN events ON events.id = event_id",
            "participants.id",
            "participants.id",
        )
    else:
        source, matching, last = "events", "NULL", "events.id"
    ids = (
        f"SELECT events.id AS page_id, {matching} AS matching, start_at AS at FROM {source} "  # noqa: S608  fixed names
        f"WHERE {where} ORDER BY start_at, events.id, {last}"
    )
    rows = database.rows(
        f"{_PAGE} JOIN ({ids} LIMIT ? OFFSET ?) ON page_id = events.id ORDER BY at, events.id, matching",
        [*conditions.values(), *people.values(), size, size * (search.page - 1)],
    )
    only = {row["matching"] for row in rows} if people else None
    participants = _participants(
        database, [row["id"] for row in rows], include_conversations=search.include_conversations, only=only
    )
    return [
        _event(row, [each for each in participants[row["id"]] if not people or each["id"] == row["matching"]])
        for row in rows
    ]


def found_event(
    database: Database,
    *,
    event_id: int | None = None,
    external_id: str | None = None,
    include_conversations: bool = False,
) -> dict[str, Any] | None:
    """Return one event, by either id. A deleted one is found by ``event_id``; by ``external_id`` it comes last."""
    condition, value = ("events.id = ?", event_id) if event_id is not None else ("external_id = ?", external_id)
    rows = database.rows(f"{_EVENTS} WHERE {condition} ORDER BY is_deleted, events.id DESC LIMIT 1", [value])
    return next(iter(shown_events(database, rows, include_conversations=include_conversations)), None)


def events_by_id(database: Database, ids: Iterable[int]) -> list[dict[str, Any]]:
    """Return these events in this order."""
    order = list(ids)
    rows = database.rows(f"{_EVENTS} WHERE events.id IN ({_marks(order)})", order)
    return shown_events(database, sorted(rows, key=lambda row: order.index(row["id"])))


def shown_events(
    database: Database, rows: Sequence[Any], *, include_conversations: bool = False
) -> list[dict[str, Any]]:
    """Return events with all participants."""
    participants = _participants(database, [row["id"] for row in rows], include_conversations=include_conversations)
    return [_event(row, participants[row["id"]]) for row in rows]


def _event(row: Any, participants: list[dict[str, Any]]) -> dict[str, Any]:
    names = ("id", "calendar_id", "calendar_name", "external_id", "start_time", "end_time")
    return {
        **{name: row[name] for name in names},
        **{name: row[name] for name in ("title", "location", "content")},
        "is_deleted": bool(row["is_deleted"]),
        "participants": participants,
        "custom_data": json.loads(row["custom_data"]),
    }


def _participants(
    database: Database, event_ids: Sequence[int], *, include_conversations: bool, only: set[int] | None = None
) -> dict[int, list[dict[str, Any]]]:
    rows = database.rows(
        f"SELECT * FROM participants WHERE event_id IN ({_marks(event_ids)}) ORDER BY id",  # noqa: S608  only marks
        event_ids,
    )
    if only is not None:
        rows = [row for row in rows if row["id"] in only]
    conversations = conversations_of(database, [row["id"] for row in rows]) if include_conversations else {}
    found: dict[int, list[dict[str, Any]]] = {event_id: [] for event_id in event_ids}
    for row in rows:
        shown = {name: row[name] for name in ("id", "name", "email", "phone", "normalized_phone", "state")}
        if include_conversations:
            shown |= {"event_id": row["event_id"], "conversations": conversations.get(row["id"], [])}
        found[row["event_id"]].append(shown)
    return found


def conversations_of(database: Database, participant_ids: Sequence[int]) -> dict[int, list[dict[str, Any]]]:
    """Return the conversations of participants, one for each channel.

    OBSERVED: a conversation has ``messages``. What else it has is unknown.
    """
    rows = database.rows(
        f"SELECT * FROM messages WHERE participant_id IN ({_marks(participant_ids)}) ORDER BY at, id",  # noqa: S608
        participant_ids,
    )
    by_channel: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for row in rows:
        by_channel.setdefault((row["participant_id"], row["channel"]), []).append(shown_message(row))
    found: dict[int, list[dict[str, Any]]] = {}
    for (participant_id, _), messages in by_channel.items():
        found.setdefault(participant_id, []).append({"messages": messages})
    return found


def shown_message(row: Any) -> dict[str, Any]:
    """Return a message of a conversation. OBSERVED: these keys."""
    return {
        "id": row["id"],
        "at": iso(row["at"]),
        "event_type": row["event_type"],
        "content": row["content"],
        "delivery_state": row["delivery_state"],
        "delivery_error": row["delivery_error"],
        **{name: None if row[name] is None else bool(row[name]) for name in ("delivery_failed", "send_failed")},
    }


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))
