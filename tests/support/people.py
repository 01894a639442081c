"""The recipients: a number each, by which the server and the ledger mean the same person."""

from __future__ import annotations

from airflow_provider_apptoto.outbox.origin import Origin

_FIRST = 6505550000


def number_of(person: int) -> str:
    """Return a person's phone number."""
    return f"+1{_FIRST + person}"


def person_of(number: str) -> int:
    """Return whose number it is."""
    return int(number.removeprefix("+1")) - _FIRST


def origin_of(person: int, try_number: int) -> Origin:
    """Return the try of the mapped task that sends to a person."""
    return Origin(dag_id="chaos", task_id="send", run_id="run", map_index=person, try_number=try_number)
