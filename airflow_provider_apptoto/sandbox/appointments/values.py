"""Read phone numbers, times and JSON fields as the API takes them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from http import HTTPStatus
from typing import Any
from zoneinfo import ZoneInfo

import phonenumbers
from starlette.exceptions import HTTPException

#: Country of numbers without ``+``: "normalised with the user's default country" (page of GET /v1/events).
COUNTRY = "US"
MAX_ID = 10**18 - 1


def refusal(text: str, status: int = HTTPStatus.BAD_REQUEST) -> HTTPException:
    """Return the error of a request that is refused."""
    return HTTPException(status, text)


def not_found(what: str) -> HTTPException:
    """Return the error of a request for something that is not there (ASSUMED)."""
    return refusal(f"There is no {what}.", HTTPStatus.NOT_FOUND)


@lru_cache(maxsize=10_000)
def normalized(phone: str) -> str | None:
    """Return a phone number in E.164, or None if it is none."""
    try:
        number = phonenumbers.parse(phone, COUNTRY)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_possible_number(number):
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def zone(name: str | None) -> ZoneInfo | None:
    """Return a time zone, or None if there is none of this name."""
    try:
        return ZoneInfo(name) if name else None
    except (KeyError, OSError, ValueError):
        return None


def moment(text: object, name: str, time_zone: str | None = None) -> datetime:
    """Return a time with its offset.

    :param text: ISO 8601. Without an offset it is taken in ``time_zone``, or in UTC.
    :param name: the field, for the error.
    :raises HTTPException: it is no time.
    """
    try:
        parsed = datetime.fromisoformat(str(text).strip())
        parsed = parsed if parsed.tzinfo else parsed.replace(tzinfo=zone(time_zone) or UTC)
        parsed.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise refusal(f"{name} must be an ISO 8601 time.") from error
    return parsed


def iso(seconds: float) -> str:
    """Return the time of a message, from seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def now() -> float:
    """Return the seconds since 1970."""
    return datetime.now(UTC).timestamp()


class Given:
    """The fields of a JSON object that were given: null counts as not given.

    :param body: the object.
    :param place: names the object in errors, such as ``events[0]``; blank for parameters.
    """

    def __init__(self, body: object, place: str = "") -> None:
        if not isinstance(body, Mapping):
            raise refusal(f"{place or 'The body'} must be a JSON object.")
        self.fields = {str(name): value for name, value in body.items() if value is not None}
        self._place = f"{place}." if place else ""

    def __contains__(self, name: str) -> bool:
        return name in self.fields

    def label(self, name: str) -> str:
        """Return the name of a field, for an error."""
        return self._place + name

    def text(self, name: str) -> str | None:
        """Return a string. A number is taken too, because ids may be either."""
        value = self.fields.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise refusal(f"{self.label(name)} must be a string.")
        return str(value)

    def id(self, name: str) -> int | None:
        """Return an id: an integer, or a string of digits."""
        text = self.text(name)
        if text is None or not text.strip():
            return None
        if not text.isascii() or not text.isdecimal() or int(text[:20]) > MAX_ID:
            raise refusal(f"{self.label(name)} must be an integer.")
        return int(text)

    def flag(self, name: str) -> bool | None:
        """Return a boolean, or None."""
        value = self.fields.get(name)
        if value is None or isinstance(value, bool):
            return value
        # A parameter of a URL is text, and Python writes True.
        text = str(value).strip().lower()
        if text not in ("true", "false", "1", "0", ""):
            raise refusal(f"{self.label(name)} must be true or false.")
        return text in ("true", "1")

    def mapping(self, name: str) -> dict[str, Any] | None:
        """Return an object."""
        value = self.fields.get(name)
        if value is not None and not isinstance(value, Mapping):
            raise refusal(f"{self.label(name)} must be an object.")
        return None if value is None else dict(value)

    def items(self, name: str) -> list[Given] | None:
        """Return the objects of an array."""
        value = self.fields.get(name)
        if value is None:
            return None
        if not isinstance(value, list):
            raise refusal(f"{self.label(name)} must be an array.")
        return [Given(each, f"{self.label(name)}[{index}]") for index, each in enumerate(value)]

    def seconds(self, name: str, most: float) -> float:
        """Return a number of seconds; 0 if it is not given."""
        value = self.fields.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most or math.isnan(value):
            raise refusal(f"{self.label(name)} must be from 0 to {most:g} seconds.")
        return float(value)


def as_json(value: object) -> str:
    """Return JSON for a column."""
    return json.dumps(value, ensure_ascii=False)
