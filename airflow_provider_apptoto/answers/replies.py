"""Find the replies that are new since the last look: what is read, and what is remembered of it."""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_apptoto.answers.predicate import MAX_REPLY
from airflow_provider_apptoto.answers.reading import Reader, ReadFailure
from airflow_provider_apptoto.client.appointments import read_time
from airflow_provider_apptoto.outbox.entry import iso

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from airflow_provider_apptoto.client import ApptotoClient
    from airflow_provider_apptoto.client.appointments import Event, Id

OVERLAP = 3600.0
"""Seconds that a reply may appear in Apptoto's list after its own time."""
_ID_LENGTH = 20
"""Hexadecimal digits of an id."""


class FoundReply(NamedTuple):
    """A reply in the list of events. It holds a text, so it must not leave the process that read it.

    :param reply_id: the same whenever this reply is read, and no part of it is personal.
    :param reference: the user's own id of the event.
    :param at: seconds since 1970; ``None`` if Apptoto's time can't be read.
    """

    reply_id: str
    event_id: Id
    participant_id: Id
    reference: str | None
    at: float | None
    text: str

    def pack(self, answer: str | None) -> dict[str, Any]:
        """Return the reply as plain values, without its text.

        :param answer: name of the pattern that matched.
        """
        return {
            "reply_id": self.reply_id,
            "event_id": self.event_id,
            "participant_id": self.participant_id,
            "reference": self.reference,
            "answer": answer,
            "at": None if self.at is None else iso(self.at),
        }

    def __repr__(self) -> str:
        """Show no text."""
        return f"<FoundReply {self.reply_id} of event {self.event_id}>"


@dataclass(frozen=True, slots=True)
class Position:
    """What was read up to a point: it tells new replies from old ones.

    :param since: replies with an earlier time are old (seconds since 1970).
    :param seen: the times of the known replies that are not earlier, by ``reply_id``; ``None`` before the first read.
    """

    since: float
    seen: Mapping[str, float | None] | None = None

    def new(self, found: Iterable[FoundReply]) -> list[FoundReply]:
        """Return the new replies, oldest first.

        A reply whose time can't be read is new if it was not there in the last read. In the first read it is old.
        """
        new = [each for each in found if self._is_new(each)]
        return sorted(new, key=lambda each: (each.at is None, each.at, each.reply_id))

    def after(self, found: Iterable[FoundReply], read_at: float) -> Position:
        """Return the position after a read.

        :param found: all replies that it showed.
        :param read_at: when it began.
        """
        since, current = read_at - OVERLAP, {each.reply_id: each.at for each in found}
        # one that is missing may be back in the next read, if its event is moved meanwhile
        earlier = {reply_id: at for reply_id, at in (self.seen or {}).items() if at is not None}
        known = {**earlier, **current}
        return Position(since, {reply_id: at for reply_id, at in known.items() if at is None or at >= since})

    def pack(self) -> dict[str, Any]:
        """Return the position as plain values, without personal data."""
        return {"since": iso(self.since), "seen": None if self.seen is None else dict(self.seen)}

    @classmethod
    def unpack(cls, packed: object) -> Position:
        """Return the position that was packed.

        :raises ValueError: it was not.
        """
        since = read_time(packed.get("since")) if isinstance(packed, Mapping) else None
        if not isinstance(packed, Mapping) or since is None:
            raise ValueError("no position")
        seen = packed.get("seen")
        if seen is not None and not (isinstance(seen, Mapping) and all(map(_is_time, seen.values()))):
            raise ValueError("no position")
        return cls(since.timestamp(), seen)

    def _is_new(self, reply: FoundReply) -> bool:
        if self.seen is None:
            return reply.at is not None and reply.at >= self.since
        return reply.reply_id not in self.seen and (reply.at is None or reply.at >= self.since)


@dataclass(slots=True)
class ReplyReader(Reader):
    """Reads replies to appointments.

    :param days_back: days before now in which the events start.
    :param days_ahead: days after now in which they start.
    """

    days_back: int
    days_ahead: int

    def read(self, position: Position, now: float) -> list[FoundReply] | ReadFailure:
        """Return all replies that may be new, and those shortly before. Requests: pages of the window and one more.

        :param position: after a pause, the window begins before the pause.
        """
        today = datetime.fromtimestamp(now, UTC)
        earliest = min(today, datetime.fromtimestamp(position.since, UTC))
        begin, end = earliest - timedelta(days=self.days_back), today + timedelta(days=self.days_ahead)
        return self._attempt(functools.partial(_replies, begin=begin, end=end, since=position.since - OVERLAP))


@dataclass(slots=True)
class Outage:
    """Counts errors in a row.

    :param max_errors: errors in a row after which the failure is told, once.
    """

    max_errors: int
    errors: int = 0
    _is_told: bool = False

    def to_tell(self, failure: ReadFailure | None) -> ReadFailure | None:
        """Return the failure that is to be told now, if any.

        :param failure: how this cycle failed; ``None``: it did not.
        """
        if failure is None:
            self.errors, self._is_told = 0, False
            return None
        self.errors += failure.counts
        if self._is_told or not (failure.is_final or self.errors >= self.max_errors):
            return None
        self._is_told = True
        return failure


def _replies(client: ApptotoClient, *, begin: datetime, end: datetime, since: float) -> list[FoundReply]:
    found = {}
    for event in client.iter_events(begin, end, include_conversations=True):
        if not event.is_deleted:
            # an event may be listed several times
            found.update({each.reply_id: each for each in _of_event(event) if each.at is None or each.at >= since})
    return list(found.values())


def _of_event(event: Event) -> Iterator[FoundReply]:
    for person in event.participants:
        alike: Counter[tuple[Id | None, float | None]] = Counter()
        for message in person.messages or ():
            if not message.is_reply:
                continue
            at = None if message.at is None else message.at.timestamp()
            # the id alone may not be unique, as nothing is documented; without one, texts may be repeated in a second
            alike[message.id, at] += 1
            number = alike[message.id, at] if message.id is None else 1
            reply_id = _digest(event.id, person.id, message.id, at, number)
            yield FoundReply(reply_id, event.id, person.id, event.external_id, at, message.content[:MAX_REPLY])


def _digest(*parts: object) -> str:
    """Return an id that does not show the parts: Apptoto's ids of messages may be numbers of phones."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:_ID_LENGTH]


def _is_time(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))
