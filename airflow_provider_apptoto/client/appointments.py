"""Events, participants and their conversations as Apptoto shows them.

Sources: apidocs.apptoto.com/reference/v1events and /reference/v1event for events and participants. The objects of a
conversation are documented nowhere; their keys were observed in a public client of the real service
(github.com/UOSAN/message_automation, src/apptoto.py and src/event_generator.py).

Reading is tolerant: unknown keys are ignored, a missing or malformed value is ``None`` (a text: blank), and what has no
id is left out. Ids may be numbers or strings. The ``repr`` of each class shows ids only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

Id = int | str
"""An id as Apptoto returns it. A string of digits is read as the integer, so that ids can be compared."""

STATES = (
    "initial",
    "accepted",
    "declined",
    "reminded",
    "confirmed",
    "not_coming",
    "not_coming_needs_reschedule",
    "not_coming_no_reschedule",
)
"""The documented states of a participant (apidocs.apptoto.com/reference/v1event)."""

_MILLISECONDS = 100_000_000_000
"""Numbers of at least this are times in milliseconds; in seconds, this is the year 5138."""
_SPACED_OFFSET = re.compile(r"\s+(?=[+-]\d\d:?\d\d$|Z$|UTC$)")


@dataclass(frozen=True, slots=True, repr=False)
class ConversationMessage:
    """One message of a participant's conversation. All fields are observed, not documented.

    :param id: id of the message, if it has one.
    :param at: when it was sent or received, with the offset that Apptoto gave; ``None`` if it can't be read.
    :param event_type: ``sent`` or ``replied``; other values may exist.
    :param content: the text.
    :param delivery_state: state of the delivery, as text.
    :param delivery_failed: whether the delivery failed after Apptoto sent the message.
    :param send_failed: whether Apptoto could not send the message.
    """

    id: Id | None
    at: datetime | None
    event_type: str
    content: str
    delivery_state: str
    delivery_failed: bool
    send_failed: bool

    @classmethod
    def read(cls, found: Mapping[str, Any]) -> Self:
        """Return the message that a JSON object describes."""
        return cls(
            id=read_id(found.get("id")),
            at=read_time(found.get("at")),
            event_type=_text(found.get("event_type")),
            content=_text(found.get("content")),
            delivery_state=_text(found.get("delivery_state")),
            delivery_failed=_flag(found.get("delivery_failed")),
            send_failed=_flag(found.get("send_failed")),
        )

    @property
    def is_reply(self) -> bool:
        """Whether the participant wrote it."""
        return "replied" in self.event_type

    @property
    def is_sent(self) -> bool:
        """Whether it was sent to the participant."""
        return not self.is_reply and "sent" in self.event_type

    @property
    def is_undelivered(self) -> bool:
        """Whether it did not reach the participant."""
        return self.delivery_failed or self.send_failed

    def __repr__(self) -> str:
        """Show no text."""
        return f"<ConversationMessage {self.id} {self.event_type}>"


@dataclass(frozen=True, slots=True, repr=False)
class Participant:
    """One participant of an event.

    :param id: id of the participant.
    :param state: one of ``STATES``; other values may exist.
    :param phone: number as it was entered.
    :param normalized_phone: number with ``+`` and country code.
    :param messages: the conversations, in the order of Apptoto's answer; ``None`` if the answer had none, which is
        the case unless ``include_conversations`` was set.
    """

    id: Id
    state: str
    name: str = ""
    email: str = ""
    phone: str = ""
    normalized_phone: str = ""
    messages: tuple[ConversationMessage, ...] | None = None

    @classmethod
    def read(cls, found: Mapping[str, Any]) -> Self | None:
        """Return the participant that a JSON object describes; ``None`` if it has no id."""
        own = read_id(found.get("id"))
        if own is None:
            return None
        return cls(
            id=own,
            state=_text(found.get("state")),
            name=_text(found.get("name")),
            email=_text(found.get("email")),
            phone=_text(found.get("phone")),
            normalized_phone=_text(found.get("normalized_phone")),
            messages=_messages(found.get("conversations")),
        )

    @property
    def channels(self) -> tuple[str, ...]:
        """The types of messages that the participant can get, as far as the event has a number or an address."""
        by_phone = ("sms", "call") if self.normalized_phone or self.phone else ()
        return (*by_phone, "email") if self.email else by_phone

    def __repr__(self) -> str:
        """Show no name, number or address."""
        return f"<Participant {self.id} {self.state}>"


@dataclass(frozen=True, slots=True, repr=False)
class Event:
    """One event of a calendar: an appointment.

    :param id: id of the event.
    :param calendar_id: id of its calendar.
    :param calendar_name: name of its calendar (observed, not documented).
    :param external_id: the id that the caller gave the event when it was created.
    :param start_time: with the offset that Apptoto gave; ``None`` if it is missing or has no offset.
    :param end_time: as ``start_time``.
    :param title: may begin with a status such as ``[CONFIRMED]`` if the account has that setting.
    :param is_deleted: whether the event was deleted.
    :param participants: in the order of Apptoto's answer; under a filter only those that match.
    :param is_complete: whether all participants could be read: they were a list, and each had an id.
    :param custom_data: the event's own fields.
    """

    id: Id
    calendar_id: Id | None = None
    calendar_name: str = ""
    external_id: str | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    title: str = ""
    location: str = ""
    content: str = ""
    is_deleted: bool = False
    participants: tuple[Participant, ...] = ()
    custom_data: Mapping[str, Any] = field(default_factory=dict)
    is_complete: bool = True

    @classmethod
    def read(cls, found: object) -> Self | None:
        """Return the event that a JSON value describes; ``None`` if it is not an object with an id."""
        if not isinstance(found, Mapping) or (own := read_id(found.get("id"))) is None:
            return None
        custom, external = found.get("custom_data"), found.get("external_id")
        listed = found.get("participants")
        participants = [person for each in _objects(listed) if (person := Participant.read(each)) is not None]
        return cls(
            id=own,
            calendar_id=read_id(found.get("calendar_id")),
            calendar_name=_text(found.get("calendar_name")),
            external_id=None if external is None or isinstance(external, Mapping | list) else str(external),
            start_time=read_time(found.get("start_time")),
            end_time=read_time(found.get("end_time")),
            title=_text(found.get("title")),
            location=_text(found.get("location")),
            content=_text(found.get("content")),
            is_deleted=_flag(found.get("is_deleted")),
            participants=tuple(participants),
            custom_data=custom if isinstance(custom, Mapping) else {},
            is_complete=isinstance(listed, list) and len(listed) == len(participants),
        )

    def __repr__(self) -> str:
        """Show ids only."""
        return f"<Event {self.id} with {len(self.participants)} participants>"


def read_id(value: object) -> Id | None:
    """Return an id; a string of digits becomes an integer. ``None`` if the value can't be an id."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int):
        return value
    text = value.strip() if isinstance(value, str) else ""
    if text.isascii() and text.isdigit() and len(text) <= 18:  # noqa: PLR2004  fits into 64 bits
        return int(text)
    return text or None


def read_time(value: object) -> datetime | None:
    """Return a time with its offset: ISO 8601, or seconds or milliseconds since 1970. ``None`` if it has no offset."""
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value / 1000 if abs(value) >= _MILLISECONDS else value, UTC)
        if not isinstance(value, str):
            return None
        found = datetime.fromisoformat(_SPACED_OFFSET.sub("", value.strip()).replace("UTC", "Z"))
    except (ValueError, OverflowError, OSError):
        return None
    return found if found.tzinfo is not None else None


def _messages(conversations: object) -> tuple[ConversationMessage, ...] | None:
    if not isinstance(conversations, list):
        return None
    lists = (_objects(each.get("messages")) for each in _objects(conversations))
    return tuple(ConversationMessage.read(message) for messages in lists for message in messages)


def _objects(value: object) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _flag(value: object) -> bool:
    """Return whether a value says yes. Only ``is_deleted`` is documented to be a boolean."""
    return value is True or value == 1 or (isinstance(value, str) and value.strip().lower() in {"true", "1", "yes"})
