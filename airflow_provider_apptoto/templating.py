"""Two languages in one text: Airflow's Jinja, and the dynamic fields that Apptoto fills in the same braces.

Which is which is decided by syntax alone. In a message to an event or a participant, a ``{{ ... }}`` block that
begins with a root (``name``, ``event``, ...) is Apptoto's, and so is what stands in ``{% raw %}``; everything else is
Airflow's. Apptoto's parts are put aside, marks stand in for them while Jinja renders, and they are put back afterwards.
Braces that the rendered text holds besides came out of a value: Apptoto would execute them, so they are an error.

Liquid, Apptoto's language, finds the end of a block without reading quotes. A block that goes to Apptoto therefore
holds no delimiters inside, so that both languages agree on where it ends.
"""

from __future__ import annotations

import copy
import html
import re
import secrets
import traceback
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import jinja2
from airflow.providers.common.compat.sdk import literal
from jinja2 import meta, nodes
from jinja2.nativetypes import NativeEnvironment

from airflow_provider_apptoto.client.errors import ApptotoValidationError
from airflow_provider_apptoto.client.messages import MESSAGE_TYPES
from airflow_provider_apptoto.privacy import HiddenValueError, Private, Unrendered, rendering, reveal

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

DOCUMENTED_ROOTS = ("name", "event", "participant", "contact")
"""What dynamic fields begin with: apidocs.apptoto.com/reference/v1send_message, and the fields page of the manual."""

_LITERAL = type(literal(None))
_OPENING = re.compile(r"\{(?=([{%#]))")
_BLOCK = re.compile(r"\{\{(?![{%])(?:(?!\{[{%])[^}])*\}\}|\{%(?!\})(?:(?!\{[{%]|[}%]\}).)*%\}", re.DOTALL)
"""A block of Liquid's. A lone ``}`` ends a ``{{`` block too: lib/liquid.rb of Liquid 5.4, VariableIncompleteEnd."""
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_DELIMITER = re.compile(r"\{[{%]|[}%]\}")
_MARK = "\ufdd0"
"""A noncharacter of Unicode, which no text holds."""
_MARKED = re.compile(rf"{_MARK}(\d+){_MARK}")
_NAME = re.compile(r"'(\w+)'")
_MOST_SHOWN = 60
_RAW = "{% raw %}...{% endraw %}"

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
"""What Airflow 3 leaves out of the context of a run that has no logical date."""

ROW = "row"
"""What texts of a batch call the row whose columns they name."""
TEXTS = ("message", "subject")
PRIVATE = ("to", *TEXTS)


@dataclass(frozen=True, slots=True, repr=False)
class Given:
    """A field's value, and what may be done with it.

    :param kind: ``template``: the DAG's author wrote it, and it is rendered; ``literal``: the author wanted it as it
        is; ``value``: it was made elsewhere, and is never rendered.
    """

    value: Any
    kind: str

    @property
    def is_template(self) -> bool:
        """Whether it is to be rendered."""
        return self.kind == "template" and isinstance(self.value, str)


def render_fields(task: Any, context: Any, env: jinja2.Environment, seen_oids: set[int]) -> None:
    """Render a task's fields in place, and hide recipient and texts if it says ``redact``.

    Hidden they are before anything can fail, and rendering hidden fields again changes nothing: Airflow may do so.

    :param task: the operator; its target fields say to whom the texts go.
    :param context: the task's context.
    :param env: the DAG's Jinja environment.
    :param seen_oids: ids of values that came out of XComs, which are not rendered.
    :raises ApptotoValidationError: a field can't be rendered, or would not mean in Apptoto what it says.
    """
    fields = {name: getattr(task, name) for name in task.template_fields}
    sources = {name: field.template if isinstance(field, Unrendered) else field for name, field in fields.items()}

    def put(name: str, value: Any, hidden: type[Private] = Private) -> None:
        setattr(task, name, hidden(value) if task.redact and value is not None and _is_private(name, value) else value)

    for name, source in sources.items():
        put(name, source, Private if isinstance(source, Private) else Unrendered)
    renderer = Renderer(context, env, task.dynamic_fields)
    for name, source in sources.items():
        if name not in TEXTS and not isinstance(source, Private):
            given = _given(task, name, context, env, seen_oids, source)
            put(name, renderer.render(name, given.value) if given.is_template else given.value)
    to_appointment = task.event_id is not None or task.participant_id is not None
    for name in TEXTS:
        if not isinstance(sources[name], Private):
            given = _given(task, name, context, env, seen_oids, sources[name])
            put(name, renderer.text_of(name, given, to_appointment=to_appointment))


