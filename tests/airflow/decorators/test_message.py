"""``@task.apptoto_message`` sends what its function returns, in DAGs that the installed Airflow runs."""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter
from enum import Enum
from typing import TYPE_CHECKING, Any

import airflow
import pytest
from airflow.providers.common.compat.sdk import task

from airflow_provider_apptoto.client.errors import ApptotoConfigurationError
from airflow_provider_apptoto.decorators.apptoto import ApptotoMessageDecoratedOperator
from tests.support.dag_runs import run_dag
from tests.support.marked_people import log_files, rendered
from tests.support.windows import closed_window, next_minute, zone_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.faults import FaultServer

pytestmark = [pytest.mark.contract, pytest.mark.usefixtures("airflow_database", "quick_retries")]

PHONE, OTHER_PHONE = "+16505550199", "+16505550198"
OWN_PHONE = "+16505557341"
"""Only one test uses it, and the names in it, because it reads what all tests before it left behind."""
SMS: dict[str, Any] = {"type": "sms", "to": PHONE}


def texts(server: FaultServer) -> list[str]:
    return [request.json["message"] for request in server.accepted]


def test_the_text_that_a_function_returns_is_sent(server: FaultServer) -> None:
    def build() -> None:
        @task.apptoto_message(**SMS, reference="visit-7")
        def remind(name: str, ds: str | None = None) -> str:
            """Remind a person of a visit."""
            return f"Hi {name}, see you soon ({'dated' if ds else 'undated'})"

        remind("Gwendolyn")

    run = run_dag(build)
    assert run["remind"].state == "success"
    assert run["remind"].xcom["outcome"] == "sent"
    assert run["remind"].xcom["reference"] == "visit-7"
    assert texts(server) == ["Hi Gwendolyn, see you soon (dated)"]


def test_a_function_may_return_the_fields_of_the_message(server: FaultServer) -> None:
    def build() -> None:
        @task.apptoto_message
        def remind() -> dict[str, Any]:
            return {
                "type": "email",
                "to": "mary@clinic.example",
                "message": "Your visit is at 9",
                "subject": "Your visit",
                "reference": "visit-7",
                "labels": {"clinic": "north"},
                "idempotency_key": "visit-7",
                "recipient_timezone": "UTC",
                "not_after": "2999-01-01T00:00Z",
            }

        remind() >> remind.override(task_id="again")()

    run = run_dag(build)
    assert [run[name].xcom["outcome"] for name in ("remind", "again")] == ["sent", "deduplicated"]
    assert [request.json["subject"] for request in server.accepted] == ["Your visit"]


def test_the_decorator_may_set_the_text_and_the_function_the_recipient(server: FaultServer) -> None:
    def build() -> None:
        @task.apptoto_message(type="sms", message="The load of {{ params.table }} is done")
        def who() -> dict[str, str]:
            return {"to": PHONE}

        who()

    assert run_dag(build, params={"table": "visits"})["who"].state == "success"
    assert texts(server) == ["The load of visits is done"]


@pytest.mark.parametrize("is_native", [False, True])
def test_arguments_are_rendered_as_in_other_decorated_tasks_and_results_are_not(
    server: FaultServer, *, is_native: bool
) -> None:
    def build() -> None:
        @task
        def people() -> list[str]:
            return ["Ann {{ conn.apptoto_default.password }}"]

        @task.apptoto_message(type="sms", to=PHONE)
        def remind(names: list[str], table: str, size: object) -> str:
            return f"{names[0].partition(' ')[0]}: {table}, {size!r}"

        @task.apptoto_message(**SMS, retries=0)
        def inject(names: list[str]) -> str:
            return f"Hi {names[0]}"

        found = people()
        remind(found, table="{{ params.table }}", size="{{ params.size }}")  # type: ignore[arg-type]
        inject(found)  # type: ignore[arg-type]

    run = run_dag(build, params={"table": "visits", "size": 7}, render_template_as_native_obj=is_native)
    assert run["remind"].state == "success"
    assert run["inject"].state == "failed"
    assert texts(server) == ["Ann: visits, 7" if is_native else "Ann: visits, '7'"]


