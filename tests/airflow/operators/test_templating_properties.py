"""For any text, Apptoto gets what the rules specify, or nothing.

Texts are built from parts whose owner is known, so the rules need no lexer: ``says`` below states them for these parts
independently of the implementation.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import jinja2
import pendulum
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, literal
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_apptoto.client import ApptotoValidationError
from airflow_provider_apptoto.hooks._state import AccountState
from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageOperator
from airflow_provider_apptoto.templating.fields import renderer_of
from tests.support.dags import make_dag
from tests.support.faults import FaultServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

ROOTS = ("name", "event", "participant", "contact", "practice")
"""The documented roots, and one that the task adds."""
OTHER_NAMES = ("thing", "names", "evently")
MARK = "Qzx7"
"""Begins every value; no error may show it."""

# --- the parts of a text


@dataclass(frozen=True)
class Text:
    """Characters that open no block, including stray braces."""

    text: str


@dataclass(frozen=True)
class Value:
    """An expression of Airflow's over a value; ``%s`` is the value's name."""

    form: str
    value: Any
    name: str


@dataclass(frozen=True)
class Read:
    """An expression of Airflow's that reads a name; in the braces of both languages, it does not begin with it."""

    name: str


@dataclass(frozen=True)
class Wrong:
    """An expression that can't be rendered."""

    source: str


@dataclass(frozen=True)
class Field:
    """A dynamic field."""

    root: str
    rest: str


@dataclass(frozen=True)
class Raw:
    inner: str


@dataclass(frozen=True)
class Comment:
    inner: str


@dataclass(frozen=True)
class Set:
    name: str
    value: str


@dataclass(frozen=True)
class Loop:
    name: str
    values: tuple[str, ...]
    body: tuple[Part, ...]


@dataclass(frozen=True)
class If:
    truth: bool
    body: tuple[Part, ...]
    other: tuple[Part, ...]


@dataclass(frozen=True)
class Broken:
    """The end of a text that is not a template."""

    source: str


Part = Text | Value | Read | Wrong | Field | Raw | Comment | Set | Loop | If | Broken


