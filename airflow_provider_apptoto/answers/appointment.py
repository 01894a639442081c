"""The appointments whose answers a task waits for, read from rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_apptoto.client.appointments import read_id, read_time
from airflow_provider_apptoto.client.errors import ApptotoConfigurationError, ApptotoValidationError
from airflow_provider_apptoto.privacy import AIRFLOW_MASK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_apptoto.client.appointments import Id

MAX_WITHOUT_START = 20
"""Most events without a start time: each takes a request of its own in every cycle."""
_KEPT = ("event_id", "participant_id", "start_time", "calendar_id", "external_id", "channels", "reference")
"""Columns of a row that an XCom may have; others could be personal."""
_SHOWN = frozenset({*_KEPT, "sent_at"})


@dataclass(frozen=True, slots=True)
class Appointment:
    """A participant of an event whose answer is awaited.

    :param participant_id: ``None``: the first participant of the event who answers.
    :param since: answers before this do not count (seconds since 1970, UTC).
    :param start_time: when the event starts; ``None`` if it is not known.
    :param row: the columns for the next batch.
    """

    event_id: Id
    participant_id: Id | None
    since: float
    start_time: datetime | None = None
    row: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def reference(self) -> str | None:
        """The user's own id: the column ``reference``, else ``external_id``."""
        given = (self.row.get("reference"), self.row.get("external_id"))
        return next((str(each) for each in given if each is not None), None)


@dataclass(frozen=True, slots=True)
class Window:
    """The start times between which all events are read.

    :param begin: ISO 8601 with a zone.
    :param end: ISO 8601 with a zone.
    """

    begin: str
    end: str


def without_personal(rows: object) -> Any:
    """Return rows without the columns that could be personal, for Airflow's page of rendered fields.

    :param rows: whatever the parameter was rendered to; :func:`appointments_of` tells if it is no list of rows.
    """
    if isinstance(rows, str | bytes):
        return AIRFLOW_MASK
    if isinstance(rows, Mapping):
        return {name: value for name, value in rows.items() if name in _SHOWN}
    if isinstance(rows, Iterable):
        return [without_personal(row) if isinstance(row, Mapping) else AIRFLOW_MASK for row in rows]
    return rows


def appointments_of(rows: object, since: datetime) -> list[Appointment]:
    """Return the appointments that rows describe, each participant once.

    :param rows: a list of mappings with ``event_id``, and perhaps ``participant_id``, ``start_time``, ``reference`` and
        ``sent_at``.
    :param since: earliest time of an answer, for rows without ``sent_at``.
    :raises ApptotoConfigurationError: it is no list, or many events have no start time.
    :raises ApptotoValidationError: a row is invalid.
    """
    if isinstance(rows, str | bytes | Mapping) or not isinstance(rows, Iterable):
        kind = "nothing" if rows is None else type(rows).__name__
        raise ApptotoConfigurationError("appointments", f"must be a list of rows with event_id, not {kind}")
    found: dict[tuple[Id, Id | None], Appointment] = {}
    for index, row in enumerate(rows):
        appointment = _appointment(index, row, since)
        key = appointment.event_id, appointment.participant_id
        if key not in found or appointment.since < found[key].since:
            found[key] = appointment
    without = {each.event_id for each in found.values() if each.start_time is None}
    if len(without) > MAX_WITHOUT_START:
        msg = (
            f"has {len(without)} events without start_time, which would take as many requests in every cycle. Add the "
            "column start_time (ISO 8601 with a zone), as ApptotoListEventsOperator does"
        )
        raise ApptotoConfigurationError("appointments", msg)
    return list(found.values())


def window_of(appointments: Sequence[Appointment], *, whole_days: bool) -> Window | None:
    """Return the window that holds all appointments with a start time; ``None`` if there are none.

    :param whole_days: whether to read whole days (UTC), so that many tasks share one window.
    """
    starts = [each.start_time for each in appointments if each.start_time is not None]
    if not starts:
        return None
    begin, end = min(starts), max(starts)
    if whole_days:
        begin = begin.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        end = end.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    return Window(begin.isoformat(), end.isoformat())


def events_without_start(appointments: Sequence[Appointment]) -> list[Id]:
    """Return the ids of events that are read one by one."""
    return list(dict.fromkeys(each.event_id for each in appointments if each.start_time is None))


def _appointment(index: int, row: object, since: datetime) -> Appointment:
    if not isinstance(row, Mapping):
        msg = f"row {index} is a {type(row).__name__}, not a mapping of columns"
        raise ApptotoValidationError("appointments", msg, code="row_invalid")
    event_id = read_id(row.get("event_id"))
    if event_id is None:
        msg = f"row {index} has no event_id; the answers are read from the event"
        raise ApptotoValidationError("event_id", msg, code="event_missing")
    sent_at = since
    if row.get("sent_at") is not None:
        read = row["sent_at"] if isinstance(row["sent_at"], datetime) else read_time(row["sent_at"])
        if read is None or read.tzinfo is None:
            msg = f"row {index} has a sent_at that is not a time with a zone"
            raise ApptotoValidationError("sent_at", msg, code="time_invalid")
        sent_at = read
    start = row.get("start_time")
    start_time = start if isinstance(start, datetime) and start.tzinfo is not None else read_time(start)
    # also what is None: a batch refuses a row without its reference_column
    kept = {name: row[name] for name in _KEPT if name in row}
    return Appointment(event_id, read_id(row.get("participant_id")), sent_at.timestamp(), start_time, kept)
