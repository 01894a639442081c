"""Each part of a text is rendered by Airflow, left to Apptoto, or refused with an error that says why."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import jinja2
import pendulum
import pytest
from airflow.providers.common.compat.sdk import literal

from airflow_provider_apptoto.client import ApptotoValidationError
from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageOperator
from airflow_provider_apptoto.privacy import Redacted, unwrap
from airflow_provider_apptoto.templating.fields import renderer_of
from tests.support.dags import make_dag

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_apptoto.templating.language import Renderer

# The Jinja environment comes from Airflow.
pytestmark = pytest.mark.contract

VALUE = "Qzx7Value"
"""Part of every interpolated value in tests of errors; no error may show it."""
RAW = "{% raw %}...{% endraw %}"
PAGES_EXAMPLE = "Hi there {{ name }}!  You're upcoming appointment is at {{ event.start_time | date_and_time_phrase }}."
OWN_DELIMITERS = {
    "variable_start_string": "[[",
    "variable_end_string": "]]",
    "block_start_string": "[%",
    "block_end_string": "%]",
    "comment_start_string": "[#",
    "comment_end_string": "#]",
}


class Loud:
    """A value that raises an error which shows it."""

    def __str__(self) -> str:
        raise RuntimeError(VALUE)


def make_renderer(
    context: dict[str, Any] | None = None, dynamic_fields: tuple[str, ...] = (), **dag_arguments: Any
) -> Renderer:
    dag = make_dag(**dag_arguments)
    return renderer_of({"dag": dag, **(context or {})}, dag.get_template_env(), dynamic_fields)


def to_appointment(text: str, context: dict[str, Any] | None = None, **options: Any) -> str:
    return make_renderer(context, **options).render_text("message", text, to_appointment=True)


def to_person(text: str, context: dict[str, Any] | None = None, **options: Any) -> str:
    return make_renderer(context, **options).render_text("message", text, to_appointment=False)


def refusal(call: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    """Return the text of the error, after checking that neither it nor anything attached to it shows a value."""
    with pytest.raises(ApptotoValidationError) as raised:
        call(*arguments, **options)
    error: BaseException | None = raised.value
    while error is not None:
        assert VALUE not in f"{error} {error!r} {error.args} {vars(error)}"
        assert error.__cause__ is None
        error = error.__context__
    return str(raised.value)


# --- whose is it?


@pytest.mark.parametrize(
    "text",
    [
        PAGES_EXAMPLE,
        "{{name}}",
        "{{ name }}{{ name }}",
        "{{   name\t}}",
        "{{ event.start_time\n   | date_and_time_phrase }} then",
        "{{ event }} {{ participant.name }} {{ contact.email }}",
        "{{ event['title'] }} {{ event.guests[0] }}",
        "{{ event.start_time | date: 3 | upcase }}",
        "{{ event.title | default: 'none' , 'x' }}",
        "{{ name | default: '{ % #' }}",
        "{{ name ~ ds }}",
        "{{ name('x') }}",
        "{{ name if ds else ds }}",
    ],
)
@pytest.mark.parametrize(
    "arguments",
    [{}, {"render_template_as_native_obj": True}, {"template_undefined": jinja2.Undefined}],
    ids=["plain", "native", "lenient"],
)
def test_a_block_that_begins_with_a_root_goes_to_apptoto_untouched(text: str, arguments: dict[str, Any]) -> None:
    assert to_appointment(text, {"ds": VALUE}, **arguments) == text


@pytest.mark.parametrize(
    ("text", "wire"),
    [
        ("Hi {{ name }}, it's {{ ds }}", "Hi {{ name }}, it's 2026-01-02"),
        ("{{ ds }}{{ name }}{{ ds }}", "2026-01-02{{ name }}2026-01-02"),
        ("{% if ds %}{{ name }}{% else %}{{ event }}{% endif %}", "{{ name }}"),
        (
            "{% for i in [1, 2] %}{{ i }}. {{ event.x | f }}; {% endfor %}",
            "1. {{ event.x | f }}; 2. {{ event.x | f }}; ",
        ),
        ("{% set day = ds %}{{ day }} {{ name }}", "2026-01-02 {{ name }}"),
        ("{% set greeting %}Dear {{ name }}{% endset %}{{ greeting }}!", "Dear {{ name }}!"),
        ("{% macro dear(who) %}Dear {{ name }} {{ who }}{% endmacro %}{{ dear(ds) }}", "Dear {{ name }} 2026-01-02"),
        ("{% filter upper %}Hi {{ name | f }}{% endfilter %}", "HI {{ name | f }}"),
        ("a{# {{ name }} {{ nope }} {% if #}b", "ab"),
        ("{{ 'name' }} {{ names }} {{ events.name }}", "name Ann Bob"),
        ("{{ '}}' }}{{ '{' }} {{ '%}' }}", "}}{ %}"),
        ("{ } }} %} #} { { $ % # {ds} {1: 2}", "{ } }} %} #} { { $ % # {ds} {1: 2}"),
        ("{{ {'a': {'b': ds}}.a.b }}", "2026-01-02"),
        ("x{{ ds }}}", "x2026-01-02}"),
        ("Hi   {{- ds -}}   {{ name }}", "Hi2026-01-02{{ name }}"),
        ("{{ name }}   {%- if ds -%}   !{% endif %}", "{{ name }}!"),
        ("{{ ds }}\n", "2026-01-02\n"),
        ("see notes.txt", "see notes.txt"),
        ("{{ notes }}.txt", "my.txt"),
        ("{{ 1 + 1 }} {{ [1, '2'] }} {{ true }}", "2 [1, '2'] True"),
        ("Grüße 🙂 {{ name }} \u2028 \u202e", "Grüße 🙂 {{ name }} \u2028 \u202e"),
        ("{{ nothing or 'friend' }} {{ nope | default('x') }}", "friend x"),
        ("{% if nope is defined %}x{% endif %}{{ '' }}.", "."),
        ("{{ raw }}", "cooked"),
    ],
)
def test_everything_else_is_airflows(text: str, wire: str) -> None:
    context = {"ds": "2026-01-02", "names": "Ann", "events": {"name": "Bob"}, "notes": "my", "nothing": None}
    assert to_appointment(text, {**context, "raw": "cooked"}) == wire


@pytest.mark.parametrize(
    ("text", "wire"),
    [
        ("{% raw %}{% if event.x %}Hi{% endif %}{% endraw %}", "{% if event.x %}Hi{% endif %}"),
        ("{{ ds }} {% raw %}{{ ds }}{# c #}{{ x ? y }} { z{% endraw %}{{ ds }}", "D {{ ds }}{# c #}{{ x ? y }} { zD"),
        ("a{%- raw -%}  {{ 'u' | play_mp3 }}  {%- endraw -%}  b", "a{{ 'u' | play_mp3 }}b"),
        ("{% for i in [1, 2] %}{% raw %}{{ ds }}{% endraw %}{% endfor %}", "{{ ds }}{{ ds }}"),
        ("{% raw %}{% endraw %}{% raw %}plain{% endraw %}", "plain"),
        ("{% raw %}{{ name }}{% endraw %}{% for name in 'ab' %}{{ '' ~ name }}{% endfor %}", "{{ name }}ab"),
        ("{% raw %}\n\n{{ x }}\n{% endraw %}\n", "\n\n{{ x }}\n\n"),
        ("{% raw %}{% if x %}{% endraw %}{{ ds }}{% raw %}{% endif %}{% endraw %}", "{% if x %}D{% endif %}"),
    ],
)  # fmt: skip
def test_what_stands_in_raw_is_apptotos(text: str, wire: str) -> None:
    assert to_appointment(text, {"ds": "D"}) == wire


HOLDS_DELIMITERS = [
    "{{ name | default('}}') }}",
    "{{ name | default('{{ ds }}') }}",
    "{{ name | default('}}{{ ds }}{{') }}",
    "{{ name | default('{% x') }}",
    "{{ name | default('%}') }}",
    "{{ name | default('}') }}",
    "{{ event.f({'a': {'b': 1}}) }}",
    "{% raw %}{{ name | default: '}}' }}{% endraw %}",
    "{% raw %}{{ name | default: '}}{{ x }}{{' }}{% endraw %}",
    "{% raw %}{% if name == '%}' %}{% endif %}{% endraw %}",
    "{% raw %}{% if name == '}}' %}{% endif %}{% endraw %}",
    "{% raw %}{% if name == '{{' %}{% endif %}{% endraw %}",
    "{% raw %}{{{ name }}{% endraw %}",
    "{% raw %}{%} x %}{% endraw %}",
]
OPEN = ["{{ x", "{%", "{{ '", "{% if x", "{{ x }", "%}", "x }}", "{{ x }} {{ y", "{{ x {{ y }}", "{# {{ x #}"]


def ends_elsewhere(shown: str, line: int = 2) -> str:
    return (
        f"message: line {line}: {shown} contains a block that Liquid, Apptoto's language, would end elsewhere; "
        "remove the braces inside the block (quotes do not protect them), and close each {{ and {% in the raw block "
        "that opens it"
    )


@pytest.mark.parametrize("block", HOLDS_DELIMITERS)
def test_a_block_that_liquid_would_end_elsewhere_is_refused(block: str) -> None:
    assert refusal(to_appointment, f"Hi\n{block}") == ends_elsewhere(block)


@pytest.mark.parametrize("block", [block for block in HOLDS_DELIMITERS if "raw" not in block and "{%" not in block])
def test_a_block_that_liquid_would_end_elsewhere_is_refused_with_delimiters_of_the_dags_own(block: str) -> None:
    options: dict[str, Any] = {"jinja_environment_kwargs": OWN_DELIMITERS}
    assert refusal(to_appointment, f"Hi\n{block}", **options) == ends_elsewhere(block)


def test_a_block_of_airflows_may_hold_any_delimiter() -> None:
    assert to_person("{% set name = 'Ann' %}{{ name | replace('n', '}}') }}") == "A}}}}"


@pytest.mark.parametrize("inner", OPEN)
def test_a_raw_part_closes_what_it_opens(inner: str) -> None:
    said = refusal(to_appointment, f"Hi\n{{% raw %}}{inner}{{% endraw %}}{{{{ value }}}}", {"value": VALUE})
    assert said == ends_elsewhere(f"{{% raw %}}{inner}{{% endraw %}}")


def test_further_roots_are_apptotos_where_the_task_says_so() -> None:
    text = "{{ appointment.start | f }} {{ practice }} {{ name }}"
    assert to_appointment(text, dynamic_fields=("appointment", "practice")) == text
    said = refusal(to_appointment, "{{ name }}\n{{ appointment.start }}", dynamic_fields=("practice",))
    assert said == f"message: line 2: appointment is undefined; if it is meant for Apptoto, wrap it in {RAW}"
    both = "{% set practice = 1 %}{{ practice }}"
    assert "variable practice that this text sets" in refusal(to_appointment, both, dynamic_fields=("practice",))


def test_dynamic_fields_is_a_list_of_names_and_not_a_name() -> None:
    refusal(make_renderer, dynamic_fields="appointment")


@pytest.mark.parametrize(
    "text", ["{{ ds }}", "see {{ ds }}", "{% raw %}plain{% endraw %}", "{{ '}}' }}", "{# {{ name }} #}x"]
)
def test_a_text_to_a_person_is_airflows_alone(text: str) -> None:
    dag = make_dag()
    assert to_person(text, {"ds": "D"}) == dag.get_template_env().from_string(text).render(ds="D")


# --- what means two things, or would reach the wrong reader


AMBIGUOUS = {
    "set": "{% set name = 'x' %}",
    "set of two": "{% set a, name = 1, 2 %}",
    "block set": "{% set name %}x{% endset %}",
    "loop": "{% for name in [1] %}{% endfor %}",
    "loop over pairs": "{% for i, name in {'a': 1}.items() %}{% endfor %}",
    "with": "{% with name = 1 %}{% endwith %}",
    "macro": "{% macro name() %}{% endmacro %}",
    "macro's argument": "{% macro greet(name) %}{% endmacro %}",
    "import": "{% import 'x.txt' as name %}",
    "from import": "{% from 'x.txt' import name %}",
    "from import as": "{% from 'x.txt' import y as name %}",
    "call": "{% macro m() %}{% endmacro %}{% call(name) m() %}{% endcall %}",
    "deep inside": "{% if 1 %}{% for i in [] %}{% set name = i %}{% endfor %}{% endif %}",
}


@pytest.mark.parametrize("setting", AMBIGUOUS.values(), ids=AMBIGUOUS)
@pytest.mark.parametrize("order", ["before", "after"])
def test_a_root_that_the_text_sets_too_is_refused_and_both_are_named(setting: str, order: str) -> None:
    text = f"{setting}\n{{{{ name | f }}}}" if order == "before" else f"\n{{{{ name | f }}}}{setting}"
    said = refusal(to_appointment, text)
    assert said == (
        "message: line 2: {{ name | f }} may mean Apptoto's dynamic field name or the variable name that this text "
        f"sets; rename the latter, or wrap Apptoto's field in {RAW}"
    )


@pytest.mark.parametrize(
    "text",
    [
        "{% for name in [1] %}{% endfor %}{{ event }}",
        "{% set names = 1 %}{{ name }}",
        "{% set ns = namespace(name=1) %}{% set ns.name = 2 %}{{ name }}",
        "{% set x = {'name': 1} %}{{ name }}",
        "{{ [1] | map(attribute='name') | list | length }}{{ name }}",
        "{{ dict(name=1)['name'] }}{{ name }}",
        "{% block name %}{% endblock %}{{ name }}",
        "{# {% set name = 1 %} #}{{ name }}",
        "{% raw %}{% set name = 1 %}{% endraw %}{{ name }}",
    ],
)
def test_a_root_that_is_only_written_elsewhere_is_not_ambiguous(text: str) -> None:
    assert re.search(r"\{\{ (name|event) \}\}$", to_appointment(text))


@pytest.mark.parametrize(
    ("where", "options"),
    [
        ("macro", {"user_defined_macros": {"name": VALUE}}),
        ("context", {"context": {"name": VALUE}}),
        ("global of Jinja", {"dynamic_fields": ("range",)}),
    ],
)
def test_a_root_that_airflow_or_the_dag_defines_is_refused_and_both_are_named(
    where: str, options: dict[str, Any]
) -> None:
    root = "range" if where == "global of Jinja" else "name"
    said = refusal(to_appointment, f"Hi\n\n{{{{ {root} }}}} {{{{ nope }}}}", **options)
    assert said == (
        f"message: line 3: {{{{ {root} }}}} may mean Apptoto's dynamic field {root} or {root} from Airflow or from "
        f"the DAG's user_defined_macros; rename the latter, or wrap Apptoto's field in {RAW}"
    )
    assert to_appointment(f"{{% raw %}}{{{{ {root} }}}}{{% endraw %}}", **options) == f"{{{{ {root} }}}}"
    assert to_appointment("{{ event }}", **options) == "{{ event }}"


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("{{ name }}", {"user_defined_macros": {"name": "Mary"}}),
        ("{{ name }}", {"context": {"name": "Mary"}}),
        ("{{ name | title }}", {"context": {"name": "mary"}}),
        ("{% set name = 'Mary' %}{{ name }}", {}),
        ("{% for name in ['Mary'] %}{{ name }}{% endfor %}", {}),
        ("{% set event = {'who': 'Mary'} %}{{ event.who }}", {}),
    ],
)
def test_a_text_to_a_person_may_use_a_root_that_is_defined(text: str, options: dict[str, Any]) -> None:
    assert to_person(text, **options) == "Mary"


@pytest.mark.parametrize("field", ["{{ name }}", "{{ event.start_time | date_and_time_phrase }}", "{{ practice }}"])
@pytest.mark.parametrize("around", ["a\n{}", "{{% if 0 %}}\n{}{{% endif %}}", "a\n{}{{% set other = 1 %}}"])
def test_a_dynamic_field_to_a_person_is_refused(field: str, around: str) -> None:
    assert refusal(to_person, around.format(field), dynamic_fields=("practice",)) == (
        f"message: line 2: {field} is a dynamic field, which Apptoto fills only for an event_id or participant_id; "
        "with to, use a value from Airflow, such as {{ params.name }}"
    )


def test_a_long_block_is_shown_in_part() -> None:
    said = refusal(to_person, f"{{{{ event.start\n    | {' | '.join(['phrase'] * 40)} }}}}")
    shown = said.removeprefix("message: line 1: ").partition(" is a dynamic field")[0]
    assert shown == "{{ event.start | phrase | phrase | phrase | phrase | phrase…"
    assert len(shown) == 60
    # of 60 characters, nothing is cut
    block = "{{ event.start | " + "x" * 40 + " }}"
    assert (len(block), f"{block} is" in refusal(to_person, block)) == (60, True)


@pytest.mark.parametrize(
    "text",
    ["{% raw %}{{ name }}{% endraw %}", "{% raw %}{% if event %}{% endraw %}", "{% raw %}{#{% endraw %}", "{{ '{{' }}"],
)
def test_braces_that_would_reach_a_person_are_refused(text: str) -> None:
    said = refusal(to_person, text)
    assert re.fullmatch(
        r"message: \{[{%#] in the rendered text would reach the recipient unrendered: Apptoto fills dynamic fields "
        r"only for an event_id or participant_id; remove the braces or the raw block",
        said,
    )


# --- holes


HOLES = {
    "{{ nope }}": "nope is undefined",
    "{{ nope.x }}": "nope is undefined",
    "{{ person.nope }}": "nope is undefined",
    "{{ person['nope'] }}": "nope is undefined",
    "{{ nope | upper }}": "nope is undefined",
    "{{ 'x' ~ nope }}": "nope is undefined",
    "{{ ds + nope }}": "nope is undefined",
    "{{ nope() }}": "nope is undefined",
    "{% if nope %}{% endif %}": "nope is undefined",
    "{% if nope == 1 %}{% endif %}": "nope is undefined",
    "{% for i in nope %}{% endfor %}": "nope is undefined",
    "{{ [1, nope] | join }}": "nope is undefined",
    "{{ [] | first }}": "a value is undefined",
    "{{ person[ds] }}": "a value is undefined",
    "{{ (name) }}": "name is undefined",
    "{{ not name }}": "name is undefined",
    "{{ ds ~ name }}": "name is undefined",
    "{{ -name }}": "name is undefined",
    "{% if event.confirmed %}{% endif %}": "event is undefined",
    "{% for guest in event.guests %}{% endfor %}": "event is undefined",
}


@pytest.mark.parametrize("hole", HOLES)
@pytest.mark.parametrize("undefined", [jinja2.StrictUndefined, jinja2.Undefined, jinja2.ChainableUndefined])
@pytest.mark.parametrize("native", [False, True], ids=["plain", "native"])
def test_undefined_is_an_error_in_every_dag(hole: str, undefined: type[jinja2.Undefined], *, native: bool) -> None:
    context = {"ds": VALUE, "person": {"name": VALUE}}
    dag_arguments = {"template_undefined": undefined, "render_template_as_native_obj": native}
    said = refusal(to_appointment, f"Hi {{{{ ds }}}}\n {hole}", context, **dag_arguments)
    assert said == f"message: line 2: {HOLES[hole]}; if it is meant for Apptoto, wrap it in {RAW}"
    assert refusal(to_person, f"\n{hole}", context, **dag_arguments) == f"message: line 2: {HOLES[hole]}"


NONES = {
    "a value": "{{ nothing }}",
    "an attribute": "{{ person.nothing }}",
    "a default": "{{ nope | default(none) }}",
    "a condition": "{{ nothing if 1 else 2 }}",
    "a method": "{{ person.get('nope') }}",
    "first of list": "{{ [nothing] | first }}",
    "a set variable": "{% set x = nothing %}{{ x }}",
}


@pytest.mark.parametrize("hole", NONES.values(), ids=NONES)
@pytest.mark.parametrize("send", [to_appointment, to_person])
def test_none_is_an_error_that_says_what_to_write(send: Callable[..., str], hole: str) -> None:
    said = refusal(send, f"Hi {{{{ ds }}}}\n{hole}", {"ds": VALUE, "nothing": None, "person": {"nothing": None}})
    assert said == (
        "message: line 2: a value is None and would be rendered as the word None; use {{ ... or 'something' }}"
    )


def test_a_value_that_is_blank_or_false_is_no_hole() -> None:
    assert to_person("{{ a }}|{{ b }}|{{ c }}|{{ d }}", {"a": "", "b": 0, "c": False, "d": []}) == "|0|False|[]"


@pytest.mark.parametrize("text", ["{{ task.to }}", "{{ '' or task.to }}"])
def test_what_is_hidden_never_goes_out_as_its_mask(text: str) -> None:
    said = refusal(to_person, f"\nHi {text}", {"task": SimpleNamespace(to=Redacted(VALUE))})
    assert said == "message: line 2: a value is hidden, so a mask would be sent instead of it"
    renderer = make_renderer({"task": SimpleNamespace(to=Redacted(VALUE))})
    assert "hidden" in refusal(renderer.render, "reference", text)


@pytest.mark.parametrize(
    "text", ["{{ '' ~ task.to }}", "{{ task.to | string }}", "{{ task.to | upper }}", "{{ [task.to] }}"]
)
def test_a_mask_that_became_text_on_its_way_never_goes_out_either(text: str) -> None:
    refusal(to_person, f"Hi {text}", {"task": SimpleNamespace(to=Redacted(VALUE))})


DATES = ["ds", "ds_nodash", "ts", "ts_nodash", "logical_date", "data_interval_start", "data_interval_end"]


@pytest.mark.parametrize("name", DATES)
@pytest.mark.parametrize("form", ["{{ %s }}", "{{ %s | upper }}", "{{ %s or 'x' }}", "{{ %s.day }}", "{{ day(%s) }}"])
def test_a_run_without_a_logical_date_is_named_as_the_reason(name: str, form: str) -> None:
    def day(value: str) -> str:
        return value + "T"

    text, context = f"Hi\n{form % name}", {"day": day}
    said = (
        f"message: line 2: {name} is undefined: this run has no logical date, so ds, ts and data_interval_start do "
        "not exist; use {{ (dag_run.logical_date or dag_run.run_after) | ds }}"
    )
    for send in (to_appointment, to_person):
        assert refusal(send, text, context) == said
    assert refusal(make_renderer(context).render, "message", text) == said


def test_a_run_without_a_logical_date_is_no_reason_where_another_name_is_missing() -> None:
    told = "no logical date"
    assert told not in refusal(to_person, "{{ params.ds }}", {"params": {}})
    assert told not in refusal(to_person, "{{ nope }} {{ ds }}")
    assert told not in refusal(to_person, "{{ data_interval_start }}", {"logical_date": 1})
    assert told not in refusal(to_person, "{{ 1 / 0 }}{{ ds }}", {"ds": 1})
    assert told not in refusal(to_person, "{{ 1 / 0 }}{{ ds }}", user_defined_macros={"ds": 1})


def test_what_the_hint_says_to_write_works_with_and_without_a_logical_date() -> None:
    text, day = "{{ (dag_run.logical_date or dag_run.run_after) | ds }}", pendulum.datetime(2026, 1, 2)
    assert to_person(text, {"dag_run": SimpleNamespace(logical_date=None, run_after=day)}) == "2026-01-02"
    assert to_person(text, {"dag_run": SimpleNamespace(logical_date=day)}) == "2026-01-02"


def test_undefined_inside_of_a_list_is_an_error_too() -> None:
    refusal(to_person, "Hi {{ [nope] }}")


@pytest.mark.parametrize("value", [None, jinja2.Undefined()], ids=["None", "undefined"])
def test_a_finalize_of_the_dags_own_does_not_fill_holes(value: object) -> None:
    def blank(value: Any) -> Any:
        return "" if value is None or isinstance(value, jinja2.Undefined) else value

    text = "Hi {{ nope }}" if value is not None else "Hi {{ value }}"
    refusal(to_person, text, {"value": None}, jinja_environment_kwargs={"finalize": blank})


# --- values that would smuggle


@pytest.mark.parametrize("value", ["{{ name }}", "{{", "{%", "{#", "a {% if 1 %} b", "x{{y", "{{{"])
@pytest.mark.parametrize(
    "text", ["{{ value }}", "Hi {{ name }} {{ value }}", "{% raw %}{{ x }}{% endraw %}{{ ['', value] | join }}"]
)
def test_braces_in_a_value_are_refused(text: str, value: str) -> None:
    opening = re.search(r"\{[{%#]", value)
    assert opening is not None
    said = refusal(to_appointment, text, {"value": VALUE + value})
    assert said == (
        f"message: {opening[0]} in the rendered text came from a value, and Apptoto would execute it; remove "
        f"the braces from the value. If they are meant for Apptoto, write them in the text itself, in {RAW}"
    )
    text = re.sub(r"\{\{ name \}\}|\{% raw %\}.*\{% endraw %\}", "", text)
    assert refusal(to_person, text, {"value": VALUE + value}).startswith(
        f"message: {opening[0]} in the rendered text would "
    )


@pytest.mark.parametrize(
    "text",
    [
        "{{ brace }}{{ brace }}",
        "{{ brace }}{",
        "{ {{- brace }}",
        "{{ brace }}% x",
        "{{ brace }}{# nothing #}# x",
        "{{ brace }}{{ name }}",
        "{{ brace }}{% raw %}{ x {% endraw %}",
        "{{ brace }}{% raw %}{% endraw %}{% raw %}% x{% endraw %}",
        "{% raw %}x{{% endraw %}{{ brace }}",
        "{% raw %}{{% endraw %}{{ '#' }}",
        "{% for i in [1, 2] %}{{ brace }}{% endfor %}",
    ],
)  # fmt: skip
def test_braces_that_meet_only_in_the_rendered_text_are_refused(text: str) -> None:
    for send in (to_appointment, to_person):
        refusal(send, text, {"brace": "{"})


DISGUISES = {
    "full-width": "\uff5b\uff5b name \uff5d\uff5d",
    "full-width percent": "{\uff05 if x",
    "small": "\ufe5b\ufe5b",
    "vertical": "\ufe37\ufe37",
    "entities": "&#123;&#x7B;",
    "entity without its end": "&#123&#123",
    "named entities": "&lcub;&lbrace;",
    "half an entity": "{&percnt;",
    "escaped twice": "&amp;#123;{",
    "full-width entity": "\uff06#123;{",
    "zero-width space": "{\u200b{",
    "escaped zero-width space": "{&#8203;{",
    "NUL": "{\0%",
    "soft hyphen": "{\xad{",
    "byte order mark": "{\ufeff#",
}


@pytest.mark.parametrize("value", DISGUISES.values(), ids=DISGUISES)
def test_braces_in_disguise_are_refused(value: str) -> None:
    looks = "an escaped or look-alike {"
    for send in (to_appointment, to_person):
        assert looks in refusal(send, "Hi {{ value }}", {"value": VALUE + value})
    assert looks in refusal(to_appointment, "{{ name }} {{ a }}{{ b }}", {"a": value[:1], "b": value[1:]})
    for appointment in (True, False):
        said = refusal(check, f"Hi\n{VALUE}{value}", appointment=appointment)
        assert said.startswith(f"message: line 2: {looks}")


@pytest.mark.parametrize("brace", ["\uff5b", "&#123;", "{\u200b"], ids=ascii)
def test_a_brace_in_disguise_right_beside_a_dynamic_field_is_refused(brace: str) -> None:
    for text in ("{{ value }}{{ name }}", "{{ value }}{% raw %}{% if x %}{% endif %}{% endraw %}"):
        assert "a brace next to a dynamic field would change" in refusal(to_appointment, text, {"value": brace})


@pytest.mark.parametrize(
    "value",
    ["\uff5b \uff5b", "&amp; &lt;b&gt;", "&#123; x", "{\n{", "{ &nbsp;{", "\u0627{\u200f", "\uff1a-\uff5b"],
    ids=ascii,
)
def test_what_is_no_opening_in_any_disguise_is_plain_text(value: str) -> None:
    for send in (to_appointment, to_person):
        assert send("a {{ value }} b", {"value": value}) == f"a {value} b"
        assert check(value, appointment=send is to_appointment) == value


def test_raw_keeps_disguised_braces_that_the_author_wrote() -> None:
    text = "&#123;{ \uff5b\uff5b"
    assert to_appointment(f"{{% raw %}}{text}{{% endraw %}} {{{{ name }}}}") == f"{text} {{{{ name }}}}"


@pytest.mark.parametrize("value", ["{", "}", "}}", "%}", "{ {", "}{", "${x}", "#{x}", "{}", "{0}", "\\{"])
def test_braces_that_open_nothing_are_plain_text(value: str) -> None:
    for send in (to_appointment, to_person):
        assert send("a {{ value }} b", {"value": value}) == f"a {value} b"
    assert to_appointment("{{ value }} {{ name }} {{ value }}", {"value": value}) == f"{value} {{{{ name }}}} {value}"


@pytest.mark.parametrize("value", ["{{ name }}", "{{ nope }}", "{% raw %}", "\ufdd0", "\ufdd01\ufdd0"], ids=ascii)
def test_a_value_is_never_rendered_and_never_taken_for_something_put_aside(value: str) -> None:
    refusal(to_appointment, "{{ value }} {{ name }}", {"value": VALUE + value})


@pytest.mark.parametrize(
    "text",
    [
        "{% filter reverse %}Hi {{ name }}{% endfilter %}",
        "{% filter truncate(12, true, '', 0) %}Hi {{ name }} x{% endfilter %}",
        "{% set x %}{{ name }}{% endset %}{{ x[:-1] }}",
    ],
)
def test_a_filter_that_would_change_a_dynamic_field_is_refused(text: str) -> None:
    said = refusal(to_appointment, text)
    assert said == (
        f"message: a filter would change one of Apptoto's dynamic fields; move the field, or its {RAW}, out of it"
    )


@pytest.mark.parametrize("name", ["urlencode", "tojson", "map('upper') | list | string"])
def test_a_filter_that_would_change_how_a_dynamic_field_is_written_is_refused(name: str) -> None:
    refusal(to_appointment, f"https://clinic.example/?{{% filter {name} %}}{{{{ name }}}}{{% endfilter %}}")


@pytest.mark.parametrize(
    "name", ["upper", "lower", "title", "capitalize", "trim", "indent", "escape", "string", "wordwrap(99)"]
)
def test_a_filter_over_a_dynamic_field_leaves_it_alone(name: str) -> None:
    text = f"{{% filter {name} %}}x {{{{ event.Start | F }}}}{{% endfilter %}}"
    assert to_appointment(text)[1:] == " {{ event.Start | F }}"


# --- what is no template


SYNTAX = {
    "{{ name": "a variable that starts on line 2 is never closed",
    "{{ ds": "a variable that starts on line 2 is never closed",
    "{{ ds }": "unexpected '}'",
    "{{": "a variable that starts on line 2 is never closed",
    "{% if ds": "a block that starts on line 2 is never closed",
    "{% if ds %}": "Unexpected end of template. Jinja was looking for the following tags: 'elif' or 'else' or 'endif'. "
    "The innermost block that needs to be closed is 'if'",
    "{# x": "Missing end of comment tag",
    "{% raw %}x": "Missing end of raw directive",
    "{{ a ? b }}": "unexpected char '?' at ",
    "{{ a $ b }}": "unexpected char '$' at ",
    "{{ name | f: ? }}": "unexpected char '?' at ",
    "{{ 'url' | play_mp3 }}": "No filter named 'play_mp3'",
    "{{ ds | }}": "expected token 'name', got 'end of print statement'",
    "{{{ name }}}": "expected token ':', got '}'",
    "{% case event.kind %}": "Encountered unknown tag 'case'",
    "{{ name }}{% case event.kind %}": "Encountered unknown tag 'case'",
    "{{ }}": "Expected an expression, got 'end of print statement'",
    "{{ ) }}": "unexpected ')'",
}  # fmt: skip


@pytest.mark.parametrize("wrong", SYNTAX)
def test_what_is_no_template_is_refused_and_raw_is_pointed_to(wrong: str) -> None:
    said = re.sub(r" at \d+", " at ", refusal(to_appointment, f"Hi {{{{ ds }}}}\n{wrong}", {"ds": VALUE}))
    assert said == f"message: line 2: {SYNTAX[wrong]}; if it is meant for Apptoto, wrap it in {RAW}"


@pytest.mark.parametrize("wrong", [wrong for wrong in SYNTAX if "{{ name }}" not in wrong])
def test_what_is_no_template_is_refused_to_a_person_too(wrong: str) -> None:
    said = re.sub(r" at \d+", " at ", refusal(to_person, f"Hi\n{wrong}", {"ds": VALUE}))
    assert said == f"message: line 2: {SYNTAX[wrong]}"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ loud }}", "RuntimeError"),
        ("{{ value + 1 }}", "TypeError"),
        ("{{ fail() }}", "KeyError"),
        ("{% include 'no-such-file.txt' %}", "TemplateNotFound"),
    ],
)
def test_of_what_goes_wrong_in_rendering_the_kind_is_shown_and_no_value(text: str, kind: str) -> None:
    def fail() -> None:
        raise KeyError(VALUE)

    said = refusal(to_person, f"Hi\n\n{text}", {"loud": Loud(), "value": VALUE, "fail": fail})
    assert said == f"message: line 3: rendering failed ({kind})"


def test_the_sandbox_of_airflow_holds() -> None:
    assert refusal(to_person, "Hi {{ ''.__class__ }}") == "message: line 1: rendering failed (SecurityError)"


def test_a_name_that_came_out_of_a_value_is_not_shown() -> None:
    said = refusal(to_person, "{{ {}[value] }}", {"value": VALUE})
    assert said == "message: line 1: a value is undefined"


# --- where


@pytest.mark.parametrize(
    "above",
    [
        "a\n\n",
        "{% if 1 %}\n\n{% endif %}",
        "{#\n\n#}",
        "{{ 1 }}\n{{ 2 }}\n",
        "{{ 1\n\n}}",
        "a\r\n\r\n",
        "{%- if 1 -%}\n\n{% endif %}",
    ],
)
@pytest.mark.parametrize(
    "wrong", ["{{ nope }}", "{{ nothing }}", "{{ 1/0 }}", "{{ a ? b }}", "{% case %}", "{% raw %}"]
)
def test_an_error_says_the_line_of_the_dags_text(above: str, wrong: str) -> None:
    assert refusal(to_appointment, f"{above}{wrong}", {"nothing": None}).startswith("message: line 3: ")


# --- the DAG's environment


def test_the_dags_filters_and_macros_work_and_its_environment_stays_as_it_is() -> None:
    dag = make_dag(
        user_defined_macros={"clinic": "Oak"},
        user_defined_filters={"shout": lambda value: f"{value}!"},
        template_undefined=jinja2.Undefined,
    )
    env = dag.get_template_env()
    renderer = renderer_of({"dag": dag, "ds": "D"}, env)
    assert (
        renderer.render_text("message", "{{ clinic | shout }} {{ name }}\n", to_appointment=True) == "Oak! {{ name }}\n"
    )
    assert env.from_string("{{ nope }}{{ none }}\n").render() == "None"
    assert (env.undefined, env.finalize, env.keep_trailing_newline) == (jinja2.Undefined, None, False)


def test_values_are_never_made_native() -> None:
    renderer = make_renderer({"number": "+16505550199", "digits": "007"}, render_template_as_native_obj=True)
    assert renderer.render("to", "{{ number }}") == "+16505550199"
    assert renderer.render("event_id", "{{ 12 }}") == "12"
    for text, wire in {"{{ digits }}": "007", "{{ [1, 2] }}": "[1, 2]", "{{ 1 }}": "1", "[1]": "[1]"}.items():
        for appointment in (True, False):
            assert renderer.render_text("message", text, to_appointment=appointment) == wire


def test_native_dags_keep_their_macros_filters_and_delimiters() -> None:
    wire = to_appointment(
        "[[ clinic | shout ]] {{ name }}",
        render_template_as_native_obj=True,
        user_defined_macros={"clinic": "Oak"},
        user_defined_filters={"shout": str.upper},
        jinja_environment_kwargs=OWN_DELIMITERS,
    )
    assert wire == "OAK {{ name }}"


def test_a_field_that_is_no_text_is_airflows_alone() -> None:
    renderer = make_renderer({"ds": VALUE, "nothing": None, "number": "5"})
    assert renderer.render("reference", "a {{ number }} {{ '{{' }} {% raw %}{{ x }}{% endraw %}") == "a 5 {{ {{ x }}"
    assert refusal(renderer.render, "to", "\n{{ ds }} {{ name }}") == "to: line 2: name is undefined"
    assert refusal(renderer.render, "event_id", "{{ nothing }}").startswith("event_id: line 1: a value is None")
    assert refusal(renderer.render, "reference", "{{ ds").startswith("reference: line 1: unexpected end of template")
    assert refusal(renderer.render, "type", "{{ ds | nope }}") == "type: line 1: No filter named 'nope'"


def test_the_dags_own_finalize_is_applied() -> None:
    def shown(value: object) -> object:
        return f"<{value}>"

    @jinja2.pass_environment
    def shown_with_environment(env: jinja2.Environment, value: object) -> object:
        assert isinstance(env, jinja2.Environment)
        return None if value == "gone" else f"<{value}>"

    assert to_appointment("a {{ 1 }} {{ name }}", jinja_environment_kwargs={"finalize": shown}) == "a <1> {{ name }}"
    options: dict[str, Any] = {"jinja_environment_kwargs": {"finalize": shown_with_environment}}
    assert to_appointment("a {{ 1 }} {{ name }}", **options) == "a <1> {{ name }}"
    assert "is None" in refusal(to_person, "{{ value }}", {"value": "gone"}, **options)


@pytest.mark.parametrize(
    ("text", "wire"),
    [
        ("[[ ds ]] {{ name }} [% if ds %]{{ event.x | f }}[% endif %][# {{ nope #]", "D {{ name }} {{ event.x | f }}"),
        ("[% raw %]{% if event %}[[ ds ]]{% endif %}[% endraw %]", "{% if event %}[[ ds ]]{% endif %}"),
        ("[% for name in 'ab' %][[ name ]]{{ name }}[% endfor %]", "a{{ name }}b{{ name }}"),
        ("{ [[ ds ]] } }} {", "{ D } }} {"),
        ("\n{{ name }}\n[[ ds ]]\n", "\n{{ name }}\nD\n"),
    ],
)
def test_with_delimiters_of_the_dags_own_apptotos_braces_are_its_own(text: str, wire: str) -> None:
    assert to_appointment(text, {"ds": "D"}, jinja_environment_kwargs=OWN_DELIMITERS) == wire


@pytest.mark.parametrize(
    "text",
    [
        "{{ ds }}",
        "{{ nope }}",
        "{% if event %}x{% endif %}",
        "{# x #}",
        "{{ name",
        "{{ name | f: '[[ ds ]]' }}",
        "{{ [[ ds ]] }}",
        "[[ name ]]",
        "[[ braces ]]",
        "[[ brace ]]{{ name }}",
        "{[[ brace ]]",
        "[[ ds ]",
        "{[% if 1 %]{ x",
    ],
)
def test_with_delimiters_of_the_dags_own_braces_that_apptoto_would_not_fill_are_refused(text: str) -> None:
    refusal(
        to_appointment,
        text,
        {"ds": VALUE, "brace": "{", "braces": "{{ name }}"},
        jinja_environment_kwargs=OWN_DELIMITERS,
    )


def test_with_delimiters_of_the_dags_own_a_dynamic_field_to_a_person_is_refused() -> None:
    said = refusal(to_person, "[[ ds ]]\n{{ name }}", {"ds": VALUE}, jinja_environment_kwargs=OWN_DELIMITERS)
    assert said == (
        "message: line 2: {{ name }} would be sent unrendered: the DAG sets other delimiters for Jinja. Apptoto's "
        "fields begin with name, event, participant, contact; list others in dynamic_fields. Apptoto fills them only "
        "for an event_id or participant_id"
    )
    assert to_person("[[ ds ]] {", {"ds": "D"}, jinja_environment_kwargs=OWN_DELIMITERS) == "D {"
    refusal(to_person, "[[ ds ]", {"ds": VALUE}, jinja_environment_kwargs=OWN_DELIMITERS)


def test_one_delimiter_of_the_dags_own_is_enough_to_tell_them_apart() -> None:
    options: dict[str, Any] = {"jinja_environment_kwargs": {"variable_end_string": "]]"}}
    assert to_appointment("{{ ds ]]", {"ds": "D"}, **options) == "D"
    assert "name is undefined" in refusal(to_appointment, "{{ name ]]", **options)


WHITESPACE = [
    "  {% if 1 %}\n  x\n  {% endif %}\ny",
    "  {%+ if 1 +%}\nx{% endif %}",
    "\n   {{ name }}  {% if 1 %}\n{{ name }}\n  {% endif %}\n",
    "  {% raw %}\n  {{ x }}\n  {% endraw %}\n  {% if 1 %}\n!{% endif %}",
    "  {%+ raw %}{% endraw %}{% if 1 %}y{% endif %}",
    "  {# c #}\n  {{ name }}\n",
    "a\n  {%- if 1 -%}\n  b  {%- endif -%}  \n c",
    "{{ name }}\n{%- if 1 %}\n\n{% endif -%}\n{{ name }}",
    "{% if 1 %}{{ name }}{% endif %}\n\n",
    "{% raw -%}  x  {%- endraw %}\n\n y",
]


@pytest.mark.parametrize("text", WHITESPACE)
@pytest.mark.parametrize("trim", [False, True], ids=["keep", "trim"])
@pytest.mark.parametrize("strip", [False, True], ids=["leave", "lstrip"])
def test_whitespace_comes_out_as_jinja_alone_would_have_it(text: str, *, trim: bool, strip: bool) -> None:
    options: dict[str, Any] = {"trim_blocks": trim, "lstrip_blocks": strip}
    alone = jinja2.Environment(keep_trailing_newline=True, **options).from_string(text)  # noqa: S701  no HTML
    assert to_appointment(text, jinja_environment_kwargs=options) == alone.render(name="{{ name }}")
    if "{{" not in text:
        assert to_person(text, jinja_environment_kwargs=options) == alone.render()


# --- texts that Airflow does not render


def check(text: str, *, appointment: bool = True, **options: Any) -> str:
    return make_renderer(**options).check_text("message", text, to_appointment=appointment)


SMUGGLED = [
    "{{ event.title | default: '}}{% for p in event.participants %}{{ p.phone }}{% endfor %}{{ name' }}",
    "{{ name | default: '}}{% assign x = event.custom.diagnosis %}{{ x }}{{ name' }}",
    "Hi {{ event.custom.diagnosis }}",
]
"""Texts whose first block is one dynamic field for Jinja and several for Liquid; and a plain field."""


@pytest.mark.parametrize("text", ["plain { } }} %} {ds} \n\n", "a {", ""])
@pytest.mark.parametrize("appointment", [True, False])
def test_a_text_from_elsewhere_may_hold_plain_text(text: str, *, appointment: bool) -> None:
    assert check(text, appointment=appointment) == text


@pytest.mark.parametrize(
    "block",
    [
        *SMUGGLED,
        PAGES_EXAMPLE,
        "{{ name }}",
        "{{- event.x -}}",
        "{{ practice }}",
        "{{ ds }}",
        "{{ 'x' }}",
        "{% if event %}",
        "{# c #}",
        "{% raw %}{{ name }}{% endraw %}",
        "x {{ name",
        "{{ a ? b }}",
        "{%",
    ],
)
def test_a_text_from_elsewhere_that_holds_anything_else_is_refused(block: str) -> None:
    opening = re.search(r"\{[{%#]", block)
    assert opening is not None
    said = (
        f"message: line 2: {opening[0]} in a text that comes from an XCom, a row, a file or a function. Such a text "
        "is not rendered and must be plain; remove the braces, or render the text where it is made"
    )
    text = f"{VALUE}\n{block}"
    assert refusal(check, text, appointment=False) == said
    expected = f"{said}. Write Apptoto's fields in the text in the DAG file"
    assert refusal(check, text, dynamic_fields=("practice",)) == expected


def literally(text: str, *, appointment: bool) -> str:
    return make_renderer().check_literal("message", text, to_appointment=appointment)


@pytest.mark.parametrize("text", ["{% if event %}x{% endif %}", "{{ ds }} {# {{ open", "{{ name }}", "plain"])
def test_a_literal_is_apptotos_as_it_stands(text: str) -> None:
    assert literally(text, appointment=True) == text


def test_a_literal_to_a_person_may_hold_nothing_that_only_apptoto_fills() -> None:
    assert literally("plain { } }}", appointment=False) == "plain { } }}"
    for opening in ("{{", "{%", "{#"):
        assert refusal(literally, f"x {opening} y", appointment=False) == (
            f"message: {opening} in literal() would reach the recipient unrendered: Apptoto fills dynamic fields "
            "only for an event_id or participant_id"
        )


# --- the fields of a task


class Later:
    """An XCom as Airflow represents it: an object with ``resolve``."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def resolve(self, context: Any) -> Any:
        assert context["ds"] == "D"
        return self.value


