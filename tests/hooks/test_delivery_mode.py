"""From a staging deployment nobody is reached, whichever way a message is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_apptoto.client import (
    ApptotoConfigurationError,
    ApptotoError,
    ApptotoValidationError,
    Message,
    SendResult,
)
from airflow_provider_apptoto.hooks.apptoto import ApptotoHook
from tests.airflow_runs import run_tasks
from tests.faults import FaultServer

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.contract, pytest.mark.usefixtures("airflow_database")]

CLIENT: dict[str, Any] = {"to": "+16505550199", "message": "Your results are in"}
STAND_INS = {"redirect_phone_to": "+16505550100", "redirect_email_to": "test@clinic.example"}


def by_hook(**options: Any) -> SendResult:
    return ApptotoHook(**options).send_message(type="sms", **CLIENT)


def by_client(**options: Any) -> SendResult:
    return ApptotoHook(**options).get_conn().send(Message("sms", **CLIENT))


def by_airflows_get_hook(**options: Any) -> SendResult:
    hook = ApptotoHook.get_connection("apptoto_default").get_hook(hook_params=options)
    assert isinstance(hook, ApptotoHook)
    return hook.send_message(type="sms", **CLIENT)


TASK = 'ApptotoSendMessageOperator{}(task_id="send", type="sms", message="Your results are in", {})'
MAPPED = '.expand(to=["+16505550199"])'
PLAIN = 'to="+16505550199", '


def options_as_text(options: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in options.items())


def by_operator(**options: Any) -> None:
    run_tasks(TASK.format("", PLAIN + options_as_text(options)))


def by_mapped_operator(**options: Any) -> None:
    run_tasks(TASK.format(".partial", options_as_text(options)) + MAPPED)


WAYS = [by_hook, by_client, by_airflows_get_hook, by_operator, by_mapped_operator]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("setting", ["connection", "configuration", "task"])
@pytest.mark.parametrize("others", ["unset", "live"])
def test_a_dry_run_set_anywhere_lets_nothing_leave(
    way: Callable[..., Any],
    setting: str,
    others: str,
    connection: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    modes = dict.fromkeys(("connection", "configuration", "task"), "live") if others == "live" else {}
    modes[setting] = "dry_run"
    if "configuration" in modes:
        monkeypatch.setenv("AIRFLOW__APPTOTO__DELIVERY_MODE", modes["configuration"])
    with FaultServer() as server:
        connection(server.url, **({"delivery_mode": modes["connection"]} if "connection" in modes else {}))
        way(**({"delivery_mode": modes["task"]} if "task" in modes else {}))
    assert server.connections == 0


@pytest.mark.parametrize("way", WAYS)
def test_a_redirect_reaches_the_stand_in_and_nobody_else(
    way: Callable[..., Any], connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__APPTOTO__DELIVERY_MODE", "redirect")
    with FaultServer() as server:
        connection(server.url, **STAND_INS)
        way(delivery_mode="live")
    assert [request.json for request in server.accepted] == [
        {
            "type": "sms",
            "to": "+16505550100",
            "message": "[Redirected, was for +1•••0199]\nYour results are in",
        }
    ]


@pytest.mark.parametrize("way", [by_hook, by_client, by_airflows_get_hook])
@pytest.mark.parametrize("setting", ["connection", "configuration", "task"])
def test_a_mode_that_can_not_be_understood_sends_nothing(
    way: Callable[..., Any], setting: str, connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    if setting == "configuration":
        monkeypatch.setenv("AIRFLOW__APPTOTO__DELIVERY_MODE", "dry-run")
    with FaultServer() as server:
        connection(server.url, **({"delivery_mode": "dry-run"} if setting == "connection" else {}))
        with pytest.raises(ApptotoConfigurationError, match="'dry-run' is not one of live, redirect, dry_run"):
            way(**({"delivery_mode": "dry-run"} if setting == "task" else {}))
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
    assert by_hook().outcome == "dry_run"