def render_batch_fields(
    task: Any, context: Any, env: jinja2.Environment, seen_oids: set[int], rows: Collection[str]
) -> tuple[Renderer, Callable[[str, Any], Given], dict[str, Given]]:
    """Render a batch's fields in place, but for those that hold rows, which are rendered one by one later.

    :param rows: names of the latter; hidden if the task says ``redact``.
    :return: what renders rows, what resolves what they hold, and the latter fields.
    :raises ApptotoValidationError: a field can't be rendered.
    """
    from airflow_provider_apptoto.batch.paths import shown_path

    fields = {name: getattr(task, name) for name in task.template_fields}
    sources = {name: field.template if isinstance(field, Unrendered) else field for name, field in fields.items()}

    def put(name: str, value: Any, hidden: type[Private] = Private) -> None:
        if name == "messages_path" and value is not None:
            shown = shown_path(str(value))
            value = value if shown == value else hidden(value, shown)
        elif name in rows and value is not None and task.redact:
            value = Private(value)
        setattr(task, name, value)

    for name, source in sources.items():
        put(name, source, Unrendered)
    if ROW in context or ROW in env.globals:
        raise ApptotoValidationError(
            ROW, "is a user_defined_macro or a variable of this DAG's, and a row's columns; rename it"
        )
    with_row = copy.copy(context)
    with_row.update({ROW: None})
    renderer = Renderer(with_row, env, task.dynamic_fields)
    given = {name: _given(task, name, context, env, seen_oids, source) for name, source in sources.items()}
    for name, each in given.items():
        put(name, renderer.render(name, each.value) if each.is_template and name not in rows else each.value)
    return renderer, lambda name, source: resolved(name, source, context, env), {name: given[name] for name in rows}


def _is_private(name: str, value: Any) -> bool:
    """Whether a field's value may show somebody: recipient, texts, and whatever is no id where one belongs."""
    if name == "type":
        return reveal(value) not in MESSAGE_TYPES
    if name.endswith("_id") and not name.endswith("_conn_id"):
        return not str(reveal(value)).strip().isdigit()
    return name in PRIVATE


def _is_of_a_row(task: Any, name: str, source: Any, context: Any) -> bool:
    """Whether a value came with ``expand_kwargs`` out of another task, for which Airflow does not list its id.

    Airflow would render it. A row that holds ``{{ conn.apptoto_default.password }}`` would be sent as what that is.
    """
    mapped: Any = task.dag.task_dict.get(task.task_id) if task.has_dag() else None
    if type(getattr(mapped, "expand_input", None)).__name__ != "ListOfDictsExpandInput":
        return False
    rows = mapped.expand_input.value
    row = rows[context["ti"].map_index] if isinstance(rows, list | tuple) else None
    of_the_dag = (mapped.partial_kwargs.get(name), row.get(name) if isinstance(row, dict) else None)
    return not any(type(value) is type(source) and value == source for value in of_the_dag)


def _given(  # noqa: PLR0917
    task: Any, name: str, context: Any, env: jinja2.Environment, seen_oids: set[int], source: Any
) -> Given:
    if isinstance(source, str | list | tuple | dict):
        made_elsewhere = id(source) in seen_oids or _is_of_a_row(task, name, source, context)
        return Given(source, "value" if made_elsewhere else "template")
    return resolved(name, source, context, env)


