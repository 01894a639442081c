"""The operator, in DAGs that the installed Airflow runs against a server over a real socket."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_apptoto._compat import HAS_RETRY_POLICY
from airflow_provider_apptoto._compat import HAS_RETRY_POLICY as HAS_TASK_STATE  # both came with 3.3
from tests.airflow_runs import run_tasks
from tests.faults import FaultServer, answering, hanging

Connect = Callable[..., None]

pytestmark = [pytest.mark.contract, pytest.mark.usefixtures("airflow_database")]


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_provider_apptoto.client.client.BACKOFF", 0.01)


@pytest.mark.parametrize(
    ("arguments", "payload", "target"),
    [
        (
            'type="sms", to="+1 (650) 555-0199", message="Hi {{ params.name }}"',
            {"type": "sms", "to": "+16505550199", "message": "Hi Mary"},
            "+1•••0199",
        ),
        (
            'type="call", to="+16505550199", message="Hello {{ params.name }}"',
            {"type": "call", "to": "+16505550199", "message": "Hello Mary"},
            "+1•••0199",
        ),
        (
            'type="email", to="{{ params.name | lower }}@clinic.example", subject="For {{ params.name }}", message="M"',
            {"type": "email", "to": "mary@clinic.example", "subject": "For Mary", "message": "M"},
            "m•••@•••.example",
        ),
        (
            'type="sms", event_id="{{ params.event }}", message="See you"',
            {"type": "sms", "event_id": 12, "message": "See you"},
            "event 12",
        ),
        (
            'type="call", participant_id=34, template_id="{{ params.template }}"',
            {"type": "call", "participant_id": 34, "template_id": "56"},
            "participant 34",
        ),
    ],
)
def test_what_the_task_says_reaches_apptoto_and_xcom_says_what_became_of_it(
    connection: Connect, arguments: str, payload: dict[str, Any], target: str
) -> None:
    answer = {"success": True, "message_id": 99, "id": "a-1", "to": "+16505550199", "text": "Hi Mary"}
    with FaultServer([answering(200, answer, accepted=True)]) as server:
        connection(server.url)
        run = run_tasks(
            f'ApptotoSendMessageOperator(task_id="send", reference="appointment {{{{ params.event }}}}", {arguments})',
            arguments='params={"name": "Mary", "event": 12, "template": 56}',
        )
    assert run.state == "success"
    [request] = server.accepted
    assert (request.method, request.path, request.json) == ("POST", "/v1/send_message", payload)
    assert request.headers["user-agent"].startswith("airflow-provider-apptoto/")
    xcom = run["send"].xcom
    assert xcom.pop("sent_at").endswith("Z")
    assert bool(xcom.pop("key")) == HAS_TASK_STATE
    assert xcom == {
        "outcome": "sent",
        "type": payload["type"],
        "target": target,
        "reference": "appointment 12",
        "http_status": 200,
        "try_number": 1,
        "response": {"success": True, "message_id": 99, "id": "a-1"},
    }


def test_mapped_tasks_send_one_message_each(connection: Connect) -> None:
    with FaultServer() as server:
        connection(server.url)
        run = run_tasks("""
ApptotoSendMessageOperator.partial(task_id="texts", type="sms", message="Hi {{ ds }}"[:2]).expand(
    to=["+16505550101", "+16505550102"])

@task
def rows():
    return [{"to": f"{name}@clinic.example", "message": f"Hi {name}"} for name in ("ann", "bob")]

ApptotoSendMessageOperator.partial(task_id="mails", type="email", subject="News").expand_kwargs(rows())
""")
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


SEND = 'ApptotoSendMessageOperator(task_id="send", type="sms", to="+16505550199", message="Hi", retries=2, {})'
NOW = "retry_delay=timedelta(0)"


def test_what_was_not_sent_is_retried_by_airflow_until_it_is_sent_once(connection: Connect) -> None:
    too_soon = answering(503, Retry_After="3600")
    policy = "retry_policy=None, " if HAS_RETRY_POLICY else ""
    accepted = answering(200, {"success": True}, accepted=True)
    with FaultServer([too_soon, too_soon, accepted]) as server:
        connection(server.url)
        run = run_tasks(SEND.format(policy + NOW))
    assert (run["send"].state, run["send"].tries, run["send"].xcom["try_number"]) == ("success", 3, 3)
    assert (len(server.requests), len(server.accepted)) == (3, 1)


@pytest.mark.parametrize(
    ("status", "body", "accepted"),
    [
        (422, {"error": "no"}, False),
        (401, {}, False),
        (500, {}, True),
        (200, {"success": False}, False),
        (200, {}, True),
    ],
)
def test_what_was_refused_or_may_have_been_sent_fails_at_once_whatever_the_retries(
    connection: Connect, status: int, body: dict[str, Any], *, accepted: bool
) -> None:
    with FaultServer([answering(status, body, accepted=accepted)]) as server:
        connection(server.url)
        run = run_tasks(SEND.format(NOW))
    assert (run.state, run["send"].state, run["send"].tries) == ("failed", "failed", 1)
    assert len(server.requests) == 1


def test_a_task_timeout_after_the_message_went_out_does_not_send_it_again(connection: Connect) -> None:
    with FaultServer([hanging]) as server:
        connection(server.url)
        run = run_tasks(SEND.format(NOW + ", execution_timeout=timedelta(seconds=1)"))
    assert (run["send"].state, run["send"].tries) == ("failed", 1)
    assert len(server.accepted) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        'to="{{ params.blank }}", message="Hi"',
        'to="+16505550199", message="{{ params.blank }}"',
        'to="+16505550199", message=" \\n"',
        'to="+16505550199", event_id=3, message="Hi"',
        'to="+16505550199"',
        'to="+16505550199", message="Hi", subject="News"',
        'event_id="{{ params.blank }}", message="Hi"',
        'to="+1650555", message="Hi"',
        'to="{{ params.no_such_thing }}", message="Hi"',
    ],
)
def test_what_makes_no_message_fails_before_a_byte_leaves(connection: Connect, wrong: str) -> None:
    with FaultServer() as server:
        connection(server.url)
        run = run_tasks(
            f'ApptotoSendMessageOperator(task_id="send", type="sms", {wrong})',
            arguments='params={"blank": ""}',
        )
    assert run.state == "failed"
    assert server.connections == 0


def test_every_send_leaves_one_log_line_without_number_or_text(connection: Connect, provider_log: list[str]) -> None:
    with FaultServer([answering(422, {"error": "no"})]) as server:
        connection(server.url)
        run_tasks('ApptotoSendMessageOperator(task_id="send", type="sms", to="+16505550199", message="Hi Mary")')
    [line] = provider_log
    assert re.fullmatch(r"sms to \+1•••0199: rejected, HTTP 422, \d+ ms, 1 segment \(GSM-7\)", line)