def made_by_function(context: Any, jinja_env: jinja2.Environment) -> str:
    return f"{context['ds']} {jinja_env.variable_start_string[:1]}"


def render(task: Any, *, seen: tuple[Any, ...] = (), **context: Any) -> Any:
    dag = make_dag()
    context = {"dag": dag, "ds": "D", "value": VALUE, **context}
    task._do_render_template_fields(task, task.template_fields, context, dag.get_template_env(), {id(s) for s in seen})
    return task


def make_task(**fields: Any) -> Any:
    return ApptotoSendMessageOperator(task_id="send", **fields)


def hidden(task: Any) -> dict[str, Any]:
    """Return the hidden fields and their values."""
    fields = {name: getattr(task, name) for name in task.template_fields}
    return {name: unwrap(value) for name, value in fields.items() if isinstance(value, Redacted)}


def test_every_field_is_rendered_and_recipient_and_texts_are_hidden() -> None:
    task = render(
        make_task(
            type="{{ 'email' }}",
            to="{{ ds }}@clinic.example",
            subject="S {{ ds }}",
            message="M {{ ds }}",
            template_id="{{ 7 }}",
            apptoto_conn_id="c_{{ ds }}",
            reference="r {{ ds }}",
        )
    )
    assert hidden(task) == {"to": "D@clinic.example", "subject": "S D", "message": "M D"}
    assert (task.type, task.template_id, task.apptoto_conn_id, task.reference) == ("email", "7", "c_D", "r D")
    assert (task.event_id, task.participant_id) == (None, None)