def test_mapped_functions_send_a_message_each_and_never_render_what_other_tasks_return(server: FaultServer) -> None:
    def build() -> None:
        @task
        def people() -> list[dict[str, str]]:
            return [{"name": "Ann", "to": PHONE}, {"name": "{{ ds }}", "to": OTHER_PHONE}]

        @task.apptoto_message(type="sms", retries=0)
        def remind(name: str, to: str, place: str) -> dict[str, str]:
            return {"to": to, "message": f"{name.replace('{', '<')}: {place}"}

        @task.apptoto_message(type="sms", to=PHONE)
        def tell(name: str) -> str:
            return f"Table {name}"

        remind.partial(place="{{ params.place }}").expand_kwargs(people().map(lambda each: each))
        tell.expand(name=["{{ params.place }}"])
        overridden = tell.override(task_id="overridden").partial(name="{{ params.place }}")
        overridden.expand_kwargs(people().map(lambda each: {"name": each["name"]}), strict=False)
        tell.override(task_id="written").expand_kwargs([{"name": "{{ params.place }}"}])

    run = run_dag(build, params={"place": "north"})
    assert [each.state for each in run.tasks if each.task_id == "remind"] == ["success", "success"]
    assert [each.state for each in run.tasks if each.task_id == "overridden"] == ["success", "failed"]  # has braces
    assert sorted(texts(server)) == ["<< ds }}: north", "Ann: north", *["Table Ann", "Table north", "Table north"]]


@pytest.mark.skipif(airflow.__version__.startswith("2."), reason="refuses such a mapped task itself")
def test_an_argument_of_a_mapped_function_may_come_from_the_default_arguments(server: FaultServer) -> None:
    def build() -> None:
        @task.apptoto_message(type="sms", to=PHONE)
        def tell(name: str, place: str = "") -> str:
            return f"{name}: {place}"

        tell.expand(name=["Ann"])

    assert run_dag(build, default_args={"place": "north"})["tell"].state == "success"
    assert texts(server) == ["Ann: north"]


WRONG: dict[str, tuple[object, str]] = {
    "nothing": (None, r"tell\(\): returned nothing; return the text, or a mapping"),
    "number": (7, r"tell\(\): returned int; return the text"),
    "no_fields": ({}, r"tell\(\): returned nothing"),
    "typo": ({"mesage": "Hi"}, r"did you mean message\?"),
    "unknown": ({PHONE: "Hi"}, "a key that is not one of type, to,"),
    "none": ({"message": "Hi", "idempotency_key": None}, "returned None for idempotency_key; leave it out"),
    "twice": ({"to": OTHER_PHONE, "message": "Hi"}, "returned to, which the decorator sets too"),
    "blank": ("  ", "message: "),
    "blank_key": ({"message": "Hi", "idempotency_key": " "}, "idempotency_key: must not be blank"),
    "braces": ("Hi {{ name }}", "message: line 1: {{ in a text that comes from"),
    "zone": ({"message": "Hi", "recipient_timezone": "Mars/Base"}, "recipient_timezone: "),
    "too_late": ({"message": "Hi", "not_after": "tomorrow"}, "not_after: "),
}


def test_what_is_no_message_fails_without_a_retry_and_says_why(
    server: FaultServer, errors: dict[str, BaseException]
) -> None:
    def build() -> None:
        for name, (returned, _) in WRONG.items():

            def tell(returned: object = returned) -> object:
                return returned

            task.apptoto_message(**SMS, task_id=name, retries=2, retry_delay=dt.timedelta(0))(tell)()

    run = run_dag(build)
    assert {(each.state, each.tries) for each in run.tasks} == {("failed", 1)}
    for name, (_, problem) in WRONG.items():
        with pytest.raises(type(errors[name]), match=problem):
            raise errors[name]
        assert PHONE not in str(errors[name])
    assert server.accepted == []


def test_functions_that_can_not_work_are_refused_when_the_dag_is_parsed() -> None:
    async def waits() -> str:
        return "Hi"

    def yields() -> Iterator[str]:
        yield "Hi"

    for function, problem in ((waits, r"waits\(\): is async"), (yields, "use @task.apptoto_message_batch")):
        with pytest.raises(ApptotoConfigurationError, match=problem):
            ApptotoMessageDecoratedOperator(task_id="tell", python_callable=function, **SMS)


