"""Compare the messages that people got with what the user is told."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Mapping


class Told(StrEnum):
    """What the user is told about the message of a person."""

    SENT = "sent"
    NOT_SENT = "not sent"
    CHECK = "may have been sent, check"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How the reports of an arm compare with the server's list.

    :param duplicates: further copies that people got.
    :param lost: people who got nothing and are reported as sent, or not at all.
    :param false: people who are reported as sent and got nothing, or as not sent and got a copy.
    :param flagged: people whose message the user is told to check.
    :param named: people who are reported as not sent.
    """

    duplicates: int
    lost: int
    false: int
    flagged: int
    named: int


def judge(copies: Counter[int], reported: Mapping[int, Told], people: int) -> Verdict:
    """Return the verdict.

    :param copies: that each person got.
    :param reported: what the user is told of each person, where there is a report.
    :param people: how many there are.
    """
    told = [reported.get(person) for person in range(people)]
    return Verdict(
        duplicates=sum(max(copies[person] - 1, 0) for person in range(people)),
        lost=sum(what in {None, Told.SENT} and not copies[person] for person, what in enumerate(told)),
        false=sum(
            (what is Told.SENT and not copies[person]) or (what is Told.NOT_SENT and copies[person] > 0)
            for person, what in enumerate(told)
        ),
        flagged=told.count(Told.CHECK),
        named=told.count(Told.NOT_SENT),
    )
