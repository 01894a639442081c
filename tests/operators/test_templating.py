"""What of a text reaches Apptoto, in every kind of DAG and by every road that a text can come."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from airflow_provider_apptoto.client import ApptotoValidationError
from tests.airflow_runs import Run, run_tasks
from tests.faults import FaultServer

Connect = Callable[..., None]

pytestmark = [pytest.mark.contract, pytest.mark.usefixtures("airflow_database")]

PAGES_EXAMPLE = "Hi there {{ name }}!  You're upcoming appointment is at {{ event.start_time | date_and_time_phrase }}."
Case = tuple[str, str, str | None]
EVENT, PERSON = "event", "person"
NOTHING = None
"""Instead of a text: nothing reaches Apptoto, and the task fails."""
PARAMS = 'params={"who": "Mary", "braces": "{{ name }}", "brace": "{", "nothing": None, "number": "007"}, '


@pytest.fixture
def refusals(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect what is refused, so that no task is taken for refused that failed by accident."""
    collected: list[str] = []
    original = ApptotoValidationError.__init__

    def collect(self: ApptotoValidationError, field: str, problem: str) -> None:
        collected.append(f"{field}: {problem}")
        original(self, field, problem)

    monkeypatch.setattr(ApptotoValidationError, "__init__", collect)
    return collected


def send(connection: Connect, tasks: str, *, arguments: str = "") -> tuple[Run, dict[Any, list[str]]]:
    """Run tasks, and return what became of them and the texts that each target got."""
    with FaultServer() as server:
        connection(server.url)
        run = run_tasks(tasks, arguments=arguments)
    received: dict[Any, list[str]] = {}
    for request in server.accepted:
        payload = request.json
        target = payload.get("event_id") or payload.get("participant_id") or payload["to"]
        received.setdefault(target, []).append(payload["message"])
    return run, received


def check(
    connection: Connect,
    refusals: list[str],
    cases: Sequence[Case] = (),
    *,
    every_way: Sequence[Case] = (),
    arguments: str = "",
    options: str = "",
) -> None:
    """Send texts by tasks of their own, by ``expand_kwargs`` and by ``expand``.

    :param cases: to whom (an event or a person), the text, and what has to reach Apptoto. Each goes one way, in turn.
    :param every_way: the same; each goes every way.
    :param arguments: further arguments of the DAG.
    :param options: further arguments of the operator.
    """
    start = f'type="email", subject="S", {options}'
    ways: list[list[Case]] = [[*every_way, *cases[number::3]] for number in range(3)]
    lines: list[str] = []
    expected: dict[Any, Counter[str]] = {}
    states: dict[tuple[str, int], str] = {}

    def expect(task_id: str, map_index: int, target: Any, wire: str | None) -> None:
        states[task_id, map_index] = "failed" if wire is NOTHING else "success"
        if wire is not NOTHING:
            expected.setdefault(target, Counter())[wire] += 1

    for number, (reader, text, wire) in enumerate(ways[0]):
        name, target = target_of(reader, 1000 + number)
        lines.append(f'ApptotoSendMessageOperator(task_id="one_{number}", {start} message={text!r}, {name}={target!r})')
        expect(f"one_{number}", -1, target, wire)
    rows = []
    for number, (reader, text, wire) in enumerate(ways[1]):
        name, target = target_of(reader, 2000 + number)
        rows.append({name: target, "message": text})
        expect("rows", number, target, wire)
    lines.append(f'ApptotoSendMessageOperator.partial(task_id="rows", {start}).expand_kwargs({rows!r})')
    for to in (EVENT, PERSON):
        name, target = target_of(to, 3000)
        texts = [(text, wire) for reader, text, wire in ways[2] if reader == to]
        mapped = f"expand(message={[text for text, _ in texts]!r})"
        lines.append(f'ApptotoSendMessageOperator.partial(task_id="{to}", {start} {name}={target!r}).{mapped}')
        for number, (_, wire) in enumerate(texts):
            expect(to, number, target, wire)
    run, received = send(connection, "\n".join(lines), arguments=arguments)
    assert {(task.task_id, task.map_index): task.state for task in run.tasks if task.state != "skipped"} == states
    assert {target: Counter(texts) for target, texts in received.items()} == expected
    assert len(refusals) == sum(state == "failed" for state in states.values()), refusals