def test_arguments_recipient_and_text_stand_in_no_field_log_or_xcom(
    server: FaultServer, capfd: pytest.CaptureFixture[str], provider_log: list[str]
) -> None:
    marks = ("Philomena", OWN_PHONE, "x-ray of 2026", "Theobald")

    def build() -> None:
        @task.apptoto_message(type="sms", to=OWN_PHONE)
        def tell(name: str, *, about: str) -> str:
            return f"{name}: your {about} is fine"

        @task.apptoto_message(type="sms", to=OWN_PHONE, retries=0)
        def fail(name: str) -> str:
            return name + {"known": name}["unknown"]

        @task.apptoto_message(type="sms", to=OWN_PHONE, retries=0)
        def unrendered(name: str) -> str:
            return name

        tell("Philomena", about="x-ray of 2026")
        fail("Theobald")
        unrendered("Theobald {{ nothing.known }}")
        unrendered.override(task_id="failing")("{{ fail('Theo' ~ 'bald') }}")

    def fails(value: str) -> None:
        raise KeyError(value)

    run = run_dag(build, user_defined_macros={"fail": fails})
    states = [run[name].state for name in ("tell", "fail", "unrendered", "failing")]
    assert states == ["success", "failed", "failed", "failed"]
    shown = capfd.readouterr()
    places = {
        "rendered fields": rendered(),
        "log": "\n".join(provider_log) + log_files(),
        "xcom": json.dumps([each.xcom for each in run.tasks]),
        "output": shown.out + shown.err,
    }
    assert "***" in places["rendered fields"]
    assert [(place, mark) for place, text in places.items() for mark in marks if mark in text] == []
    assert texts(server) == ["Philomena: your x-ray of 2026 is fine"]


def test_without_redaction_arguments_are_shown(server: FaultServer) -> None:
    def build() -> None:
        @task.apptoto_message(**SMS, redact=False)
        def tell(name: str) -> str:
            return f"Hi {name}"

        tell("Clothilde {{ params.place }}")

    run_dag(build, params={"place": "north"})
    assert "Clothilde north" in rendered()
    assert texts(server) == ["Hi Clothilde north"]


@pytest.mark.parametrize(
    ("fields", "outcome"),
    [
        ({"send_window": "closed", "when_closed": "skip", "recipient_timezone": "UTC"}, "outside_window"),
        ({"max_age": dt.timedelta(microseconds=1)}, "too_old"),
        ({"not_after": "2026-03-02T18:00Z"}, "too_old"),
    ],
)
def test_what_needs_no_text_is_decided_before_the_function_runs(
    server: FaultServer, fields: dict[str, Any], outcome: str
) -> None:
    called: list[str] = []
    given = fields | ({"send_window": closed_window()} if "send_window" in fields else {})

    def build() -> None:
        @task.apptoto_message(type="sms", to=PHONE, **given)
        def tell() -> str:
            called.append("tell")
            return "Hi"

        tell()

    run = run_dag(build)
    assert (run["tell"].state, run["tell"].xcom["outcome"]) == ("skipped", outcome)
    assert (called, server.requests) == ([], [])


def test_the_zone_that_a_function_returns_decides_even_if_the_connection_has_another(
    server: FaultServer, connection: Callable[..., None]
) -> None:
    now = dt.datetime.now(dt.UTC)
    connection(server.url, state_conn_id="state", timezone=zone_at(3, now))

    def build() -> None:
        @task.apptoto_message(type="sms", to=PHONE, send_window="09:00-18:00", when_closed="skip")
        def tell() -> dict[str, str]:
            return {"message": "Hi", "recipient_timezone": zone_at(12, now)}

        tell()

    assert run_dag(build)["tell"].xcom["outcome"] == "sent"


