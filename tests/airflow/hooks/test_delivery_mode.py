"""A staging deployment reaches nobody, in all ways that a message can be sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_apptoto.client import (
    ApptotoConfigurationError,
    ApptotoError,
    ApptotoValidationError,
    Message,
)
from airflow_provider_apptoto.hooks.apptoto import ApptotoHook
from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageOperator
from tests.support.dag_runs import run_dag
from tests.support.faults import FaultServer

pytestmark = [pytest.mark.contract, pytest.mark.usefixtures("airflow_database")]

CLIENT: dict[str, Any] = {"to": "+16505550199", "message": "Your results are in"}
STAND_INS = {"redirect_phone_to": "+16505550100", "redirect_email_to": "test@clinic.example"}


Calls = dict[str, dict[str, Any]]
"""By connection: the options of the hook, or of the task."""
Way = Callable[[Calls], list[str]]
"""Sends a text a call, and returns the outcomes."""


def by_hook(calls: Calls) -> list[str]:
    return [
        ApptotoHook(conn_id, **options).send_message(type="sms", **CLIENT).outcome for conn_id, options in calls.items()
    ]


def by_client(calls: Calls) -> list[str]:
    return [
        ApptotoHook(conn_id, **options).get_conn().send(Message("sms", **CLIENT)).outcome
        for conn_id, options in calls.items()
    ]


def by_airflows_get_hook(calls: Calls) -> list[str]:
    outcomes = []
    for conn_id, options in calls.items():
        hook = ApptotoHook.get_connection(conn_id).get_hook(hook_params=options)
        assert isinstance(hook, ApptotoHook)
        outcomes.append(hook.send_message(type="sms", **CLIENT).outcome)
    return outcomes


def by_operators(calls: Calls) -> list[str]:
    """Send each text by a plain and by a mapped task; one DAG holds them all."""

    def build() -> None:
        for conn_id, options in calls.items():
            fields = {"type": "sms", "message": CLIENT["message"], "apptoto_conn_id": conn_id, **options}
            ApptotoSendMessageOperator(task_id=f"plain_{conn_id}", to=CLIENT["to"], **fields)
            ApptotoSendMessageOperator.partial(task_id=f"mapped_{conn_id}", **fields).expand(to=[CLIENT["to"]])

    run = run_dag(build)
    assert run.state == "success"
    assert len(run.tasks) == 2 * len(calls)
    return [task.xcom["outcome"] for task in run.tasks]


DIRECT_WAYS = [by_hook, by_client, by_airflows_get_hook]
WAYS = [*DIRECT_WAYS, by_operators]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("configuration", "modes"),
    [
        (None, [{"connection": "dry_run"}, {"task": "dry_run"}]),
        ("live", [{"connection": "dry_run", "task": "live"}, {"connection": "live", "task": "dry_run"}]),
        ("dry_run", [{}, {"connection": "live", "task": "live"}]),
    ],
    ids=["configuration unset", "configuration live", "configuration dry_run"],
)
def test_a_dry_run_set_anywhere_lets_nothing_leave(
    way: Way,
    configuration: str | None,
    modes: list[dict[str, str]],
    connection: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if configuration is not None:
        monkeypatch.setenv("AIRFLOW__APPTOTO__DELIVERY_MODE", configuration)
    calls: Calls = {}
    with FaultServer() as server:
        for number, mode in enumerate(modes):
            conn_id = f"clinic_{number}"
            connection(server.url, conn_id, **({"delivery_mode": mode["connection"]} if "connection" in mode else {}))
            calls[conn_id] = {"delivery_mode": mode["task"]} if "task" in mode else {}
        outcomes = way(calls)
    assert set(outcomes) == {"dry_run"}
    assert server.connections == 0


@pytest.mark.parametrize("way", WAYS)
def test_a_redirect_reaches_the_stand_in_and_nobody_else(
    way: Way, connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__APPTOTO__DELIVERY_MODE", "redirect")
    with FaultServer() as server:
        connection(server.url, **STAND_INS)
        outcomes = way({"apptoto_default": {"delivery_mode": "live"}})
    assert set(outcomes) == {"redirected"}
    payload = {
        "type": "sms",
        "to": "+16505550100",
        "message": "[Redirected, was for +1•••0199]\nYour results are in",
    }
    assert [request.json for request in server.accepted] == [payload] * len(outcomes)


@pytest.mark.parametrize("way", DIRECT_WAYS)
@pytest.mark.parametrize("setting", ["connection", "configuration", "task"])
def test_a_mode_that_can_not_be_understood_sends_nothing(
    way: Way, setting: str, connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    if setting == "configuration":
        monkeypatch.setenv("AIRFLOW__APPTOTO__DELIVERY_MODE", "dry-run")
    with FaultServer() as server:
        connection(server.url, **({"delivery_mode": "dry-run"} if setting == "connection" else {}))
        with pytest.raises(ApptotoConfigurationError, match="'dry-run' is not one of live, redirect, dry_run"):
            way({"apptoto_default": {"delivery_mode": "dry-run"} if setting == "task" else {}})
    assert server.connections == 0


@pytest.mark.parametrize(
    ("stand_ins", "fields"),
    [
        ({"redirect_email_to": "test@clinic.example"}, {"type": "sms", **CLIENT}),
        ({"redirect_email_to": "test@clinic.example"}, {"type": "call", **CLIENT}),
        (
            {"redirect_phone_to": "+16505550100"},
            {"type": "email", "to": "mary@clinic.example", "message": "Hi"},
        ),
        (STAND_INS, {"type": "sms", "event_id": 12, "message": "Hi"}),
        (STAND_INS, {"type": "sms", "participant_id": 12, "message": "Hi"}),
    ],
)
def test_what_can_not_be_redirected_is_refused(
    connection: Callable[..., None], stand_ins: dict[str, str], fields: dict[str, Any]
) -> None:
    with FaultServer() as server:
        connection(server.url, delivery_mode="redirect", **stand_ins)
        with pytest.raises(ApptotoValidationError, match="delivery_mode: is redirect"):
            ApptotoHook().send_message(**fields)
    assert server.connections == 0


def test_a_redirect_says_so_in_its_result(connection: Callable[..., None]) -> None:
    with FaultServer() as server:
        connection(server.url, delivery_mode="redirect", **STAND_INS)
        result = ApptotoHook().send_message(type="email", to="mary@clinic.example", subject="Hi", template_id=5)
    assert (result.outcome, result.target, result.http_status) == ("redirected", "m•••@•••.example", 200)
    [request] = server.accepted
    assert request.json == {"type": "email", "to": "test@clinic.example", "subject": "Hi", "template_id": "5"}


def test_a_dry_run_still_refuses_what_could_not_be_sent(connection: Callable[..., None]) -> None:
    connection("http://127.0.0.1:9", delivery_mode="dry_run")
    with pytest.raises(ApptotoError, match="blank"):
        ApptotoHook().send_message(type="sms", to="+16505550199", message=" ")
    assert by_hook({"apptoto_default": {}}) == ["dry_run"]