def target_of(reader: str, number: int) -> tuple[str, Any]:
    return ("event_id", number) if reader == EVENT else ("to", f"p{number}@clinic.example")


# --- kinds of DAG

COMMON: list[Case] = [
    (EVENT, "{{ params.who }} {{ name }} {{ ds[:2] }} {{ event.x | f: 3 }}", "Mary {{ name }} 20 {{ event.x | f: 3 }}"),
    (EVENT, "{% raw %}{% if event.x %}{{ ds }}{% endif %}{% endraw %}", "{% if event.x %}{{ ds }}{% endif %}"),
    (PERSON, "Hi {{ params.who }}", "Hi Mary"),
    (EVENT, "{{ params.braces }}", NOTHING),
    (EVENT, "{{ name }} {{ nope }}", NOTHING),
    (PERSON, "Hi {{ params.nothing }}", NOTHING),
    (PERSON, "Hi {{ name }}", NOTHING),
]
SOME_MORE: list[Case] = [
    (EVENT, PAGES_EXAMPLE, PAGES_EXAMPLE),
    (PERSON, "{{ params.number }}", "007"),
    (EVENT, "{{ params.number }}", "007"),
    (EVENT, "{{ name }} notes.txt", "{{ name }} notes.txt"),
    (PERSON, "see notes.txt", "see notes.txt"),
    (PERSON, "Hi {{ nope }}", NOTHING),
    (EVENT, "{{ params.brace }}{{ name }}", NOTHING),
    (EVENT, "Hi {{ name", NOTHING),
    (PERSON, " {{ '' }}\n", NOTHING),
]


def test_in_a_plain_dag(connection: Connect, refusals: list[str]) -> None:
    cases: list[Case] = [
        *SOME_MORE,
        (EVENT, "{% set who = params.who %}{{ who }} {{ name }}", "Mary {{ name }}"),
        (EVENT, "{% set name = 1 %}{{ name }}", NOTHING),
        (EVENT, "{% for name in 'ab' %}{{ name }}{% endfor %}", NOTHING),
        (PERSON, "{% for name in 'ab' %}{{ name }}{% endfor %}", "ab"),
        (EVENT, "{% for i in [1, 2] %}{{ i }}{{ name }}{% endfor %}", "1{{ name }}2{{ name }}"),
        (EVENT, "a{# {{ nope }} {{ name }} #}b", "ab"),
        (EVENT, "a  {{- ' b ' -}}  {{ name }}\n{%- if 1 %} {{ name }}{% endif %}", "a b {{ name }} {{ name }}"),
        (EVENT, "{{ name | default: '}}' }} {{ '}}' }} {{ params.brace }}", "{{ name | default: '}}' }} }} {"),
        (EVENT, "{ } }} %} {{ name }}\n", "{ } }} %} {{ name }}\n"),
        (EVENT, "{{ event\n.x }}{{ name ~ ds }}", "{{ event\n.x }}{{ name ~ ds }}"),
        (EVENT, "{% if event.x %}a{% endif %}", NOTHING),
        (EVENT, "{% if params.who == 'Mary' %}a{% else %}{{ name }}{% endif %}", "a"),
        (EVENT, "{{ ds ~ name }}", NOTHING),
        (EVENT, "{{ 'url' | play_mp3 }}", NOTHING),
        (EVENT, "{% raw %}{{ 'url' | play_mp3 }} {{ name{% endraw %}", "{{ 'url' | play_mp3 }} {{ name"),
        (EVENT, "{# never closed", NOTHING),
        (EVENT, "{% raw %}never closed", NOTHING),
        (EVENT, "{{ ti.xcom_pull(task_ids='nothing_of_the_kind') }}", NOTHING),
        (EVENT, "{{ var.value.nothing_of_the_kind }}", NOTHING),
        (EVENT, "{{ appointment.x }}", NOTHING),
        (PERSON, "{% raw %}{{ name }}{% endraw %}", NOTHING),
        (PERSON, "{% raw %}plain{% endraw %} { } }}", "plain { } }}"),
        (PERSON, "{{ params.brace }}{", NOTHING),
        (PERSON, "{% if event %}a{% endif %}", NOTHING),
    ]
    check(connection, refusals, cases, every_way=COMMON, arguments=PARAMS)


