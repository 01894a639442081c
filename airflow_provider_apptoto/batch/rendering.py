"""Build the fields of a message from a row: each field comes from a column or from ``defaults``."""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_apptoto.batch.rows import ROW
from airflow_provider_apptoto.client.errors import ApptotoConfigurationError, ApptotoValidationError
from airflow_provider_apptoto.client.messages import MESSAGE_FIELDS, TEXT_FIELDS
from airflow_provider_apptoto.privacy import AIRFLOW_MASK, HiddenValueError, rendering
from airflow_provider_apptoto.templating.provenance import FieldSource, SourceKind, text_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_apptoto.batch.rows import Row
    from airflow_provider_apptoto.templating.language import Renderer
    from airflow_provider_apptoto.templating.strict import Template


_NONE = re.compile(r"\bnone\b", re.IGNORECASE)


class Columns:
    """The columns of a row, as templates read them: ``row.first_name``, ``row["first name"]``.

    It has no other public attributes, so a column can have any name.
    """

    # two underscores: Airflow's Jinja sandbox lets templates read names that begin with one
    __slots__ = ("__columns__", "__empty__")

    def __init__(self, row: Row) -> None:
        self.__columns__ = row
        self.__empty__: str | None = None
        """The column that was read last, if it was empty."""

    def __getitem__(self, name: str) -> Any:
        value = self.__columns__[name]
        self.__empty__ = name if value is None else None
        return value

    def __repr__(self) -> str:
        """Return a mask, because a whole row must not be logged.

        :raises HiddenValueError: a text is being rendered; it must name a column.
        """
        if rendering.get():
            raise HiddenValueError
        return AIRFLOW_MASK


class RowRenderer:
    """Builds the fields of messages from rows.

    :param renderer: the renderer of the task.
    :param resolve: returns the source that a value in the DAG file stands for.
    :param row_kind: where the rows come from.
    :param defaults: message fields for rows that don't set them; their templates may name columns.
    :raises ApptotoConfigurationError: ``defaults`` is not a mapping of fields.
    """

    def __init__(
        self,
        renderer: Renderer,
        resolve: Callable[[str, Any], FieldSource],
        *,
        row_kind: SourceKind,
        defaults: FieldSource,
    ) -> None:
        self._renderer = renderer
        self._resolve = resolve
        self._row_kind = row_kind
        self._templates: dict[tuple[str, bool | None], Template] = {}
        fields = {} if defaults.value is None else defaults.value
        if not isinstance(fields, Mapping):
            msg = f"must be a mapping of fields, not {type(fields).__name__}"
            raise ApptotoConfigurationError("defaults", msg)
        for name in fields:
            if name not in MESSAGE_FIELDS:
                near = difflib.get_close_matches(str(name), MESSAGE_FIELDS, 1)
                hint = f"; did you mean {near[0]}?" if near else ""
                msg = f"{name!r} is not one of {', '.join(MESSAGE_FIELDS)}{hint}"
                raise ApptotoConfigurationError("defaults", msg, code="setting_unknown")
        self._defaults = {
            name: self._source(f"defaults[{name!r}]", value, defaults.kind)
            for name, value in fields.items()
            if value is not None
        }

    def columns(self, row: Row) -> dict[str, FieldSource]:
        """Return the columns of a row. Values written in the DAG file are resolved."""
        return {name: self._source(name, value, self._row_kind) for name, value in row.items()}

    def shown(self, columns: dict[str, FieldSource]) -> Columns:
        """Return the columns of a row in the form that templates read."""
        return Columns(
            {
                name: self._renderer.render(name, source.value) if source.is_template else source.value
                for name, source in columns.items()
                if name not in TEXT_FIELDS or not source.is_template
            }
        )

    def fields(self, columns: dict[str, FieldSource], shown: Columns) -> dict[str, Any]:
        """Return the fields of a row's message.

        :raises ApptotoValidationError: a field can't be rendered, would mean something else in Apptoto, or is also
            set by ``defaults``.
        """
        self._check_given_once(columns)
        fields = {
            name: self._field(name, columns, shown, to_appointment=None)
            for name in MESSAGE_FIELDS
            if name not in TEXT_FIELDS
        }
        to_appointment = fields["event_id"] is not None or fields["participant_id"] is not None
        return fields | {name: self._field(name, columns, shown, to_appointment=to_appointment) for name in TEXT_FIELDS}

    def recipient(self, columns: dict[str, FieldSource], shown: Columns) -> object:
        """Return the value of ``to`` in a row that may be invalid, or ``None``."""
        try:
            return self._field("to", columns, shown, to_appointment=None)
        except ApptotoValidationError:
            return None

    def _check_given_once(self, columns: dict[str, FieldSource]) -> None:
        """Check that the row and ``defaults`` don't set the same field. Blank columns are checked later.

        :raises ApptotoValidationError: both set a field.
        """
        for name in self._defaults:
            value = columns[name].value if name in columns else None
            if value is not None and not (isinstance(value, str) and not value.strip()):
                problem = f"both the row and defaults set it. Remove the column {name}, or remove {name} from defaults"
                raise ApptotoValidationError(name, problem, code="given_twice", column=name)

    def _source(self, name: str, value: Any, kind: SourceKind) -> FieldSource:
        return self._resolve(name, value) if kind is SourceKind.TEMPLATE else FieldSource(value, kind)

    def _field(self, name: str, columns: dict[str, FieldSource], shown: Columns, *, to_appointment: bool | None) -> Any:
        """Return the value of a field. ``to_appointment`` is ``None`` for fields that are not texts."""
        source = columns.get(name)
        if source is not None and source.value is not None:
            if to_appointment is None:
                return shown[name]
            return text_of(self._renderer, name, source, to_appointment=to_appointment)
        source = self._defaults.get(name)
        if source is None:
            return None
        if source.is_template:
            template = self._template(name, source.value, to_appointment=to_appointment)
            return _rendered(name, source.value, template, shown)
        if to_appointment is None:
            return source.value
        return text_of(self._renderer, name, source, to_appointment=to_appointment)

    def _template(self, name: str, source: str, *, to_appointment: bool | None) -> Template:
        """Return a template of ``defaults``.

        :raises ApptotoConfigurationError: the template is invalid for every row.
        :raises ApptotoValidationError: it is invalid for this row only.
        """
        key = name, to_appointment
        if key not in self._templates:
            try:
                self._templates[key] = self._compiled(name, source, to_appointment=to_appointment)
            except ApptotoValidationError as error:
                if to_appointment is not None and self._compiles(name, source, to_appointment=not to_appointment):
                    raise
                raise ApptotoConfigurationError(f"defaults[{name!r}]", error.problem, code=error.code) from None
        return self._templates[key]

    def _compiles(self, name: str, source: str, *, to_appointment: bool) -> bool:
        try:
            self._compiled(name, source, to_appointment=to_appointment)
        except ApptotoValidationError:
            return False
        return True

    def _compiled(self, name: str, source: str, *, to_appointment: bool | None) -> Template:
        if to_appointment is None:
            return self._renderer.compile(name, source)
        return self._renderer.compile_text(name, source, to_appointment=to_appointment)