def resolved(name: str, source: Any, context: Any, env: jinja2.Environment) -> Given:
    """Return the value that something in the DAG file stands for: a template, an XCom, a ``literal()``, a function.

    :param name: the field's name, for errors.
    :raises ApptotoValidationError: it stands for nothing.
    """
    if isinstance(source, str):
        return Given(source, "template")
    if resolve := getattr(source, "resolve", None):
        given = Given(resolve(context), "literal" if type(source) is _LITERAL else "value")
    elif callable(source):
        given = Given(source(context=context, jinja_env=env), "value")
    else:
        return Given(source, "value")
    if given.value is None:
        raise ApptotoValidationError(name, "is None: the task or function that it comes from gave nothing")
    return given


class Renderer:
    """Renders the fields of one task.

    Strict: an undefined name is an error, also in DAGs that are lenient, and so is ``None``. Never native: what comes
    out is a string, also in DAGs with ``render_template_as_native_obj``.

    :param context: the task's context.
    :param env: the DAG's Jinja environment; it is not changed.
    :param dynamic_fields: further names that dynamic fields begin with.
    """

    def __init__(self, context: Any, env: jinja2.Environment, dynamic_fields: Collection[str] = ()) -> None:
        if isinstance(dynamic_fields, str):
            raise ApptotoValidationError("dynamic_fields", "has to be a list of names, not one string")
        if isinstance(env, NativeEnvironment):
            env = context["dag"].get_template_env(force_sandboxed=True)
        # an overlay: the DAG's other tasks share the environment, and filters, globals and loader stay the DAG's
        self._env = env.overlay(
            undefined=_StrictUndefined, finalize=_finalizer(env.finalize), keep_trailing_newline=True
        )
        self._context = context
        self._roots = (*DOCUMENTED_ROOTS, *dynamic_fields)

    def render(self, field: str, template: str) -> str:
        """Render a field that is no text, such as a recipient or an id: it is Airflow's language alone.

        :raises ApptotoValidationError: it can't be rendered; no value is shown.
        """
        return self.compile(field, template).render()

    def render_text(self, field: str, template: str, *, to_appointment: bool) -> str:
        """Render a text.

        :param field: the field's name, for errors.
        :param template: the text as the DAG has it.
        :param to_appointment: whether it goes to an event or a participant: Apptoto fills fields for these alone.
        :raises ApptotoValidationError: it can't be rendered, or would not mean in Apptoto what it says; no value is
            shown.
        """
        return self.compile_text(field, template, to_appointment=to_appointment).render()

    def text_of(self, field: str, given: Given, *, to_appointment: bool) -> Any:
        """Return a text by what may be done with it; what is no text comes back as it is.

        :raises ApptotoValidationError: it can't be rendered, or would not mean in Apptoto what it says.
        """
        ways: dict[str, Callable[..., str]] = {
            "template": self.render_text,
            "value": self.check_text,
            "literal": self.check_literal,
        }
        if not isinstance(given.value, str):
            return given.value
        return ways[given.kind](field, given.value, to_appointment=to_appointment)

    def compile(self, field: str, template: str) -> Template:
        """Return what renders such a field, for any number of messages.

        :raises ApptotoValidationError: it is no template.
        """
        return self._compile(field, template, "")

    def compile_text(self, field: str, template: str, *, to_appointment: bool) -> Template:
        """Return what renders a text, for any number of messages.

        :raises ApptotoValidationError: it is no template, or would not mean in Apptoto what it says.
        """
        aside = _Aside()
        roots: dict[str, _Part] = {}
        rest = []
        for part in self._parts(field, template, self._env, to_appointment=to_appointment):
            if part.root in self._roots:
                roots.setdefault(part.root, part)
                rest.append(self._aside(field, part, part.text, aside) if to_appointment else part.text)
            elif part.kind == "raw" and to_appointment:
                rest.append(self._aside(field, part, part.inner, aside))
            elif part.kind == "data" and _OPENING.search(
                part.text
            ):  # the DAG gave Jinja other delimiters than Apptoto's
                rest.append(self._fields_aside(field, part, aside, to_appointment=to_appointment))
            else:
                rest.append(part.text)
        remaining = "".join(rest)
        hint = f"; if it is meant for Apptoto, write {_RAW} around it" if to_appointment else ""
        self._refuse_ambiguity(field, remaining, roots, hint, to_appointment=to_appointment)
        return _Text(self._compile(field, remaining, hint), aside, to_appointment=to_appointment)

    def check_text(self, field: str, text: str, *, to_appointment: bool) -> str:
        """Return a text that Airflow does not render, such as an XCom or a row's, as it is.

        :raises ApptotoValidationError: it is not plain text: what Apptoto fills stands in the DAG's own text.
        """
        if found := _opening_in(text):
            line, opening = found
            problem = (
                f"line {line}: {opening} in a text that comes from an XCom, a row, a file or a function. Such a text "
                "would go out as it is, so it has to be plain; take the braces out, or render it where the value is "
                "made"
            )
            if to_appointment:
                problem += ". Write Apptoto's fields in the DAG's own text"
            raise ApptotoValidationError(field, problem)
        return text

    def check_literal(self, field: str, text: str, *, to_appointment: bool) -> str:
        """Return what stood in ``literal()`` as it is: for an appointment all of it is Apptoto's.

        :raises ApptotoValidationError: braces would reach a recipient for whom Apptoto fills nothing.
        """
        if not to_appointment and (found := _OPENING.search(text)):
            problem = (
                f"{{{found[1]} in literal() would reach the recipient as it is: Apptoto fills dynamic fields for an "
                "event_id or participant_id only"
            )
            raise ApptotoValidationError(field, problem)
        return text

    def _parts(self, field: str, source: str, env: jinja2.Environment, *, to_appointment: bool) -> Iterator[_Part]:
        try:
            yield from _split(source, env)
        except jinja2.TemplateSyntaxError as error:
            problem = _syntax_problem(
                error, f"; if it is meant for Apptoto, write {_RAW} around it" if to_appointment else ""
            )
        else:
            return
        raise ApptotoValidationError(field, problem)

    def _aside(self, field: str, part: _Part, text: str, aside: _Aside) -> str:
        """Put a text aside for Apptoto.

        :raises ApptotoValidationError: a block in it does not end where Liquid ends it.
        """
        is_closed = _BLOCK.fullmatch(text) if part.kind == "variable" else not _DELIMITER.search(_without_blocks(text))
        if not is_closed:
            problem = (
                f"line {part.line}: {part.shown} holds a block that Liquid, Apptoto's language, would end elsewhere; "
                "take the braces inside the block out (quotes do not protect them), and close each {{ and {% in the "
                "raw part that opens it"
            )
            raise ApptotoValidationError(field, problem)
        return aside.put(text)

    def _fields_aside(self, field: str, part: _Part, aside: _Aside, *, to_appointment: bool) -> str:
        """Put aside the dynamic fields of a text in a DAG whose delimiters are not Apptoto's.

        :raises ApptotoValidationError: it holds braces that are no dynamic field.
        """
        plain = jinja2.Environment(keep_trailing_newline=True)  # noqa: S701  nothing is rendered in it
        try:
            inner = list(_split(part.text, plain, part.line))
        except jinja2.TemplateSyntaxError as error:
            problem = f"line {part.line + error.lineno - 1}: braces that are no dynamic field of Apptoto's"
            raise ApptotoValidationError(field, problem) from None
        pieces = []
        for each in inner:
            if each.kind != "data" and not (to_appointment and each.root in self._roots):
                problem = (
                    f"line {each.line}: {each.shown} would go out as it is: the DAG gives Jinja other delimiters. "
                    f"Apptoto's fields begin with {', '.join(self._roots)}; name others in dynamic_fields"
                )
                if not to_appointment:
                    problem += ". Apptoto fills them for an event_id or participant_id only"
                raise ApptotoValidationError(field, problem)
            pieces.append(each.text if each.kind == "data" else self._aside(field, each, each.text, aside))
        return "".join(pieces)

    def _refuse_ambiguity(
        self, field: str, template: str, roots: Mapping[str, _Part], hint: str, *, to_appointment: bool
    ) -> None:
        if not roots:
            return
        try:
            own = _names_set_in(self._env.parse(template))
        except jinja2.TemplateSyntaxError as error:
            raise ApptotoValidationError(field, _syntax_problem(error, hint)) from None
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
                    f"latter, or write {_RAW} around Apptoto's"
                )
                raise ApptotoValidationError(field, problem)
            if not to_appointment and not other:
                problem = (
                    f"line {part.line}: {part.shown} is a dynamic field, which Apptoto fills for an event_id or "
                    "participant_id only; with to, write a value of Airflow's, like {{ params.name }}"
                )
                raise ApptotoValidationError(field, problem)

    def _compile(self, field: str, source: str, hint: str) -> _Field:
        try:
            return _Field(field, source, hint, self._env.from_string(source), self._context)
        except jinja2.TemplateSyntaxError as error:
            problem = _syntax_problem(error, hint)
        except Exception as error:  # noqa: BLE001  whatever it is, its text may hold values
            problem = _render_problem(error, source, None, hint, self._context)
        raise ApptotoValidationError(field, problem)