def test_what_is_not_redacted_is_rendered_and_not_hidden() -> None:
    task = render(make_task(type="sms", to="{{ ds }}", message="{{ ds }}", redact=False))
    assert (hidden(task), task.to, task.message) == ({}, "D", "D")


def test_each_label_is_rendered_and_none_is_hidden() -> None:
    labels = {
        "day": "{{ ds }}",
        "clinic": Later("north {{ value }}"),
        "plain": literal("{{ ds }}"),
        "made": made_by_function,
        "floor": 3,
    }
    task = render(make_task(type="sms", to="+16505550199", message="M", labels=labels))
    assert task.labels == {
        "day": "D",
        "clinic": "north {{ value }}",
        "plain": "{{ ds }}",
        "made": "D {",
        "floor": 3,
    }
    assert labels["day"] == "{{ ds }}"  # the mapping in the DAG is not changed


def test_labels_of_another_task_are_not_rendered() -> None:
    labels = {"clinic": "{{ value }}"}
    for given, seen in ((Later(labels), ()), (labels, (labels,)), (literal(labels), ())):
        task = make_task(type="sms", to="+16505550199", message="M")
        task.labels = given
        assert render(task, seen=seen).labels == labels


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("{{ nope }}", "labels['clinic']: line 1: nope is undefined"),
        ("{{ none }}", "labels['clinic']: line 1: "),
        (Later(None), "labels['clinic']: is None: the task or function that provides it returned nothing"),
    ],
    ids=["undefined", "None", "XCom of None"],
)
def test_a_label_that_cannot_be_rendered_is_an_error_that_names_it(value: Any, problem: str) -> None:
    task = make_task(type="sms", to="+16505550199", message="M", labels={"clinic": value})
    assert refusal(render, task).startswith(problem)


