"""The plan of a batch: its rows made into messages, every one checked before the first is sent."""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from airflow_provider_apptoto.batch.rows import FileRow
from airflow_provider_apptoto.client.errors import ApptotoConfigurationError, ApptotoValidationError
from airflow_provider_apptoto.client.messages import TARGETS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from airflow_provider_apptoto.batch.rendering import Columns, RowRenderer
    from airflow_provider_apptoto.batch.rows import ReadRow
    from airflow_provider_apptoto.batch.suppression import Suppression
    from airflow_provider_apptoto.client import Message

T = TypeVar("T")

MOST_PROBLEMS = 1000
"""Rows that are kept by name for each reason why they make no message; the rest are counted."""
_LONGEST_NAME = 200
"""Characters of a key or a reference."""


@dataclass(frozen=True, slots=True)
class PlannedMessage:
    """A message of the batch.

    :param index: of its row, from 0.
    :param key: in the ledger.
    :param item: what its row's ``key_field`` says.
    :param reference: what its row's ``reference_field`` says.
    :param line: of the file, where its row begins, from 1; ``None`` for a row of a list.
    """

    index: int
    message: Message
    key: str
    item: str | None = field(repr=False)
    reference: str | None
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a row."""

    index: int
    line: int | None
    reference: str | None
    field: str
    reason: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A valid row that makes no message: it is suppressed, or a duplicate."""

    index: int
    line: int | None
    reference: str | None


@dataclass(slots=True)
class Plan:
    """What the rows come to.

    :param rows: how many there are.
    :param duplicates: rows that say the same to the same recipient as an earlier one.
    :param suppressed: rows whose recipients must get nothing.
    :param invalid: rows that are none of the three.
    :param problems: what is wrong with the first of these.
    :param suppressed_rows: the first of the suppressed rows.
    :param duplicate_rows: the first of the duplicates.
    """

    rows: int = 0
    messages: list[PlannedMessage] = field(default_factory=list)
    duplicates: int = 0
    suppressed: int = 0
    invalid: int = 0
    problems: list[Problem] = field(default_factory=list)
    suppressed_rows: list[LeftOut] = field(default_factory=list)
    duplicate_rows: list[LeftOut] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Planner:
    """Makes a plan out of rows.

    :param renderer: makes a message's fields out of a row.
    :param build: checks them.
    :param key_of: gives the ledger's key of a message and its ``item``.
    :param suppression: who must get nothing.
    :param key_field: the column that tells messages apart.
    :param reference_field: the column that names what a message is about.
    :param max_messages: how many there may be.
    """

    renderer: RowRenderer
    build: Callable[..., Message]
    key_of: Callable[[Message, str | None], str]
    suppression: Suppression
    key_field: str | None
    reference_field: str | None
    max_messages: int | None

    def plan(self, rows: Iterable[ReadRow | FileRow]) -> Plan:
        """Make the plan.

        :raises ApptotoConfigurationError: there are more than ``max_messages``, or something is wrong that is no row's.
        """
        plan = Plan()
        planned: dict[str, PlannedMessage] = {}
        for index, row in enumerate(rows):
            plan.rows += 1
            self._add(plan, planned, index, row)
            if self.max_messages is not None and len(planned) > self.max_messages:
                msg = f"is {self.max_messages}, and there are more messages than that: nothing was sent"
                raise ApptotoConfigurationError("max_messages", msg)
        plan.messages = list(planned.values())
        return plan

    def _add(self, plan: Plan, planned: dict[str, PlannedMessage], index: int, read: ReadRow | FileRow) -> None:
        line, row = read if isinstance(read, FileRow) else (None, read)
        reference = None
        try:
            if isinstance(row, ApptotoValidationError):
                raise row
            columns = self.renderer.columns(row)
            shown = self.renderer.shown(columns)
            if self.reference_field is not None:
                reference = _name(shown, self.reference_field, "reference_field", required=False)
            item = None
            if self.key_field is not None:
                item = _name(shown, self.key_field, "key_field", required=True)
            message = self.build(**self.renderer.fields(columns, shown))
            if self.suppression.holds(message):
                plan.suppressed += 1
                _keep(plan.suppressed_rows, LeftOut(index, line, reference))
                return
            new = PlannedMessage(index, message, self.key_of(message, item), item, reference, line)
            earlier = planned.setdefault(new.key, new)
            if earlier is not new and not self._says_the_same(earlier.message, message):
                raise self._ambiguity(earlier)
            if earlier is not new:
                plan.duplicates += 1
                _keep(plan.duplicate_rows, LeftOut(index, line, reference))
        except ApptotoValidationError as error:
            plan.invalid += 1
            _keep(plan.problems, Problem(index, line, reference, error.field, error.problem))

    def _says_the_same(self, one: Message, other: Message) -> bool:
        """Tell whether two messages are one, also where their recipient is written in two ways."""
        same = self.key_of(one, None) == self.key_of(other, None)
        return same and dataclasses.replace(one, to=other.to) == other

    def _ambiguity(self, earlier: PlannedMessage) -> ApptotoValidationError:
        msg = f"is the same in {place(earlier.index, earlier.line)}, which says another thing"
        if self.key_field is not None:
            return ApptotoValidationError(self.key_field, msg)
        msg += ": a later try could not tell them apart; name a column that tells them apart in key_field"
        target = next(name for name in TARGETS if getattr(earlier.message, name) is not None)
        return ApptotoValidationError(target, msg)


def place(index: int, line: int | None, reference: str | None = None) -> str:
    """Return where a row stands, in its file or in its list, and its reference if it has one."""
    where = f"row {index}" if line is None else f"line {line}"
    return where if reference is None else f"{where} (reference {reference})"


def _keep(kept: list[T], row: T) -> None:
    if len(kept) < MOST_PROBLEMS:
        kept.append(row)


def _name(columns: Columns, column: str, parameter: str, *, required: bool) -> str | None:
    """Return what a column says that names a message."""
    try:
        value = columns[column]
    except KeyError:
        raise ApptotoValidationError(column, f"there is no such column, and {parameter} names it") from None
    if value is None and not required:
        return None
    name = ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a column of integers with gaps, as pandas has it
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        with contextlib.suppress(ValueError):  # an integer of thousands of digits
            name = str(value).strip()
    if 0 < len(name) <= _LONGEST_NAME and name.isprintable():
        return name
    msg = f"is the {parameter}: it has to be one line of text, 1 to {_LONGEST_NAME} characters, or a number"
    raise ApptotoValidationError(column, msg)
