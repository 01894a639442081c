"""What goes wrong, and when: drawn from a seed, for each attempt and each request by itself.

So a draw depends neither on the arm nor on which task comes first.
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
    """Where an attempt is killed."""

    BEFORE_CLAIM = "before_claim"
    AFTER_CLAIM = "after_claim"
    BEFORE_FIRST_BYTE = "before_first_byte"
    """``sending`` is written down, and nothing has left."""
    MID_REQUEST = "mid_request"
    """In the headers or in the body."""
    AFTER_ACCEPTANCE = "after_acceptance"
    """The server has done what it does, and its answer can be read but has not been."""
    AFTER_ANSWER = "after_answer"
    """It is read, and not written down."""
    AFTER_RECORDING = "after_recording"
    """It is written down, and Airflow has not been told."""


class Fault(StrEnum):
    """How the server goes wrong over one request."""

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
    """How the ledger goes wrong over one try."""

    STALLS = "stalls"
    """Before it writes."""
    AWAY = "can't be reached"
    ANSWER_LOST = "answer lost"
    """It has written, and nobody is told."""
    LOST = "lost"
    """There is another one in its place, which is empty."""


class Step(StrEnum):
    """What a ledger is to write when it goes wrong."""

    CLAIM = "claim"
    SENDING = "sending"
    OUTCOME = "outcome"


_RARE = {Fault.REFUSED: 0.2}
_WEIGHTS = [_RARE.get(fault, 1.0) for fault in Fault]
_LEDGER = list(itertools.product(LedgerFault, Step))
_ASSIGNED_KILLS = 2 * len(Point)
_ASSIGNED_FAULTS = _ASSIGNED_KILLS + 2 * len(Fault)
ASSIGNED = _ASSIGNED_FAULTS + len(_LEDGER)
"""How many tasks are assigned something in a short run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """Where attempts are killed and how requests go wrong.

    :param kills: share of the attempts.
    :param faults: share of the requests.
    :param ledger_faults: share of the attempts.
    :param assigned: the first tasks get each kill and each fault in turn, so that a short run has all of them.
    """

    seed: int
    kills: float = 0.12
    faults: float = 0.30
    ledger_faults: float = 0.05
    assigned: bool = False

    def kill(self, person: int, try_number: int, points: Sequence[Point]) -> Point | None:
        """Return where an attempt is killed.

        :param points: those that it comes by.
        """
        if self.assigned and try_number == 1 and person < ASSIGNED:
            return points[person % len(points)] if person < _ASSIGNED_KILLS else None
        source = self._source("kill", person, try_number)
        return source.choice(points) if source.random() < self.kills else None

    def fault(self, person: int, number: int) -> Fault | None:
        """Return how a request goes wrong.

        :param number: how many requests for this person came before it.
        """
        if self.assigned and number == 0 and person < ASSIGNED:
            is_assigned = _ASSIGNED_KILLS <= person < _ASSIGNED_FAULTS
            return list(Fault)[(person - _ASSIGNED_KILLS) % len(Fault)] if is_assigned else None
        source = self._source("fault", person, number)
        return source.choices(list(Fault), _WEIGHTS)[0] if source.random() < self.faults else None

    def ledger_fault(self, person: int, try_number: int) -> tuple[LedgerFault, Step] | None:
        """Return how the ledger goes wrong, and over what it is to write."""
        if self.assigned and try_number == 1 and person < ASSIGNED:
            return _LEDGER[person - _ASSIGNED_FAULTS] if person >= _ASSIGNED_FAULTS else None
        source = self._source("ledger", person, try_number)
        return source.choice(_LEDGER) if source.random() < self.ledger_faults else None

    def _source(self, *what: object) -> random.Random:
        return random.Random(f"{self.seed} {what}")  # noqa: S311  draws, no secrets
