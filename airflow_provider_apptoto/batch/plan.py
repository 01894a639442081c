"""Plan a batch: build a message from each row, and check all of them before the first is sent."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_apptoto.batch.rows import FileRow
from airflow_provider_apptoto.client.appointments import read_time
from airflow_provider_apptoto.client.errors import ApptotoConfigurationError, ApptotoValidationError
from airflow_provider_apptoto.client.messages import TARGETS
from airflow_provider_apptoto.outbox.draft import take_event
from airflow_provider_apptoto.outbox.guards import moment_of, zone_or_none
from airflow_provider_apptoto.outbox.states import event_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from airflow_provider_apptoto.batch.options import BatchOptions
    from airflow_provider_apptoto.batch.rendering import Columns, RowRenderer
    from airflow_provider_apptoto.batch.rows import ReadRow
    from airflow_provider_apptoto.client import Message
    from airflow_provider_apptoto.outbox.guards import Guards
    from airflow_provider_apptoto.outbox.suppression import Suppression

T = TypeVar("T")

MAX_PROBLEMS = 1000
"""Maximum number of rows that the plan lists for each reason; further rows are only counted."""
_MAX_NAME = 200
"""Maximum length of a key or a reference, in characters."""


@dataclass(frozen=True, slots=True)
class PlannedMessage:
    """A message of the batch.

    :param index: index of the row, from 0.
    :param key: key of the ledger entry.
    :param item: value of the row's ``id_column``.
    :param reference: value of the row's ``reference_column``.
    :param line: line of the file on which the row starts, from 1; ``None`` for a row of a list.
    :param timezone: value of the row's ``timezone_column``.
    :param not_after: value of the row's ``not_after_column``.
    :param event_id: the event of a message to a participant, if the row has it.
    :param start_time: the row's column ``start_time``, if it is a time with a zone.
    """

    index: int
    message: Message
    key: str
    item: str | None = field(repr=False)
    reference: str | None
    line: int | None = None
    labels: Mapping[str, str] | None = None
    timezone: str | None = None
    not_after: datetime | None = None
    event_id: int | None = None
    start_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a row is invalid.

    :param code: stable name of the cause.
    :param column: the column that caused it, if known.
    :param recipient: the recipient, if it can be compared with those who opted out.
    """

    index: int
    line: int | None
    reference: str | None
    field: str
    reason: str
    code: str
    column: str | None
    recipient: str | None = dataclasses.field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A valid row for which no message is sent: it is suppressed or a duplicate."""

    index: int
    line: int | None
    reference: str | None


@dataclass(slots=True)
class Plan:
    """The messages of a batch, and the rows that are left out.

    :param rows: number of rows.
    :param duplicates: number of rows with the same content and recipient as an earlier row.
    :param suppressed: number of rows whose recipient is on the suppression list.
    :param invalid: number of invalid rows.
    :param problems: why the first ``MAX_PROBLEMS`` of the invalid rows are invalid.
    :param suppressed_rows: the first ``MAX_PROBLEMS`` suppressed rows.
    :param duplicate_rows: the first ``MAX_PROBLEMS`` duplicates.
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
    """Builds the plan of a batch from its rows.

    :param renderer: turns a row into the fields of a message.
    :param build: builds a checked message from its fields.
    :param key_of: returns the ledger key of a message and its ``item``.
    :param suppression: recipients who must not get a message.
    :param guards: the guards of the outbox, which may need the time zone of each recipient.
    :param options: the columns that identify messages, and the limits.
    """

    renderer: RowRenderer
    build: Callable[..., Message]
    key_of: Callable[[Message, str | None], str]
    suppression: Suppression
    guards: Guards
    options: BatchOptions

    def plan(self, rows: Iterable[ReadRow | FileRow]) -> Plan:
        """Build the plan.

        :raises ApptotoConfigurationError: there are more than ``max_messages``, or the error concerns all rows.
        """
        plan, most = Plan(), self.options.max_messages
        planned: dict[str, PlannedMessage] = {}
        for index, row in enumerate(rows):
            plan.rows += 1
            self._add(plan, planned, index, row)
            if most is not None and len(planned) > most:
                msg = f"is {most}, but the batch has more messages. Nothing was sent. Raise it if this is intended"
                raise ApptotoConfigurationError("max_messages", msg, code="too_many_messages")
        plan.messages = list(planned.values())
        self._leave_out_optouts(plan)
        return plan

    def _leave_out_optouts(self, plan: Plan) -> None:
        """Leave out the rows of people on the opt-out lists, also those that are invalid."""
        if self.guards.optouts is None:
            return
        recipients = {each.message.to for each in plan.messages} | {each.recipient for each in plan.problems}
        asked = [each for each in recipients if each is not None]
        found = self.guards.opted_out(asked)
        if not found:
            return
        rows: list[PlannedMessage | Problem] = [*plan.messages, *plan.problems]
        left_out = [each for each in rows if _recipient_of(each) in found]
        plan.suppressed += len(left_out)
        for row in sorted(left_out, key=lambda each: each.index):
            _keep(plan.suppressed_rows, LeftOut(row.index, row.line, row.reference))
        plan.messages = [each for each in plan.messages if each.message.to not in found]
        problems = [each for each in plan.problems if each.recipient not in found]
        plan.invalid -= len(plan.problems) - len(problems)
        plan.problems = problems

    def _add(self, plan: Plan, planned: dict[str, PlannedMessage], index: int, read: ReadRow | FileRow) -> None:
        line, row = read if isinstance(read, FileRow) else (None, read)
        reference, recipient = None, None
        try:
            if isinstance(row, ApptotoValidationError):
                raise row
            columns = self.renderer.columns(row)
            shown = self.renderer.shown(columns)
            recipient = self.renderer.recipient(columns, shown)
            if self.options.reference_column is not None:
                reference = _name(shown, self.options.reference_column, "reference_column", required=False)
            item = None
            if self.options.id_column is not None:
                item = _name(shown, self.options.id_column, "id_column", required=True)
            labels = {name: _name(shown, name, "label_columns", required=False) for name in self.options.label_columns}
            fields, event_id = take_event(self.renderer.fields(columns, shown))
            message = self.build(**fields)
            if self.suppression.holds(message):
                plan.suppressed += 1
                _keep(plan.suppressed_rows, LeftOut(index, line, reference))
                return
            given_labels = {name: value for name, value in labels.items() if value is not None}
            self._check_event(message, event_id)
            timezone, not_after = self._times(message, shown)
            key = self.key_of(message, item)
            new = PlannedMessage(
                *(index, message, key, item, reference, line, given_labels or None, timezone, not_after),
                event_id=event_id,
                start_time=_start_time(columns, shown),
            )
            earlier = planned.setdefault(key, new)
            if earlier is not new and not self._is_duplicate(earlier.message, message):
                raise self._ambiguity(earlier)
            if earlier is not new:
                plan.duplicates += 1
                _keep(plan.duplicate_rows, LeftOut(index, line, reference))
        except ApptotoValidationError as error:
            if self.suppression.holds_written(recipient):
                plan.suppressed += 1
                _keep(plan.suppressed_rows, LeftOut(index, line, reference))
                return
            plan.invalid += 1
            column = error.column
            if column is None and isinstance(row, Mapping) and error.field in row:
                column = error.field
            comparable = self.suppression.comparable(recipient)
            problem = Problem(index, line, reference, error.field, error.problem, error.code, column, comparable)
            _keep(plan.problems, problem)

    def _check_event(self, message: Message, event_id: int | None) -> None:
        """Check that the event is known if ``only_if_state`` is set.

        :raises ApptotoValidationError: it is not.
        """
        if self.guards.states is not None:
            event_of(message, event_id)

    def _times(self, message: Message, shown: Columns) -> tuple[str | None, datetime | None]:
        """Return the time zone and the latest time of a row; check that the zone is known if there is a window.

        :raises ApptotoValidationError: they are invalid, or the zone is unknown.
        """
        timezone = self._optional(shown, self.options.timezone_column)
        zone = zone_or_none(timezone, self.options.timezone_column or "")
        if self.guards.window is not None:
            self.guards.zone(message, zone)
        not_after = self._optional(shown, self.options.not_after_column)
        return timezone, moment_of(not_after, self.options.not_after_column or "")

    def _optional(self, shown: Columns, column: str | None) -> Any:
        """Return the value of a column; ``None`` if it is blank, or not asked for."""
        if column is None:
            return None
        try:
            value = shown[column]
        except KeyError:
            msg = "the row has no such column"
            raise ApptotoValidationError(column, msg, code="column_missing", column=column) from None
        return None if isinstance(value, str) and not value.strip() else value

    def _is_duplicate(self, one: Message, other: Message) -> bool:
        """Return whether two messages are the same, even if their recipients are written differently."""
        same = self.key_of(one, None) == self.key_of(other, None)
        return same and dataclasses.replace(one, to=other.to) == other

    def _ambiguity(self, earlier: PlannedMessage) -> ApptotoValidationError:
        msg = f"duplicates {place(earlier.index, earlier.line)}, but has different content"
        if self.options.id_column is not None:
            return ApptotoValidationError(self.options.id_column, msg, code="ambiguous")
        msg += "; set id_column so that a retry can tell them apart"
        target = next(name for name in TARGETS if getattr(earlier.message, name) is not None)
        return ApptotoValidationError(target, msg, code="ambiguous")


