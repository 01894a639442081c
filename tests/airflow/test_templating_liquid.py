"""Liquid executes only what the DAG's author wrote, whatever the values contain.

Two engines check this: Ruby's Liquid, which is the original, and python-liquid. Both are lax, the default of Liquid:
they execute texts that a strict engine refuses.
"""

from __future__ import annotations

import html
import json
import os
import subprocess
import unicodedata
from typing import TYPE_CHECKING

import liquid
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_apptoto.client import ApptotoValidationError
from airflow_provider_apptoto.templating.fields import renderer_of
from tests.support.dags import make_dag

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECRETS = ("Diabetes", "+15550001")
"""Tags that no author of these texts uses."""
DATA = {
    "name": "Ann",
    "event": {
        "title": "Exam",
        "custom": {"diagnosis": SECRETS[0]},
        "participants": [{"phone": SECRETS[1]}],
    },
}
RUBY = """
require "json"
require "liquid"
STDOUT.sync = true
STDIN.each_line do |line|
  source, data = JSON.parse(line)
  begin
    result = Liquid::Template.parse(source, error_mode: :lax).render(data)
  rescue Liquid::Error => error
    result = "refused: #{error.class}"
  end
  puts JSON.generate([result])
end
"""


def python_engine(source: str) -> str:
    environment = liquid.Environment(tolerance=liquid.Mode.LAX)
    try:
        return str(environment.from_string(source).render(**DATA))
    except liquid.exceptions.LiquidError as error:
        return f"refused: {type(error).__name__}"