class Template(Protocol):
    """A field of the DAG's, ready to be rendered."""

    def render(self, **variables: Any) -> str:
        """Return the field of one message.

        :param variables: what it may name besides the task's context.
        :raises ApptotoValidationError: it can't be rendered, or would not mean in Apptoto what it says; no value is
            shown.
        """


@dataclass(frozen=True, slots=True)
class _Field:
    """A template in Airflow's language alone."""

    name: str
    source: str
    hint: str
    template: jinja2.Template
    context: Any

    def render(self, **variables: Any) -> str:
        template = self.template
        token = rendering.set(True)
        try:
            # as Airflow does it: its context is no plain dict on every version
            context = copy.copy(self.context)
            context.update({name: value for name, value in template.globals.items() if name not in context})
            context.update(variables)
            env = template.environment
            return "".join(template.root_render_func(env.context_class(env, context, template.name, template.blocks)))
        except Exception as error:  # noqa: BLE001  whatever it is, its text may hold values
            problem = _render_problem(error, self.source, template, self.hint, self.context)
        finally:
            rendering.reset(token)
        raise ApptotoValidationError(self.name, problem)


class _Text:
    """A template that may hold Apptoto's fields."""

    def __init__(self, field: _Field, aside: _Aside, *, to_appointment: bool) -> None:
        self._field = field
        self._aside = aside
        self._to_appointment = to_appointment

    def render(self, **variables: Any) -> str:
        text = self._field.render(**variables)
        if found := _opening_in(text):
            where = f"{found[1]} in the rendered text"
            if self._to_appointment:
                problem = (
                    f"{where} came out of a value, and Apptoto would execute it; take the braces out of the value. If "
                    f"they are meant for Apptoto, write {_RAW} around them in the text itself"
                )
            else:
                problem = (
                    f"{where} would reach the recipient as it is: Apptoto fills dynamic fields for an event_id or "
                    "participant_id only; take the braces, or the raw block, out"
                )
            raise ApptotoValidationError(self._field.name, problem)
        return self._aside.put_back(self._field.name, text)