@dataclass(frozen=True)
class Case:
    parts: tuple[Part, ...]
    appointment: bool
    own_delimiters: bool = False
    native: bool = False
    lenient: bool = False
    macros: dict[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"{self.source!r} {self.values} to_appointment={self.appointment} macros={self.macros}"

    @property
    def source(self) -> str:
        return write(self.parts, own=self.own_delimiters)

    @property
    def values(self) -> dict[str, Any]:
        return {part.name: part.value for part in walk(self.parts) if isinstance(part, Value)}


def walk(parts: Iterable[Part]) -> Iterator[Part]:
    for part in parts:
        yield part
        if isinstance(part, Loop):
            yield from walk(part.body)
        elif isinstance(part, If):
            yield from walk((*part.body, *part.other))


def own_delimiters(text: str) -> str:
    for theirs, own in (("{{", "[["), ("}}", "]]"), ("{%", "[%"), ("%}", "%]"), ("{#", "[#"), ("#}", "#]")):
        text = text.replace(theirs, own)
    return text


def write(parts: Iterable[Part], *, own: bool = False) -> str:
    """Return the text that an author would write."""
    written = own_delimiters if own else str
    sources = []
    for part in parts:
        match part:
            case Text():
                sources.append(part.text)
            case Value():
                sources.append(written("{{ ") + part.form % part.name + written(" }}"))
            case Read():
                sources.append(f"[[ {part.name} ]]" if own else f"{{{{ ({part.name}) }}}}")
            case Wrong() | Broken():
                sources.append(written(part.source))
            case Field():
                sources.append(f"{{{{ {part.root}{part.rest} }}}}")
            case Raw():
                sources.append(written("{% raw %}") + part.inner + written("{% endraw %}"))
            case Comment():
                sources.append(written("{#") + part.inner + written("#}"))
            case Set():
                sources.append(written("{%% set %s = %r %%}") % (part.name, part.value))
            case Loop():
                start = written("{%% for %s in %r %%}") % (part.name, list(part.values))
                sources.append(start + write(part.body, own=own) + written("{% endfor %}"))
            case If():
                start = written("{%% if %s %%}") % str(part.truth).lower()
                branches = write(part.body, own=own) + written("{% else %}") + write(part.other, own=own)
                sources.append(start + branches + written("{% endif %}"))
    return "".join(sources)


def apart(parts: Iterable[Part]) -> tuple[Part, ...]:
    """Insert a space where two adjacent parts would form a Jinja brace that neither of them has."""
    result: list[Part] = []
    for part in parts:
        match part:
            case Loop():
                result.append(Loop(part.name, part.values, apart(part.body)))
            case If():
                result.append(If(part.truth, apart(part.body), apart(part.other)))
            case _:
                result.append(part)
        if write([part]).endswith("{"):
            result.append(Text(" "))
    return tuple(result)


# --- the rules


class Refused(Exception):  # noqa: N818  a word of the rules
    """Nothing may be sent."""


def says(case: Case) -> str | None:
    """Return what Apptoto gets by the rules, or ``None`` if nothing is sent."""
    with contextlib.suppress(Refused):
        refuse_by_what_is_written(case)
        pieces = list(rendered(case, case.parts, dict(case.macros)))
        whole, inside = "", set()
        for piece, of_apptoto in pieces:
            if of_apptoto:
                inside |= set(range(len(whole), len(whole) + len(piece) - 1))
                whole += piece
                continue
            whole += piece
        # Braces that begin a block are Apptoto's, or came from values, or would reach a phone.
        piece_of = [number for number, (piece, _) in enumerate(pieces) for _ in piece]
        for opening in re.finditer(r"\{(?=[{%#])", whole):
            at = opening.start()
            if at not in inside or piece_of[at] != piece_of[at + 1]:
                raise Refused
        return whole
    return None


def refuse_by_what_is_written(case: Case) -> None:
    """Refuse texts that are invalid for any values."""
    parts = list(walk(case.parts))
    if any(isinstance(part, Broken) for part in parts):
        raise Refused
    defined = {part.name for part in parts if isinstance(part, Set | Loop)} | set(case.macros)
    for part in parts:
        if isinstance(part, Raw) and case.appointment and not closes_what_it_opens(part.inner):
            raise Refused
        if not isinstance(part, Field):
            continue
        if case.appointment and re.search(r"[{}]", part.rest):
            raise Refused
        # with custom delimiters, these braces are only Apptoto's; otherwise ambiguous, or a field that is not filled
        refused = not case.appointment if case.own_delimiters else (part.root in defined) == case.appointment
        if refused:
            raise Refused


def closes_what_it_opens(inner: str) -> bool:
    """Return whether Apptoto's blocks in a raw part end in it, contain no delimiters, and leave none over."""
    position, end = 0, ""
    while position < len(inner):
        two = inner[position : position + 2]
        if end:
            if two == end:
                end = ""
                position += 2
                continue
            # a lone brace ends a variable, too
            if two in {"{{", "{%", "}}", "%}"} or (end == "}}" and two.startswith("}")):
                return False
        elif two in {"}}", "%}"}:
            return False
        elif two in {"{{", "{%"}:
            if inner[position + 1 : position + 3] in {"{{", "{%", "%}"}:
                return False
            end = two.translate(str.maketrans("{%", "}%"))[::-1]
            position += 2
            continue
        position += 1
    return not end


def rendered(case: Case, parts: Iterable[Part], names: dict[str, str]) -> Iterator[tuple[str, bool]]:
    """Yield the rendered pieces, and whether they are Apptoto's.

    :param names: what is defined at this place.
    """
    for part in parts:
        match part:
            case Text():
                yield part.text, False
            case Value():
                if part.value is None:
                    raise Refused
                yield str(part.value), False
            case Read():
                if part.name not in names:
                    raise Refused
                yield names[part.name], False
            case Wrong():
                raise Refused
            case Field() if case.appointment:
                yield write([part]), True
            case Field():
                # to a person: a name that the DAG or the text defines
                if part.root not in names or part.rest not in {"", " | upper"}:
                    raise Refused
                yield (names[part.root].upper() if part.rest else names[part.root]), False
            case Raw():
                yield part.inner, case.appointment
            case Comment() | Broken():
                pass
            case Set():
                names[part.name] = part.value
            case Loop():
                for value in part.values:
                    yield from rendered(case, part.body, {**names, part.name: value})
            case If():
                yield from rendered(case, part.body if part.truth else part.other, names)


def as_a_value(parts: Sequence[Part]) -> str | None:
    """Return the result by the rules of a text that Airflow does not render."""
    text = write(parts)
    return None if re.search(r"\{[{%#]", text) else text


def as_a_literal(text: str, case: Case) -> str | None:
    """Return the result by the rules of a text in ``literal()``."""
    return text if case.appointment or not re.search(r"\{[{%#]", text) else None


# --- making texts

PLAIN = st.text("aZ09 \n.,:;!?'\"$%#&|~-_/\\()<>éß🙂\u2028", min_size=1, max_size=8)
STRAY = st.sampled_from(["{", "}", "}}", "%}", "#}", "{ {", "}{", "{ x }", "{0}", "} }", "%", "#", "{-", "-}}"])
FORMS = st.sampled_from(
    [
        "%s",
        "all.%s",
        "all['%s']",
        "[%s] | first",
        "{'}}': %s}['}}']",
        "%s | default('}}')",
        "%s if true else '{{'",
        "\n%s ",
        "('{%%', %s) | last",
    ]
)
TAME_VALUES = st.one_of(PLAIN.map(MARK.__add__), st.just(""), st.integers(0, 99), st.booleans(), st.just("see.txt"))
WILD_VALUES = st.one_of(
    STRAY,
    st.none(),
    st.sampled_from(["{", "{{", MARK + "{{ name }}", "{%", "{# x", "{% raw %}", "{{ event.x }}", "x{", "{y"]),
)
FIELD_RESTS = st.sampled_from(
    [
        "",
        ".x",
        "['a'].b",
        " | f",
        " | f: 3 | g",
        ".t\n | date_and_time_phrase",
        " ~ ds",
    ]
)
FIELD_RESTS_WITH_BRACES = st.sampled_from([" | d: '}}'", " | default('{{')", " | d: '}'", " | f: '{% x %}'"])
RESTS_TO_A_PERSON = st.sampled_from(["", "", ".x", " | upper"])
RAW_INNERS = st.lists(
    st.one_of(
        PLAIN, STRAY, st.sampled_from(["{{ name }}", "{% if event.x %}", "{% endif %}", "{{ ? }}", "{#", "{{", "{%"])
    ),
    max_size=4,
).map("".join)
TAME_RAW_INNERS = st.lists(
    st.one_of(
        PLAIN, st.sampled_from(["{", "}", "{{ name }}", "{% if event.x %}", "{% endif %}", "{{ ? }}", "{# c #}"])
    ),
    max_size=4,
).map(" ".join)
COMMENTS = st.lists(
    st.one_of(PLAIN, st.sampled_from(["{{ name }}", "{{ nope }}", "{% set name = 1 %}", "{{", "{%", "}}"])), max_size=3
).map(lambda texts: " ".join(texts).replace("#", "") + " ")
WRONGS = st.sampled_from(
    [
        "{{ nope }}",
        "{{ nope.x }}",
        "{{ (nope) }}",
        "{{ 'u' | no_such_filter }}",
        "{{ 1 / 0 }}",
        "{{ none }}",
        "{{ all.nope }}",
    ]
)
BROKEN = st.sampled_from(
    [
        "{{ name",
        "{{ all",
        "{{",
        "{% if all",
        "{% if all %}",
        "{% for i in [1] %}",
        "{# x",
        "{% raw %}{{ x",
        "{% endif %}",
        "{{ all ? 1 }}",
        "{{ | }}",
        "{% if event.x ? %}",
        "{{ name | f: 'x",
        "{{{ all }}}",
        "{% nonsense %}",
        "{{ all ) }}",
    ]
)


@cache
def tame_parts(*, appointment: bool, free: tuple[str, ...], depth: int = 2) -> st.SearchStrategy[tuple[Part, ...]]:
    """Generate lists of valid parts.

    :param free: names that the text may set.
    """
    names = st.sampled_from(OTHER_NAMES if appointment else free)
    kinds: list[st.SearchStrategy[Part]] = [
        st.builds(Text, PLAIN),
        st.builds(Value, FORMS, TAME_VALUES, st.just("")),
        st.builds(Comment, COMMENTS),
        st.builds(Raw, TAME_RAW_INNERS if appointment else PLAIN),
        st.builds(Set, names, PLAIN),
    ]
    if appointment:
        kinds += [st.builds(Field, st.sampled_from(ROOTS), FIELD_RESTS)] * 2
    else:
        # a root that the text sets is Airflow's
        kinds.append(st.tuples(names, PLAIN, RESTS_TO_A_PERSON).map(set_and_used))
    if depth:
        bodies = tame_parts(appointment=appointment, free=free, depth=depth - 1)
        loops = st.builds(Loop, names, st.lists(PLAIN, max_size=2).map(tuple), bodies)
        kinds += [loops, st.builds(If, st.booleans(), bodies, bodies)]
    return st.lists(st.one_of(kinds), max_size=4 if depth == 2 else 2).map(tuple)


@cache
def wild_parts(*, appointment: bool, free: tuple[str, ...]) -> st.SearchStrategy[tuple[Part, ...]]:
    """Generate one possible fault. A text gets only one, because a second would hide the first."""
    names, tame = st.sampled_from(free), tame_parts(appointment=appointment, free=free, depth=0)
    rests = st.one_of(FIELD_RESTS, FIELD_RESTS, FIELD_RESTS_WITH_BRACES) if appointment else RESTS_TO_A_PERSON
    fields, raws = st.builds(Field, st.sampled_from(ROOTS), rests), st.builds(Raw, RAW_INNERS)
    braces = st.builds(Value, st.just("%s"), st.just("{"), st.just(""))
    kinds: list[st.SearchStrategy[Part]] = [
        st.builds(Read, names),
        st.builds(Wrong, WRONGS),
        st.builds(Value, FORMS, WILD_VALUES, st.just("")),
        fields,
        raws,
        st.builds(Loop, names, st.lists(PLAIN, max_size=2).map(tuple), tame),
        st.builds(Set, names, PLAIN),
        st.builds(Text, STRAY),
    ]
    if defined := set(ROOTS) - set(free):
        kinds.append(st.builds(Field, st.sampled_from(sorted(defined)), rests))
    beside = st.one_of(fields, raws, braces, st.builds(Text, st.sampled_from(["{", "% x", "# x", "x"])))
    roots = st.sampled_from([name for name in free if name in ROOTS])
    set_too = st.tuples(roots, rests).map(lambda drawn: (Field(*drawn), Set(drawn[0], "x")))
    parts = st.one_of(st.tuples(st.one_of(kinds)), st.tuples(braces, beside), set_too)
    inside = st.one_of(
        st.builds(If, st.booleans(), parts, tame), st.builds(Loop, st.sampled_from(OTHER_NAMES), st.just(("a",)), parts)
    )
    return st.one_of(parts, st.tuples(inside))


def set_and_used(drawn: tuple[str, str, str]) -> Part:
    name, value, rest = drawn
    return If(truth=True, body=(Set(name, value), Field(name, rest.replace(".x", ""))), other=())


@st.composite
def cases(draw: Callable[..., Any]) -> Case:
    appointment, wild = draw(st.booleans()), draw(st.booleans())
    defined = draw(st.sampled_from([(), (), (), ("name",), ("event", "practice")]))
    free = tuple(name for name in (*ROOTS, *OTHER_NAMES) if name not in defined)
    parts = draw(tame_parts(appointment=appointment, free=free))
    if wild:
        at = draw(st.integers(0, len(parts)))
        parts = (*parts[:at], *draw(wild_parts(appointment=appointment, free=free)), *parts[at:])
    elif draw(st.sampled_from([False] * 4 + [True])):
        parts = (*parts, Text(" "), Broken(draw(BROKEN)))
    return Case(
        numbered(apart(parts), itertools.count()),
        appointment=appointment,
        own_delimiters=draw(st.sampled_from([False, False, True])),
        native=draw(st.booleans()),
        lenient=draw(st.booleans()),
        macros=dict.fromkeys(defined, "Oak"),
    )


def numbered(parts: Iterable[Part], numbers: Iterator[int]) -> tuple[Part, ...]:
    """Give each value a unique name."""
    result: list[Part] = []
    for part in parts:
        match part:
            case Value():
                result.append(Value(part.form, part.value, f"v{next(numbers)}"))
            case Loop():
                result.append(Loop(part.name, part.values, numbered(part.body, numbers)))
            case If():
                result.append(If(part.truth, numbered(part.body, numbers), numbered(part.other, numbers)))
            case _:
                result.append(part)
    return tuple(result)


# --- Airflow's side


@cache
def dag_of(*, native: bool, lenient: bool, own: bool, macros: tuple[tuple[str, str], ...]) -> Any:
    names = [f"{kind}_{end}_string" for kind in ("variable", "block", "comment") for end in ("start", "end")]
    own_ones = dict(zip(names, ("[[", "]]", "[%", "%]", "[#", "#]"), strict=True))
    return make_dag(
        render_template_as_native_obj=native,
        template_undefined=jinja2.Undefined if lenient else jinja2.StrictUndefined,
        user_defined_macros=dict(macros),
        jinja_environment_kwargs=own_ones if own else None,
    )


def airflow_of(case: Case) -> tuple[dict[str, Any], jinja2.Environment]:
    """Return context and environment."""
    dag = dag_of(
        native=case.native, lenient=case.lenient, own=case.own_delimiters, macros=tuple(sorted(case.macros.items()))
    )
    return {"dag": dag, **case.values, "all": dict(case.values)}, dag.get_template_env()


def outcome(call: Callable[[], str]) -> str | None:
    try:
        return call()
    except ApptotoValidationError as error:
        assert MARK not in f"{error} {error.__cause__} {error.__context__}"  # noqa: PT017  it may as well not raise
        return None


class Tally:
    """Checks that the examples cover every kind of text."""

    def __init__(self) -> None:
        self.seen: Counter[tuple[bool, bool]] = Counter()

    def add(self, case: Case, expected: str | None) -> None:
        if case.parts:
            self.seen[case.appointment, expected is not None] += 1

    def check(self) -> None:
        for appointment, sent in itertools.product([False, True], repeat=2):
            assert self.seen[appointment, sent] >= 3, self.seen  # the versions of Hypothesis draw different examples


# --- the properties


def test_what_comes_out_is_what_the_rules_say() -> None:
    """A template is rendered. Values from elsewhere and literals are sent unchanged, or not at all."""
    templates, values = Tally(), Tally()

    # in a trial, these found each of 27 faults in the renderer; half as many did not
    @settings(max_examples=400)
    @given(cases())
    def check(case: Case) -> None:
        renderer = renderer_of(*airflow_of(case), ("practice",))

        def got(render: Callable[..., str], text: str) -> str | None:
            return outcome(lambda: render("message", text, to_appointment=case.appointment))

        expected = says(case)
        templates.add(case, expected)
        assert got(renderer.render_text, case.source) == expected
        tame = tuple(part for part in case.parts if isinstance(part, Text))
        for parts in (case.parts, tame):
            expected = as_a_value(parts)
            values.add(case, expected)
            assert got(renderer.check_text, write(parts)) == expected
        text = write(case.parts)
        assert got(renderer.check_literal, text) == as_a_literal(text, case)

    check()
    templates.check()
    values.check()


SIGNS = st.sampled_from(["", "", "-", "+"])


@st.composite
def spaced_texts(draw: Callable[..., Any]) -> tuple[str, str]:
    """Draw a text with much whitespace control, and the same with a value instead of each dynamic field."""
    spaces = st.sampled_from(["", " ", "  ", "\n", "\n  ", " \n", "\n\n", "x", "a b\n"])

    def tag(inner: str) -> str:
        return f"{{%{draw(SIGNS)} {inner} {draw(SIGNS)}%}}"

    def raw() -> str:
        end = draw(st.sampled_from(["", "-"]))
        return f"{{%{draw(SIGNS)} raw {end}%}}{draw(spaces)}{{{{ x }}}}{draw(spaces)}{tag('endraw')}"

    def parts(depth: int) -> str:
        made = [draw(spaces)]
        for _ in range(draw(st.integers(0, 4))):
            kind = draw(st.sampled_from(["field", "field", "value", "comment", "set", "raw", "if", "for"]))
            if kind == "field":
                made.append("{{ event.x | f }}")
            elif kind == "value":
                made.append(f"{{{{{draw(st.sampled_from(['', '-']))} 'v' {draw(st.sampled_from(['', '-']))}}}}}")
            elif kind == "comment":
                made.append(f"{{#{draw(SIGNS)} c {draw(SIGNS)}#}}")
            elif kind == "set":
                made.append(tag("set x = 1"))
            elif kind == "raw":
                made.append(raw())
            elif depth:
                start, end = ("if true", "endif") if kind == "if" else ("for i in [1, 2]", "endfor")
                made.append(tag(start) + parts(depth - 1) + tag(end))
            made.append(draw(spaces))
        return "".join(made)

    text = parts(2)
    return text, text.replace("{{ event.x | f }}", "{{ field }}")


# in a trial, these found each of 6 whitespace faults; half as many did not
@settings(max_examples=200)
@given(spaced_texts(), st.booleans(), st.booleans(), st.booleans())
def test_whitespace_is_as_if_a_value_stood_in_each_fields_place(
    texts: tuple[str, str],
    trim: bool,
    lstrip: bool,
    end: bool,
) -> None:
    options: dict[str, Any] = {"trim_blocks": trim, "lstrip_blocks": lstrip, "keep_trailing_newline": end}
    text, twin = texts
    alone = jinja2.Environment(**{**options, "keep_trailing_newline": True})  # noqa: S701  no HTML
    renderer = renderer_of({}, jinja2.Environment(**options))  # noqa: S701  no HTML
    got = outcome(lambda: renderer.render_text("message", text, to_appointment=True))
    assert got == alone.from_string(twin).render(field="{{ event.x | f }}")


@pytest.mark.contract
@pytest.mark.usefixtures("airflow_database")
def test_what_reaches_apptoto_is_what_the_rules_say_or_nothing_does(
    connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AccountState, "ledger_store", lambda *_: None)  # it is called without Airflow
    tally = Tally()
    roads = st.sampled_from(["template", "template", "value", "literal"])

    # half as many may contain hardly any text of one of the four counted kinds
    @settings(max_examples=200)
    @given(cases(), roads, st.booleans())
    def check(case: Case, road: str, redact: bool) -> None:
        server.accepted.clear()
        if road == "template":
            text, expected = case.source, says(case)
        elif road == "literal":
            text, expected = case.source, as_a_literal(case.source, case)
        else:
            text, expected = write(case.parts), as_a_value(case.parts)
        if expected is not None and not expected.strip():
            expected = None  # blank
        tally.add(case, expected)
        error = send(case, text, road, redact=redact)
        assert [request.json["message"] for request in server.accepted] == ([] if expected is None else [expected])
        assert (error is None) == (expected is not None)

    with FaultServer() as server:
        connection(server.url)
        check()
    tally.check()


def send(case: Case, text: Any, road: str, *, redact: bool) -> Exception | None:
    """Render and execute, as Airflow does it; return what is raised."""
    context, env = airflow_of(case)
    context["ti"] = SimpleNamespace(
        dag_id="clinic", task_id="send", run_id="manual", map_index=-1, try_number=1, max_tries=0
    )
    context["logical_date"] = pendulum.now("UTC")
    seen = {id(text)} if road == "value" else set()
    five = own_delimiters("{{ 5 }}") if case.own_delimiters else "{{ 5 }}"
    task: Any = ApptotoSendMessageOperator(
        task_id="send",
        type="sms",
        to=None if case.appointment else "+16505550199",
        event_id=five if case.appointment else None,
        message=cast("str", literal(text)) if road == "literal" else text,
        dynamic_fields=("practice",),
        redact=redact,
    )
    context["task"] = task
    try:
        task._do_render_template_fields(task, task.template_fields, context, env, seen)
        task.execute(context)
    except (ApptotoValidationError, AirflowFailException) as raised:
        shown = f"{raised} {raised.__cause__} {raised.__context__}"
        error = raised
    else:
        return None
    assert MARK not in shown
    return error