def test_in_a_dag_that_renders_native_objects(connection: Connect, refusals: list[str]) -> None:
    cases: list[Case] = [
        *COMMON,
        *SOME_MORE,
        (PERSON, "{{ [1, '2'] }}", "[1, '2']"),
        (PERSON, "[1]", "[1]"),
        (EVENT, "{{ 1 }}", "1"),
    ]
    check(connection, refusals, cases, arguments=PARAMS + "render_template_as_native_obj=True")


def test_in_a_dag_that_is_lenient_about_undefined_names(connection: Connect, refusals: list[str]) -> None:
    cases: list[Case] = [
        *COMMON,
        *SOME_MORE,
        (EVENT, "{{ name }} {{ params.nope }}", NOTHING),
        (PERSON, "{% if nope %}a{% else %}b{% endif %}", NOTHING),
        (PERSON, "{{ nope | default('b') }}", "b"),
    ]
    check(
        connection,
        refusals,
        cases,
        arguments=PARAMS + 'template_undefined=__import__("jinja2").Undefined',
    )


def test_in_a_dag_with_macros_and_filters_of_its_own(connection: Connect, refusals: list[str]) -> None:
    cases: list[Case] = [
        (EVENT, "{{ dear(params.who) | shout }} {{ event.x | shout }}", "DEAR MARY {{ event.x | shout }}"),
        (PERSON, "{{ dear(params.who) | shout }}", "DEAR MARY"),
        (PERSON, "{{ name }}: {{ name | shout }}", "Oak: OAK"),
        (EVENT, "{{ name }}", NOTHING),
        (EVENT, "{{ event.x }} {{ name | shout }}", NOTHING),
        (EVENT, "{% raw %}{{ name }}{% endraw %} {{ 'of ' ~ name }}", "{{ name }} of Oak"),
        (PERSON, "{{ event.x }}", NOTHING),
        (EVENT, "{{ fail() }}", NOTHING),
    ]
    arguments = """user_defined_macros={"name": "Oak", "dear": lambda who: f"Dear {who}", "fail": lambda: 1 / 0},
    user_defined_filters={"shout": lambda value: value.upper()}, """
    check(connection, refusals, cases, arguments=PARAMS + arguments)


@pytest.mark.parametrize("native", [False, True], ids=["plain", "native"])
def test_in_a_dag_with_delimiters_of_its_own(connection: Connect, refusals: list[str], *, native: bool) -> None:
    cases: list[Case] = [
        (EVENT, "[[ params.who ]] {{ name }} {{ event.x | f: 3 }}[# c #]", "Mary {{ name }} {{ event.x | f: 3 }}"),
        (EVENT, "<% for name in 'ab' %>[[ name ]]{{ name }}<% endfor %>", "a{{ name }}b{{ name }}"),
        (EVENT, "<% raw %>{% if event.x %}[[ x ]]<% endraw %>", "{% if event.x %}[[ x ]]"),
        (EVENT, PAGES_EXAMPLE, PAGES_EXAMPLE),
        (EVENT, "{% if event.x %}a{% endif %}", NOTHING),
        (EVENT, "{{ ds }}", NOTHING),
        (EVENT, "[[ nope ]]", NOTHING),
        (EVENT, "[[ name ]]", NOTHING),
        (EVENT, "[[ params.braces ]]", NOTHING),
        (EVENT, "{[[ params.brace ]]", NOTHING),
        (PERSON, "[[ params.who ]] { }", "Mary { }"),
        (PERSON, "[[ params.who ]] {{ name }}", NOTHING),
        (PERSON, "[[ params.who ]", NOTHING),
    ]
    arguments = """jinja_environment_kwargs={"variable_start_string": "[[", "variable_end_string": "]]",
    "block_start_string": "<%", "block_end_string": "%>",
    "comment_start_string": "[#", "comment_end_string": "#]"}, """
    check(connection, refusals, cases, arguments=f"{PARAMS}{arguments}render_template_as_native_obj={native}")