def test_after_a_wait_the_function_is_called_and_before_it_only_if_the_zone_is_not_given(server: FaultServer) -> None:
    """The window opens at the next full minute where it is noon."""
    opening = next_minute(dt.datetime.now(dt.UTC) + dt.timedelta(seconds=10))
    zone, called = zone_at(12, opening), Counter[str]()

    def build() -> None:
        fields: dict[str, Any] = {"type": "sms", "send_window": f"12:{opening.minute:02}-14:00"}

        @task.apptoto_message(to=PHONE, recipient_timezone=zone, **fields)
        def given() -> str:
            called["given"] += 1
            return "Hi from given"

        @task.apptoto_message(to=OTHER_PHONE, **fields)
        def returned() -> dict[str, str]:
            called["returned"] += 1
            return {"message": "Hi from returned", "recipient_timezone": zone}

        given()
        returned()

    run = run_dag(build)
    assert [each.xcom["outcome"] for each in run.tasks] == ["sent", "sent"]
    assert sorted(texts(server)) == ["Hi from given", "Hi from returned"]
    assert called["given"] == 1
    assert called["returned"] in {1, 2}  # once if the other one's wait was long enough
    assert dt.datetime.now(dt.UTC) >= opening


def test_a_message_that_another_task_sent_under_the_same_key_is_known_even_when_it_is_too_old(
    server: FaultServer,
) -> None:
    def build(task_id: str, **fields: Any) -> Callable[[], object]:
        def tell() -> str:
            return "Hi"

        return task.apptoto_message(task_id=task_id, type="sms", to=PHONE, idempotency_key="one", **fields)(tell)

    assert run_dag(build("first"))["first"].xcom["outcome"] == "sent"
    again = run_dag(build("again", max_age=dt.timedelta(microseconds=1)))["again"]
    assert again.xcom["outcome"] == "deduplicated"
    assert len(server.accepted) == 1


def test_an_enumeration_of_texts_is_the_same_key_as_its_value(server: FaultServer) -> None:
    class Occasion(str, Enum):  # noqa: UP042  its text is not its value
        VISIT = "visit"

    def build() -> None:
        @task.apptoto_message(type="sms", to=PHONE)
        def tell(key: str) -> dict[str, str]:
            return {"message": "Hi", "idempotency_key": Occasion.VISIT if key == "enum" else "visit"}

        tell("enum") >> tell.override(task_id="again")("text")

    assert [each.xcom["outcome"] for each in run_dag(build).tasks] == ["deduplicated", "sent"]
    assert len(server.accepted) == 1


def test_what_was_skipped_is_described_without_values_that_are_no_type_and_no_reference(server: FaultServer) -> None:
    def build() -> None:
        fields: dict[str, Any] = {"max_age": dt.timedelta(microseconds=1), "reference": "{{ params.text }}"}

        @task.apptoto_message(type="{{ params.text }}", to="{{ params.text }}", **fields)
        def tell() -> str:
            return "Hi"

        tell()

    run = run_dag(build, params={"text": "Roderick\n6505550123"})
    assert (run["tell"].state, run["tell"].xcom["type"], run["tell"].xcom["reference"]) == ("skipped", "unknown", None)
    assert "Roderick" not in json.dumps(run["tell"].xcom)
    assert server.requests == []


def test_a_try_after_the_one_that_sent_the_message_asks_the_ledger_before_it_skips(server: FaultServer) -> None:
    ended: list[int] = []

    def fail_once(*_: object, **__: object) -> None:
        ended.append(1)
        if len(ended) == 1:
            raise OSError("the worker lost its disk")

    def build() -> None:
        until = "{{ '2999-01-01T00:00Z' if ti.try_number == 1 else '2026-01-01T00:00Z' }}"

        @task.apptoto_message(**SMS, not_after=until, post_execute=fail_once, retries=1, retry_delay=dt.timedelta(0))
        def tell() -> str:
            return "Hi"

        tell()

    assert run_dag(build)["tell"].xcom["outcome"] == "deduplicated"
    assert texts(server) == ["Hi"]


def test_a_dry_run_calls_the_function(server: FaultServer) -> None:
    def build() -> None:
        @task.apptoto_message(**SMS, send_window=closed_window(), recipient_timezone="UTC", delivery_mode="dry_run")
        def tell() -> str:
            return "Hi {{ braces }}"

        tell()

    assert run_dag(build)["tell"].state == "failed"
    assert server.requests == []
