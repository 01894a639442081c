"""Apptoto gets the right text, or none, in each kind of DAG, from each source of a text.

``tests/airflow/test_templating.py`` tests the rules text by text. These tests check that Airflow gives the same results
when it runs a task, with a few typical texts for each kind of DAG and each source.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import jinja2
import pytest
from airflow.providers.common.compat.sdk import literal, task

from airflow_provider_apptoto.client import ApptotoValidationError
from airflow_provider_apptoto.hooks._state import AccountState
from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageOperator
from tests.support.dag_runs import Run, run_dag
from tests.support.faults import FaultServer

Connect = Callable[..., None]

pytestmark = [pytest.mark.contract, pytest.mark.usefixtures("airflow_database", "quick_retries", "_no_ledger")]

Send: Any = ApptotoSendMessageOperator
"""Untyped, because XComs, ``literal()`` and functions may replace texts."""
EMAIL = {"type": "email", "subject": "S"}
EVENT, PERSON = "event", "person"


class Refused(str):
    """Instead of a text: nothing reaches Apptoto, and the task fails for this reason."""

    __slots__ = ()


Case = tuple[str, str, str | Refused]
"""The target (an event or a person), the text, and what Apptoto must receive."""
UNDEFINED = Refused("is undefined")
BRACES = Refused("came from a value, and Apptoto would execute it")
UNFILLED = Refused("is a dynamic field, which Apptoto fills only for an event_id or participant_id")
AMBIGUOUS = Refused("may mean Apptoto's dynamic field")
NONE = Refused("a value is None")
OF_A_VALUE = Refused("in a text that comes from an XCom, a row, a file or a function")
OTHER_DELIMITERS = Refused("would be sent unrendered: the DAG sets other delimiters")
GAVE_NOTHING = Refused("the task or function that provides it returned nothing")
PARAMS = {"who": "Mary", "braces": "{{ name }}", "nothing": None, "number": "007"}


@pytest.fixture
def _no_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save nine requests per message to Airflow 3.3's task state; the ledger does not change texts."""
    monkeypatch.setattr(AccountState, "ledger_store", lambda *_: None)