def test_in_a_dag_that_trims_blocks(connection: Connect, refusals: list[str]) -> None:
    cases: list[Case] = [
        (EVENT, "  {% if 1 %}\n{{ name }}\n  {% endif %}\n {{ ds[:2] }}\n", "{{ name }}\n 20\n"),
        (EVENT, "  {% raw %}\n  {{ x }}\n  {% endraw %}\ny", "\n  {{ x }}\ny"),
        (EVENT, "  {%+ if 1 +%}\nx{% endif %}", "  \nx"),
        (PERSON, "a\n  {# c #}\n  {{ ds[:2] }}", "a\n  20"),
    ]
    check(
        connection,
        refusals,
        cases,
        arguments='jinja_environment_kwargs={"trim_blocks": True, "lstrip_blocks": True}',
    )


def test_in_a_task_with_further_dynamic_fields(connection: Connect, refusals: list[str]) -> None:
    cases: list[Case] = [
        (EVENT, "{{ appointment.start | f }} {{ name }} {{ ds[:2] }}", "{{ appointment.start | f }} {{ name }} 20"),
        (EVENT, "{% set appointment = 1 %}{{ appointment.start }}", NOTHING),
        (PERSON, "{{ appointment.start }}", NOTHING),
    ]
    check(connection, refusals, cases, options='dynamic_fields=("appointment",), ')


# --- fields that are no texts


def test_recipients_and_ids_stay_strings_in_a_dag_that_renders_native_objects(connection: Connect) -> None:
    tasks = """
Send = ApptotoSendMessageOperator
Send(task_id="number", type="sms", to="{{ params.to }}", message="{{ params.who }}")
Send(task_id="constant", type="sms", to="+16505550102", message="Hi")
Send(task_id="event", type="sms", event_id="{{ params.event }}", message="Hi {{ name }}")
Send(task_id="participant", type="sms", participant_id="12", message="{{ name }} {{ params.event + 1 }}")
Send.partial(task_id="numbers", type="sms", message="Hi").expand(to=["{{ params.to[:-1] }}3", "+16505550104"])
Send.partial(task_id="kwargs", type="sms", message="Hi").expand_kwargs([{"to": "{{ params.to[:-1] }}5"}])
"""
    arguments = 'render_template_as_native_obj=True, params={"to": "+16505550101", "who": "Mary", "event": 11}'
    run, received = send(connection, tasks, arguments=arguments)
    assert run.state == "success"
    assert received == {
        "+16505550101": ["Mary"],
        "+16505550102": ["Hi"],
        "+16505550103": ["Hi"],
        "+16505550104": ["Hi"],
        "+16505550105": ["Hi"],
        11: ["Hi {{ name }}"],
        12: ["{{ name }} 12"],
    }


def test_the_rendered_target_decides_whose_a_block_is(connection: Connect, refusals: list[str]) -> None:
    tasks = """
Send = ApptotoSendMessageOperator
Send(task_id="none", type="sms", event_id="{{ params.nothing }}", message="Hi {{ name }}")
Send(task_id="blank", type="sms", participant_id="{{ '' }}", message="Hi {{ name }}")
Send(task_id="both", type="sms", participant_id=1, to="+16505550101", message="Hi {{ name }}")
Send(task_id="field", type="sms", to="{{ name }}", message="Hi")
Send(task_id="subject", type="email", event_id=5, subject="{{ name }}{{ params.nothing }}", message="Hi")
Send(task_id="unsaid", type="email", to="p@clinic.example", subject="{{ name }}", message="Hi")
Send(task_id="template", type="email", event_id=7, subject="{{ name }} {{ ds[:2] }}", template_id=3, message="M")
"""
    run, received = send(connection, tasks, arguments='params={"nothing": None}')
    assert {task.task_id for task in run.tasks if task.state == "success"} == {"template"}
    assert received == {7: ["M"]}
    assert len(refusals) == len(run.tasks) - 1


