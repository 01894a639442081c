"""The plan of a batch: its rows made into messages, every one checked before the first is sent."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from airflow_provider_apptoto.batch.rows import FileRow
from airflow_provider_apptoto.client.errors import ApptotoConfigurationError, ApptotoValidationError
from airflow_provider_apptoto.client.messages import TARGETS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from airflow_provider_apptoto.batch.options import BatchOptions
    from airflow_provider_apptoto.batch.rendering import Columns, RowRenderer
    from airflow_provider_apptoto.batch.rows import ReadRow
    from airflow_provider_apptoto.batch.suppression import Suppression
    from airflow_provider_apptoto.client import Message

T = TypeVar("T")

MAX_PROBLEMS = 1000
"""Rows that are kept by name for each reason why they make no message; the rest are counted."""
_MAX_NAME = 200
"""Characters of a key or a reference."""


@dataclass(frozen=True, slots=True)
class PlannedMessage:
    """A message of the batch.

    :param index: of its row, from 0.
    :param key: in the ledger.
    :param item: what its row's ``id_column`` says.
    :param reference: what its row's ``reference_column`` says.
    :param line: of the file, where its row begins, from 1; ``None`` for a row of a list.
    """

    index: int
    message: Message
    key: str
    item: str | None = field(repr=False)
    reference: str | None
    line: int | None = None
    labels: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a row.

    :param code: stable name of the cause.
    :param column: the column that is to blame, if it is known.
    """

    index: int
    line: int | None
    reference: str | None
    field: str
    reason: str
    code: str
    column: str | None


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
    :param suppression: recipients who get nothing.
    :param options: the columns that name messages, and how many there may be.
    """

    renderer: RowRenderer
    build: Callable[..., Message]
    key_of: Callable[[Message, str | None], str]
    suppression: Suppression
    options: BatchOptions

    def plan(self, rows: Iterable[ReadRow | FileRow]) -> Plan:
        """Make the plan.

        :raises ApptotoConfigurationError: there are more than ``max_messages``, or something is wrong that is no row's.
        """
        plan, most = Plan(), self.options.max_messages
        planned: dict[str, PlannedMessage] = {}
        for index, row in enumerate(rows):
            plan.rows += 1
            self._add(plan, planned, index, row)
            if most is not None and len(planned) > most:
                msg = f"is {most}, and there are more messages than that: nothing was sent"
                raise ApptotoConfigurationError("max_messages", msg, code="too_many_messages")
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
            if self.options.reference_column is not None:
                reference = _name(shown, self.options.reference_column, "reference_column", required=False)
            item = None
            if self.options.id_column is not None:
                item = _name(shown, self.options.id_column, "id_column", required=True)
            labels = {name: _name(shown, name, "label_columns", required=False) for name in self.options.label_columns}
            message = self.build(**self.renderer.fields(columns, shown))
            if self.suppression.holds(message):
                plan.suppressed += 1
                _keep(plan.suppressed_rows, LeftOut(index, line, reference))
                return
            given_labels = {name: value for name, value in labels.items() if value is not None}
            key = self.key_of(message, item)
            new = PlannedMessage(index, message, key, item, reference, line, given_labels or None)
            earlier = planned.setdefault(key, new)
            if earlier is not new and not self._is_duplicate(earlier.message, message):
                raise self._ambiguity(earlier)
            if earlier is not new:
                plan.duplicates += 1
                _keep(plan.duplicate_rows, LeftOut(index, line, reference))
        except ApptotoValidationError as error:
            plan.invalid += 1
            column = error.column
            if column is None and isinstance(row, Mapping) and error.field in row:
                column = error.field
            problem = Problem(index, line, reference, error.field, error.problem, error.code, column)
            _keep(plan.problems, problem)

    def _is_duplicate(self, one: Message, other: Message) -> bool:
        """Tell whether two messages are one, also where their recipient is written in two ways."""
        same = self.key_of(one, None) == self.key_of(other, None)
        return same and dataclasses.replace(one, to=other.to) == other

    def _ambiguity(self, earlier: PlannedMessage) -> ApptotoValidationError:
        msg = f"duplicates {place(earlier.index, earlier.line)}, but has different content"
        if self.options.id_column is not None:
            return ApptotoValidationError(self.options.id_column, msg, code="ambiguous")
        msg += "; set id_column, so that a retry can tell them apart"
        target = next(name for name in TARGETS if getattr(earlier.message, name) is not None)
        return ApptotoValidationError(target, msg, code="ambiguous")


def place(index: int, line: int | None, reference: str | None = None) -> str:
    """Return where a row stands, in its file or in its list, and its reference if it has one."""
    where = f"row {index}" if line is None else f"line {line}"
    return where if reference is None else f"{where} (reference {reference})"


def _keep(kept: list[T], row: T) -> None:
    if len(kept) < MAX_PROBLEMS:
        kept.append(row)


def _name(columns: Columns, column: str, parameter: str, *, required: bool) -> str | None:
    """Return what a column says that names a message."""
    try:
        value = columns[column]
    except KeyError:
        msg = f"there is no such column, and {parameter} names it"
        raise ApptotoValidationError(column, msg, code="column_missing", column=column) from None
    if value is None and not required:
        return None
    name = ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a column of integers with gaps, as pandas has it
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        with contextlib.suppress(ValueError):  # an integer of thousands of digits
            name = str(value).strip()
    if 0 < len(name) <= _MAX_NAME and name.isprintable():
        return name
    msg = f"is the {parameter}: it has to be one line of text, 1 to {_MAX_NAME} characters, or a number"
    raise ApptotoValidationError(column, msg, code="name_invalid")
