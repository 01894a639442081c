"""Draw the faults of each try and each request from a seed, independently of each other.

So a draw depends neither on the arm nor on the order of tasks.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class Point(StrEnum):
    """The points at which a try is killed or frozen, in order."""

    BEFORE_LOOK_UP = "before_look_up"
    AFTER_LOOK_UP = "after_look_up"
    AFTER_SLOT = "after_slot"
    """It has its slot, but no connection."""
    BEFORE_SENDING = "before_sending"
    """It is connected, but ``sending`` is not written."""
    AFTER_SENDING = "after_sending"
    """``sending`` is written, but the last check has not been made."""
    BEFORE_FIRST_BYTE = "before_first_byte"
    """The last check has passed."""
    MID_REQUEST = "mid_request"
    """Within the headers, or within the body."""
    AFTER_HEADERS = "after_headers"
    """The headers were sent, but not the body."""
    AFTER_ACCEPTANCE = "after_acceptance"
    """The server has answered, but the answer has not been read."""
    AFTER_ANSWER = "after_answer"
    """The answer is read, but the outcome is not written."""
    AFTER_RECORDING = "after_recording"
    """The outcome is written, but Airflow has not been told."""


# A try can't check anything between its last check and the first byte, or within one write to its socket. If it is
# frozen there, it sends when it resumes (docs/reliability.rst).
FREEZES = tuple(point for point in Point if point not in {Point.BEFORE_FIRST_BYTE, Point.MID_REQUEST})
"""Where a try is frozen."""
REPEATS = (
    Point.AFTER_SLOT,
    Point.BEFORE_SENDING,
    Point.AFTER_SENDING,
    Point.BEFORE_FIRST_BYTE,
    Point.MID_REQUEST,
    Point.AFTER_HEADERS,
    Point.AFTER_ACCEPTANCE,
)
"""Points that occur in each request: a try reaches them again if the request before was not sent."""


class Wake(StrEnum):
    """When a frozen try resumes."""

    BESIDE = "beside its successor"
    AFTER = "after its successor"
    LAST = "after people have cleared the task"


@dataclass(frozen=True, slots=True, kw_only=True)
class Halt:
    """How a try is killed or frozen.

    :param passing: the time at which it gets to the point, from 1.
    :param wake: when it goes on; ``None``: it is killed.
    """

    point: Point
    passing: int = 1
    wake: Wake | None = None


class Fault(StrEnum):
    """How the server fails on one request."""

    TOO_MANY = "429"
    TOO_MANY_RETRY_AFTER = "429, Retry-After"
    UNAVAILABLE_RETRY_AFTER = "503, Retry-After"
    UNAVAILABLE_NOT_ACCEPTED = "503, not accepted"
    UNAVAILABLE_ACCEPTED = "503, accepted"
    BROKEN_NOT_ACCEPTED = "500, not accepted"
    BROKEN_ACCEPTED = "500, accepted"
    REFUSED = "422"
    RESET_NOT_ACCEPTED = "reset, not accepted"
    RESET_ACCEPTED = "reset, accepted"
    CLOSED_ACCEPTED = "closed, accepted"
    CUT_IN_HEADERS = "cut in headers, accepted"
    CUT_IN_BODY = "cut in body, accepted"
    HANGING = "no answer, accepted"
    REDIRECT = "302 to itself"
    INTERIM = "103 first, accepted"
    INTERIM_REFUSED = "103 first, 422"
    LATE_ANSWER = "429, and another's answer after it"


class LedgerFault(StrEnum):
    """How the ledger fails in one try."""

    STALLS = "stalls"
    """Before it reads or writes, for longer than the margin of a lease."""
    ANSWERS_LATE = "answers late"
    """It has written, but the try gets the answer only after its lease."""
    AWAY = "can't be reached"
    ANSWER_LOST = "answer lost"
    """It has written, but the try gets no answer."""
    LOST = "lost"
    """It is replaced by an empty one."""


class Step(StrEnum):
    """The operation in which a ledger fails."""

    LOOK_UP = "look up"
    SENDING = "sending"
    OUTCOME = "outcome"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Assigned:
    """The faults of a task in a short run, in its first try and first request."""

    halt: Halt | None = None
    is_live: bool = False
    fault: Fault | None = None
    ledger_fault: tuple[LedgerFault, Step] | None = None


_ASSIGNED = (
    *(_Assigned(halt=Halt(point=point, wake=wake)) for point in FREEZES for wake in Wake),
    # twice each: the request is cut in its headers, and in its body
    *(_Assigned(halt=Halt(point=point)) for point in Point for _ in range(2)),
    *(_Assigned(fault=fault) for fault in Fault for _ in range(2)),
    *(_Assigned(fault=Fault.TOO_MANY, halt=Halt(point=point, passing=2)) for point in REPEATS),
    *(
        _Assigned(fault=Fault.TOO_MANY, halt=Halt(point=point, passing=2, wake=wake))
        for point in (Point.BEFORE_SENDING, Point.AFTER_SENDING)
        for wake in Wake
    ),
    *(_Assigned(is_live=True) for _ in range(12)),
    *(_Assigned(ledger_fault=each) for each in itertools.product(LedgerFault, Step)),
)
ASSIGNED = len(_ASSIGNED)
"""Number of tasks with an assigned fault in a short run."""
FROZEN = len(FREEZES) * len(Wake)
"""How many of them, the first ones, are frozen."""
_RARE = {Fault.REFUSED: 0.2}
_WEIGHTS = [_RARE.get(fault, 1.0) for fault in Fault]
_LEDGER = list(itertools.product(LedgerFault, Step))


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """Where tries are killed or frozen, which of them live on, and how requests go wrong.

    :param kills: share of the tries.
    :param freezes: share of the tries.
    :param repeats: share of the tries that are killed or frozen in a repeated request, if they repeat one.
    :param lives: share of the tries beside which the next one starts: Airflow took a live try for dead.
    :param faults: share of the requests.
    :param ledger_faults: share of the tries.
    :param assigned: the first tasks get each of them in turn, so that a short run has all of them.
    """

    seed: int
    kills: float = 0.12
    freezes: float = 0.04
    repeats: float = 0.04
    lives: float = 0.03
    faults: float = 0.30
    ledger_faults: float = 0.05
    assigned: bool = False

    def halt(self, person: int, try_number: int, points: Sequence[Point]) -> Halt | None:
        """Return how a try is killed or frozen.

        :param points: those that it gets to.
        """
        freezes = [point for point in points if point in FREEZES]
        if try_number == 1 and (assigned := self._assigned(person)):
            halt = assigned.halt
            if halt is None or halt.point in points:
                return halt
            allowed = points if halt.wake is None else freezes
            return Halt(point=allowed[person % len(allowed)], wake=halt.wake)
        source = self._source("halt", person, try_number)
        drawn = source.random()
        wake = source.choice(list(Wake))
        if drawn < self.kills:
            return Halt(point=source.choice(points))
        if drawn < self.kills + self.freezes:
            return Halt(point=source.choice(freezes), wake=wake)
        if drawn < self.kills + self.freezes + self.repeats:
            point = source.choice([point for point in points if point in REPEATS])
            is_frozen = point in FREEZES and source.choice((True, False))
            return Halt(point=point, passing=2, wake=wake if is_frozen else None)
        return None

    def is_live(self, person: int, try_number: int) -> bool:
        """Return whether the next try starts while a try is still running."""
        if try_number == 1 and (assigned := self._assigned(person)):
            return assigned.is_live
        return self._source("live", person, try_number).random() < self.lives

    def fault(self, person: int, number: int) -> Fault | None:
        """Return how a request fails.

        :param number: how many requests for this person came before it.
        """
        if number == 0 and (assigned := self._assigned(person)):
            return assigned.fault
        source = self._source("fault", person, number)
        return source.choices(list(Fault), _WEIGHTS)[0] if source.random() < self.faults else None

    def ledger_fault(self, person: int, try_number: int) -> tuple[LedgerFault, Step] | None:
        """Return how the ledger fails, and in which operation."""
        if try_number == 1 and (assigned := self._assigned(person)):
            return assigned.ledger_fault
        source = self._source("ledger", person, try_number)
        return source.choice(_LEDGER) if source.random() < self.ledger_faults else None

    def _assigned(self, person: int) -> _Assigned | None:
        return _ASSIGNED[person] if self.assigned and person < ASSIGNED else None

    def _source(self, *what: object) -> random.Random:
        return random.Random(f"{self.seed} {what}")  # noqa: S311  draws, no secrets
