"""Render the template fields of a task that sends one message."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from airflow_provider_apptoto._airflow import string_environment
from airflow_provider_apptoto.client.messages import MESSAGE_TYPES, TEXT_FIELDS
from airflow_provider_apptoto.privacy import Redacted, Unrendered, unwrap
from airflow_provider_apptoto.templating.language import Renderer
from airflow_provider_apptoto.templating.provenance import SourceKind, resolve, source_of, text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    import jinja2

    from airflow_provider_apptoto.templating.provenance import FieldSource

_PERSONAL_FIELDS = ("to", "suppression", *TEXT_FIELDS)


def render_fields(task: Any, context: Any, env: jinja2.Environment, seen_oids: set[int]) -> None:
    """Render the fields of a task in place. If ``redact`` is true, hide the recipient and the texts.

    Fields are hidden before anything can fail. Rendering is idempotent: Airflow may render twice.

    :param task: the operator.
    :param context: the task's context.
    :param env: the DAG's Jinja environment.
    :param seen_oids: ids of values that came from XComs, which are not rendered.
    :raises ApptotoValidationError: a field can't be rendered, or would mean something else in Apptoto.
    """
    values = unrendered_fields(task)

    def assign(name: str, value: Any, hidden: type[Redacted] = Redacted) -> None:
        setattr(task, name, hidden(value) if task.redact and value is not None and _is_personal(name, value) else value)

    for name, value in values.items():
        assign(name, value, Redacted if isinstance(value, Redacted) else Unrendered)
    renderer = renderer_of(context, env, task.dynamic_fields)
    for name, value in values.items():
        if name not in TEXT_FIELDS and not isinstance(value, Redacted):
            source = source_of(task, name, value, context, env, seen_oids)
            assign(name, _rendered(renderer, name, source, functools.partial(resolve, context=context, env=env)))
    to_appointment = task.event_id is not None or task.participant_id is not None
    for name in TEXT_FIELDS:
        if not isinstance(values[name], Redacted):
            source = source_of(task, name, values[name], context, env, seen_oids)
            assign(name, text_of(renderer, name, source, to_appointment=to_appointment))


def _rendered(
    renderer: Renderer, name: str, source: FieldSource, resolve_value: Callable[[str, Any], FieldSource]
) -> Any:
    """Render a field that is not a text: a string, or a list or mapping whose values are rendered in the same way.

    :param resolve_value: returns the source of a value in a list or mapping that is written in the DAG file.
    :raises ApptotoValidationError: it can't be rendered.
    """
    if source.is_template:
        return renderer.render(name, source.value)
    if source.kind is not SourceKind.TEMPLATE or not isinstance(source.value, dict | list | tuple):
        return source.value
    rendered = {}
    for key, value in source.value.items() if isinstance(source.value, dict) else enumerate(source.value):
        place = f"{name}[{key!r}]"
        rendered[key] = _rendered(renderer, place, resolve_value(place, value), resolve_value)
    return rendered if isinstance(source.value, dict) else list(rendered.values())


def unrendered_fields(task: Any) -> dict[str, Any]:
    """Return the template fields of a task, with hidden templates revealed."""
    fields = {name: getattr(task, name) for name in task.template_fields}
    return {name: field.template if isinstance(field, Unrendered) else field for name, field in fields.items()}


def renderer_of(context: Any, env: jinja2.Environment, dynamic_fields: Collection[str] = ()) -> Renderer:
    """Return the renderer of a task. It returns strings, even in a DAG with ``render_template_as_native_obj``.

    :param context: the task's context.
    :param env: the DAG's Jinja environment.
    :param dynamic_fields: additional names with which Apptoto's dynamic fields begin.
    :raises ApptotoValidationError: ``dynamic_fields`` is one string.
    """
    return Renderer(context, string_environment(context, env), dynamic_fields)


def _is_personal(name: str, value: Any) -> bool:
    """Return whether a value may identify a person: a recipient, a text, or a non-numeric value in an id field."""
    if name == "type":
        return unwrap(value) not in MESSAGE_TYPES
    if name.endswith("_id") and not name.endswith("_conn_id"):
        return not str(unwrap(value)).strip().isdigit()
    return name in _PERSONAL_FIELDS
