"""Render Jinja strictly: undefined names, ``None`` and hidden values are errors. No error shows a value."""

from __future__ import annotations

import copy
import re
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import jinja2
from jinja2 import meta

from airflow_provider_apptoto.client.errors import ApptotoValidationError
from airflow_provider_apptoto.privacy import HiddenValueError, Redacted, rendering

if TYPE_CHECKING:
    from collections.abc import Callable

_NAME = re.compile(r"'(\w+)'")

_OF_A_LOGICAL_DATE = {
    "ds",
    "ds_nodash",
    "ts",
    "ts_nodash",
    "ts_nodash_with_tz",
    "logical_date",
    "data_interval_start",
    "data_interval_end",
    "prev_data_interval_start_success",
    "prev_data_interval_end_success",
    "task_instance_key_str",
}
"""Names that Airflow 3 omits from the context of a run without a logical date."""


class Template(Protocol):
    """A compiled field, ready to be rendered."""

    def render(self, **variables: Any) -> str:
        """Render the field for one message.

        :param variables: names that the template may use in addition to the task's context.
        :raises ApptotoValidationError: it can't be rendered, or would mean something else in Apptoto; no value is
            shown.
        """


def strict_environment(env: jinja2.Environment) -> jinja2.Environment:
    """Return a strict overlay of an environment.

    The DAG's other tasks share the environment, so it is not changed. Its filters, globals and loader are kept.
    """
    return env.overlay(undefined=_StrictUndefined, finalize=_finalizer(env.finalize), keep_trailing_newline=True)


def compile_strict(field: str, source: str, hint: str, env: jinja2.Environment, context: Any) -> Template:
    """Compile a template.

    :param field: the field's name, for errors.
    :param hint: end of errors that braces meant for Apptoto may cause.
    :param env: a strict environment.
    :param context: the task's context.
    :raises ApptotoValidationError: it is not a valid template.
    """
    try:
        return _StrictTemplate(field, source, hint, env.from_string(source), context)
    except jinja2.TemplateSyntaxError as error:
        problem = syntax_problem(error, hint)
    except Exception as error:  # noqa: BLE001  the text of any error may contain values
        problem = _render_problem(error, source, None, hint, context)
    raise ApptotoValidationError(field, problem, code="template_invalid")


def syntax_problem(error: jinja2.TemplateSyntaxError, hint: str) -> str:
    """Return the text of a syntax error."""
    return f"line {error.lineno}: {(error.message or '').rstrip('.')}{hint}"


@dataclass(frozen=True, slots=True)
class _StrictTemplate:
    name: str
    source: str
    hint: str
    template: jinja2.Template
    context: Any

    def render(self, **variables: Any) -> str:
        template = self.template
        token = rendering.set(True)
        try:
            # copied as Airflow does it: on some versions, the context is not a plain dict
            context = copy.copy(self.context)
            context.update({name: value for name, value in template.globals.items() if name not in context})
            context.update(variables)
            env = template.environment
            return "".join(template.root_render_func(env.context_class(env, context, template.name, template.blocks)))
        except Exception as error:  # noqa: BLE001  the text of any error may contain values
            problem = _render_problem(error, self.source, template, self.hint, self.context)
            code = "field_empty" if isinstance(error, _ValueProblem) else "template_failed"
        finally:
            rendering.reset(token)
        raise ApptotoValidationError(self.name, problem, code=code)


class _StrictUndefined(jinja2.StrictUndefined):
    """Raises inside a list too, where Jinja's class would render as ``[Undefined]``."""

    __slots__ = ()
    __repr__ = jinja2.StrictUndefined.__str__


def _finalizer(own: Callable[..., Any] | None) -> Callable[..., Any]:
    """Return a ``finalize`` that checks every value before and after the DAG's ``finalize``, if it has one."""

    def finalize(*arguments: Any) -> Any:
        value = _checked_value(arguments[-1])
        return value if own is None else _checked_value(own(*arguments))

    if hasattr(own, "jinja_pass_arg"):
        finalize.jinja_pass_arg = own.jinja_pass_arg  # type: ignore[attr-defined,union-attr]
    return finalize


def _checked_value(value: Any) -> Any:
    if value is None:
        raise _ValueProblem("a value is None and would be rendered as the word None; use {{ ... or 'something' }}")
    if isinstance(value, jinja2.Undefined):
        str(value)  # raises if it is strict
        raise _ValueProblem("a value is undefined")
    if isinstance(value, Redacted):
        raise HiddenValueError
    return value


class _ValueProblem(Exception):  # noqa: N818  never leaves this module
    """A value must not be rendered. The message does not contain the value."""


def _render_problem(error: Exception, source: str, template: jinja2.Template | None, hint: str, context: Any) -> str:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "<template>"]
    where = ""
    if lines and lines[-1] is not None and template is not None:
        where = f"line {template.get_corresponding_lineno(lines[-1])}: "
    if isinstance(error, HiddenValueError):
        return f"{where}a value is hidden, so a mask would be sent instead of it"
    if isinstance(error, _ValueProblem):
        return f"{where}{error}"
    dates = set() if template is None else _missing_dates(source, template, context)
    if isinstance(error, jinja2.UndefinedError):
        # only names in the text itself may be shown; others came from values
        names = [name for name in _NAME.findall(str(error)) if re.search(rf"\b{name}\b", source)]
        if dates.isdisjoint(names):
            return f"{where}{' '.join(names) or 'a value'} is undefined{hint}"
        dates = dates.intersection(names)
    if dates:
        return (
            f"{where}{', '.join(sorted(dates))} is undefined: this run has no logical date, so ds, ts and "
            "data_interval_start do not exist; use {{ (dag_run.logical_date or dag_run.run_after) | ds }}"
        )
    return f"{where}rendering failed ({type(error).__name__})"


def _missing_dates(source: str, template: jinja2.Template, context: Any) -> set[str]:
    """Return the names in a template that would exist if the run had a logical date."""
    if "logical_date" in context:
        return set()
    named = meta.find_undeclared_variables(template.environment.parse(source))
    return {name for name in named & _OF_A_LOGICAL_DATE if name not in context and name not in template.globals}
