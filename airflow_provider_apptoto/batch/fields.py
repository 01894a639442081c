"""Render the template fields of a batch task. All fields but the rows are rendered before the first row is read."""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_apptoto.batch.paths import shown_path
from airflow_provider_apptoto.batch.rendering import RowRenderer
from airflow_provider_apptoto.batch.rows import ROW, rows_of, rows_of_file
from airflow_provider_apptoto.client.errors import ApptotoValidationError
from airflow_provider_apptoto.privacy import Redacted, Unrendered
from airflow_provider_apptoto.templating.fields import renderer_of, unrendered_fields
from airflow_provider_apptoto.templating.provenance import FieldSource, SourceKind, resolve, source_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import jinja2

    from airflow_provider_apptoto.batch.rows import FileRow, ReadRow
    from airflow_provider_apptoto.templating.language import Renderer

_ROW_FIELDS = ("messages", "defaults", "suppression")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class RenderedBatch:
    """The fields of a batch after rendering.

    :param renderer: renders the parts of a row that are written in the DAG file.
    :param resolve: returns the source that a value in the DAG file stands for.
    :param messages: a list of rows; its value is ``None`` if ``messages_path`` is given.
    :param messages_path: a file of rows, or ``None``.
    :param defaults: message fields for rows that don't set them.
    :param suppression: recipients who must not get a message.
    """

    renderer: Renderer
    resolve: Callable[[str, Any], FieldSource]
    messages: FieldSource
    messages_path: str | None
    defaults: FieldSource
    suppression: FieldSource

    def rows(self) -> Iterator[ReadRow | FileRow]:
        """Return the rows, read one at a time.

        :raises ApptotoConfigurationError: when the first row is read, if the source does not contain rows.
        """
        return rows_of(self.messages.value) if self.messages_path is None else rows_of_file(self.messages_path)

    def row_renderer(self) -> RowRenderer:
        """Return the renderer that turns a row into the fields of a message.

        :raises ApptotoConfigurationError: ``defaults`` is not a mapping of fields.
        """
        row_kind = self.messages.kind if self.messages_path is None else SourceKind.VALUE
        return RowRenderer(self.renderer, self.resolve, row_kind=row_kind, defaults=self.defaults)

    def suppressed(self) -> Any:
        """Return the recipients who must not get a message. Entries written in the DAG file are rendered.

        :raises ApptotoValidationError: an entry can't be rendered.
        """
        recipients, name = self.suppression, "suppression"
        if recipients.kind is not SourceKind.TEMPLATE or not isinstance(recipients.value, list | tuple):
            return () if recipients.value is None else recipients.value
        sources = (self.resolve(name, value) for value in recipients.value)
        return [self.renderer.render(name, each.value) if each.is_template else each.value for each in sources]


def render_batch_fields(task: Any, context: Any, env: jinja2.Environment, seen_oids: set[int]) -> RenderedBatch:
    """Render the fields of a batch in place. If ``redact`` is true, hide the fields that contain rows.

    :param task: the operator.
    :param context: the task's context.
    :param env: the DAG's Jinja environment.
    :param seen_oids: ids of values that came from XComs, which are not rendered.
    :raises ApptotoValidationError: a field can't be rendered.
    """
    values = unrendered_fields(task)

    def assign(name: str, value: Any, hidden: type[Redacted] = Redacted) -> None:
        if name == "messages_path" and value is not None:
            shown = shown_path(str(value))
            value = value if shown == value else hidden(value, shown)
        elif name in _ROW_FIELDS and value is not None and task.redact:
            value = hidden(value)
        setattr(task, name, value)

    for name, value in values.items():
        assign(name, value, Unrendered)
    if ROW in context or ROW in env.globals:
        problem = "is reserved for the columns of a row; rename the macro or variable with that name in this DAG"
        raise ApptotoValidationError(ROW, problem, code="name_conflict")
    with_row = copy.copy(context)
    with_row.update({ROW: None})
    renderer = renderer_of(with_row, env, task.dynamic_fields)
    sources = {name: source_of(task, name, value, context, env, seen_oids) for name, value in values.items()}
    rendered = {
        name: renderer.render(name, source.value) if source.is_template and name not in _ROW_FIELDS else source.value
        for name, source in sources.items()
    }
    for name, value in rendered.items():
        assign(name, value)
    path = rendered["messages_path"]
    return RenderedBatch(
        renderer=renderer,
        resolve=functools.partial(resolve, context=context, env=env),
        messages=sources["messages"],
        messages_path=None if path is None else str(path),
        defaults=sources["defaults"],
        suppression=sources["suppression"],
    )
