"""Appointments as the inbox page shows them: one entry for each participant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_apptoto.sandbox.appointments.reading import shown_message

if TYPE_CHECKING:
    from airflow_provider_apptoto.sandbox.appointments.database import Database

_ENTRIES = """
SELECT participants.id AS participant_id, event_id, participants.name, phone, email, state, normalized_phone,
    title, start_time, end_time, location, content, external_id, calendars.name AS calendar_name,
    (SELECT content FROM messages WHERE participant_id = participants.id AND event_type = 'replied'
        ORDER BY at DESC, messages.id DESC LIMIT 1) AS last_reply,
    (SELECT count(*) FROM messages WHERE participant_id = participants.id AND event_type = 'sent') AS sent,
    (SELECT count(*) FROM messages WHERE participant_id = participants.id AND (delivery_failed OR send_failed))
        AS failed
FROM participants JOIN events ON events.id = event_id JOIN calendars ON calendars.id = calendar_id
"""
_SEARCHED = ("participants.name", "phone", "participants.normalized_phone", "email", "title", "external_id", "event_id")


def entries(database: Database, *, state: str | None, text: str | None, limit: int) -> tuple[list[dict[str, Any]], int]:
    """Return the first participants by start time, and how many there are.

    :param state: only participants in this state.
    :param text: a part of name, number, address, title or id, in upper or lower case.
    :param limit: maximum number.
    """
    conditions = {"is_deleted = ?": 0}
    values: dict[str, object] = dict(conditions)
    if state:
        values["state = ?"] = state
    if text:
        values[f"instr(folded({', '.join((*_SEARCHED, 'participants.id'))}), ?)"] = text.casefold()
    where = " AND ".join(values)
    counted = f"SELECT count(*) FROM participants JOIN events ON events.id = event_id WHERE {where}"  # noqa: S608
    total = database.number(counted, list(values.values()))
    ordered = f"{_ENTRIES} WHERE {where} ORDER BY start_at, event_id, participants.id LIMIT ?"
    return [dict(row) for row in database.rows(ordered, [*values.values(), limit])], total


def entry(database: Database, participant_id: int) -> dict[str, Any] | None:
    """Return a participant with all messages of its conversations, and the channels it has opted out of."""
    rows = database.rows(f"{_ENTRIES} WHERE participants.id = ?", [participant_id])
    if not rows:
        return None
    messages = database.rows("SELECT * FROM messages WHERE participant_id = ? ORDER BY at, id", [participant_id])
    found = dict(rows[0])
    addresses = {found["normalized_phone"] or found["phone"], found["email"].casefold()} - {""}
    opt_outs = database.rows("SELECT * FROM opt_outs ORDER BY channel")
    return {
        **found,
        "messages": [{"channel": row["channel"], **shown_message(row)} for row in messages],
        "opted_out": [row["channel"] for row in opt_outs if row["address"] in addresses],
    }
