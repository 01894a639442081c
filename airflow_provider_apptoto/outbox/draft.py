"""A message and what the sender says about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_apptoto.client.messages import check_id
from airflow_provider_apptoto.outbox.guards import moment_of, zone_or_none
from airflow_provider_apptoto.outbox.policy import checked_labels, checked_reference

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from zoneinfo import ZoneInfo

    from airflow_provider_apptoto.client import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A message that is about to be sent.

    :param item: identifies the message within the occasion.
    :param reference: the user's own id.
    :param labels: for grouping in reports.
    :param timezone: time zone of the recipient, if the sender gave one.
    :param not_after: latest time to send it.
    :param event_id: the event of a message to a participant, if the sender gave it.
    :param start_time: when that event starts, if the sender gave it.
    """

    message: Message
    item: str | None
    reference: str | None
    labels: Mapping[str, str] | None
    timezone: ZoneInfo | None = None
    not_after: datetime | None = None
    event_id: int | None = None
    start_time: datetime | None = None


def draft_of(message: Message, event_id: int | None, given: Mapping[str, Any]) -> Draft:
    """Return a draft of a message with what the sender says about it.

    :param event_id: the event that was given with a participant.
    :param given: the arguments of :meth:`.Outbox.send`.
    :raises ApptotoError: an argument is invalid.
    """
    return Draft(
        message=message,
        item=given["item"],
        reference=checked_reference(given["reference"]),
        labels=checked_labels(given["labels"]),
        timezone=zone_or_none(given["timezone"]),
        not_after=moment_of(given["not_after"], "not_after"),
        event_id=given["of_event"] if event_id is None else event_id,
        start_time=given["start_time"],
    )


def take_event(fields: Mapping[str, Any]) -> tuple[dict[str, Any], int | None]:
    """Split the fields of a message to a participant of a given event into those of the message, and the event's id.

    Apptoto takes exactly one recipient. The id of the event serves ``only_if_state`` and the search in conversations.

    :raises ApptotoValidationError: the id of the event is invalid.
    """
    event_id = fields.get("event_id")
    if event_id is None or fields.get("participant_id") is None:
        return dict(fields), None
    return {**fields, "event_id": None}, check_id("event_id", event_id)
