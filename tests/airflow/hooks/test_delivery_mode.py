"""A staging deployment sends nothing to clients, in every way that a message can be sent."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import conf

from airflow_provider_apptoto.client import (
    ApptotoConfigurationError,
    ApptotoError,
    ApptotoValidationError,
    Message,
)
from airflow_provider_apptoto.get_provider_info import get_provider_info
from airflow_provider_apptoto.hooks import _state
from airflow_provider_apptoto.hooks.apptoto import ApptotoHook
from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageOperator
from tests.support.dag_runs import run_dag
from tests.support.faults import FaultServer

pytestmark = [pytest.mark.contract, pytest.mark.usefixtures("airflow_database")]

CLIENT: dict[str, Any] = {"to": "+16505550199", "message": "Your results are in"}
STAND_INS = {"redirect_phone_to": "+16505550100", "redirect_email_to": "test@clinic.example"}


Calls = dict[str, dict[str, Any]]
"""By connection: the options of the hook, or of the task."""
Way = Callable[[Calls], Sequence[str]]
"""Sends one text per call, and returns the outcomes."""


def by_hook(calls: Calls) -> Sequence[str]:
    return [
        ApptotoHook(conn_id, **options).send_message(type="sms", **CLIENT).outcome for conn_id, options in calls.items()
    ]


def by_client(calls: Calls) -> Sequence[str]:
    return [
        ApptotoHook(conn_id, **options).get_conn().send(Message("sms", **CLIENT)).outcome
        for conn_id, options in calls.items()
    ]


def by_airflows_get_hook(calls: Calls) -> Sequence[str]:
    outcomes = []
    for conn_id, options in calls.items():
        hook = ApptotoHook.get_connection(conn_id).get_hook(hook_params=options)
        assert isinstance(hook, ApptotoHook)
        outcomes.append(hook.send_message(type="sms", **CLIENT).outcome)
    return outcomes


def by_operators(calls: Calls) -> Sequence[str]:
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


NEAR_MISSES = [
    "AIRFLOW__APPTOTO__DELIVERYMODE",
    "AIRFLOW__APPTOTO__DELIVERY_MOD",
    "AIRFLOW__APPTOTO__DELIVERY_MODE_CMD",
    "AIRFLOW__APPTOTO__DELIVERY_MODE_SECRET",
    "AIRFLOW__APPTOTO__MODE",
    "AIRFLOW__Apptoto__Delivery_Mode",
    "AIRFLOW_APPTOTO_DELIVERY_MODE",
    "AIRFLOW__APTOTO__DELIVERY_MODE",
    "airflow__apptoto__delivery_mode",
]


@pytest.mark.parametrize("variable", ["AIRFLOW__APPTOTO__DELIVERY_MODE", *NEAR_MISSES])
def test_a_variable_that_is_blank_or_mistyped_sends_nothing_and_names_what_is_meant(
    variable: str, connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "dry_run" if variable in NEAR_MISSES else " ")
    meant = "is unknown; " if variable in NEAR_MISSES else "is blank. Set it, for example to dry_run, or remove it"
    with FaultServer() as server:
        connection(server.url)
        with pytest.raises(ApptotoConfigurationError, match=rf"^{variable}: {meant}") as raised:
            by_hook({"apptoto_default": {}})
    assert variable not in NEAR_MISSES or "AIRFLOW__APPTOTO__DELIVERY_MODE" in str(raised.value)
    assert server.connections == 0


@pytest.mark.parametrize(
    ("section", "name", "problem"),
    [
        ("Apptoto", "delivery_mode", r"\[Apptoto\]: is unknown; did you mean \[apptoto\]\?"),
        ("aptoto", "delivery_mode", r"\[aptoto\]: is unknown"),
        ("apptoto", "Delivery_Mode", r"\[apptoto\] Delivery_Mode: is unknown; did you mean delivery_mode\?"),
        ("apptoto", "deliverymode", r"deliverymode: is unknown; did you mean delivery_mode\?"),
    ],
)
def test_a_mistyped_line_of_the_configuration_file_sends_nothing(
    section: str, name: str, problem: str, connection: Callable[..., None]
) -> None:
    with FaultServer() as server:
        connection(server.url)
        has_section = conf.has_section(section)
        if not has_section:
            conf.add_section(section)
        ConfigParser.set(conf, section, name, "dry_run")  # as a file does; Airflow's method lowers names
        try:
            with pytest.raises(ApptotoConfigurationError, match=problem):
                by_hook({"apptoto_default": {}})
        finally:
            ConfigParser.remove_option(conf, section, name)
            if not has_section:
                conf.remove_section(section)
    assert server.connections == 0


def test_the_configuration_file_that_a_new_airflow_writes_can_be_used_as_it_is(tmp_path: Path) -> None:
    """Airflow writes every option of a provider with its default, even if that is blank."""
    environment = {**os.environ, "AIRFLOW_HOME": str(tmp_path)}
    airflow = str(Path(sys.executable).with_name("airflow"))
    subprocess.run([airflow, "providers", "list"], env=environment, check=True, capture_output=True)
    written = (tmp_path / "airflow.cfg").read_text()
    section = written[written.index("[apptoto]") :]
    assert [name for name in get_provider_info()["config"]["apptoto"]["options"] if f"{name} = " not in section] == []
    ask = (
        "from airflow_provider_apptoto.configuration import connection_defaults, option\n"
        "print(connection_defaults(), option('ledger_secret'))"
    )
    done = subprocess.run([sys.executable, "-c", ask], env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1].endswith("{'delivery_mode': ('live', '[apptoto] delivery_mode')} None")


def test_the_log_says_once_which_mode_holds_and_who_set_it(
    connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch, provider_log: list[str]
) -> None:
    monkeypatch.setattr(_state, "_told", set())
    connection("http://127.0.0.1:9")
    for _ in range(2):
        ApptotoHook().get_conn()
    monkeypatch.setenv("AIRFLOW__APPTOTO__DELIVERY_MODE", "dry_run")
    ApptotoHook(delivery_mode="redirect").get_conn()
    assert provider_log == [
        "Delivery mode: live (default)",
        "Delivery mode: dry_run (set by AIRFLOW__APPTOTO__DELIVERY_MODE)",
    ]


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
        with pytest.raises(ApptotoValidationError, match="delivery_mode: redirect "):
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