class _StrictUndefined(jinja2.StrictUndefined):
    """An error inside of a list as well, where Jinja's would read ``[Undefined]``."""

    __slots__ = ()
    __repr__ = jinja2.StrictUndefined.__str__


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of a template.

    :param kind: ``data`` (plain text), ``variable`` (``{{ ... }}``), ``raw`` (with its ``inner`` text), or another of
        Jinja's blocks.
    :param root: the name that a variable block begins with.
    """

    kind: str
    text: str
    line: int
    inner: str = ""
    root: str = ""

    @property
    def shown(self) -> str:
        text = " ".join(self.text.split())
        return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 1]}…"


def _plainest(text: str) -> str:
    """Return a text as an engine would see it that normalizes Unicode and unescapes HTML first."""
    for _ in range(2):  # what one step uncovers may be a disguise again
        text = html.unescape(unicodedata.normalize("NFKC", text))
        if "{" in text or "&" in text:
            text = "".join(each for each in text if each in "\t\n\r" or unicodedata.category(each) not in {"Cc", "Cf"})
    return text


def _opening_in(text: str) -> tuple[int, str] | None:
    """Return where a text begins a block, and what an error calls it; also where only its plainest form does.

    It gives the line, and nothing of the text but the braces.
    """
    if found := _OPENING.search(text):
        return text.count("\n", 0, found.start()) + 1, f"{{{found[1]}"
    plainest = _plainest(text)
    if found := _OPENING.search(plainest):
        line = plainest.count("\n", 0, found.start()) + 1
        return line, f"an escaped or look-alike {{{found[1]} (such as &#123; or a full-width brace)"
    return None


def _split(source: str, env: jinja2.Environment, first: int = 1) -> Iterator[_Part]:
    """Cut a template where Jinja's lexer does; the parts put together again mean the same.

    :param first: the number of the source's first line.
    :raises jinja2.TemplateSyntaxError: it is no template.
    """
    kind, text, inner, root, start = "", "", "", "", 1
    for line, lexeme, value in env.lex(source):
        if not kind:
            if lexeme == "data":
                yield _Part("data", value, first + line - 1)
                continue
            kind, text, inner, root, start = lexeme.removesuffix("_begin"), value, "", "", first + line - 1
            continue
        text += value
        if lexeme == f"{kind}_end":
            # only the braces that Apptoto uses too can be meant for it
            shared = env.variable_start_string == "{{" and env.variable_end_string == "}}"
            yield _Part(kind, text, start, inner, root if kind == "variable" and shared else "")
            kind = ""
        elif lexeme == "data":
            inner += value
        elif not root and lexeme != "whitespace":
            root = value if lexeme == "name" else "-"
    if kind:
        msg = f"a {kind} that begins in line {start} is never closed"
        raise jinja2.TemplateSyntaxError(msg, start - first + 1)


def _without_blocks(text: str) -> str:
    """Return a text without the blocks that Liquid ends where their author does: not in the middle of a quoted string.

    A brace and a space stay in the place of each, since a brace right before a block would change it.
    """
    return _BLOCK.sub(lambda block: block[0] if re.search("['\"]", _QUOTED.sub("", block[0])) else "{ ", text)


def _names_set_in(tree: nodes.Template) -> set[str]:
    """Return the names that a template sets itself: by set, for, macro, import."""
    names = {node.name for node in tree.find_all(nodes.Name) if node.ctx in {"store", "param"}}
    names |= {node.name for node in tree.find_all(nodes.Macro)}
    names |= {node.target for node in tree.find_all(nodes.Import)}
    for imported in tree.find_all(nodes.FromImport):
        names |= {name if isinstance(name, str) else name[1] for name in imported.names}
    return names


class _Aside:
    """What is Apptoto's, while Jinja renders the rest."""

    def __init__(self) -> None:
        # digits: they come through filters like upper; random: no value can imitate a mark
        self._prefix = 10**15 + secrets.randbelow(10**15)
        self._first = self._prefix * 10**5
        self._texts: dict[int, str] = {}

    def put(self, text: str) -> str:
        """Keep a text, and return the mark that stands in for it."""
        number = self._first + len(self._texts)
        self._texts[number] = text
        return f"{_MARK}{number}{_MARK}"

    def put_back(self, field: str, rendered: str) -> str:
        """Return the rendered text with every mark replaced.

        :raises ApptotoValidationError: a mark was damaged, or a brace beside it would change what it means.
        """
        pieces = _MARKED.split(rendered)
        plain, numbers = pieces[::2], [int(number) for number in pieces[1::2]]
        remains = (_MARK, repr(_MARK)[1:-1], str(self._prefix))
        damaged = any(remain in piece for remain in remains for piece in plain)
        if damaged or not set(numbers) <= set(self._texts):
            problem = (
                f"a filter would change a dynamic field of Apptoto's on its way; keep the field, or {_RAW}, out of it"
            )
            raise ApptotoValidationError(field, problem)
        texts = [self._texts[number] for number in numbers]
        whole = "".join([plain[0], *(piece for pair in zip(texts, plain[1:], strict=True) for piece in pair)])
        # the plain pieces hold no opening, so that one too many is one that two pieces make together
        for form in (str, _plainest):
            if len(_OPENING.findall(form(whole))) != sum(len(_OPENING.findall(form(text))) for text in texts):
                problem = "a brace stands right beside a dynamic field and would change it; put a space between them"
                raise ApptotoValidationError(field, problem)
        return whole


