"""Apptoto gets what a task specifies, at most once: DAGs that the installed Airflow runs, over a real socket."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, task

from airflow_provider_apptoto._airflow import HAS_RETRY_POLICY as HAS_TASK_STATE  # both are new in 3.3
from airflow_provider_apptoto.client import ApptotoAuthError, ApptotoRejectedError, ApptotoUnknownOutcomeError, Message
from airflow_provider_apptoto.client.errors import ApptotoValidationError
from airflow_provider_apptoto.hooks.apptoto import ApptotoHook
from airflow_provider_apptoto.operators._base import SendingOperator
from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageOperator
from tests.support.dag_runs import run_dag
from tests.support.faults import Exchange, FaultServer, answering, hanging

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

Connect = Callable[..., None]

pytestmark = [pytest.mark.contract, pytest.mark.usefixtures("airflow_database", "quick_retries")]

NOW = timedelta(0)


def send(**arguments: Any) -> Callable[[], object]:
    """Return a function that creates a task that sends one text, with up to three tries."""
    fields = {"task_id": "send", "type": "sms", "to": "+16505550199", "message": "Hi", **arguments}
    return lambda: ApptotoSendMessageOperator(retries=2, retry_delay=NOW, **fields)


MESSAGES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "text": (
        {"type": "sms", "to": "+1 (650) 555-0199", "message": "Hi {{ params.name }}"},
        {"type": "sms", "to": "+16505550199", "message": "Hi Mary"},
        "+1•••0199",
    ),
    "call": (
        {"type": "call", "to": "+16505550199", "message": "Hello {{ params.name }}"},
        {"type": "call", "to": "+16505550199", "message": "Hello Mary"},
        "+1•••0199",
    ),
    "email": (
        {
            "type": "email",
            "to": "{{ params.name | lower }}@clinic.example",
            "subject": "For {{ params.name }}",
            "message": "M",
        },
        {"type": "email", "to": "mary@clinic.example", "subject": "For Mary", "message": "M"},
        "m•••@•••.example",
    ),
    "event": (
        {"type": "sms", "event_id": "{{ params.event }}", "message": "See you"},
        {"type": "sms", "event_id": 12, "message": "See you"},
        "event 12",
    ),
    "participant": (
        {"type": "call", "participant_id": 34, "template_id": "{{ params.template }}"},
        {"type": "call", "participant_id": 34, "template_id": "56"},
        "participant 34",
    ),
}
"""By task: its parameters, what Apptoto receives, and the target that may be shown."""


def test_what_the_task_says_reaches_apptoto_and_xcom_says_what_became_of_it(connection: Connect) -> None:
    def build() -> None:
        for task_id, (arguments, _, _) in MESSAGES.items():
            ApptotoSendMessageOperator(task_id=task_id, reference="appointment {{ params.event }}", **arguments)

    answer = {"success": True, "message_id": 99, "id": "a-1", "to": "+16505550199", "text": "Hi Mary"}
    with FaultServer([answering(200, answer, accepted=True)]) as server:
        connection(server.url)
        run = run_dag(build, params={"name": "Mary", "event": 12, "template": 56})
    assert run.state == "success"
    assert len(server.accepted) == len(MESSAGES)
    for task_id, (_, payload, target) in MESSAGES.items():
        [request] = [request for request in server.accepted if request.json == payload]
        assert (request.method, request.path) == ("POST", "/v1/send_message")
        assert request.headers["user-agent"].startswith("airflow-provider-apptoto/")
        xcom = run[task_id].xcom
        assert xcom.pop("sent_at").endswith("Z")
        assert bool(xcom.pop("key")) == HAS_TASK_STATE
        assert xcom == {
            "outcome": "sent",
            "type": payload["type"],
            "target": target,
            "reference": "appointment 12",
            "http_status": 200,
            "try_number": 1,
            "response": {"success": True, "id": "a-1"},
            "segments": 1 if payload["type"] == "sms" and "message" in payload else None,
        }


def test_mapped_tasks_send_one_message_each(connection: Connect) -> None:
    def build() -> None:
        texts = ApptotoSendMessageOperator.partial(task_id="texts", type="sms", message="Hi")
        texts.expand(to=["+16505550101", "+16505550102"])

        @task
        def rows() -> list[dict[str, str]]:
            return [{"to": f"{name}@clinic.example", "message": f"Hi {name}"} for name in ("ann", "bob")]

        ApptotoSendMessageOperator.partial(task_id="mails", type="email", subject="News").expand_kwargs(rows())

    with FaultServer() as server:
        connection(server.url)
        run = run_dag(build)
    assert run.state == "success"
    sent = sorted((request.json["to"], request.json["message"]) for request in server.accepted)
    assert sent == [
        ("+16505550101", "Hi"),
        ("+16505550102", "Hi"),
        ("ann@clinic.example", "Hi ann"),
        ("bob@clinic.example", "Hi bob"),
    ]
    assert [task.xcom["target"] for task in run.tasks if task.task_id == "texts"] == [
        "+1•••0101",
        "+1•••0102",
    ]


def test_what_was_not_sent_is_retried_by_airflow_until_it_is_sent_once(connection: Connect) -> None:
    too_soon = answering(503, Retry_After="3600")
    accepted = answering(200, {"success": True}, accepted=True)
    with FaultServer([too_soon, too_soon, accepted]) as server:
        connection(server.url)
        run = run_dag(send(retry_policy=None))
    assert (run["send"].state, run["send"].tries, run["send"].xcom["try_number"]) == ("success", 3, 3)
    assert (len(server.requests), len(server.accepted)) == (3, 1)


ANSWERS: dict[str, tuple[int, dict[str, Any], bool, type[Exception]]] = {
    "refused": (422, {"error": "no"}, False, ApptotoRejectedError),
    "refused_key": (401, {}, False, ApptotoAuthError),
    "server_error": (500, {}, True, ApptotoUnknownOutcomeError),
    "no_success": (200, {"success": False}, False, ApptotoRejectedError),
    "no_answer": (200, {}, True, ApptotoUnknownOutcomeError),
}
"""By task: HTTP status, body, whether the message was accepted, and the class of the error."""


def test_what_was_refused_or_may_have_been_sent_fails_at_once_whatever_the_retries(
    connection: Connect, errors: dict[str, BaseException]
) -> None:
    def answer(exchange: Exchange) -> None:
        status, body, accepted, _ = ANSWERS[exchange.request.json["message"]]
        answering(status, body, accepted=accepted)(exchange)

    def build() -> None:
        for task_id in ANSWERS:
            send(task_id=task_id, message=task_id)()

    with FaultServer([answer]) as server:
        connection(server.url)
        run = run_dag(build)
    assert run.state == "failed"
    assert [(task.state, task.tries) for task in run.tasks] == [("failed", 1)] * len(ANSWERS)
    assert sorted(request.json["message"] for request in server.requests) == sorted(ANSWERS)
    assert errors.keys() == ANSWERS.keys()
    for task_id, (*_, kind) in ANSWERS.items():
        assert isinstance(errors[task_id], kind), task_id
        assert isinstance(errors[task_id], AirflowFailException)


def test_a_task_timeout_after_the_message_went_out_does_not_send_it_again(connection: Connect) -> None:
    with FaultServer([hanging]) as server:
        connection(server.url)
        run = run_dag(send(execution_timeout=timedelta(seconds=1)))
    assert (run["send"].state, run["send"].tries) == ("failed", 1)
    assert len(server.accepted) == 1


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "blank_recipient": ({"to": "{{ params.blank }}", "message": "Hi"}, "to: must not be blank"),
    "blank_text": ({"to": "+16505550199", "message": "{{ params.blank }}"}, "message: must not be blank"),
    "text_of_spaces": ({"to": "+16505550199", "message": " \n"}, "message: must not be blank"),
    "two_targets": (
        {"to": "+16505550199", "event_id": 3, "message": "Hi"},
        "to: exactly one of to, event_id, participant_id is required; given: to, event_id",
    ),
    "no_text": ({"to": "+16505550199"}, "message: is required unless template_id is given"),
    "subject_of_a_text": (
        {"to": "+16505550199", "message": "Hi", "subject": "News"},
        "subject: is allowed for email only",
    ),
    "blank_event": ({"event_id": "{{ params.blank }}", "message": "Hi"}, "event_id: .* got a blank string"),
    "short_number": ({"to": "+1650555", "message": "Hi"}, "to: •••0555 is not a valid phone number"),
    "no_country_code": ({"to": "650-555-0199", "message": "Hi"}, "to: •••0199 has no country code; .*default_region"),
    "other_country": (
        {"to": "+5351234567", "message": "Hi"},
        "to: .* is a number of CU, but allowed_regions is US. To allow it, set allowed_regions",
    ),
    "call_that_costs": (
        {"type": "call", "to": "+19005550199", "message": "Hi"},
        "to: .* is a premium-rate number, which is not allowed",
    ),
    "long_text": (
        {"to": "+16505550199", "message": "{{ 'a' * 460 }}"},
        "message: takes about 4 segments .GSM-7., more than max_segments=3",
    ),
    "longer_than_one": ({"event_id": 3, "message": "a" * 161, "max_segments": 1}, "message: takes about 2 segments"),
    "control_character": (
        {"to": "+16505550199", "message": "Hi {{ params.bell }}"},
        "message: contains the control character U.0007 at position 4; only newline and tab are allowed",
    ),
    "no_parameter": ({"to": "{{ params.no_such_thing }}", "message": "Hi"}, "to: .*no_such_thing is undefined"),
}
"""By task: its parameters, and the text of the error."""


def test_what_makes_no_message_fails_before_a_byte_leaves(
    connection: Connect, errors: dict[str, BaseException]
) -> None:
    def build() -> None:
        for task_id, (arguments, _) in WRONG.items():
            ApptotoSendMessageOperator(task_id=task_id, **{"type": "sms", **arguments})

    with FaultServer() as server:
        connection(server.url, allowed_regions="US")
        run = run_dag(build, params={"blank": "", "bell": "\a"})
    assert [task.state for task in run.tasks] == ["failed"] * len(WRONG)
    assert server.connections == 0
    assert errors.keys() == WRONG.keys()
    for task_id, (_, says) in WRONG.items():
        assert re.match(says, str(errors[task_id])), task_id


def test_a_text_may_be_as_long_as_its_task_says(connection: Connect) -> None:
    limits: dict[str, tuple[int | None, int]] = {"three": (3, 459), "four": (4, 460), "none": (None, 5000)}

    def build() -> None:
        for task_id, (limit, length) in limits.items():
            send(task_id=task_id, message="a" * length, max_segments=limit)()

    with FaultServer() as server:
        connection(server.url)
        assert run_dag(build).state == "success"
    assert sorted(len(request.json["message"]) for request in server.accepted) == [459, 460, 5000]


def test_every_road_has_the_same_limit_of_segments() -> None:
    roads = (
        SendingOperator.__init__,
        ApptotoHook.send_message,
        Message,
    )
    assert {inspect.signature(road).parameters["max_segments"].default for road in roads} == {3}


def test_every_send_leaves_one_log_line_without_number_or_text(connection: Connect, provider_log: list[str]) -> None:
    with FaultServer([answering(422, {"error": "no"})]) as server:
        connection(server.url)
        run_dag(send(message="Hi Mary"))
    [*told, line] = provider_log
    subjects = {text.lower().partition("ledger")[1] or text.partition(":")[0] for text in told}
    # the first line without a ledger says that there is none; with task state, one names the page
    assert subjects - {"Messages of this task"} == {"Delivery mode", "ledger"}
    assert re.fullmatch(r"sms to \+1•••0199: rejected, HTTP 422, \d+ ms, 1 segment \(GSM-7\)", line)


@pytest.mark.parametrize("remembers", [True, False])
def test_an_operator_that_a_callback_executes_renders_its_text_and_needs_the_state_database(
    connection: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remembers: bool
) -> None:
    state = {"conn_type": "sqlite", "host": str(tmp_path / "state.db")}
    monkeypatch.setenv("AIRFLOW_CONN_STATE", json.dumps(state))

    def tell(context: Context) -> None:
        fields: dict[str, Any] = {"type": "sms", "to": "+16505550111", "message": "{{ ti.task_id }} failed"}
        ApptotoSendMessageOperator(task_id="tell", max_age=None, **fields).execute(context)

    def build() -> None:
        @task(on_failure_callback=tell)
        def breaks() -> None:
            raise ValueError

        breaks()

    with FaultServer() as server:
        connection(server.url, **({"state_conn_id": "state"} if remembers else {}))
        run_dag(build)
    assert [request.json["message"] for request in server.accepted] == ["breaks failed"] * remembers


def test_one_operator_that_several_callbacks_execute_sends_each_its_own_message(
    connection: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = {"conn_type": "sqlite", "host": str(tmp_path / "state.db")}
    monkeypatch.setenv("AIRFLOW_CONN_STATE", json.dumps(state))
    fields: dict[str, Any] = {"to": "{{ task.params.who }}", "message": "{{ ti.task_id }} failed"}
    operator = ApptotoSendMessageOperator(task_id="tell", type="sms", max_age=None, **fields)

    def build() -> None:
        for number in ("+16505550111", "+16505550112"):

            @task(
                task_id=f"task_{number[-1]}",
                params={"who": number},
                on_failure_callback=lambda context: operator.execute(context),  # noqa: PLW0108
            )
            def breaks() -> None:
                raise ValueError

            breaks()

    with FaultServer() as server:
        connection(server.url, state_conn_id="state")
        run_dag(build)
    assert sorted((request.json["to"], request.json["message"]) for request in server.accepted) == [
        ("+16505550111", "task_1 failed"),
        ("+16505550112", "task_2 failed"),
    ]


@pytest.mark.parametrize("text", ["Hi {{ name }}", "{% if x %}Hi{% endif %}", "Hi {# note #}", "a {{"])
def test_a_hook_sends_no_template_to_a_number_or_an_address(connection: Connect, text: str) -> None:
    with FaultServer() as server:
        connection(server.url)
        targets: list[dict[str, Any]] = [
            {"type": "sms", "to": "+16505550111"},
            {"type": "email", "to": "mary@clinic.example"},
        ]
        for fields in targets:
            with pytest.raises(ApptotoValidationError, match=r"^message: contains \{.*would be sent literally"):
                ApptotoHook().send_message(message=text, **fields)
        ApptotoHook().send_message(type="sms", event_id=12, message=text)
    assert len(server.requests) == 1