def _rendered(name: str, source: str, template: Template, shown: Columns) -> str:
    """Render a template. If an empty column makes it fail or read "None", the error names the column.

    :raises ApptotoValidationError: it can't be rendered.
    """
    try:
        text = template.render(**{ROW: shown})
        column = _column_read_as_none(template, shown, text)
        if column is None:
            return text
    except ApptotoValidationError as error:
        column = _empty_column(template, shown, error)
        # a name that is not in the text came from a value, and is not shown
        if column is None or column not in source:
            raise
    name_in_text = f"{ROW}.{column}" if column.isidentifier() else f'{ROW}["{column}"]'
    problem = f"{name_in_text} is empty"
    if name in TEXT_FIELDS:
        problem += (
            f', and the text would read "None" there. Fill in the column, or use {{{{ {name_in_text} or "there" }}}}'
        )
    raise ApptotoValidationError(name, problem, code="field_empty", column=column)


def _column_read_as_none(template: Template, shown: Columns, text: str) -> str | None:
    """Return the empty column that a filter or ``~`` turned into the word None, if there is one."""
    count = len(_NONE.findall(text))
    empty = [name for name, value in shown.__columns__.items() if value is None] if count else []
    for name in empty:
        with contextlib.suppress(ApptotoValidationError):
            other = template.render(**{ROW: Columns({**shown.__columns__, name: ""})})
            if len(_NONE.findall(other)) < count:
                return name
    return None


def _empty_column(template: Template, shown: Columns, error: ApptotoValidationError) -> str | None:
    """Return the empty column that made a template fail, if there is one: with a value, the error would change."""
    column = shown.__empty__
    if column is None:
        return None
    filled = Columns({**shown.__columns__, column: "x"})
    try:
        template.render(**{ROW: filled})
    except ApptotoValidationError as other:
        if other.problem == error.problem and filled.__empty__ is None:
            return None
    return column