@pytest.fixture(scope="module", params=["python", "ruby"])
def engine(request: pytest.FixtureRequest) -> Iterator[Callable[[str], str]]:
    if request.param == "python":
        yield python_engine
        return
    try:
        subprocess.run(["ruby", "-rliquid", "-e", ""], check=True, capture_output=True)  # noqa: S607
    except (OSError, subprocess.CalledProcessError):
        if os.environ.get("CI"):
            raise
        pytest.skip("needs Ruby with Liquid: apt-get install ruby ruby-liquid")
    with subprocess.Popen(["ruby", "-e", RUBY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:  # noqa: S607
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None
        assert stdout is not None

        def ruby_engine(source: str) -> str:
            stdin.write(json.dumps([source, DATA]) + "\n")
            stdin.flush()
            return str(json.loads(stdout.readline())[0])

        yield ruby_engine


def nfkc(text: str) -> str:
    return unicodedata.normalize("NFKC", text)


FORMS: list[Callable[[str], str]] = [str, nfkc, html.unescape, lambda text: nfkc(html.unescape(text))]
"""Transformations that an engine may apply to a text first."""


def accepted(call: Callable[..., str], text: str) -> str | None:
    try:
        return call("message", text, to_appointment=True)
    except ApptotoValidationError:
        return None


def rendered(text: str, values: dict[str, str]) -> str | None:
    dag = make_dag()
    return accepted(renderer_of({"dag": dag, **values}, dag.get_template_env()).render_text, text)


def executes_what_was_written(engine: Callable[[str], str], text: str, values: dict[str, str]) -> bool:
    """Check a template, and return whether it was accepted with these values."""
    wire = rendered(text, values)
    if wire is None:
        return False
    harmless = {name: f"Qx{number}Q" for number, name in enumerate(values)}
    twin = rendered(text, harmless)
    assert twin is not None
    expected = engine(twin)
    for name, value in values.items():
        expected = expected.replace(harmless[name], value)
    assert engine(wire) == expected
    for form in FORMS:
        assert not any(secret in engine(form(wire)) for secret in SECRETS)
    return True


def is_left_alone(engine: Callable[[str], str], text: str) -> bool:
    """Check a text that Airflow does not render, and return whether it was accepted."""
    dag = make_dag()
    wire = accepted(renderer_of({"dag": dag}, dag.get_template_env()).check_text, text)
    if wire is None:
        return False
    assert wire == text
    assert engine(wire) == text
    for form in FORMS:
        assert not any(secret in engine(form(wire)) for secret in SECRETS)
    return True


# --- strings of an attacker

PHONES = "{% for p in event.participants %}{{ p.phone }}{% endfor %}"
WHOLE = {
    "a loop in quotes": f"{{{{ name | default: '}}}}{PHONES}{{{{ name' }}}}",
    "an assignment in quotes": "{{ name | f: '}}{% assign x = event.custom.diagnosis %}{{ x }}{{ name' }}",
    "double quotes": '{{ name | default: "}}{{ event.custom.diagnosis }}{{ name" }}',
    "a field": "Hi {{ event.custom.diagnosis }}",
    "a loop": PHONES,
    "entities": "Hi &#123;&#123; event.custom.diagnosis }}",
    "full-width braces": "Hi \uff5b\uff5b event.custom.diagnosis \uff5d\uff5d",
    "full-width entities": "Hi &#xff5b;&#xff5b; event.custom.diagnosis \uff5d\uff5d",
}


@pytest.mark.parametrize("text", WHOLE.values(), ids=WHOLE)
def test_an_attack_of_a_whole_text_would_succeed_and_is_refused(engine: Callable[[str], str], text: str) -> None:
    executed = [engine(form(text)) for form in FORMS]
    assert any(secret in result for result in executed for secret in SECRETS)
    assert not is_left_alone(engine, text)


APPEND = "' | append: event.custom.diagnosis | append: '"
SPLICED = {
    "a string of a field": ("{% raw %}{{ '{% endraw %}{{ value }}{% raw %}' | append: '' }}{% endraw %}", APPEND),
    "a string of a tag": (
        "{% raw %}{% assign x = '{% endraw %}{{ value }}{% raw %}' %}{{ x }}{% endraw %}",
        APPEND,
    ),
    "the name of a field": (
        "{% raw %}{{ {% endraw %}{{ value }}{% raw %} }}{% endraw %}",
        "event.custom.diagnosis",
    ),
    "the whole inside of a tag": (
        "{% raw %}{%{% endraw %}{{ value }}{% raw %}%}{% endraw %}",
        " echo event.custom.diagnosis ",
    ),
}


@pytest.mark.parametrize(("text", "value"), SPLICED.values(), ids=SPLICED)
def test_an_attack_inside_of_a_raw_part_would_succeed_and_is_refused(
    engine: Callable[[str], str], text: str, value: str
) -> None:
    wire = text.replace("{{ value }}", value).replace("{% raw %}", "").replace("{% endraw %}", "")
    assert SECRETS[0] in engine(wire)
    assert not executes_what_was_written(engine, text, {"value": value})


def test_a_value_gets_into_a_field_by_capture(engine: Callable[[str], str]) -> None:
    text = (
        "{% raw %}{% capture url %}{% endraw %}{{ value }}{% raw %}{% endcapture %}{{ url | append: '!' }}{% endraw %}"
    )
    for value in ("https://clinic.example/a", APPEND, "' }} %} { "):
        assert executes_what_was_written(engine, text, {"value": value})
        assert engine(rendered(text, {"value": value}) or "") == f"{value}!"


# --- generated ones

TEMPLATES = st.lists(
    st.sampled_from(
        [
            "Hi ",
            "{{ v0 }}",
            "{{ v1 }}",
            "{{ v2 }}",
            "{{ name }}",
            "{{ event.title | upcase }}",
            "{% raw %}{{ '{% endraw %}",
            "{% raw %}' | append: 'x' }}{% endraw %}",
            "{% raw %}{{ '{% endraw %}{{ v0 }}{% raw %}' | append: 'x' }}{% endraw %}",
            "{% raw %}{% assign x = '{% endraw %}{{ v1 }}{% raw %}' %}{{ x }}{% endraw %}",
            "{% raw %}{% if event.title %}{% endraw %}",
            "{% raw %}{% endif %}{% endraw %}",
            "{% raw %}{% capture c %}{% endraw %}",
            "{% raw %}{% endcapture %}{{ c }}{% endraw %}",
            "{% raw %}{% comment %}{% endraw %}",
            "{% raw %}{% endcomment %}{% endraw %}",
            "{% raw %}{{ name }}}{% endraw %}",
            "{",
            "}",
            "%",
        ]
    ),
    max_size=7,
).map("".join)
HOSTILE = st.lists(
    st.sampled_from(
        [
            "{{ event.custom.diagnosis }}",
            " event.custom.diagnosis ",
            " | append: event.custom.diagnosis",
            APPEND,
            PHONES,
            "{",
            "}",
            "}}",
            "%}",
            "{%",
            "{{",
            "'",
            '"',
            "|",
            "&#123;",
            "&lcub;",
            "&percnt;",
            "\uff5b",
            "\ufe5b",
            "\u200b",
            "Mary",
        ]
    ),
    max_size=6,
).map("".join)


def test_of_generated_templates_and_values_liquid_executes_what_was_written(engine: Callable[[str], str]) -> None:
    count = [0, 0]

    @settings(max_examples=600, deadline=None)
    @given(TEMPLATES, st.tuples(HOSTILE, HOSTILE, HOSTILE))
    def check(text: str, values: tuple[str, str, str]) -> None:
        named = {f"v{number}": value for number, value in enumerate(values)}
        count[executes_what_was_written(engine, text, named)] += 1

    check()
    assert min(count) > sum(count) / 20, count


def test_of_generated_texts_from_elsewhere_liquid_executes_nothing(engine: Callable[[str], str]) -> None:
    count = [0, 0]

    @settings(max_examples=300, deadline=None)
    @given(st.one_of(HOSTILE, HOSTILE.map(lambda inner: f"{{{{ name | default: '{inner}' }}}}")))
    def check(text: str) -> None:
        count[is_left_alone(engine, text)] += 1

    check()
    assert min(count) > sum(count) / 20, count


def test_a_field_with_generated_quotes_is_one_block_to_liquid(engine: Callable[[str], str]) -> None:
    count = [0, 0]

    @settings(max_examples=300, deadline=None)
    @given(HOSTILE.filter(lambda text: "'" not in text), st.sampled_from(["%s", "{%% raw %%}%s{%% endraw %%}"]))
    def check(inner: str, where: str) -> None:
        wire = rendered(where % f"{{{{ name | default: '{inner}' }}}}", {})
        count[wire is not None] += 1
        assert wire is None or engine(wire) == "Ann"

    check()
    assert min(count) > sum(count) / 20, count