@pytest.mark.parametrize("target", [{"event_id": "{{ 5 }}"}, {"participant_id": 5}, {"event_id": Later("5")}])
def test_fields_of_the_target_decide_whose_a_block_is(target: dict[str, Any]) -> None:
    task = render(make_task(type="email", subject="S {{ name }}", message="{% raw %}{{ x }}{% endraw %}", **target))
    assert hidden(task) == {"subject": "S {{ name }}", "message": "{{ x }}"}
    assert [str(task.event_id or task.participant_id)] == ["5"]
    task = make_task(type="email", to="a@clinic.example", subject="S {{ name }}", message="M")
    assert refusal(render, task).startswith("subject: line 1: {{ name }} is a dynamic field")


@pytest.mark.parametrize(
    ("message", "wire"),
    [
        (literal("{% if event %}{{ ds }}"), "{% if event %}{{ ds }}"),
        (Later("Hi Mary {"), "Hi Mary {"),
        (made_by_function, "D {"),
        (Later(5), 5),
        (["Hi {{ ds }}"], ["Hi {{ ds }}"]),
    ],
    ids=["literal", "XCom", "function", "XCom of another type", "list"],
)
def test_what_is_no_string_is_resolved_and_never_rendered(message: Any, wire: Any) -> None:
    task = make_task(type="sms", event_id=5, template_id=6)
    task.message = message
    assert hidden(render(task)) == {"message": wire}


