"""The ways to send that are compared."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from airflow_provider_apptoto.outbox.policy import OnUnknown
from tests.chaos.draws import Point
from tests.chaos.memory import Memory, SqlMemory, TaskStateMemory

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airflow_provider_apptoto.outbox.stores.base import LedgerStore


class Rules(StrEnum):
    """How a try sends."""

    LEDGER = "ledger"
    """With this package."""
    NAIVE = "naive"
    """Everything except ``success: true`` raises, and Airflow retries."""
    HTTP_OPERATOR = "http_operator"
    """As Airflow's ``HttpOperator``: redirects are followed, any 2xx is a success, everything else raises."""


_ON_THE_WIRE = (
    Point.BEFORE_FIRST_BYTE,
    Point.MID_REQUEST,
    Point.AFTER_HEADERS,
    Point.AFTER_ACCEPTANCE,
    Point.AFTER_ANSWER,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One way to send.

    :param memory: where its ledger is, if it has one.
    :param wrap: called in the process of each try, with its store, to break something.
    :param appointments: whether messages go to participants of events instead of numbers.
    """

    name: str
    rules: Rules = Rules.LEDGER
    memory: Callable[[Path], Memory] | None = None
    on_unknown: OnUnknown = OnUnknown.FAIL
    wrap: Callable[[LedgerStore], LedgerStore] | None = None
    appointments: bool = False

    @property
    def points(self) -> tuple[Point, ...]:
        """The points at which its tries can be killed or frozen."""
        return tuple(Point) if self.rules is Rules.LEDGER else _ON_THE_WIRE


LEDGERS = (
    Arm(name="state database, fail", memory=SqlMemory),
    Arm(name="state database, resend", memory=SqlMemory, on_unknown=OnUnknown.RESEND),
    Arm(name="task state, fail", memory=TaskStateMemory),
    Arm(name="task state, resend", memory=TaskStateMemory, on_unknown=OnUnknown.RESEND),
)
APPOINTMENTS = Arm(name="appointments, state database", memory=SqlMemory, appointments=True)
NAIVE = Arm(name="naive: retries on any error", rules=Rules.NAIVE)
HTTP_OPERATOR = Arm(name="HttpOperator's rules", rules=Rules.HTTP_OPERATOR)
