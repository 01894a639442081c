"""What counts as an answer: the one predicate of the sensor in all its modes and of the trigger."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_apptoto.client.appointments import STATES
from airflow_provider_apptoto.client.errors import ApptotoConfigurationError
from airflow_provider_apptoto.outbox.entry import iso
from airflow_provider_apptoto.outbox.policy import check_states

if TYPE_CHECKING:
    from airflow_provider_apptoto.client import Participant

ANSWERED = ("confirmed", "not_coming", "not_coming_needs_reschedule", "not_coming_no_reschedule", "declined")
"""Default of ``answered``: the states that a client reaches by answering a reminder (assumed from their names)."""
UNDELIVERED, NO_ANSWER, NOT_FOUND = "undelivered", "no_answer", "not_found"
_RESERVED = frozenset({"total", UNDELIVERED, NO_ANSWER, NOT_FOUND, *STATES})
MAX_REPLY = 500
"""Characters of a reply that are matched; a pattern could take very long for more."""


class Reply(NamedTuple):
    """A reply: when it came (seconds since 1970, UTC; ``None`` if Apptoto's time can't be read), and its text."""

    at: float | None
    text: str


class Sent(NamedTuple):
    """A message that was sent: when, and whether its delivery failed."""

    at: float | None
    has_failed: bool


class Seen(NamedTuple):
    """What was read of a participant. It holds texts, so it must not leave the process that read it."""

    state: str
    replies: tuple[Reply, ...] = ()
    sent: tuple[Sent, ...] = ()

    @classmethod
    def of(cls, person: Participant) -> Seen:
        """Return what a participant's state and conversations say."""
        messages = [(None if each.at is None else each.at.timestamp(), each) for each in person.messages or ()]
        return cls(
            person.state,
            tuple(Reply(at, each.content[:MAX_REPLY]) for at, each in messages if each.is_reply),
            tuple(Sent(at, each.is_undelivered) for at, each in messages if each.is_sent or each.is_undelivered),
        )

    def __repr__(self) -> str:
        """Show no text."""
        return f"<Seen {self.state} with {len(self.replies)} replies>"


class Answer(NamedTuple):
    """An answer: its name, and when it was given (ISO 8601, UTC); ``None`` for a state, whose time is not known."""

    name: str
    at: str | None


@dataclass(frozen=True)
class Rules:
    """The answers that a task waits for.

    :param answered: states of a participant that count as answers.
    :param replies: patterns by the name of the answer, in the order in which they are tried; case does not matter.
    :raises ApptotoConfigurationError: a state, a name or a pattern is invalid.
    """

    answered: Collection[str] = ANSWERED
    replies: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        """Check the states, the names and the patterns."""
        _check_states(self.answered)
        _check_replies(self.replies)
        if not self.answered and not self.replies:
            raise ApptotoConfigurationError("answered", "must not be empty without replies: nothing would count")

    @cached_property
    def _patterns(self) -> list[tuple[str, re.Pattern[str]]]:
        return [(name, re.compile(pattern, re.IGNORECASE)) for name, pattern in (self.replies or {}).items()]

    @property
    def names(self) -> list[str]:
        """The names of all answers."""
        return [*(self.replies or {}), *self.answered]

    def name_of(self, text: str) -> str | None:
        """Return the name of the first pattern that matches the text of a reply; ``None`` if none does."""
        return next((name for name, pattern in self._patterns if pattern.search(text)), None)

    def answer(self, seen: Seen, since: float) -> Answer | None:
        """Return the answer of a participant; ``None`` if there is none yet.

        The latest reply that matches counts more than the state: it is known to be given since the message was sent. A
        reply whose time can't be read counts, because whoever answered must not be asked again.

        :param since: earliest time of a reply (seconds since 1970, UTC).
        """
        in_time = [each for each in seen.replies if each.at is None or each.at >= since]
        for reply in sorted(in_time, key=lambda each: each.at or 0.0, reverse=True):
            name = self.name_of(reply.text)
            if name is not None:
                return Answer(name, None if reply.at is None else iso(reply.at))
        if seen.state in self.answered:
            return Answer(seen.state, None)
        sent = [each for each in seen.sent if each.at is None or each.at >= since]
        if sent and all(each.has_failed for each in sent):
            times = [each.at for each in sent if each.at is not None]
            return Answer(UNDELIVERED, iso(max(times)) if times else None)
        return None


def _check_states(answered: object) -> None:
    if answered is None:
        raise ApptotoConfigurationError("answered", "must be a list of states; an empty one means replies alone")
    check_states("answered", answered)


def _check_replies(replies: object) -> None:
    if replies is not None and not isinstance(replies, Mapping):
        msg = f"must be a mapping of names to patterns, not {type(replies).__name__}"
        raise ApptotoConfigurationError("replies", msg)
    for name, pattern in (replies or {}).items():
        if not isinstance(name, str) or not name.isidentifier() or name in _RESERVED:
            msg = (
                f"{name!r} can't be the name of an answer: use letters, digits and _, and no name of a state or a count"
            )
            raise ApptotoConfigurationError("replies", msg)
        try:
            re.compile(pattern)
        except (re.error, TypeError) as error:
            raise ApptotoConfigurationError("replies", f"{name}: {pattern!r} is not a pattern: {error}") from None