def test_a_value_of_an_xcom_is_not_rendered() -> None:
    fine, field, wrong, number = "Hi {", "Hi {{ name }}", "{{ value }}", "{{ ds }}"
    assert hidden(render(make_task(type="sms", event_id=5, message=fine), seen=(fine,))) == {"message": fine}
    refused: list[tuple[Any, tuple[Any, ...]]] = [(Later(wrong), ()), (wrong, (wrong,)), (lambda **_: wrong, ())]
    for message, seen in (*refused, (Later(field), ()), (field, (field,)), (lambda **_: field, ())):
        task = make_task(type="sms", event_id=5, template_id=6)
        task.message = message
        assert "is not rendered and must be plain" in refusal(render, task, seen=seen)
    task = render(make_task(type="sms", to=number, message="M"), seen=(number,))
    assert hidden(task) == {"to": number, "message": "M"}


@pytest.mark.parametrize("nothing", [Later(None), literal(None), lambda **_: None], ids=["XCom", "literal", "function"])
@pytest.mark.parametrize("field", ["to", "event_id", "message", "subject", "template_id", "reference"])
def test_nothing_from_an_xcom_is_an_error(field: str, nothing: Any) -> None:
    task = make_task(type="sms", to="+16505550199", message="M")
    setattr(task, field, nothing)
    assert refusal(render, task) == f"{field}: is None: the task or function that provides it returned nothing"


