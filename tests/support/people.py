"""The recipients: each person has one number, by which the server and the ledger identify them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_apptoto.outbox.origin import Origin

if TYPE_CHECKING:
    from collections.abc import Mapping

_FIRST = 6505550000


def number_of(person: int) -> str:
    """Return a person's phone number."""
    return f"+1{_FIRST + person}"


def person_of(number: str) -> int:
    """Return the person with a number."""
    return int(number.removeprefix("+1")) - _FIRST


def target_of(person: int) -> dict[str, int]:
    """Return the appointment of a person."""
    return {"event_id": person + 1, "participant_id": person + 1}


def recipient_of(message: Mapping[str, Any]) -> int:
    """Return the person who gets a message, to a number or about an appointment."""
    return person_of(message["to"]) if "to" in message else int(message["participant_id"]) - 1


def origin_of(person: int, try_number: int) -> Origin:
    """Return the try of the mapped task that sends to a person."""
    return Origin(dag_id="chaos", task_id="send", run_id="run", map_index=person, try_number=try_number)
