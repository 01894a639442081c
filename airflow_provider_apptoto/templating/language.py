"""Two languages in one text: Airflow's Jinja, and the dynamic fields that Apptoto fills in the same braces.

Syntax alone decides which is which. In a message to an event or a participant, a ``{{ ... }}`` block that begins with a
root (``name``, ``event``, ...) is Apptoto's, and so is all of ``{% raw %}``; everything else is Airflow's. Placeholders
stand in for Apptoto's parts while Jinja renders. Any other braces in the rendered text came out of a value, and Apptoto
would execute them, so they are an error.

Liquid, Apptoto's language, looks for the end of a block without reading quotes. A block that goes to Apptoto therefore
holds no delimiters inside: both languages agree on where it ends.
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
"""What dynamic fields begin with: apidocs.apptoto.com/reference/v1send_message, and the fields page of the manual."""
_HINT = f"; if it is meant for Apptoto, write {RAW} around it"


class Renderer:
    """Renders the fields of one task.

    Strict: an undefined name is an error, also in DAGs that are lenient, and so is ``None``. The result is a string.

    :param context: the task's context.
    :param env: the DAG's Jinja environment, not a native one; it is not changed.
    :param dynamic_fields: further names that dynamic fields begin with.
    :raises ApptotoValidationError: ``dynamic_fields`` is one string.
    """

    def __init__(self, context: Any, env: jinja2.Environment, dynamic_fields: Collection[str] = ()) -> None:
        if isinstance(dynamic_fields, str):
            problem = "has to be a list of names, not one string"
            raise ApptotoValidationError("dynamic_fields", problem, code="setting_invalid")
        self._env = strict_environment(env)
        self._context = context
        self._roots = (*DOCUMENTED_ROOTS, *dynamic_fields)

    def render(self, field: str, template: str) -> str:
        """Render a field that is not a text, such as a recipient or an id, in Airflow's language alone.

        :raises ApptotoValidationError: it can't be rendered; no value is shown.
        """
        return self.compile(field, template).render()

    def render_text(self, field: str, template: str, *, to_appointment: bool) -> str:
        """Render a text.

        :param field: the field's name, for errors.
        :param template: the text in the DAG file.
        :param to_appointment: whether it goes to an event or a participant: Apptoto fills fields for these alone.
        :raises ApptotoValidationError: it can't be rendered, or would not mean in Apptoto what it says; no value is
            shown.
        """
        return self.compile_text(field, template, to_appointment=to_appointment).render()

    def compile(self, field: str, template: str) -> Template:
        """Return a template of a field that is not a text, for any number of messages.

        :raises ApptotoValidationError: it is not a template.
        """
        return compile_strict(field, template, "", self._env, self._context)

    def compile_text(self, field: str, template: str, *, to_appointment: bool) -> Template:
        """Return a template of a text, for any number of messages.

        :raises ApptotoValidationError: it is not a template, or would not mean in Apptoto what it says.
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
                # the DAG gave Jinja other delimiters than Apptoto's
                rest.append(self._hide_fields(field, part, placeholders, to_appointment=to_appointment))
            else:
                rest.append(part.text)
        remaining = "".join(rest)
        hint = _HINT if to_appointment else ""
        self._refuse_ambiguity(field, remaining, roots, hint, to_appointment=to_appointment)
        rendered = compile_strict(field, remaining, hint, self._env, self._context)
        return _MixedTemplate(field, rendered, placeholders, to_appointment=to_appointment)

    def check_text(self, field: str, text: str, *, to_appointment: bool) -> str:
        """Return a text that is not rendered, such as an XCom or a row's, unchanged.

        :raises ApptotoValidationError: it is not plain text: what Apptoto fills stands in the DAG's own text.
        """
        if found := find_opening(text):
            line, opening = found
            problem = (
                f"line {line}: {opening} in a text that comes from an XCom, a row, a file or a function. Such a text "
                "would go out as it is, so it has to be plain; take the braces out, or render it where the value is "
                "made"
            )
            if to_appointment:
                problem += ". Write Apptoto's fields in the DAG's own text"
            raise ApptotoValidationError(field, problem, code="braces_in_value")
        return text

    def check_literal(self, field: str, text: str, *, to_appointment: bool) -> str:
        """Return a text out of ``literal()`` unchanged: to an appointment, all of it is Apptoto's.

        :raises ApptotoValidationError: braces would reach a recipient for whom Apptoto fills nothing.
        """
        if not to_appointment and (found := OPENING.search(text)):
            problem = (
                f"{{{found[1]} in literal() would reach the recipient as it is: Apptoto fills dynamic fields for an "
                "event_id or participant_id only"
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
        """Hide the dynamic fields of a text in a DAG whose delimiters are not Apptoto's.

        :raises ApptotoValidationError: it holds braces that are not a dynamic field.
        """
        plain = jinja2.Environment(keep_trailing_newline=True)  # noqa: S701  nothing is rendered in it
        try:
            inner = list(split(part.text, plain, part.line))
        except jinja2.TemplateSyntaxError as error:
            problem = f"line {part.line + error.lineno - 1}: braces that are no dynamic field of Apptoto's"
            raise ApptotoValidationError(field, problem, code="template_invalid") from None
        pieces = []
        for each in inner:
            if each.kind != "data" and not (to_appointment and each.root in self._roots):
                problem = (
                    f"line {each.line}: {each.shown} would go out as it is: the DAG gives Jinja other delimiters. "
                    f"Apptoto's fields begin with {', '.join(self._roots)}; name others in dynamic_fields"
                )
                if not to_appointment:
                    problem += ". Apptoto fills them for an event_id or participant_id only"
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
                other = f"the variable {root} that the text sets"
            elif root in self._env.globals or root in self._context:
                other = f"{root} of Airflow or of the DAG's user_defined_macros"
            else:
                other = ""
            if to_appointment and other:
                problem = (
                    f"line {part.line}: {part.shown} may mean Apptoto's dynamic field {root} or {other}; rename the "
                    f"latter, or write {RAW} around Apptoto's"
                )
                raise ApptotoValidationError(field, problem, code="dynamic_field_ambiguous")
            if not to_appointment and not other:
                problem = (
                    f"line {part.line}: {part.shown} is a dynamic field, which Apptoto fills for an event_id or "
                    "participant_id only; with to, write a value of Airflow's, like {{ params.name }}"
                )
                raise ApptotoValidationError(field, problem, code="text_unrendered")


class _MixedTemplate:
    """A template that may hold Apptoto's fields."""

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
                    f"{where} came out of a value, and Apptoto would execute it; take the braces out of the value. If "
                    f"they are meant for Apptoto, write {RAW} around them in the text itself"
                )
            else:
                problem = (
                    f"{where} would reach the recipient as it is: Apptoto fills dynamic fields for an event_id or "
                    "participant_id only; take the braces, or the raw block, out"
                )
            code = "braces_in_value" if self._to_appointment else "text_unrendered"
            raise ApptotoValidationError(self._field, problem, code=code)
        return self._placeholders.restore(self._field, text)


def _hide(field: str, part: Part, text: str, placeholders: Placeholders) -> str:
    """Return the placeholder for a text that is Apptoto's.

    :raises ApptotoValidationError: a block in it does not end where Liquid ends it.
    """
    if not ends_as_in_liquid(part, text):
        problem = (
            f"line {part.line}: {part.shown} holds a block that Liquid, Apptoto's language, would end elsewhere; take "
            "the braces inside the block out (quotes do not protect them), and close each {{ and {% in the raw part "
            "that opens it"
        )
        raise ApptotoValidationError(field, problem, code="template_invalid")
    return placeholders.hide(text)
