"""The hours in which messages may be sent, and the time zone in which they count. Does not import Airflow."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

from airflow_provider_apptoto.client.errors import ApptotoConfigurationError
from airflow_provider_apptoto.privacy import printable

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_DAY_MINUTES = 24 * 60
_EXAMPLE = "for example Mon-Fri 09:00-18:00, Sat 10:00-14:00"
_ENTRY = re.compile(r"([^0-9]*)(.*)", re.DOTALL)
_HOURS = re.compile(r"([0-9]{2}:[0-9]{2})\s*-\s*([0-9]{2}:[0-9]{2})")
_MAX_SHOWN = 40
"""Characters of a wrong value that an error quotes."""
_STEP = timedelta(days=1)
"""Less than the time between two changes of a zone's offset: a week or more, in all zones of the tz database."""

_ZONE_EXAMPLE = "the name of a time zone in the tz database, such as America/New_York or UTC"
_ZONE = re.compile(r"[A-Za-z]+[A-Za-z0-9+-]*(?:/[A-Za-z0-9_+-]+){0,2}")
_MAX_ZONE = 40
_FOREIGN = frozenset({"localtime", "posix", "posixrules", "right", "factory"})
"""Names that depend on the machine, count leap seconds or stand for no place."""
_ABBREVIATIONS = {
    **dict.fromkeys(("EST", "EDT", "ET"), "America/New_York"),
    **dict.fromkeys(("CST", "CDT", "CT"), "America/Chicago"),
    **dict.fromkeys(("MST", "MDT", "MT"), "America/Denver, or America/Phoenix for most of Arizona"),
    **dict.fromkeys(("PST", "PDT", "PT"), "America/Los_Angeles"),
    **dict.fromkeys(("AKST", "AKDT"), "America/Anchorage"),
    "HST": "Pacific/Honolulu",
}
"""What an abbreviation usually means in the USA. The tz database has some of them, but without daylight saving time."""


@dataclass(frozen=True, slots=True)
class SendWindow:
    """The days and hours in which messages may be sent. Make it with :meth:`parse`.

    :param spans: for each day of the week from Monday, its spans in order: first minute of the day, and the minute
        after the last.
    """

    spans: tuple[tuple[tuple[int, int], ...], ...]

    @classmethod
    def parse(cls, text: object) -> SendWindow:
        """Return the window that a text describes.

        :param text: entries separated by commas. Each is a day or a range of days, then hours:
            ``Mon-Fri 09:00-18:00, Sat 10:00-14:00``. An entry without days is for every day.
        :raises ApptotoConfigurationError: the text is not such a list.
        """
        if not isinstance(text, str):
            raise _wrong(f"must be a string, not {type(text).__name__}; write days and hours, {_EXAMPLE}")
        if not text.strip():
            raise _wrong(f'is blank; write days and hours, {_EXAMPLE}, or "off" for no window')
        days: list[list[tuple[int, int]]] = [[] for _ in _DAYS]
        for entry in text.split(","):
            for day, start, end in _spans_of(entry.strip()):
                days[day].append((start, end))
        return cls(tuple(_merged(spans) for spans in days))

    def is_open(self, moment: datetime, zone: ZoneInfo) -> bool:
        """Return whether messages may be sent at a moment.

        :param moment: with a time zone.
        :param zone: the zone in which the window's days and hours count.
        """
        return self._has(_utc(moment).astimezone(zone))

    def next_opening(self, moment: datetime, zone: ZoneInfo) -> datetime:
        """Return the first moment from the given one on at which messages may be sent, in UTC.

        :param moment: with a time zone; returned if messages may be sent then.
        :param zone: the zone in which the window's days and hours count.
        """
        moment = _utc(moment)
        if self._has(local := moment.astimezone(zone)):
            return moment
        while True:
            offset = local.utcoffset() or timedelta(0)
            until, after = moment + _STEP, (moment + _STEP).astimezone(zone)
            if after.utcoffset() != offset:
                until = _change(moment, zone)
                after = until.astimezone(zone)
            # The offset does not change before `until`, so wall times convert with this one.
            opening = self._next_start(moment + offset) - offset
            if opening < until:
                return opening
            if self._has(after):
                return until
            moment, local = until, after

    def _has(self, local: datetime) -> bool:
        minute = local.hour * 60 + local.minute
        return any(start <= minute < end for start, end in self.spans[local.weekday()])

    def _next_start(self, wall: datetime) -> datetime:
        """Return the wall time at which the next span starts: of this day or the next, else the end of the next."""
        midnight = wall.replace(hour=0, minute=0, second=0, microsecond=0)
        minute = wall.hour * 60 + wall.minute
        starts = [start for start, _ in self.spans[wall.weekday()] if start > minute]
        starts += [_DAY_MINUTES + start for start, _ in self.spans[(wall.weekday() + 1) % len(_DAYS)]]
        return midnight + timedelta(minutes=starts[0] if starts else 2 * _DAY_MINUTES)

    def __str__(self) -> str:
        """Return the window in the form that :meth:`parse` reads, each set of hours once."""
        if len(set(self.spans)) == 1:
            return ", ".join(map(_hours, self.spans[0]))
        entries, first = [], 0
        for day in range(len(_DAYS)):
            if day + 1 < len(_DAYS) and self.spans[day + 1] == self.spans[first]:
                continue
            entries += [f"{_range(first, day)} {_hours(span)}" for span in self.spans[first]]
            first = day + 1
        return ", ".join(entries)


