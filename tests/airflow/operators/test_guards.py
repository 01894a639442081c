"""Operators skip, hold and send messages as the guards say, in DAGs that the installed Airflow runs."""

from __future__ import annotations

import datetime as dt
import importlib
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import task

from airflow_provider_apptoto.hooks.apptoto import ApptotoHook
from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageBatchOperator, ApptotoSendMessageOperator
from tests.support.dag_runs import run_dag
from tests.support.marked_people import rendered
from tests.support.windows import closed_window, zone_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.dag_runs import TaskRun
    from tests.support.faults import FaultServer

pytestmark = [pytest.mark.contract, pytest.mark.usefixtures("airflow_database", "quick_retries")]

PHONE, OTHER_PHONE = "+16505550199", "+16505550198"
SMS: dict[str, Any] = {
    "task_id": "send",
    "type": "sms",
    "to": PHONE,
    "message": "See you soon",
    "recipient_timezone": "UTC",
}


def send(**fields: Any) -> TaskRun:
    return run_dag(lambda: ApptotoSendMessageOperator(**{**SMS, **fields}))["send"]


def outcome(run: TaskRun) -> tuple[str, str]:
    return run.state, run.xcom["outcome"]


def test_outside_its_window_a_task_that_may_skip_is_skipped_and_says_so(server: FaultServer) -> None:
    assert outcome(send(send_window=closed_window(), when_closed="skip")) == ("skipped", "outside_window")
    assert server.requests == []


def test_a_task_that_was_stopped_before_it_sent_sends_nothing(server: FaultServer) -> None:
    assert send(pre_execute=lambda context: context["ti"].task.on_kill()).state == "failed"
    assert server.requests == []


def test_the_window_of_the_connection_applies_unless_the_task_sets_its_own(
    server: FaultServer, connection: Callable[..., None]
) -> None:
    connection(server.url, state_conn_id="state", send_window=closed_window(), timezone="UTC")
    assert outcome(send(when_closed="skip")) == ("skipped", "outside_window")
    assert outcome(send(when_closed="skip", send_window="off")) == ("success", "sent")


def test_a_dry_run_says_that_a_message_would_be_held_and_does_not_wait(server: FaultServer) -> None:
    assert outcome(send(send_window=closed_window(), delivery_mode="dry_run")) == ("success", "held")
    assert server.requests == []


@pytest.mark.parametrize("not_after", ["2026-03-02T18:00Z", "{{ params.until }}"])
def test_a_message_past_its_not_after_is_skipped(server: FaultServer, not_after: str) -> None:
    run = send(not_after=not_after, params={"until": "2026-03-02T18:00:00-05:00"})
    assert (*outcome(run), server.requests) == ("skipped", "too_old", [])


def test_a_held_message_whose_opening_comes_too_late_is_skipped_at_once(server: FaultServer) -> None:
    tomorrow = (dt.datetime.now(dt.UTC) + dt.timedelta(hours=20)).isoformat()
    assert outcome(send(send_window=closed_window(), not_after=tomorrow)) == ("skipped", "too_old")
    assert server.requests == []


@pytest.mark.usefixtures("server")
def test_a_message_over_the_limit_is_skipped_in_whichever_dag_it_is() -> None:
    assert outcome(send(at_most="1/day")) == ("success", "sent")
    assert outcome(send(at_most="1/day")) == ("skipped", "capped")
    assert outcome(send(at_most="1/day", to=OTHER_PHONE)) == ("success", "sent")


@pytest.mark.parametrize(
    ("held_by", "lists", "ends"),
    [
        ("all", (), ("skipped", "suppressed")),
        ("campaigns", ("campaigns",), ("skipped", "suppressed")),
        ("campaigns", (), ("success", "sent")),
    ],
)
def test_a_task_obeys_the_list_of_all_and_those_that_it_names(
    server: FaultServer, held_by: str, lists: tuple[str, ...], ends: tuple[str, str]
) -> None:
    ApptotoHook().optouts.add(held_by, [PHONE], by="test")
    assert outcome(send(optout_lists=lists)) == ends
    assert len(server.requests) == (ends[1] == "sent")


@pytest.mark.parametrize("message", ["Hi", " "], ids=["valid", "blank"])
def test_a_task_skips_who_is_in_its_suppression_whatever_else_is_wrong(server: FaultServer, message: str) -> None:
    """The list may come from another task, is hidden, and a number in it may be written in any way."""

    def build() -> None:
        @task
        def opted_out() -> list[str | None]:
            return ["mary@clinic.example", None, "+1 (650) 555-0199"]

        ApptotoSendMessageOperator(**{**SMS, "message": message, "suppression": opted_out()})
        other = {"task_id": "other", "to": OTHER_PHONE, "suppression": ["{{ params.number }}"]}
        ApptotoSendMessageOperator(**SMS | other)

    run = run_dag(build, params={"number": PHONE})
    assert (outcome(run["send"]), outcome(run["other"])) == (("skipped", "suppressed"), ("success", "sent"))
    assert len(server.accepted) == 1
    assert "555-0199" not in rendered()


