"""Fill the dynamic fields of a message, as far as Apptoto's manual shows them."""

from __future__ import annotations

import json
import re
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from airflow_provider_apptoto.sandbox.appointments.values import normalized, zone

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_missing: ContextVar[dict[str, None]] = ContextVar("missing")
INSTALL = "The sandbox needs python-liquid to fill dynamic fields: pip install 'airflow-provider-apptoto[sandbox]'"


class Moment(datetime):
    """A time that is shown as Liquid's original shows it: ``2013-11-15 10:00:00 -0800``."""

    def __str__(self) -> str:
        return self.strftime("%Y-%m-%d %H:%M:%S %z")


class FieldsError(Exception):
    """A text that can't be filled."""


def has_fields(text: str) -> bool:
    """Return whether a text contains Liquid."""
    return "{{" in text or "{%" in text


def filled(text: str, values: Mapping[str, object]) -> tuple[str, list[str]]:
    """Return a text with its dynamic fields filled, and the names of those that do not exist.

    They are blank, as Liquid does it.

    :raises FieldsError: the text is not valid, or python-liquid is missing.
    """
    if not has_fields(text):
        return text, []
    try:
        from liquid.exceptions import LiquidError
    except ModuleNotFoundError as error:
        raise FieldsError(INSTALL) from error
    missing: dict[str, None] = {}
    token = _missing.set(missing)
    try:
        return str(_environment().from_string(text).render(**values)), list(missing)
    except LiquidError as error:
        raise FieldsError(f"The dynamic fields are not valid: {error}") from error
    finally:
        _missing.reset(token)


def values_for(event: Any, participant: Any, contact: Mapping[str, Any] | None) -> dict[str, object]:
    """Return the roots of the fields.

    :param event: the event's row.
    :param participant: the participant's row.
    :param contact: the participant's contact.
    """
    person = {"name": participant["name"], "phone": participant["phone"], "email": participant["email"]}
    known = (
        {name: contact[name] for name in ("name", "first_name", "last_name", "phone", "email")} if contact else person
    )
    return {
        # ASSUMED: the participant's whole name.
        "name": participant["name"],
        "event": _event_fields(event),
        "participant": {**person, "normalized_phone": normalized(participant["phone"]), "custom": {}},
        "contact": {**known, "custom": contact["custom_data"] if contact else {}},
    }


def _event_fields(event: Any) -> dict[str, object]:
    own_zone = zone(event["time_zone"])

    def moment(text: str) -> Moment:
        at = datetime.fromisoformat(text)
        return _as_moment(at.astimezone(own_zone) if own_zone else at)

    start, end = moment(event["start_time"]), moment(event["end_time"])
    previous = event["previous_start_time"]
    return {
        "id": event["id"],
        **{name: event[name] for name in ("title", "location", "content")},
        **dict.fromkeys(("time", "start_time"), start),
        **{name: _time_phrase(start) for name in ("time_phrase", "start_time_phrase")},
        "time_hour": start.hour,
        "time_hhmm": start.hour * 100 + start.minute,
        "time_zone": start.strftime("%Z"),
        "date": f"{start.month}-{start.day}",
        "date_phrase": _date_full(start),
        "date_abbreviated_phrase": _date_short(start),
        "date_phrase_and_time": f"{_date_full(start)} at {start.strftime('%-I:%M')} {_half(start)}",
        "date_abbreviated_phrase_and_time": f"{_date_short(start)} at {_time_phrase(start)}",
        "date_with_year": start.strftime("%Y-%m-%d"),
        "day_and_time_phrase": f"{_day_phrase(start)} at {_time_phrase(start)}",
        "previous_start_time": moment(previous) if previous else None,
        "end_time": end,
        "end_time_phrase": _time_phrase(end),
        "custom": json.loads(event["custom_data"]),
    }


@cache
def _environment() -> Any:
    from liquid import Environment, Mode, Undefined

    class Blank(Undefined):
        """A field that does not exist, and is noted when a text shows it."""

        def __str__(self) -> str:
            # The hint has the whole path, the name its first part.
            path = (self.hint or self.name).removesuffix(" is undefined").strip("'")
            _missing.get()[path] = None
            return ""

    # Liquid's defaults: what is not known is left out.
    environment = Environment(tolerance=Mode.LAX, strict_filters=False, undefined=Blank)
    for name, shown in _FILTERS.items():
        environment.add_filter(name, _on_times(shown))
    environment.add_filter("date", _date)
    environment.add_filter("add_minutes", _add_minutes)
    return environment


def _on_times(shown: Callable[[Moment], str]) -> Callable[[object], object]:
    def apply(value: object) -> object:
        at = _read(value)
        return value if at is None else shown(at)

    return apply


def _date(value: object, pattern: object = None) -> object:
    at = _read(value)
    if at is None or not pattern:
        return value
    try:
        return at.strftime(str(pattern))
    except ValueError:
        return value


def _add_minutes(value: object, minutes: object = 0) -> object:
    at = _read(value)
    try:
        return value if at is None else at + timedelta(minutes=float(str(minutes)))
    except (OverflowError, ValueError):
        return value


def _read(value: object) -> Moment | None:
    """Return a time out of a field or a text."""
    if isinstance(value, Moment):
        return value
    if isinstance(value, datetime):
        return _as_moment(value)
    text = str(value).strip()
    if text in ("now", "today"):
        return _as_moment(datetime.now(UTC))
    try:
        return _as_moment(datetime.fromisoformat(re.sub(r" (?=[+-]\d{4}$)", "", text)))
    except ValueError:
        return None


def _as_moment(at: datetime) -> Moment:
    return Moment.combine(at.date(), at.timetz())


def _half(at: datetime) -> str:
    return "am" if at.hour < 12 else "pm"  # noqa: PLR2004  noon


def _time_phrase(at: datetime) -> str:
    return f"{at.strftime('%-I:%M')}{_half(at)}"


def _ordinal(day: int) -> str:
    last = "th" if day in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
    return f"{day}{last}"


def _date_full(at: datetime) -> str:
    return f"{at.strftime('%A, %B')} {_ordinal(at.day)}"


def _date_short(at: datetime) -> str:
    return f"{at.strftime('%a, %b')} {_ordinal(at.day)}"


def _day_phrase(at: datetime) -> str:
    today = datetime.now(at.tzinfo).date()
    return {today: "today", today + timedelta(days=1): "tomorrow"}.get(at.date(), f"on {_date_full(at)}")


# The results that the manual shows are "2:00 PM", "6/21", "6/21/1977", "Tuesday, October 15th" and
# "Tuesday, October 15th at 2:00pm". Those of the last two are ASSUMED.
_FILTERS: dict[str, Callable[[Moment], str]] = {
    "time": lambda at: at.strftime("%-I:%M %p"),
    "date_phrase": lambda at: f"{at.month}/{at.day}",
    "date_with_year": lambda at: f"{at.month}/{at.day}/{at.year}",
    "date_full": _date_full,
    "date_and_time_full": lambda at: f"{_date_full(at)} at {_time_phrase(at)}",
    "day_with_date": lambda at: f"{at.strftime('%A')} the {_ordinal(at.day)}",
    "date_and_time_phrase": lambda at: f"{at.month}/{at.day} at {_time_phrase(at)}",
}