# --- texts from elsewhere


def test_texts_that_airflow_does_not_render(connection: Connect, refusals: list[str]) -> None:
    tasks = """
from airflow.providers.common.compat.sdk import literal

Send = ApptotoSendMessageOperator

@task
def fine():
    return "Hi {{ name }} { } {{ event.x | f: 3 }}"

@task
def wrong():
    return "Hi {{ ds }}"

@task
def nothing():
    return None

@task
def texts():
    return ["Hi {{ name }}", "Hi {{ ds }}", "Hi {% if event %}", "Hi {{ name", "Hi {# c #}", "{ Hi }",
            "{% raw %}{{ name }}{% endraw %}"]

@task
def people():
    return [{"to": "k1@clinic.example", "message": "Hi"}, {"to": "k2@clinic.example", "message": "{{ name }}"},
            {"event_id": 43, "message": "Hi {{ name }}"}, {"event_id": 44, "message": "Hi {{ nope }}"},
            {"event_id": None, "message": "Hi"}]

@task
def ids():
    return [51, "52"]

fine, wrong, nothing, texts = fine(), wrong(), nothing(), texts()
partial = Send.partial(type="email", subject="S", task_id="mapped_1", event_id=21)
partial.expand(message=texts)
Send.partial(type="email", subject="S", task_id="mapped_2", to="m@clinic.example").expand(message=texts)
Send.partial(type="email", subject="S", task_id="mapped_3", event_id=23).expand(message=texts.map(lambda t: t + "!"))
Send.partial(type="email", subject="S", task_id="mapped_4", message=fine).expand(event_id=ids())
Send.partial(type="email", subject="S", task_id="mapped_5", message=wrong).expand(event_id=[53])
Send.partial(type="email", subject="S", task_id="mapped_6", message="Hi {{ name }} {{ ds[:2] }}").expand(event_id=ids())
Send.partial(type="email", subject="S", task_id="mapped_7", event_id=27).expand(
    message=[literal("{% if event %}{{ ds }}"), "{{ ds[:2] }} {{ name }}"])
Send.partial(type="email", subject="S", task_id="mapped_8").expand_kwargs(people())
Send(type="email", subject="S", task_id="one_1", event_id=1, message=fine)
Send(type="email", subject="S", task_id="one_2", event_id=2, message=wrong)
Send(type="email", subject="S", task_id="one_3", event_id=3, message=nothing)
Send(type="email", subject="S", task_id="one_4", to="o4@clinic.example", message=fine)
Send(type="email", subject="S", task_id="one_5", event_id=5, message=texts)
Send(type="email", subject="S", task_id="one_6", event_id=nothing, message="Hi {{ name }}")
Send(type="email", subject="S", task_id="one_7", event_id=7, message=literal("{% if event %}{{ ds }} {{ open"))
Send(type="email", subject="S", task_id="one_8", to="o8@clinic.example", message=literal("{{ name }}"))
Send(type="email", subject="S", task_id="one_9", to="o9@clinic.example", message=literal("notes { } .txt"))
Send(type="email", subject="S", task_id="one_10", event_id=10, message=lambda context, jinja_env: context["ds"][:2])
Send(type="email", subject="S", task_id="one_11", event_id=11, message=lambda context, jinja_env: "{{ ds }}")
Send(type="email", subject=fine, task_id="one_12", event_id=12, message="Hi {{ ti.xcom_pull(task_ids='ids')[0] }}")
Send(type="email", subject="S", task_id="one_13", event_id=13, message="Hi {{ ti.xcom_pull(task_ids='fine') }}")
"""
    run, received = send(connection, tasks)
    states = {(task.task_id, task.map_index): task.state for task in run.tasks}
    failed = {key for key, state in states.items() if state == "failed"}
    assert failed == {
        *(("mapped_1", index) for index in (1, 2, 3, 4, 6)),
        *(("mapped_2", index) for index in (0, 1, 2, 3, 4, 6)),
        *(("mapped_3", index) for index in (1, 2, 3, 4, 6)),
        ("mapped_5", 0),
        *(("mapped_8", index) for index in (1, 3, 4)),
        *((f"one_{number}", -1) for number in (2, 3, 4, 5, 6, 8, 11, 13)),
    }
    assert {key: sorted(texts) for key, texts in received.items()} == {
        21: ["Hi {{ name }}", "{ Hi }"],
        "m@clinic.example": ["{ Hi }"],
        23: ["Hi {{ name }}!", "{ Hi }!"],
        51: ["Hi {{ name }} 20", "Hi {{ name }} { } {{ event.x | f: 3 }}"],
        52: ["Hi {{ name }} 20", "Hi {{ name }} { } {{ event.x | f: 3 }}"],
        27: ["20 {{ name }}", "{% if event %}{{ ds }}"],
        "k1@clinic.example": ["Hi"],
        43: ["Hi {{ name }}"],
        1: ["Hi {{ name }} { } {{ event.x | f: 3 }}"],
        7: ["{% if event %}{{ ds }} {{ open"],
        "o9@clinic.example": ["notes { } .txt"],
        10: ["20"],
        12: ["Hi 51"],
    }
    assert len(refusals) == len(failed)