def test_a_message_that_was_sent_is_known_even_when_the_recipient_is_suppressed_since(server: FaultServer) -> None:
    assert outcome(send(idempotency_key="one")) == ("success", "sent")
    assert outcome(send(idempotency_key="one", suppression=[PHONE])) == ("success", "deduplicated")
    assert len(server.accepted) == 1


WRONG_SUPPRESSION: dict[str, tuple[dict[str, Any], str]] = {
    "text": ({"suppression": "+16505550198"}, "suppression: must be a list of phone numbers and e-mail addresses"),
    "entry": ({"suppression": ["somebody"]}, "suppression: has entries that can't be compared"),
    "event": ({"to": None, "event_id": 7, "suppression": [OTHER_PHONE]}, "to: is required with suppression"),
}


@pytest.mark.parametrize("name", WRONG_SUPPRESSION)
def test_a_suppression_that_can_not_be_obeyed_stops_the_message(
    server: FaultServer, errors: dict[str, BaseException], name: str
) -> None:
    fields, problem = WRONG_SUPPRESSION[name]
    assert send(**fields, retries=2).state == "failed"
    assert problem in str(errors["send"])
    assert server.requests == []


@pytest.mark.parametrize("has_own", [True, False], ids=["own", "inherited"])
def test_a_task_resumes_with_the_execute_of_its_class_and_without_airflows_refusal(
    monkeypatch: pytest.MonkeyPatch, *, has_own: bool
) -> None:
    """Airflow warns of, or refuses, a call of ``execute`` that does not come from its task runner."""

    class Own(ApptotoSendMessageOperator):
        def _send(self, context: Any) -> dict[str, Any]:
            return {"inherited": context}

        if has_own:

            def execute(self, context: Any) -> Any:
                return {"own": context}

    try:
        operators = importlib.import_module("airflow.sdk.bases.operator")
    except ImportError:  # Airflow 2
        operators = importlib.import_module("airflow.models.baseoperator")
    monkeypatch.setattr(operators.ExecutorSafeguard, "test_mode", False)
    operator = Own(**SMS, allow_nested_operators=False)
    assert operator.execute_held({}) == {"own" if has_own else "inherited": {}}


@pytest.mark.usefixtures("server")
def test_a_batch_counts_who_opted_out_and_an_invalid_row_of_theirs_fails_nobody() -> None:
    ApptotoHook().optouts.add("all", [PHONE], by="test")
    rows = [{"to": PHONE, "message": " "}, {"to": PHONE, "message": "Hi"}, {"to": OTHER_PHONE, "message": "Hi"}]
    run = run_dag(lambda: ApptotoSendMessageBatchOperator(task_id="send", messages=rows, defaults={"type": "sms"}))[
        "send"
    ]
    assert (run.state, run.xcom["suppressed"], run.xcom["sent"], run.xcom["invalid"]) == ("success", 2, 1, 0)


def test_a_batch_sends_the_open_rows_then_waits_for_the_others_and_sends_each_once(server: FaultServer) -> None:
    """The window opens at the next full minute where it is noon, and is open where it is 15:00."""
    now = dt.datetime.now(dt.UTC)
    opening = now.replace(second=0, microsecond=0) + dt.timedelta(minutes=1 if now.second < 50 else 2)
    noon, later = zone_at(12, opening), zone_at(15, opening)
    window = f"12:{opening.minute:02}-13:00" if opening.minute else "12:00-13:00"
    rows = [
        {"to": PHONE, "message": "open", "zone": later},
        {"to": OTHER_PHONE, "message": "held", "zone": noon},
    ]
    run = run_dag(
        lambda: ApptotoSendMessageBatchOperator(
            task_id="send",
            messages=rows,
            defaults={"type": "sms"},
            timezone_column="zone",
            send_window=f"{window}, 14:00-17:00",
        )
    )["send"]
    assert (run.state, run.xcom["total"], run.xcom["sent"], run.xcom["held"]) == ("success", 2, 2, 0)
    first, second = (request.json["message"] for request in server.accepted)
    assert (first, second) == ("open", "held")
    assert dt.datetime.now(dt.UTC) >= opening
