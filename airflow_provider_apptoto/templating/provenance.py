"""Find out where the value of a field comes from, which decides whether it is rendered."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from airflow_provider_apptoto._airflow import is_from_expand_kwargs, is_literal
from airflow_provider_apptoto.client.errors import ApptotoValidationError

if TYPE_CHECKING:
    from collections.abc import Callable

    import jinja2

    from airflow_provider_apptoto.templating.language import Renderer


class SourceKind(StrEnum):
    """Where a value comes from, and so whether it is rendered."""

    TEMPLATE = "template"
    """Written in the DAG file; strings are rendered."""
    LITERAL = "literal"
    """Written in the DAG file in ``literal()``; never rendered."""
    VALUE = "value"
    """Computed elsewhere; never rendered."""


@dataclass(frozen=True, slots=True, repr=False)
class FieldSource:
    """The value of a field before rendering, and its kind."""

    value: Any
    kind: SourceKind

    @property
    def is_template(self) -> bool:
        """Whether it is a string to render."""
        return self.kind is SourceKind.TEMPLATE and isinstance(self.value, str)


def source_of(  # noqa: PLR0917
    task: Any, name: str, value: Any, context: Any, env: jinja2.Environment, seen_oids: set[int]
) -> FieldSource:
    """Return the source of a template field.

    :param task: the operator.
    :param name: the field's name.
    :param value: the field's value.
    :param context: the task's context.
    :param env: the DAG's Jinja environment.
    :param seen_oids: ids of values that came from XComs.
    :raises ApptotoValidationError: the task or function that provides the value returned ``None``.
    """
    if isinstance(value, str | list | tuple | dict):
        made_elsewhere = id(value) in seen_oids or is_from_expand_kwargs(task, name, value, context)
        return FieldSource(value, SourceKind.VALUE if made_elsewhere else SourceKind.TEMPLATE)
    return resolve(name, value, context, env)


def resolve(name: str, value: Any, context: Any, env: jinja2.Environment) -> FieldSource:
    """Return the source that a value in the DAG file stands for: a template, an XCom, a ``literal()``, a function.

    :param name: the field's name, for errors.
    :param value: the value in the DAG file.
    :param context: the task's context.
    :param env: the DAG's Jinja environment.
    :raises ApptotoValidationError: the task or function that provides the value returned ``None``.
    """
    if isinstance(value, str):
        return FieldSource(value, SourceKind.TEMPLATE)
    if resolver := getattr(value, "resolve", None):
        source = FieldSource(resolver(context), SourceKind.LITERAL if is_literal(value) else SourceKind.VALUE)
    elif callable(value):
        source = FieldSource(value(context=context, jinja_env=env), SourceKind.VALUE)
    else:
        return FieldSource(value, SourceKind.VALUE)
    if source.value is None:
        problem = "is None: the task or function that provides it returned nothing"
        raise ApptotoValidationError(name, problem, code="field_empty")
    return source


def text_of(renderer: Renderer, field: str, source: FieldSource, *, to_appointment: bool) -> Any:
    """Render or check a text, depending on its source. A value that is not a string is returned unchanged.

    :param renderer: the renderer of the task.
    :param field: the field's name, for errors.
    :param source: the text.
    :param to_appointment: whether it goes to an event or a participant.
    :raises ApptotoValidationError: it can't be rendered, or would mean something else in Apptoto.
    """
    if not isinstance(source.value, str):
        return source.value
    ways: dict[SourceKind, Callable[..., str]] = {
        SourceKind.TEMPLATE: renderer.render_text,
        SourceKind.VALUE: renderer.check_text,
        SourceKind.LITERAL: renderer.check_literal,
    }
    return ways[source.kind](field, source.value, to_appointment=to_appointment)
