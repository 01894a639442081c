"""The appointments of a sandbox: add them, let their people answer, and read what was said."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException

from airflow_provider_apptoto.client.appointments import STATES
from airflow_provider_apptoto.sandbox.appointments.answers import Conversations
from airflow_provider_apptoto.sandbox.appointments.database import TABLES, Database, update
from airflow_provider_apptoto.sandbox.appointments.demo import clinic_day
from airflow_provider_apptoto.sandbox.appointments.overview import entries
from airflow_provider_apptoto.sandbox.appointments.reading import found_event
from airflow_provider_apptoto.sandbox.appointments.values import MAX_ID, Given
from airflow_provider_apptoto.sandbox.appointments.writing import delete_event, save_events
from airflow_provider_apptoto.sandbox.inbox import nothing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import date
    from pathlib import Path

#: Calendar of appointments that name none.
CALENDAR = "Sandbox"


@dataclass(frozen=True)
class Appointment:
    """The ids of an appointment that was added.

    :param event_id: id of the event.
    :param participant_ids: ids of its participants.
    """

    event_id: int
    participant_ids: tuple[int, ...]

    @property
    def participant_id(self) -> int:
        """Id of the first participant."""
        return self.participant_ids[0]


class Appointments:
    """The appointments of a sandbox. Safe to use from several threads.

    Methods that take a participant take its id, or an :class:`Appointment` for its first participant.

    :param path: an SQLite file, which may be that of the inbox; None keeps them in memory.
    :param changed: called after each change, from the thread that made it.
    :raises OSError: the file can't be used.
    """

    def __init__(self, path: str | Path | None = None, changed: Callable[[], None] = nothing) -> None:
        self.database = Database(path, changed)
        self.conversations = Conversations(self.database)

    def add(
        self,
        name: str = "",
        phone: str = "",
        email: str = "",
        *,
        start_time: datetime | str | None = None,
        minutes: float = 30,
        title: str = "Appointment",
        calendar: str = CALENDAR,
        participants: Sequence[Mapping[str, Any]] | None = None,
        **fields: Any,
    ) -> Appointment:
        """Add an appointment.

        :param name: name of the participant.
        :param phone: phone number of the participant.
        :param email: e-mail address of the participant.
        :param start_time: when it starts; None is this time tomorrow.
        :param minutes: how long it takes.
        :param title: title of the event.
        :param calendar: name of the calendar, which is created.
        :param participants: several participants, with ``name``, ``phone``, ``email``, instead of one.
        :param fields: other fields of ``POST /v1/events``, such as ``external_id``, ``location``, ``custom_data``.
        :raises ValueError: a field is not allowed.
        """
        start = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1) if start_time is None else start_time
        start = datetime.fromisoformat(start) if isinstance(start, str) else start
        people = [{"name": name, "phone": phone, "email": email}] if participants is None else list(participants)
        event = {
            "title": title,
            "calendar": calendar,
            "start_time": start.isoformat(),
            "end_time": (start + timedelta(minutes=minutes)).isoformat(),
            "participants": people,
            **fields,
        }
        [added] = self.add_events([event])
        return added

    def add_events(self, events: Sequence[Mapping[str, Any]]) -> list[Appointment]:
        """Add appointments as ``POST /v1/events`` takes them, many at once.

        :param events: the fields of each event.
        :raises ValueError: a field is not allowed; then none is added.
        """
        with _value_errors(), self.database.writing():
            ids = save_events(self.database, Given({"events": list(events)}), may_update=False)
            # All later ids are those of this call, because nobody else adds events meanwhile.
            first = ids[0] if ids else MAX_ID
            rows = self.database.rows("SELECT id, event_id FROM participants WHERE event_id >= ? ORDER BY id", [first])
        people: dict[int, list[int]] = {event_id: [] for event_id in ids}
        for row in rows:
            people[row["event_id"]].append(row["id"])
        return [Appointment(event_id, tuple(people[event_id])) for event_id in ids]

    def add_clinic_day(self, day: date | None = None) -> list[int]:
        """Add a clinic's day of 40 appointments, and return the ids of the events. A day is added only once.

        :param day: None is tomorrow, where the clinic is.
        """
        with self.database.writing() as connection:
            known = {row[0] for row in self.database.rows("SELECT external_id FROM events")}
            new = [event for event in clinic_day(day) if event["external_id"] not in known]
            ids = save_events(self.database, Given({"events": new}), may_update=False)
            for event_id, event in zip(ids, new, strict=True):
                for person in event["participants"]:
                    statement = "UPDATE participants SET state = ? WHERE event_id = ?"
                    connection.execute(statement, [person["state"], event_id]).close()
        return ids

    def event(self, event_id: int | Appointment) -> dict[str, Any]:
        """Return an event with its conversations, as ``GET /v1/event`` does.

        :raises ValueError: there is none.
        """
        self.conversations.settle()
        number = event_id.event_id if isinstance(event_id, Appointment) else event_id
        found = found_event(self.database, event_id=number, include_conversations=True)
        if found is None:
            msg = f"There is no event {number}."
            raise ValueError(msg)
        return found

    def participant(self, participant: int | Appointment) -> dict[str, Any]:
        """Return a participant with its ``state`` and ``conversations``.

        :raises ValueError: there is none.
        """
        number = _participant_id(participant)
        rows = self.database.rows("SELECT event_id FROM participants WHERE id = ?", [number])
        people = self.event(rows[0]["event_id"])["participants"] if rows else []
        found: list[dict[str, Any]] = [each for each in people if each["id"] == number]
        if not found:
            msg = f"There is no participant {number}."
            raise ValueError(msg)
        return found[0]

    def people(self) -> list[dict[str, Any]]:
        """Return an entry for each participant, by start time, with its ``state`` and ``last_reply``."""
        return entries(self.database, state=None, text=None, limit=-1)[0]

    def conversation(self, participant: int | Appointment) -> list[dict[str, Any]]:
        """Return what was sent to a participant and what came back, in order, over all channels."""
        conversations = self.participant(participant)["conversations"]
        messages = [message for each in conversations for message in each["messages"]]
        return sorted(messages, key=lambda message: (message["at"], message["id"]))

    def confirm(self, participant: int | Appointment, **options: Any) -> None:
        """Let a participant confirm. The options are those of :meth:`answer`."""
        self.answer(participant, "confirm", **options)

    def cancel(self, participant: int | Appointment, **options: Any) -> None:
        """Let a participant cancel. The options are those of :meth:`answer`."""
        self.answer(participant, "cancel", **options)

    def reschedule(self, participant: int | Appointment, **options: Any) -> None:
        """Let a participant ask for another time. The options are those of :meth:`answer`."""
        self.answer(participant, "reschedule", **options)

    def reply(self, participant: int | Appointment, text: str, **options: Any) -> None:
        """Let a participant write something, which changes no state. The options are those of :meth:`answer`."""
        self.answer(participant, "reply", text=text, **options)

    def stop(self, participant: int | Appointment, **options: Any) -> None:
        """Let a participant opt out. The options are those of :meth:`answer`."""
        self.answer(participant, "stop", **options)

    def fail(self, participant: int | Appointment, **options: Any) -> None:
        """Report that the last message to a participant failed. The options are those of :meth:`answer`."""
        self.answer(participant, "fail", **options)

    def answer(self, participant: int | Appointment, action: str, **options: Any) -> None:
        """Let a participant react.

        :param action: ``confirm``, ``cancel``, ``reschedule``, ``accept``, ``decline``, ``reply``, ``stop``, ``fail``.
        :param options: ``text`` of the reply (blank: a click, which is not a reply); ``channel`` of the reply;
            ``after``, the seconds until then.
        :raises ValueError: it is not possible.
        """
        with _value_errors():
            self.conversations.answer(_participant_id(participant), action, **options)

    def delete(self, event_id: int | Appointment) -> None:
        """Delete an event, as ``DELETE /v1/events`` does.

        :raises ValueError: there is none.
        """
        delete_event(self.database, self.event(event_id)["id"])

    def set_state(self, participant: int | Appointment, state: str) -> None:
        """Set the state of a participant without an answer, such as ``reminded``.

        :raises ValueError: there is no such participant or state.
        """
        if state not in STATES:
            msg = f"The state must be one of {', '.join(STATES)}."
            raise ValueError(msg)
        number = self.participant(participant)["id"]
        with self.database.writing() as connection:
            update(connection, "participants", number, state=state)

    def opt_outs(self) -> list[dict[str, str]]:
        """Return who has opted out, as ``channel`` and ``address``."""
        self.conversations.settle()
        return [dict(row) for row in self.database.rows("SELECT * FROM opt_outs ORDER BY channel, address")]

    def forget_opt_outs(self) -> int:
        """Forget who has opted out, and return how many did."""
        with self.database.writing() as connection:
            return int(connection.execute("DELETE FROM opt_outs").rowcount)

    def clear(self) -> int:
        """Delete all appointments, contacts and opt-outs, and return the number of appointments."""
        with self.database.writing() as connection:
            count = self.database.number("SELECT count(*) FROM events")
            for table in TABLES:
                connection.execute(f"DELETE FROM {table}").close()  # noqa: S608  fixed names
        return count

    def close(self) -> None:
        """Close the file."""
        self.database.close()


def _participant_id(participant: int | Appointment) -> int:
    return participant.participant_id if isinstance(participant, Appointment) else participant


@contextmanager
def _value_errors() -> Iterator[None]:
    """Raise the API's refusals as errors of a Python call."""
    try:
        yield
    except HTTPException as error:
        raise ValueError(error.detail) from error
