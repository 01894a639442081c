"""Create, change and delete events as Apptoto's API does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_apptoto.sandbox.appointments.contacts import contact_by
from airflow_provider_apptoto.sandbox.appointments.database import insert, update
from airflow_provider_apptoto.sandbox.appointments.values import Given, as_json, moment, normalized, refusal

if TYPE_CHECKING:
    import sqlite3

    from airflow_provider_apptoto.sandbox.appointments.database import Database

_TEXTS = ("title", "location", "content", "time_zone", "external_id")


def save_events(database: Database, body: Given, *, may_update: bool) -> list[int]:
    """Store the events of a request, and return their ids. If one is invalid, none is stored (ASSUMED).

    :param body: the request's body.
    :param may_update: whether an event whose ``id`` or ``external_id`` exists is changed (PUT) or refused (POST).
    :raises HTTPException: an event is invalid.
    """
    events = body.items("events")
    if events is None:
        raise refusal("events is required.")
    may_create_calendar = not body.flag("prevent_calendar_creation")
    with database.writing() as connection:
        saved = []
        for event in events:
            found = _existing(database, event)
            if found is not None and not may_update:
                raise refusal(f"{event.label('external_id')} is that of event {found['id']}.")
            if found is None:
                saved.append(_create(database, connection, event, may_create_calendar=may_create_calendar))
            else:
                _change(database, connection, event, found)
                saved.append(int(found["id"]))
    return saved


def delete_event(database: Database, event_id: int) -> None:
    """Delete an event: it is hidden, and its participants answer no more."""
    with database.writing() as connection:
        update(connection, "events", event_id, is_deleted=1)
        connection.execute(
            "DELETE FROM plans WHERE participant_id IN (SELECT id FROM participants WHERE event_id = ?)", [event_id]
        ).close()


def _existing(database: Database, event: Given) -> Any:
    event_id, external_id = event.id("id"), event.text("external_id")
    condition, value = ("id = ?", event_id) if event_id is not None else ("external_id = ?", external_id)
    rows = database.rows(f"SELECT * FROM events WHERE NOT is_deleted AND {condition}", [value])  # noqa: S608  fixed
    return rows[0] if rows else None


def _create(database: Database, connection: sqlite3.Connection, event: Given, *, may_create_calendar: bool) -> int:
    for name in ("title", "start_time", "end_time"):
        if not (event.text(name) or "").strip():
            raise refusal(f"{event.label(name)} is required.")
    calendar_id = _calendar(database, connection, event, may_create=may_create_calendar)
    event_id = insert(connection, "events", calendar_id=calendar_id, **_columns(event, None))
    for participant in event.items("participants") or []:
        insert(connection, "participants", event_id=event_id, **_person(database, participant))
    return event_id


def _change(database: Database, connection: sqlite3.Connection, event: Given, found: Any) -> None:
    columns = _columns(event, found["time_zone"])
    if columns.get("start_at", found["start_at"]) != found["start_at"]:
        columns["previous_start_time"] = found["start_time"]
    update(connection, "events", found["id"], **columns)
    participants = event.items("participants")
    if participants is not None:
        _replace(database, connection, found["id"], participants)


def _columns(event: Given, time_zone: str | None) -> dict[str, object]:
    columns: dict[str, object] = {name: event.text(name) for name in _TEXTS if name in event}
    time_zone = event.text("time_zone") or time_zone
    for name in ("start_time", "end_time"):
        if name in event:
            at = moment(event.text(name), event.label(name), time_zone)
            columns[name] = at.isoformat()
            if name == "start_time":
                columns["start_at"] = at.timestamp()
    if "all_day" in event:
        columns["all_day"] = int(bool(event.flag("all_day")))
    if "show_as" in event:
        columns["show_as"] = event.id("show_as")
    if "custom_data" in event:
        columns["custom_data"] = as_json(event.mapping("custom_data"))
    return columns


def _calendar(database: Database, connection: sqlite3.Connection, event: Given, *, may_create: bool) -> int:
    calendar_id, name = event.id("calendar_id"), event.text("calendar")
    if calendar_id is not None:
        if not database.rows("SELECT 1 FROM calendars WHERE id = ?", [calendar_id]):
            raise refusal(f"{event.label('calendar_id')}: there is no calendar {calendar_id}.")
        return calendar_id
    if not name:
        raise refusal(f"{event.label('calendar')} or calendar_id is required.")
    rows = database.rows("SELECT id FROM calendars WHERE name = ?", [name])
    if rows:
        return int(rows[0]["id"])
    if not may_create:
        raise refusal(
            f"{event.label('calendar')}: there is no calendar {name!r}, and prevent_calendar_creation is set."
        )
    return insert(connection, "calendars", name=name)


def _person(database: Database, participant: Given) -> dict[str, object]:
    """Return the columns of a participant. What is missing comes from the contact (ASSUMED)."""
    contact = contact_by(database, participant.id("contact_id"), participant.text("contact_external_id"))
    phone = participant.text("phone") or (contact or {}).get("phone") or ""
    return {
        "name": participant.text("name") or (contact or {}).get("name") or "",
        "phone": phone,
        "normalized_phone": normalized(phone),
        "email": participant.text("email") or (contact or {}).get("email") or "",
        "contact_id": (contact or {}).get("id"),
    }


def _replace(database: Database, connection: sqlite3.Connection, event_id: int, participants: list[Given]) -> None:
    """Replace the participants of an event.

    Who stays is told by ``id``, phone number or address (ASSUMED). Who already got a message stays (DOCUMENTED).
    """
    old = database.rows("SELECT * FROM participants WHERE event_id = ? ORDER BY id", [event_id])
    kept = {row["id"] for row in database.rows("SELECT DISTINCT participant_id AS id FROM messages", [])}
    left = list(old)
    for participant in participants:
        person = _person(database, participant)
        same = next(
            (
                row
                for row in left
                if row["id"] == participant.id("id")
                or (person["normalized_phone"] and row["normalized_phone"] == person["normalized_phone"])
                or (person["email"] and row["email"] == person["email"])
            ),
            None,
        )
        if same is None:
            insert(connection, "participants", event_id=event_id, **person)
        else:
            left.remove(same)
            update(connection, "participants", same["id"], **person)
    for row in left:
        if row["id"] not in kept:
            connection.execute("DELETE FROM participants WHERE id = ?", [row["id"]]).close()