@pytest.fixture
def refusals(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect refusals, because a task that fails for another reason must not count as refused."""
    collected: list[str] = []
    original = ApptotoValidationError.__init__

    def collect(self: ApptotoValidationError, field: str, problem: str, **more: Any) -> None:
        if type(self) is ApptotoValidationError:  # the outbox raises it again as a final error
            collected.append(f"{field}: {problem}")
        original(self, field, problem, **more)

    monkeypatch.setattr(ApptotoValidationError, "__init__", collect)
    return collected


def send(connection: Connect, build: Callable[[], object], **dag_arguments: Any) -> tuple[Run, dict[Any, list[str]]]:
    """Run tasks, and return how they ended and the texts that each target got."""
    with FaultServer() as server:
        connection(server.url)
        run = run_dag(build, **dag_arguments)
    received: dict[Any, list[str]] = {}
    for request in server.accepted:
        payload = request.json
        target = payload.get("event_id") or payload.get("participant_id") or payload["to"]
        received.setdefault(target, []).append(payload["message"])
    return run, received


def states_of(run: Run) -> dict[tuple[str, int], str]:
    return {(each.task_id, each.map_index): each.state for each in run.tasks if each.state != "skipped"}


def check_refusals(refusals: Sequence[str], reasons: Sequence[Refused]) -> None:
    """Check that each refusal has one of these reasons, and that each reason occurs as often as listed."""
    found = [next((reason for reason in set(reasons) if reason in refusal), refusal) for refusal in refusals]
    assert Counter(found) == Counter(reasons)


def check(
    connection: Connect,
    refusals: list[str],
    cases: Sequence[Case] = (),
    *,
    every_way: Sequence[Case] = (),
    options: dict[str, Any] | None = None,
    **dag_arguments: Any,
) -> None:
    """Send texts by tasks of their own, by ``expand_kwargs`` and by ``expand``.

    :param cases: each goes one way, in turn.
    :param every_way: each goes every way.
    :param options: further arguments of the operator.
    :param dag_arguments: further arguments of the DAG.
    """
    ways: list[list[Case]] = [[*every_way, *cases[number::3]] for number in range(3)]
    texts = {reader: [case for case in ways[2] if case[0] == reader] for reader in (EVENT, PERSON)}
    options = EMAIL | (options or {})

    def build() -> None:
        for number, (reader, text, _) in enumerate(ways[0]):
            Send(task_id=f"one_{number}", message=text, **target_of(reader, 1000 + number), **options)
        rows: list[dict[str, Any]] = [
            {**target_of(reader, 2000 + number), "message": text} for number, (reader, text, _) in enumerate(ways[1])
        ]
        Send.partial(task_id="rows", **options).expand_kwargs(rows)
        for reader, of_reader in texts.items():
            mapped = Send.partial(task_id=reader, **target_of(reader, 3000), **options)
            mapped.expand(message=[text for _, text, _ in of_reader])

    states: dict[tuple[str, int], str] = {}
    expected: dict[Any, Counter[str]] = {}

    def expect(task_id: str, map_index: int, case: Case, number: int) -> None:
        reader, _, wire = case
        states[task_id, map_index] = "failed" if isinstance(wire, Refused) else "success"
        if not isinstance(wire, Refused):
            [target] = target_of(reader, number).values()
            expected.setdefault(target, Counter())[wire] += 1

    for number, case in enumerate(ways[0]):
        expect(f"one_{number}", -1, case, 1000 + number)
    for number, case in enumerate(ways[1]):
        expect("rows", number, case, 2000 + number)
    for reader, of_reader in texts.items():
        for number, case in enumerate(of_reader):
            expect(reader, number, case, 3000)
    run, received = send(connection, build, **dag_arguments)
    assert states_of(run) == states
    assert {target: Counter(texts) for target, texts in received.items()} == expected
    check_refusals(refusals, [wire for way in ways for *_, wire in way if isinstance(wire, Refused)])


def target_of(reader: str, number: int) -> dict[str, Any]:
    return {"event_id": number} if reader == EVENT else {"to": f"p{number}@clinic.example"}


# --- kinds of DAG

COMMON: list[Case] = [
    (EVENT, "{{ params.who }} {{ name }} {{ ds[:2] }} {{ event.x | f: 3 }}", "Mary {{ name }} 20 {{ event.x | f: 3 }}"),
    (PERSON, "Hi {{ name }}", UNFILLED),
    (EVENT, "{{ name }} {{ nope }}", UNDEFINED),
    (EVENT, "{% raw %}{% if event.x %}{{ ds }}{% endif %}{% endraw %}", "{% if event.x %}{{ ds }}{% endif %}"),
    (PERSON, "Hi {{ params.who }}, see notes.txt", "Hi Mary, see notes.txt"),
    (PERSON, "Hi {{ params.nothing }}", NONE),
    (EVENT, "{{ params.braces }}", BRACES),
]


def test_in_a_plain_dag(connection: Connect, refusals: list[str]) -> None:
    cases: list[Case] = [
        (PERSON, "Hi {{ ti.xcom_pull(task_ids='nothing_of_the_kind') }}", NONE),
        (PERSON, "Hi {{ var.value.nothing_of_the_kind }}", Refused("rendering failed")),
        (PERSON, " {{ '' }}\n", Refused("message: must not be blank")),
        (EVENT, "Hi {{ name", Refused("a variable that starts on line 1 is never closed")),
    ]
    check(connection, refusals, cases, every_way=COMMON, params=PARAMS)


def test_in_a_dag_that_renders_native_objects(connection: Connect, refusals: list[str]) -> None:
    cases: list[Case] = [
        *COMMON,
        (PERSON, "{{ params.number }}", "007"),
        (PERSON, "{{ [1, '2'] }}", "[1, '2']"),
        (EVENT, "{{ 1 }}", "1"),
    ]
    check(connection, refusals, cases, params=PARAMS, render_template_as_native_obj=True)


def test_in_a_dag_that_is_lenient_about_undefined_names(connection: Connect, refusals: list[str]) -> None:
    cases: list[Case] = [
        *COMMON,
        (EVENT, "{{ name }} {{ params.nope }}", UNDEFINED),
        (PERSON, "{% if nope %}a{% else %}b{% endif %}", UNDEFINED),
        (PERSON, "{{ nope | default('b') }}", "b"),
    ]
    check(connection, refusals, cases, params=PARAMS, template_undefined=jinja2.Undefined)


def test_in_a_dag_with_macros_and_filters_of_its_own(connection: Connect, refusals: list[str]) -> None:
    cases: list[Case] = [
        (EVENT, "{{ dear(params.who) | shout }} {{ event.x | shout }}", "DEAR MARY {{ event.x | shout }}"),
        (PERSON, "{{ name }}: {{ name | shout }}", "Oak: OAK"),
        (EVENT, "{% raw %}{{ name }}{% endraw %} {{ 'of ' ~ name }}", "{{ name }} of Oak"),
        (EVENT, "{{ name }}", AMBIGUOUS),
        (PERSON, "{{ event.x }}", UNFILLED),
    ]
    check(
        connection,
        refusals,
        cases,
        params=PARAMS,
        user_defined_macros={"name": "Oak", "dear": lambda who: f"Dear {who}"},
        user_defined_filters={"shout": lambda value: value.upper()},
    )


def test_in_a_dag_with_delimiters_of_its_own(connection: Connect, refusals: list[str]) -> None:
    cases: list[Case] = [
        (EVENT, "[[ params.who ]] {{ name }} {{ event.x | f: 3 }}[# c #]", "Mary {{ name }} {{ event.x | f: 3 }}"),
        (EVENT, "<% raw %>{% if event.x %}[[ x ]]<% endraw %>", "{% if event.x %}[[ x ]]"),
        (PERSON, "[[ params.who ]] { }", "Mary { }"),
        (EVENT, "{{ ds }}", OTHER_DELIMITERS),
        (EVENT, "[[ params.braces ]]", BRACES),
        (PERSON, "[[ params.who ]] {{ name }}", OTHER_DELIMITERS),
    ]
    delimiters = {
        "variable_start_string": "[[",
        "variable_end_string": "]]",
        "block_start_string": "<%",
        "block_end_string": "%>",
        "comment_start_string": "[#",
        "comment_end_string": "#]",
    }
    check(connection, refusals, cases, params=PARAMS, jinja_environment_kwargs=delimiters)


def test_in_a_dag_that_trims_blocks(connection: Connect, refusals: list[str]) -> None:
    cases: list[Case] = [
        (EVENT, "  {% if 1 %}\n{{ name }}\n  {% endif %}\n {{ ds[:2] }}\n", "{{ name }}\n 20\n"),
        (EVENT, "  {% raw %}\n  {{ x }}\n  {% endraw %}\ny", "\n  {{ x }}\ny"),
        (PERSON, "a\n  {# c #}\n  {{ ds[:2] }}", "a\n  20"),
    ]
    check(connection, refusals, cases, jinja_environment_kwargs={"trim_blocks": True, "lstrip_blocks": True})


def test_in_a_task_with_further_dynamic_fields(connection: Connect, refusals: list[str]) -> None:
    cases: list[Case] = [
        (EVENT, "{{ appointment.start | f }} {{ name }} {{ ds[:2] }}", "{{ appointment.start | f }} {{ name }} 20"),
        (EVENT, "{% set appointment = 1 %}{{ appointment.start }}", AMBIGUOUS),
        (PERSON, "{{ appointment.start }}", UNFILLED),
    ]
    check(connection, refusals, cases, options={"dynamic_fields": ("appointment",)})


# --- fields that are no texts


def test_recipients_and_ids_stay_strings_in_a_dag_that_renders_native_objects(connection: Connect) -> None:
    def build() -> None:
        Send(task_id="number", type="sms", to="{{ params.to }}", message="{{ params.who }}")
        Send(task_id="constant", type="sms", to="+16505550102", message="Hi")
        Send(task_id="event", type="sms", event_id="{{ params.event }}", message="Hi {{ name }}")
        Send(task_id="participant", type="sms", participant_id="12", message="{{ name }} {{ params.event + 1 }}")
        Send.partial(task_id="numbers", type="sms", message="Hi").expand(to=["{{ params.to[:-1] }}3", "+16505550104"])
        Send.partial(task_id="kwargs", type="sms", message="Hi").expand_kwargs([{"to": "{{ params.to[:-1] }}5"}])

    params = {"to": "+16505550101", "who": "Mary", "event": 11}
    run, received = send(connection, build, render_template_as_native_obj=True, params=params)
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
    def build() -> None:
        Send(task_id="none", type="sms", event_id="{{ params.nothing }}", message="Hi {{ name }}")
        Send(task_id="blank", type="sms", participant_id="{{ '' }}", message="Hi {{ name }}")
        Send(task_id="unsaid", type="email", to="p@clinic.example", subject="{{ name }}", message="Hi")
        Send(
            task_id="template",
            type="email",
            event_id="{{ 7 }}",
            subject="{{ name }} {{ ds[:2] }}",
            template_id=3,
            message="M",
        )

    run, received = send(connection, build, params=PARAMS)
    assert {key for key, state in states_of(run).items() if state == "success"} == {("template", -1)}
    assert received == {7: ["M"]}
    check_refusals(refusals, [NONE, Refused("participant_id: "), UNFILLED])


# --- texts from elsewhere


def test_texts_that_airflow_does_not_render(connection: Connect, refusals: list[str]) -> None:
    @task
    def fine() -> str:
        return "Hi Mary { }"

    @task
    def wrong() -> str:
        return "Hi {{ ds }}"

    @task
    def nothing() -> None:
        return None

    @task
    def texts() -> list[str]:
        return ["Hi", "Hi {{ ds }}", "{ Hi }", "Hi {{ name }}"]

    @task
    def people() -> list[dict[str, Any]]:
        return [
            {"to": "k1@clinic.example", "message": "Hi"},
            {"event_id": 42, "message": "Hi"},
            {"event_id": 43, "message": "Hi {{ name }}"},
            {"event_id": None, "message": "Hi"},
        ]

    @task
    def ids() -> list[Any]:
        return [51, "52"]

    def build() -> None:
        one_text, other_text, no_text, all_texts, all_ids = fine(), wrong(), nothing(), texts(), ids()
        Send.partial(task_id="mapped_1", event_id=21, **EMAIL).expand(message=all_texts)
        Send.partial(task_id="mapped_2", to="m@clinic.example", **EMAIL).expand(message=all_texts)
        with_map = all_texts.map(lambda text: text + "!")
        Send.partial(task_id="mapped_3", event_id=23, **EMAIL).expand(message=with_map)
        Send.partial(task_id="mapped_4", message=one_text, **EMAIL).expand(event_id=all_ids)
        Send.partial(task_id="mapped_5", message=other_text, **EMAIL).expand(event_id=[53])
        Send.partial(task_id="mapped_6", message="Hi {{ name }} {{ ds[:2] }}", **EMAIL).expand(event_id=all_ids)
        of_the_dag = [literal("{% if event %}{{ ds }}"), "{{ ds[:2] }} {{ name }}"]
        Send.partial(task_id="mapped_7", event_id=27, **EMAIL).expand(message=of_the_dag)
        Send.partial(task_id="mapped_8", **EMAIL).expand_kwargs(people())
        Send(task_id="one_1", event_id=1, message=one_text, **EMAIL)
        Send(task_id="one_2", event_id=2, message=other_text, **EMAIL)
        Send(task_id="one_3", event_id=3, message=no_text, **EMAIL)
        Send(task_id="one_4", event_id=4, message=all_texts, **EMAIL)
        Send(task_id="one_5", event_id=5, message=literal("{% if event %}{{ ds }} {{ open"), **EMAIL)
        Send(task_id="one_6", to="o6@clinic.example", message=literal("notes { } .txt"), **EMAIL)
        Send(task_id="one_7", event_id=7, message=lambda context, **_: context["ds"][:2], **EMAIL)
        pulled = "Hi {{{{ ti.xcom_pull(task_ids='{}'){} }}}}"
        of_ids = Send(task_id="one_8", type="email", subject=one_text, event_id=8, message=pulled.format("ids", "[0]"))
        of_fine = Send(task_id="one_9", event_id=9, message=pulled.format("fine", ""), **EMAIL)
        all_ids >> of_ids
        one_text >> of_fine

    run, received = send(connection, build)
    failed = {key for key, state in states_of(run).items() if state == "failed"}
    assert failed == {
        *((f"mapped_{number}", index) for number in (1, 2, 3) for index in (1, 3)),
        ("mapped_5", 0),
        *(("mapped_8", index) for index in (2, 3)),
        *((f"one_{number}", -1) for number in (2, 3, 4)),
    }
    assert {key: sorted(each) for key, each in received.items()} == {
        21: ["Hi", "{ Hi }"],
        "m@clinic.example": ["Hi", "{ Hi }"],
        23: ["Hi!", "{ Hi }!"],
        51: ["Hi Mary { }", "Hi {{ name }} 20"],
        52: ["Hi Mary { }", "Hi {{ name }} 20"],
        27: ["20 {{ name }}", "{% if event %}{{ ds }}"],
        "k1@clinic.example": ["Hi"],
        42: ["Hi"],
        1: ["Hi Mary { }"],
        5: ["{% if event %}{{ ds }} {{ open"],
        "o6@clinic.example": ["notes { } .txt"],
        7: ["20"],
        8: ["Hi 51"],
        9: ["Hi Hi Mary { }"],
    }
    no_target, no_string = Refused("exactly one"), Refused("message: must be")
    check_refusals(refusals, [*[OF_A_VALUE] * 9, no_target, GAVE_NOTHING, no_string])


def test_rows_of_an_upstream_task_are_no_templates_and_those_of_the_dag_beside_them_are(
    connection: Connect, refusals: list[str]
) -> None:
    @task
    def rows() -> list[dict[str, str]]:
        return [
            {"to": "p1@clinic.example", "message": "Hi {{ conn.apptoto_default.password }}"},
            {"to": "p2@clinic.example", "message": "Hi {{ ds }}"},
        ]

    @task
    def row() -> dict[str, str]:
        return {"to": "p3@clinic.example", "message": "Hi {{ ds }}"}

    @task
    def plain_row() -> dict[str, str]:
        return {"to": "p4@clinic.example", "message": "Hi"}

    def build() -> None:
        upstream = rows()
        Send.partial(task_id="rows_of_one", **EMAIL).expand_kwargs(upstream)
        Send.partial(task_id="rows_of_map", **EMAIL).expand_kwargs(upstream.map(lambda each: each))
        of_the_dag = {"to": "p{{ 4 + 1 }}@clinic.example", "message": "Hi {{ ds[:2] }}"}
        mixed = [row(), plain_row(), of_the_dag]
        Send.partial(task_id="rows_of_many", type="email", subject="S {{ ds[:2] }}").expand_kwargs(mixed)

    run, received = send(connection, build)
    failed = {key for key, state in states_of(run).items() if state == "failed"}
    assert failed == {
        *((task_id, index) for task_id in ("rows_of_one", "rows_of_map") for index in (0, 1)),
        ("rows_of_many", 0),
    }
    assert received == {"p4@clinic.example": ["Hi"], "p5@clinic.example": ["Hi 20"]}
    check_refusals(refusals, [OF_A_VALUE] * 5)


def test_a_text_that_could_not_be_rendered_is_not_sent_by_the_next_try(
    connection: Connect, refusals: list[str]
) -> None:
    again = {"type": "sms", "retries": 1, "retry_delay": timedelta(0)}

    def build() -> None:
        Send(task_id="one", to="+16505550101", message="Hi {{ nope }}", **again)
        Send(task_id="late", to="+16505550102", message="Hi {{ ds[:2] }}{{ {2: ''}[ti.try_number] }}", **again)
        Send.partial(task_id="mapped", message="Hi {{ nope }}", **again).expand(to=["+16505550103"])

    run, received = send(connection, build)
    assert {each.task_id: (each.state, each.tries) for each in run.tasks} == {
        "one": ("failed", 2),
        "late": ("success", 2),
        "mapped": ("failed", 2),
    }
    assert received == {"+16505550102": ["Hi 20"]}
    check_refusals(refusals, [UNDEFINED] * 5)


def test_a_value_that_was_rendered_is_no_template_when_airflow_renders_once_more(connection: Connect) -> None:
    class Twice(ApptotoSendMessageOperator):
        def execute(self, context: Any) -> dict[str, Any]:
            self.render_template_fields(context)
            return super().execute(context)

    @task
    def give() -> str:
        return "{{ conn.apptoto_default.password }}"

    def build() -> None:
        reference: Any = give()
        Twice(task_id="send", type="sms", to="+16505550101", message="Hi", reference=reference)

    with FaultServer() as server:
        connection(server.url)
        run = run_dag(build)
    assert run["send"].xcom["reference"] == "{{ conn.apptoto_default.password }}"
