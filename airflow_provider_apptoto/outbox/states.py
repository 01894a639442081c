"""The guard ``only_if_state``: read the state of an appointment shortly before the message about it is sent."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_apptoto.client.appointments import Event
from airflow_provider_apptoto.client.errors import (
    ApptotoAuthError,
    ApptotoError,
    ApptotoNotSentError,
    ApptotoThrottledError,
    ApptotoValidationError,
)

if TYPE_CHECKING:
    from airflow_provider_apptoto.client import ApptotoClient, Message
    from airflow_provider_apptoto.client.appointments import Id
    from airflow_provider_apptoto.outbox.draft import Draft

FRESH = 60.0
"""Seconds before the send within which the state was read."""
_AHEAD = 40.0
"""Seconds for which a state that was read counts before the message waits for its slot."""
_PAGE_SIZE = 100
"""Events that are read at once: about as many messages as the account's pace allows in ``FRESH`` seconds."""
_MAX_MISSES = 3


class StateUnreadError(ApptotoNotSentError):
    """The message was not sent, because the state of its appointment could not be read."""

    default_code = "state_unread"


@dataclass(frozen=True, slots=True)
class _Read:
    """What was read of one event: when (``time.monotonic``), and the state of each participant with an id."""

    at: float
    is_deleted: bool
    is_complete: bool
    states: dict[Id, str]


@dataclass(slots=True, kw_only=True)
class EventStates:
    """Reads the states of appointments, and remembers them for ``FRESH`` seconds; thread-safe.

    If the start of an event is known, the events that start from then on are read too, one page in one request: a batch
    in the order of the start times then needs one read for up to a hundred messages. That Apptoto lists events by their
    start was observed, not documented; an event that the page lacks is read alone.

    :param client: reads the events, at the pace of the account.
    :param allowed: the states in which a message is sent.
    """

    client: ApptotoClient
    allowed: tuple[str, ...]
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)
    _read: dict[Id, _Read] = field(init=False, default_factory=dict)
    _misses: int = field(init=False, default=0)

    def why_not(self, draft: Draft, *, is_departure: bool) -> str:
        """Return why a message must not be sent; empty if it may be.

        :param is_departure: whether this is the last check, after connecting and before the ledger is written.
        :raises ApptotoValidationError: the message is not about an event.
        :raises StateUnreadError: the state could not be read.
        """
        event_id = event_of(draft.message, draft.event_id)
        found = self._event(event_id, draft, FRESH if is_departure else _AHEAD)
        if found is None or found.is_deleted:
            return f"event {event_id} {'was deleted' if found else 'was not found'} in Apptoto"
        person = draft.message.participant_id
        if not found.is_complete and person not in found.states:
            msg = f"The message was not sent: the participants of event {event_id} could not be read"
            raise StateUnreadError(msg, reason="participants without an id")
        if person is None:  # every participant would get a copy
            if not found.states:
                return f"event {event_id} has no participants"
            others = sorted(
                f"participant {each} is {state or 'in no state'}"
                for each, state in found.states.items()
                if state not in self.allowed
            )
            return f"of event {event_id}, {others[0]}" if others else ""
        if person not in found.states:
            return f"participant {person} was not found in event {event_id}"
        state = found.states[person]
        return "" if state in self.allowed else f"participant {person} is {state or 'in no state'}"

    def _event(self, event_id: Id, draft: Draft, max_age: float) -> _Read | None:
        with self._lock:
            known = self._read.get(event_id)
            if known is not None and time.monotonic() - known.at < max_age:
                return known
            try:
                return self._read_page(event_id, draft) or self._read_one(event_id)
            except (ApptotoAuthError, ApptotoThrottledError):
                raise
            except ApptotoError as error:
                msg = f"The message was not sent: the state of event {event_id} could not be read. {error}"
                retry_after = error.retry_after if isinstance(error, ApptotoNotSentError) else None
                raise StateUnreadError(msg, status=error.status, reason=error.reason, retry_after=retry_after) from None

    def _read_page(self, event_id: Id, draft: Draft) -> _Read | None:
        """Read the events from the start of this one on; ``None`` if it is not among them."""
        if draft.start_time is None or self._misses >= _MAX_MISSES:
            return None
        at = time.monotonic()
        page = self.client.list_events(page_size=_PAGE_SIZE, begin=draft.start_time.isoformat())
        events = (Event.read(each) for each in page)
        self._read = {event.id: _read_of(event, at) for event in events if event is not None}
        found = self._read.get(event_id)
        self._misses = 0 if found else self._misses + 1
        return found

    def _read_one(self, event_id: Id) -> _Read | None:
        at = time.monotonic()
        event = self.client.get_event(id=event_id)
        if event is None:
            return None
        self._read = {each: read for each, read in self._read.items() if at - read.at < FRESH}
        self._read[event_id] = _read_of(event, at)
        return self._read[event_id]


def event_of(message: Message, event_id: int | None) -> int:
    """Return the event of a message.

    :param event_id: the event that was given with a participant.
    :raises ApptotoValidationError: the message is not about an event.
    """
    found = message.event_id if event_id is None else event_id
    if found is None:
        msg = "is required with only_if_state; with a participant_id, give the event_id too"
        raise ApptotoValidationError("event_id", msg, code="event_missing")
    return int(found)


def _read_of(event: Event, at: float) -> _Read:
    return _Read(at, event.is_deleted, event.is_complete, {each.id: each.state for each in event.participants})
