"""The recipients: one phone number for each person, who is a number from 0."""

from __future__ import annotations

_FIRST = 6505550000


def number_of(person: int) -> str:
    """Return the phone number of a person."""
    return f"+1{_FIRST + person}"


def person_of(number: str) -> int:
    """Return the person that a phone number belongs to."""
    return int(number.removeprefix("+1")) - _FIRST