def test_rows_of_an_upstream_task_are_no_templates(connection: Connect) -> None:
    tasks = """
@task
def rows():
    return [{"to": "p1@clinic.example", "message": "Hi {{ conn.apptoto_default.password }}"},
            {"to": "p2@clinic.example", "message": "Hi {{ ds }}"}]

@task
def row():
    return {"to": "p3@clinic.example", "message": "Hi {{ ds }}"}

rows = rows()
Send = ApptotoSendMessageOperator
Send.partial(type="email", subject="S", task_id="rows_of_one").expand_kwargs(rows)
Send.partial(type="email", subject="S", task_id="rows_of_map").expand_kwargs(rows.map(lambda row: row))
Send.partial(type="email", subject="S", task_id="rows_of_many").expand_kwargs([row(), row()])
"""
    run, received = send(connection, tasks)
    assert received == {}
    assert Counter(task.state for task in run.tasks if task.task_id.startswith("rows_of")) == {"failed": 6}


def test_rows_of_the_dag_are_templates_beside_rows_of_an_upstream_task(connection: Connect) -> None:
    tasks = """
@task
def row():
    return {"to": "p1@clinic.example", "message": "Hi"}

ApptotoSendMessageOperator.partial(type="email", subject="S {{ ds[:2] }}", task_id="rows").expand_kwargs(
    [row(), {"to": "p{{ 1 + 1 }}@clinic.example", "message": "Hi {{ ds[:2] }}"}])
"""
    run, received = send(connection, tasks)
    assert run.state == "success"
    assert received == {"p1@clinic.example": ["Hi"], "p2@clinic.example": ["Hi 20"]}


def test_a_text_that_could_not_be_rendered_is_not_sent_by_the_next_try(connection: Connect) -> None:
    tasks = """
Send = ApptotoSendMessageOperator
again = {"type": "sms", "retries": 1, "retry_delay": timedelta(0)}
Send(task_id="one", to="+16505550101", message="Hi {{ nope }}", **again)
Send(task_id="late", to="+16505550102", message="Hi {{ ds[:2] }}{{ {2: ''}[ti.try_number] }}", **again)
Send.partial(task_id="mapped", message="Hi {{ nope }}", **again).expand(to=["+16505550103"])
"""
    run, received = send(connection, tasks)
    assert {task.task_id: task.state for task in run.tasks} == {"one": "failed", "late": "success", "mapped": "failed"}
    assert received == {"+16505550102": ["Hi 20"]}
