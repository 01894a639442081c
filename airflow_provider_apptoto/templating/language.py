"""Render texts that mix Airflow's Jinja with Apptoto's dynamic fields, which use the same braces.

Only the syntax decides who renders a block. In a message to an event or a participant, a ``{{ ... }}`` block that
begins with a root (``name``, ``event``, ...) belongs to Apptoto, and so does all of ``{% raw %}``. Everything else
belongs to Airflow. While Jinja renders the text, placeholders replace Apptoto's parts. Any other braces in the rendered
text came from a value, and Apptoto would execute them, so they are an error.

Apptoto's language, Liquid, ignores quotes when it searches for the end of a block. A block for Apptoto must therefore
contain no delimiters, so that both languages agree on where it ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jinja2

from airflow_provider_apptoto.client.errors import ApptotoValidationError
from airflow_provider_apptoto.templating.strict import compile_strict, strict_environment, syntax_problem
from airflow_provider_apptoto.templating.syntax import (
    OPENING,
    RAW,
    Placeholders,
    ends_as_in_liquid,
    find_opening,
    names_set_in,
    split,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from airflow_provider_apptoto.templating.strict import Template
    from airflow_provider_apptoto.templating.syntax import Part

DOCUMENTED_ROOTS = ("name", "event", "participant", "contact")
"""Names with which dynamic fields begin: apidocs.apptoto.com/reference/v1send_message, and the manual's fields page."""
_HINT = f"; if it is meant for Apptoto, wrap it in {RAW}"


class Renderer:
    """Renders the fields of one task.

    An undefined name and ``None`` are errors, even if the DAG's environment is lenient. The result is a string.

    :param context: the task's context.
    :param env: the DAG's Jinja environment, not a native one; it is not changed.
    :param dynamic_fields: additional names with which dynamic fields begin.
    :raises ApptotoValidationError: ``dynamic_fields`` is one string.
    """

    def __init__(self, context: Any, env: jinja2.Environment, dynamic_fields: Collection[str] = ()) -> None:
        if isinstance(dynamic_fields, str):
            problem = "must be a list of names, not one string"
            raise ApptotoValidationError("dynamic_fields", problem, code="setting_invalid")
        self._env = strict_environment(env)
        self._context = context
        self._roots = (*DOCUMENTED_ROOTS, *dynamic_fields)

    def render(self, field: str, template: str) -> str:
        """Render a field that is not a text, such as a recipient or an id, with Jinja only.

        :raises ApptotoValidationError: it can't be rendered; no value is shown.
        """
        return self.compile(field, template).render()

    def render_text(self, field: str, template: str, *, to_appointment: bool) -> str:
        """Render a text.

        :param field: the field's name, for errors.
        :param template: the text in the DAG file.
        :param to_appointment: whether it goes to an event or a participant; Apptoto fills fields only for these.
        :raises ApptotoValidationError: it can't be rendered, or would mean something else in Apptoto; no value is
            shown.
        """
        return self.compile_text(field, template, to_appointment=to_appointment).render()

    def compile(self, field: str, template: str) -> Template:
        """Compile a field that is not a text, to be rendered for any number of messages.

        :raises ApptotoValidationError: it is not a valid template.
        """
        return compile_strict(field, template, "", self._env, self._context)

    def compile_text(self, field: str, template: str, *, to_appointment: bool) -> Template:
        """Compile a text, to be rendered for any number of messages.

        :raises ApptotoValidationError: it is not a template, or would mean something else in Apptoto.
        """
        placeholders = Placeholders()
        roots: dict[str, Part] = {}
        rest = []
        for part in self._parts(field, template, to_appointment=to_appointment):
            if part.root in self._roots:
                roots.setdefault(part.root, part)
                rest.append(_hide(field, part, part.text, placeholders) if to_appointment else part.text)
            elif part.kind == "raw" and to_appointment:
                rest.append(_hide(field, part, part.inner, placeholders))
            elif part.kind == "data" and OPENING.search(part.text):
                # the DAG sets delimiters for Jinja that differ from Apptoto's
                rest.append(self._hide_fields(field, part, placeholders, to_appointment=to_appointment))
            else:
                rest.append(part.text)
        remaining = "".join(rest)
        hint = _HINT if to_appointment else ""
        self._refuse_ambiguity(field, remaining, roots, hint, to_appointment=to_appointment)
        rendered = compile_strict(field, remaining, hint, self._env, self._context)
        return _MixedTemplate(field, rendered, placeholders, to_appointment=to_appointment)

    def check_text(self, field: str, text: str, *, to_appointment: bool) -> str:
        """Return a text that is not rendered, such as an XCom or a column, unchanged.

        :raises ApptotoValidationError: it is not plain text; dynamic fields belong in the text in the DAG file.
        """
        if found := find_opening(text):
            line, opening = found
            problem = (
                f"line {line}: {opening} in a text that comes from an XCom, a row, a file or a function. Such a text "
                "is not rendered and must be plain; remove the braces, or render the text where it is made"
            )
            if to_appointment:
                problem += ". Write Apptoto's fields in the text in the DAG file"
            raise ApptotoValidationError(field, problem, code="braces_in_value")
        return text

    def check_literal(self, field: str, text: str, *, to_appointment: bool) -> str:
        """Return a text from ``literal()`` unchanged; in a message to an appointment, Apptoto renders it.

        :raises ApptotoValidationError: the recipient would see braces, because Apptoto fills nothing for it.
        """
        if not to_appointment and (found := OPENING.search(text)):
            problem = (
                f"{{{found[1]} in literal() would reach the recipient unrendered: Apptoto fills dynamic fields only "
                "for an event_id or participant_id"
            )
            raise ApptotoValidationError(field, problem, code="text_unrendered")
        return text

    def _parts(self, field: str, source: str, *, to_appointment: bool) -> Iterator[Part]:
        try:
            yield from split(source, self._env)
        except jinja2.TemplateSyntaxError as error:
            problem = syntax_problem(error, _HINT if to_appointment else "")
        else:
            return
        raise ApptotoValidationError(field, problem, code="template_invalid")

    def _hide_fields(self, field: str, part: Part, placeholders: Placeholders, *, to_appointment: bool) -> str:
        """Hide the dynamic fields of a text in a DAG whose delimiters differ from Apptoto's.

        :raises ApptotoValidationError: it contains braces that are not a dynamic field.
        """
        plain = jinja2.Environment(keep_trailing_newline=True)  # noqa: S701  nothing is rendered in it
        try:
            inner = list(split(part.text, plain, part.line))
        except jinja2.TemplateSyntaxError as error:
            problem = f"line {part.line + error.lineno - 1}: these braces are not one of Apptoto's dynamic fields"
            raise ApptotoValidationError(field, problem, code="template_invalid") from None
        pieces = []
        for each in inner:
            if each.kind != "data" and not (to_appointment and each.root in self._roots):
                problem = (
                    f"line {each.line}: {each.shown} would be sent unrendered: the DAG sets other delimiters for "
                    f"Jinja. Apptoto's fields begin with {', '.join(self._roots)}; list others in dynamic_fields"
                )
                if not to_appointment:
                    problem += ". Apptoto fills them only for an event_id or participant_id"
                code = "dynamic_field_unknown" if to_appointment else "text_unrendered"
                raise ApptotoValidationError(field, problem, code=code)
            pieces.append(each.text if each.kind == "data" else _hide(field, each, each.text, placeholders))
        return "".join(pieces)

    def _refuse_ambiguity(
        self, field: str, template: str, roots: Mapping[str, Part], hint: str, *, to_appointment: bool
    ) -> None:
        if not roots:
            return
        try:
            own = names_set_in(self._env.parse(template))
        except jinja2.TemplateSyntaxError as error:
            raise ApptotoValidationError(field, syntax_problem(error, hint), code="template_invalid") from None
        for root, part in roots.items():
            if root in own:
                other = f"the variable {root} that this text sets"
            elif root in self._env.globals or root in self._context:
                other = f"{root} from Airflow or from the DAG's user_defined_macros"
            else:
                other = ""
            if to_appointment and other:
                problem = (
                    f"line {part.line}: {part.shown} may mean Apptoto's dynamic field {root} or {other}; rename the "
                    f"latter, or wrap Apptoto's field in {RAW}"
                )
                raise ApptotoValidationError(field, problem, code="dynamic_field_ambiguous")
            if not to_appointment and not other:
                problem = (
                    f"line {part.line}: {part.shown} is a dynamic field, which Apptoto fills only for an event_id or "
                    "participant_id; with to, use a value from Airflow, such as {{ params.name }}"
                )
                raise ApptotoValidationError(field, problem, code="text_unrendered")


