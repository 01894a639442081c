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
"""Seconds: the read of a state and the message start less than this apart, from first byte to first byte."""
_AHEAD = 40.0
"""Seconds for which a state that was read counts before the message waits for its slot."""
_PAGE_SIZE = 100
"""Events that are read at once: about as many messages as the account's pace allows in ``FRESH`` seconds."""
_MAX_MISSES = 3

_Moment = tuple[float, float]
"""A time by two clocks: the monotonic one stops while a machine is suspended."""


class StateUnreadError(ApptotoNotSentError):
    """The message was not sent, because the state of its appointment could not be read."""

    default_code = "state_unread"


class StateOutdatedError(StateUnreadError):
    """The message was not sent, because its wait after the read of the state was too long."""

    default_code = "state_outdated"


@dataclass(frozen=True, slots=True)
class _Read:
    """What was read of one event: the state of each participant with an id.

    :param at: when the first byte of the request was about to be written.
    """

    at: _Moment
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

    def why_not(self, draft: Draft, *, is_departure: bool, may_read: bool = True) -> str:
        """Return why a message must not be sent; empty if it may be.

        :param is_departure: whether the message has waited for its slot.
        :param may_read: whether there is time to read the state.
        :raises ApptotoValidationError: the message is not about an event.
        :raises StateUnreadError: the state could not be read.
        :raises StateOutdatedError: it must be read again, and there is no time.
        """
        event_id = event_of(draft.message, draft.event_id)
        found = self._event(event_id, draft, FRESH if is_departure else _AHEAD, may_read=may_read)
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

    def _event(self, event_id: Id, draft: Draft, max_age: float, *, may_read: bool) -> _Read | None:
        if not may_read:  # another thread may hold the lock for minutes
            known = self._read.get(event_id)
            if known is not None and _age(known.at) < max_age:
                return known
            msg = f"The message was not sent: at its turn, the state of event {event_id} was {FRESH:.0f} s old or older"
            raise StateOutdatedError(msg, reason="the state of the appointment was too old")
        with self._lock:
            known = self._read.get(event_id)
            if known is not None and _age(known.at) < max_age:
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
        at: list[_Moment] = []  # one by attempt
        page = self.client.list_events(
            page_size=_PAGE_SIZE, begin=draft.start_time.isoformat(), last_check=lambda: at.append(_now())
        )
        events = (Event.read(each) for each in page)
        found = {event.id: _read_of(event, at[-1]) for event in events if event is not None}
        self._keep(found)
        self._misses = 0 if event_id in found else self._misses + 1
        return found.get(event_id)

    def _read_one(self, event_id: Id) -> _Read | None:
        at: list[_Moment] = []
        event = self.client.get_event(id=event_id, last_check=lambda: at.append(_now()))
        if event is None:
            return None
        found = _read_of(event, at[-1])
        self._keep({event_id: found})
        return found

    def _keep(self, found: dict[Id, _Read]) -> None:
        """Remember what was read, and forget what is too old."""
        self._read = {each: read for each, read in self._read.items() if _age(read.at) < FRESH} | found


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


def _now() -> _Moment:
    return time.monotonic(), time.time()


def _age(at: _Moment) -> float:
    """Return the seconds since then."""
    return max(now - then for now, then in zip(_now(), at, strict=True))


def _read_of(event: Event, at: _Moment) -> _Read:
    return _Read(at, event.is_deleted, event.is_complete, {each.id: each.state for each in event.participants})
