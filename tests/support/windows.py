"""Sending windows around the present, and time zones in which they are open or closed."""

from __future__ import annotations

import datetime as dt

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
CLOSED_FOR_DAYS = "Etc/GMT-14"
"""The zone that is ahead of all others: what :func:`hours_from` describes is over there until next week."""


def closed_window() -> str:
    """Return a window that opens in two days (UTC)."""
    return f"{DAYS[(dt.datetime.now(dt.UTC) + dt.timedelta(days=2)).weekday()]} 00:00-24:00"


def next_minute(moment: dt.datetime) -> dt.datetime:
    """Return the first full minute after a moment; windows open at full minutes."""
    return moment.replace(second=0, microsecond=0) + dt.timedelta(minutes=1)


def zone_at(hour: int, moment: dt.datetime) -> str:
    """Return a zone in which a moment has this hour.

    :param moment: in UTC.
    """
    ahead = _ahead(hour, moment)  # POSIX signs are reversed: Etc/GMT+5 is UTC-5
    return "Etc/GMT" if ahead == 0 else f"Etc/GMT{-ahead:+d}"


def hours_from(hour: int, moment: dt.datetime) -> str:
    """Return the entry of a window that opens at a moment, for one to two hours, in the zone in which it has this hour.

    :param moment: in UTC.
    """
    local = moment + dt.timedelta(hours=_ahead(hour, moment))
    return f"{DAYS[local.weekday()]} {local:%H:%M}-{hour + 2:02}:00"


def _ahead(hour: int, moment: dt.datetime) -> int:
    """Return the offset from UTC in hours, from -12 to 11: all are well behind the zone that is ahead of all others."""
    return (hour - moment.hour + 12) % 24 - 12