def zone_named(name: object, field: str) -> ZoneInfo:
    """Return a time zone by its name in the tz database.

    :param field: name of the setting or column in the error.
    :raises ApptotoConfigurationError: there is no such zone. The error quotes only a value that begins like a zone,
        because a wrong column may hold personal data.
    """
    if not isinstance(name, str):
        raise ApptotoConfigurationError(field, f"must be {_ZONE_EXAMPLE}, not {type(name).__name__}")
    name = name.strip()
    if not name:
        raise ApptotoConfigurationError(field, f"is blank; set it to {_ZONE_EXAMPLE}")
    if meant := _ABBREVIATIONS.get(name.upper()):
        msg = f"{name} does not say whether daylight saving time applies; use the name of a place: {meant}"
        raise ApptotoConfigurationError(field, msg)
    if (zone := _zone(name)) is None:
        raise ApptotoConfigurationError(field, _unknown(name))
    return zone


def zone_of_number(number: str) -> ZoneInfo | None:
    """Return the time zone of a phone number, or ``None`` if it may be in several or is not known.

    It is the zone where the number was issued. Its owner may have moved.

    :param number: as E.164.
    """
    import phonenumbers
    from phonenumbers import timezone

    try:
        parsed = phonenumbers.parse(number)
    except phonenumbers.NumberParseException:
        return None
    zones = timezone.time_zones_for_number(parsed)
    return _zone(zones[0]) if len(zones) == 1 and zones[0] != timezone.UNKNOWN_TIMEZONE else None


def _wrong(problem: str) -> ApptotoConfigurationError:
    return ApptotoConfigurationError("send_window", problem)


def _shown(text: str) -> str:
    text = printable(text)
    return repr(text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 1]}…")


def _spans_of(entry: str) -> list[tuple[int, int, int]]:
    """Return day, first minute and end of each span of an entry."""
    if not entry:
        raise _wrong(f"has an empty entry; remove the extra comma, {_EXAMPLE}")
    days_text, hours_text = (part.strip() for part in _ENTRY.fullmatch(entry).groups())  # type: ignore[union-attr]
    days = _days(days_text)
    if not hours_text:
        raise _wrong(f"{_shown(entry)} has no hours; write them after each day or range of days, {_EXAMPLE}")
    if not (match := _HOURS.fullmatch(hours_text)):
        raise _wrong(f"{_shown(hours_text)} must be hours such as 09:00-18:00: two digits each, 24 hours a day")
    start, end = (_minute(text, is_end=is_end) for text, is_end in zip(match.groups(), (False, True), strict=True))
    if start == end:
        raise _wrong(f"{_shown(entry)} is never open; hours end after they start. The whole day is 00:00-24:00")
    if start > end:
        raise _wrong(f"{_shown(entry)} crosses midnight; write {_split(days, start, end)}")
    return [(day, start, end) for day in days]


