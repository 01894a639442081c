"""Turn a message to an event or a participant into the copies that people get."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from airflow_provider_apptoto.sandbox.appointments.contacts import contact_by
from airflow_provider_apptoto.sandbox.appointments.fields import FieldsError, filled, values_for
from airflow_provider_apptoto.sandbox.appointments.values import normalized, not_found, refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_apptoto.sandbox.appointments.answers import Conversations
    from airflow_provider_apptoto.sandbox.appointments.database import Database
    from airflow_provider_apptoto.sandbox.appointments.store import Appointments
    from airflow_provider_apptoto.sandbox.inbox import Value

_TEXTS = ("message", "subject")


@dataclass(frozen=True)
class Copy:
    """What one person gets.

    :param fields: the endpoint's fields, with this person's number or address as ``to`` and the fields filled.
    :param error: why the person does not get it.
    :param participant: the participant's row; None for a message to a number or an address.
    :param warning: what is wrong with the message, although the person gets it.
    """

    fields: Mapping[str, Value]
    error: str | None = None
    participant: Any = None
    warning: str | None = None


def copies_of(appointments: Appointments, message: Mapping[str, Value]) -> list[Copy]:
    """Return the copies of a message, at least one.

    Without any appointment, every event and participant exists, and the message stays as it is.

    :param message: the fields of a valid request.
    :raises HTTPException: Apptoto would refuse it (ASSUMED): there is no such event or participant, or the text can't
        be filled.
    """
    database, conversations = appointments.database, appointments.conversations
    conversations.settle()
    if not database.rows("SELECT 1 FROM events LIMIT 1"):
        return [_plain(conversations, message)]
    people = _participants(database, message)
    copies = [copy for person in people if (copy := _copy(appointments, message, person)) is not None]
    if message.get("to") is not None:
        copies.append(_plain(conversations, message))
    if not copies:
        what = "e-mail address" if message["type"] == "email" else "phone number"
        return [Copy(message, error=f"Not delivered: the recipient has no {what}.")]
    return copies


def record(appointments: Appointments, copies: list[Copy]) -> None:
    """Store copies that were sent in the conversations of their participants."""
    for copy in copies:
        if copy.participant is not None:
            names = ("message", "template_id")
            text = next(str(copy.fields[name]) for name in names if copy.fields.get(name) is not None)
            appointments.conversations.record_sent(copy.participant, str(copy.fields["type"]), text, copy.error)


def _participants(database: Database, message: Mapping[str, Value]) -> list[Any]:
    found: dict[int, Any] = {}
    for name, what, column in (("participant_id", "participant", "id"), ("event_id", "event", "event_id")):
        value = message.get(name)
        if value is None:
            continue
        known = "participants" if name == "participant_id" else "events"
        if not database.rows(f"SELECT 1 FROM {known} WHERE id = ?", [int(value)]):  # noqa: S608  fixed names
            raise not_found(f"{what} {value}")
        rows = database.rows(f"SELECT * FROM participants WHERE {column} = ? ORDER BY id", [int(value)])  # noqa: S608
        found |= {row["id"]: row for row in rows}
    return list(found.values())


def _copy(appointments: Appointments, message: Mapping[str, Value], participant: Any) -> Copy | None:
    database = appointments.database
    channel = str(message["type"])
    address = participant["email"] if channel == "email" else participant["normalized_phone"] or participant["phone"]
    if not address:
        return None
    [event] = database.rows("SELECT * FROM events WHERE id = ?", [participant["event_id"]])
    contact = contact_by(database, participant["contact_id"], None, participant["normalized_phone"])
    values = values_for(event, participant, contact)
    texts: dict[str, Value] = {}
    missing: list[str] = []
    try:
        for name in _TEXTS:
            if (text := message.get(name)) is not None:
                texts[name], unknown = filled(str(text), values)
                missing += unknown
    except FieldsError as error:
        raise refusal(str(error)) from error
    obstacle = appointments.conversations.obstacle(channel, address, participant["normalized_phone"])
    if obstacle.is_refused:
        raise refusal(obstacle.error or "", HTTPStatus.UNPROCESSABLE_ENTITY)
    return Copy(
        {
            **message,
            **texts,
            "to": address,
            "event_id": participant["event_id"],
            "participant_id": participant["id"],
            "recipient_name": participant["name"],
            "unfilled": message.get("message") if texts.get("message") != message.get("message") else None,
        },
        obstacle.error,
        participant,
        f"The text has gaps, because these fields do not exist: {', '.join(missing)}." if missing else None,
    )


def _plain(conversations: Conversations, message: Mapping[str, Value]) -> Copy:
    """Return the copy for a number or an address: nothing is filled in (ASSUMED)."""
    to = message.get("to")
    if to is None:
        return Copy(message)
    phone = None if message["type"] == "email" else normalized(str(to))
    obstacle = conversations.obstacle(str(message["type"]), phone or str(to), phone)
    if obstacle.is_refused:
        raise refusal(obstacle.error or "", HTTPStatus.UNPROCESSABLE_ENTITY)
    return Copy(message, obstacle.error)