class _MixedTemplate:
    """A template that may contain Apptoto's fields."""

    def __init__(self, field: str, rendered: Template, placeholders: Placeholders, *, to_appointment: bool) -> None:
        self._field = field
        self._rendered = rendered
        self._placeholders = placeholders
        self._to_appointment = to_appointment

    def render(self, **variables: Any) -> str:
        text = self._rendered.render(**variables)
        if found := find_opening(text):
            where = f"{found[1]} in the rendered text"
            if self._to_appointment:
                problem = (
                    f"{where} came from a value, and Apptoto would execute it; remove the braces from the value. If "
                    f"they are meant for Apptoto, write them in the text itself, in {RAW}"
                )
            else:
                problem = (
                    f"{where} would reach the recipient unrendered: Apptoto fills dynamic fields only for an "
                    "event_id or participant_id; remove the braces or the raw block"
                )
            code = "braces_in_value" if self._to_appointment else "text_unrendered"
            raise ApptotoValidationError(self._field, problem, code=code)
        return self._placeholders.restore(self._field, text)


def _hide(field: str, part: Part, text: str, placeholders: Placeholders) -> str:
    """Return a placeholder for a part that belongs to Apptoto.

    :raises ApptotoValidationError: Liquid would end a block of it elsewhere.
    """
    if not ends_as_in_liquid(part, text):
        problem = (
            f"line {part.line}: {part.shown} contains a block that Liquid, Apptoto's language, would end elsewhere; "
            "remove the braces inside the block (quotes do not protect them), and close each {{ and {% in the raw "
            "block that opens it"
        )
        raise ApptotoValidationError(field, problem, code="template_invalid")
    return placeholders.hide(text)