def _start_time(columns: Mapping[str, Any], shown: Columns) -> datetime | None:
    """Return when the event of a row starts; ``None`` if the column is missing, or is no time with a zone."""
    return read_time(shown["start_time"]) if "start_time" in columns else None


def _recipient_of(row: PlannedMessage | Problem) -> str | None:
    return row.message.to if isinstance(row, PlannedMessage) else row.recipient


def place(index: int, line: int | None, reference: str | None = None) -> str:
    """Return the position of a row in its file or list, and its reference if it has one."""
    where = f"row {index}" if line is None else f"line {line}"
    return where if reference is None else f"{where} (reference {reference})"


def _keep(kept: list[T], row: T) -> None:
    if len(kept) < MAX_PROBLEMS:
        kept.append(row)


def _name(columns: Columns, column: str, parameter: str, *, required: bool) -> str | None:
    """Return the value of a column that names a message."""
    try:
        value = columns[column]
    except KeyError:
        msg = f"the row has no such column, but {parameter} names it"
        raise ApptotoValidationError(column, msg, code="column_missing", column=column) from None
    if value is None and not required:
        return None
    name = ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # pandas turns a column of integers with gaps into floats
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        with contextlib.suppress(ValueError):  # Python refuses to convert an integer of thousands of digits
            name = str(value).strip()
    if 0 < len(name) <= _MAX_NAME and name.isprintable():
        return name
    msg = f"is the {parameter}: it must be one line of text, 1 to {_MAX_NAME} characters, or a number"
    raise ApptotoValidationError(column, msg, code="name_invalid")