def _days(text: str) -> list[int]:
    """Return the days of an entry, in order from the first; every day if it names none."""
    if not text:
        return list(range(len(_DAYS)))
    first, dash, last = (part.strip().capitalize() for part in text.partition("-"))
    for name, is_needed in ((first, True), (last, bool(dash))):
        if is_needed and name not in _DAYS:
            raise _wrong(f"{_shown(text)} must be a day or a range such as Mon-Fri; days are {', '.join(_DAYS)}")
    start = _DAYS.index(first)
    length = (_DAYS.index(last) - start) % len(_DAYS) + 1 if dash else 1
    return [(start + count) % len(_DAYS) for count in range(length)]


def _minute(text: str, *, is_end: bool) -> int:
    hour, minute = int(text[:2]), int(text[3:])
    if minute > 59 or hour * 60 + minute > (_DAY_MINUTES if is_end else _DAY_MINUTES - 1):  # noqa: PLR2004
        raise _wrong(f"{text} is not a valid {'end; use 00:01 to 24:00' if is_end else 'start; use 00:00 to 23:59'}")
    return hour * 60 + minute


def _split(days: list[int], start: int, end: int) -> str:
    """Return the entries that mean the same as hours which cross midnight."""
    following = [(day + 1) % len(_DAYS) for day in days]
    parts = [(days, (start, _DAY_MINUTES)), *([(following, (0, end))] if end else [])]
    every_day = len(days) == len(_DAYS)
    texts = [_hours(span) if every_day else f"{_range(of[0], of[-1])} {_hours(span)}" for of, span in parts]
    return ", ".join(texts)


def _merged(spans: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return tuple(merged)


def _range(first: int, last: int) -> str:
    return _DAYS[first] if first == last else f"{_DAYS[first]}-{_DAYS[last]}"


def _hours(span: tuple[int, int]) -> str:
    return "-".join(f"{minute // 60:02}:{minute % 60:02}" for minute in span)


def _utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        msg = "moment must have a time zone"
        raise ValueError(msg)
    utc = moment.astimezone(UTC)  # also of a moment in the zone itself, whose wall time may not exist
    # Airflow's times are pendulum's, which can't be compared with stdlib times without a zone
    return datetime.combine(utc.date(), utc.time(), UTC)


def _change(moment: datetime, zone: ZoneInfo) -> datetime:
    """Return the moment at which the offset of a zone changes, within a step; zones change at whole seconds."""
    moment = moment.replace(microsecond=0)
    offset = moment.astimezone(zone).utcoffset()
    before, after = 0, int(_STEP.total_seconds()) + 1
    while after - before > 1:
        middle = (before + after) // 2
        if (moment + timedelta(seconds=middle)).astimezone(zone).utcoffset() == offset:
            before = middle
        else:
            after = middle
    return moment + timedelta(seconds=after)


@lru_cache(maxsize=1024)
def _zone(name: str) -> ZoneInfo | None:
    if len(name) > _MAX_ZONE or not _ZONE.fullmatch(name) or name.partition("/")[0].lower() in _FOREIGN:
        return None
    try:
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError):  # unknown, a folder, or a file that is no zone
        return None


@lru_cache(maxsize=1)  # it reads folders
def _zones() -> dict[str, str]:
    return {name.casefold(): name for name in available_timezones() if "/" in name}


def _unknown(name: str) -> str:
    """Return what is wrong with a name, and a similar name if there is one."""
    import difflib

    near: list[str] = []
    shown = "is not a time zone"
    if len(name) <= _MAX_ZONE:
        if _ZONE.fullmatch(name) and name.partition("/")[0] in _regions():
            shown = f"{name!r} is not a time zone"
        near = difflib.get_close_matches(name.replace(" ", "_").casefold(), list(_zones()), n=1, cutoff=0.85)
    return f"{shown}; did you mean {_zones()[near[0]]}?" if near else f"{shown}; use {_ZONE_EXAMPLE}"


def _regions() -> set[str]:
    return {name.partition("/")[0] for name in _zones().values()}