def _finalizer(own: Callable[..., Any] | None) -> Callable[..., Any]:
    """Return what looks at every value before it becomes text, after the DAG's own ``finalize``."""

    def finalize(*arguments: Any) -> Any:
        value = _checked_value(arguments[-1])
        return value if own is None else _checked_value(own(*arguments))

    if hasattr(own, "jinja_pass_arg"):
        finalize.jinja_pass_arg = own.jinja_pass_arg  # type: ignore[attr-defined,union-attr]
    return finalize


def _checked_value(value: Any) -> Any:
    if value is None:
        raise _ValueProblem("a value is None, and would read as the word None; write {{ ... or 'something' }}")
    if isinstance(value, jinja2.Undefined):
        str(value)  # raises where it is strict
        raise _ValueProblem("a value is undefined")
    if isinstance(value, Private):
        raise HiddenValueError
    return value


class _ValueProblem(Exception):  # noqa: N818  never leaves this module
    """A value that must not become text; its message holds none."""


def _syntax_problem(error: jinja2.TemplateSyntaxError, hint: str) -> str:
    return f"line {error.lineno}: {(error.message or '').rstrip('.')}{hint}"


def _render_problem(error: Exception, source: str, template: jinja2.Template | None, hint: str, context: Any) -> str:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "<template>"]
    where = ""
    if lines and lines[-1] is not None and template is not None:
        where = f"line {template.get_corresponding_lineno(lines[-1])}: "
    if isinstance(error, HiddenValueError):
        return f"{where}a value is hidden; a mask would be sent in its place"
    if isinstance(error, _ValueProblem):
        return f"{where}{error}"
    dates = set() if template is None else _missing_dates(source, template, context)
    if isinstance(error, jinja2.UndefinedError):
        # names that the text itself holds can be shown; others came out of values
        names = [name for name in _NAME.findall(str(error)) if re.search(rf"\b{name}\b", source)]
        if dates.isdisjoint(names):
            return f"{where}{' '.join(names) or 'something'} is undefined{hint}"
        dates = dates.intersection(names)
    if dates:
        return (
            f"{where}{', '.join(sorted(dates))} is undefined: this run has no logical date, so ds, ts and "
            "data_interval_start do not exist; write {{ (dag_run.logical_date or dag_run.run_after) | ds }}"
        )
    return f"{where}it can't be rendered ({type(error).__name__})"


def _missing_dates(source: str, template: jinja2.Template, context: Any) -> set[str]:
    """Return the names of a template that would exist if the run had a logical date."""
    if "logical_date" in context:
        return set()
    named = meta.find_undeclared_variables(template.environment.parse(source))
    return {name for name in named & _OF_A_LOGICAL_DATE if name not in context and name not in template.globals}