@pytest.mark.parametrize("wrong", [{"to": "{{ nope }}"}, {"subject": "{{ nope }}"}, {"type": "{{ nope }}"}])
def test_recipient_and_texts_are_hidden_where_rendering_failed(wrong: dict[str, str]) -> None:
    task = make_task(**{"type": "email", "to": "{{ value }}", "message": "{{ value }} m", "subject": "s", **wrong})
    refusal(render, task)
    assert set(hidden(task)) >= {"to", "message", "subject"}
    assert VALUE not in f"{task.to} {task.message} {task.subject}"


def test_fields_that_are_rendered_already_stay_as_they_are() -> None:
    task = render(make_task(type="sms", event_id=5, message="Hi {{ name }} {% raw %}{{ ds }}{% endraw %}"))
    assert hidden(render(task)) == {"message": "Hi {{ name }} {{ ds }}"}


def test_a_text_whose_rendering_failed_is_not_ready_the_next_time() -> None:
    task = make_task(type="sms", to="+16505550199", message="Hi {{ nope }}")
    refusal(render, task)
    refusal(render, task)
    assert hidden(render(task, nope="Mary")) == {"to": "+16505550199", "message": "Hi Mary"}


def test_objects_inside_of_a_field_are_left_to_airflow() -> None:
    class Nested:
        template_fields = ("text",)
        text = "{{ ds }}"

    task, nested, dag = make_task(type="sms", to="+16505550199", message="M"), Nested(), make_dag()
    task._do_render_template_fields(nested, ("text",), {"dag": dag, "ds": "D"}, dag.get_template_env(), set())
    assert nested.text == "D"
