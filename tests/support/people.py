"""The recipients: each person has one number, by which the server and the ledger identify them."""

from __future__ import annotations

from airflow_provider_apptoto.outbox.origin import Origin

_FIRST = 6505550000


def number_of(person: int) -> str:
    """Return a person's phone number."""
    return f"+1{_FIRST + person}"


def person_of(number: str) -> int:
    """Return the person with a number."""
    return int(number.removeprefix("+1")) - _FIRST


def origin_of(person: int, try_number: int) -> Origin:
    """Return the try of the mapped task that sends to a person."""
    return Origin(dag_id="chaos", task_id="send", run_id="run", map_index=person, try_number=try_number)
