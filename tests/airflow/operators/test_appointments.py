"""Appointments are listed and reminded in DAGs without a name, a number or a text in Airflow."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_apptoto import metrics
from airflow_provider_apptoto.client import Event
from airflow_provider_apptoto.operators.apptoto import (
    ApptotoListEventsOperator,
    ApptotoSendMessageBatchOperator,
    ApptotoSendMessageOperator,
)
from tests.support.appointments import DAY, NAMES, Clinic, row
from tests.support.dag_runs import run_dag
from tests.support.faults import answering
from tests.support.marked_people import rendered

if TYPE_CHECKING:
    from tests.support.dag_runs import Run, TaskRun
    from tests.support.faults import FaultServer

pytestmark = [pytest.mark.contract, pytest.mark.usefixtures("airflow_database", "quick_retries")]

WINDOW: dict[str, Any] = {"begin": DAY.isoformat(), "end": "{{ params.end }}"}
PARAMS = {"end": "2026-12-01T23:59-08:00"}
TEXT = "Hi {{ name }}, see you {{ event.start_time | date_and_time_phrase }}"


@pytest.fixture
def clinic(server: FaultServer) -> Clinic:
    clinic = Clinic.of(4)
    server.scripts = [clinic]
    return clinic


def listed(**fields: Any) -> TaskRun:
    return run_dag(lambda: ApptotoListEventsOperator(task_id="events", **{**WINDOW, **fields}), params=PARAMS)["events"]


def reminded(**fields: Any) -> Run:
    def build() -> None:
        events = ApptotoListEventsOperator(task_id="events", **WINDOW)
        ApptotoSendMessageBatchOperator(
            task_id="remind",
            messages=events.output,
            defaults={"type": "sms", "message": TEXT},
            concurrency=1,
            **fields,
        )

    return run_dag(build, params=PARAMS)


def test_a_deleted_event_is_not_listed() -> None:
    events = [Event.read({"id": number, "is_deleted": number == 1, "participants": [{"id": 7}]}) for number in (1, 2)]
    rows = ApptotoListEventsOperator(task_id="events", **WINDOW)._rows([each for each in events if each is not None])
    assert [each["event_id"] for each in rows] == [2]


def test_events_are_listed_as_rows_by_start_time_without_personal_data(clinic: Clinic) -> None:
    clinic.events = dict(reversed(clinic.events.items()))
    found = listed()
    assert found.xcom == [row(number) for number in range(1, 5)]
    assert not any(private in json.dumps(found.xcom) for private in NAMES)
    assert [path.partition("?")[0] for path in clinic.reads] == ["/v1/events"] * 2


@pytest.mark.parametrize(
    ("fields", "numbers"),
    [
        ({"states": ["initial"]}, [3, 4]),
        ({"states": ("confirmed", "not_coming")}, [1, 2]),
        ({"calendar": "Dr Lee"}, [1, 2, 4]),
        ({"calendar": "77"}, [1, 2, 3, 4]),
        ({"calendar": 77}, [1, 2, 3, 4]),
        ({"calendar": "Dr Who"}, []),
        ({"end": "2026-12-01T08:02-08:00"}, [1, 2]),
    ],
    ids=repr,
)
def test_states_and_calendars_choose_the_rows(clinic: Clinic, fields: dict[str, Any], numbers: list[int]) -> None:
    clinic.person(1)["state"], clinic.person(2)["state"] = "confirmed", "not_coming"
    clinic.events[3]["calendar_name"] = "Dr Kim"
    assert [each["event_id"] for each in listed(**fields).xcom] == numbers


@pytest.mark.parametrize(
    "fields",
    [
        {"begin": "2026-12-01"},
        {"end": "tomorrow"},
        {"begin": None},
        {"end": None},
        {"end": "2026-12-01T00:00-08:00"},
        {"calendar": " "},
    ],
    ids=repr,
)
def test_a_wrong_window_or_calendar_fails_the_task_at_once(clinic: Clinic, fields: dict[str, Any]) -> None:
    found = listed(**fields, retries=2)
    assert (found.state, found.tries, clinic.reads) == ("failed", 1, [])


def test_a_calendar_whose_name_can_not_be_told_fails_the_task_at_once(clinic: Clinic) -> None:
    """Only a public client shows that events have the names of their calendars."""
    for each in clinic.events.values():
        del each["calendar_name"]
    found = listed(calendar="Dr Lee", retries=2)
    assert (found.state, found.tries) == ("failed", 1)
    assert len(listed(calendar=77).xcom) == 4


def test_a_failed_read_fails_the_task(clinic: Clinic) -> None:
    clinic.faults = [answering(502)] * 3
    assert listed().state == "failed"
    clinic.faults = [answering(502)] * 2
    assert len(listed().xcom) == 4


def test_participants_who_can_not_be_read_are_told(clinic: Clinic, provider_log: list[str]) -> None:
    clinic.events[1]["participants"] = [{"name": "Gwendolyn"}]
    operator = ApptotoListEventsOperator(task_id="events", **WINDOW | PARAMS)
    assert [each["event_id"] for each in operator.execute({})] == [2, 3, 4]
    assert "Left out participants without an id. Events with such participants: 1" in provider_log


def test_tomorrows_clients_are_reminded_by_participant(clinic: Clinic) -> None:
    run = reminded()
    assert run["remind"].xcom["sent"] == 4
    assert [message["participant_id"] for message in clinic.sent] == [1001, 1002, 1003, 1004]
    assert all(message.keys() == {"type", "participant_id", "message"} for message in clinic.sent)
    assert len(clinic.reads) == 2
    shown = json.dumps([task.xcom for task in run.tasks]) + rendered()
    assert not any(private in shown for private in NAMES)


def test_who_cancelled_since_the_rows_were_listed_is_not_reminded(clinic: Clinic, server: FaultServer) -> None:
    answer = clinic.__call__

    def cancelling(exchange: Any) -> None:
        """Cancel between the listing and the batch: the second page of the listing is the last read before it."""
        answer(exchange)
        if len(clinic.reads) == 2:
            clinic.person(2)["state"] = "not_coming"
            clinic.events[3]["is_deleted"] = True

    server.scripts = [cancelling]
    run = reminded(only_if_state=True)
    assert (run["remind"].xcom["sent"], run["remind"].xcom["wrong_state"]) == (2, 2)
    assert [message["participant_id"] for message in clinic.sent] == [1001, 1004]
    # one page for all, and the deleted event, which the page lacks, alone
    assert [path.partition("?")[0] for path in clinic.reads[2:]] == ["/v1/events", "/v1/events", "/v1/event"]


def test_a_batch_in_which_a_row_has_no_event_sends_nothing(clinic: Clinic) -> None:
    def build() -> None:
        rows = [row(1), {"participant_id": 1002}]
        fields: dict[str, Any] = {"defaults": {"type": "sms", "message": TEXT}, "only_if_state": True, "retries": 2}
        ApptotoSendMessageBatchOperator(task_id="remind", messages=rows, **fields)

    run = run_dag(build)["remind"]
    assert (run.state, run.tries, clinic.sent, clinic.reads) == ("failed", 1, [], [])


def test_reads_are_counted(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = []
    monkeypatch.setattr(metrics, "_emit", lambda _, name, *__, tags: counted.append((name, tags.get("status"))))
    clinic.faults = [answering(502)]
    listed()
    assert [each for each in counted if each[0] == "apptoto.reads"] == [
        ("apptoto.reads", status) for status in ("5xx", "2xx", "2xx")
    ]


def send(**fields: Any) -> TaskRun:
    arguments: dict[str, Any] = {"type": "sms", "message": TEXT, "event_id": 1, "participant_id": 1001, **fields}
    return run_dag(lambda: ApptotoSendMessageOperator(task_id="send", **arguments))["send"]


def test_a_single_message_is_skipped_in_the_wrong_state_and_says_so(clinic: Clinic) -> None:
    clinic.person(1)["state"] = "confirmed"
    run = send(only_if_state=True)
    assert (run.state, run.xcom["outcome"], run.xcom["target"]) == ("skipped", "wrong_state", "participant 1001")
    assert clinic.sent == []
    assert send(only_if_state=["confirmed"]).xcom["outcome"] == "sent"
    assert send().xcom["outcome"] == "sent"


def test_a_message_whose_state_can_not_be_read_is_not_sent_and_retried(clinic: Clinic) -> None:
    clinic.faults = [answering(502)] * 3
    assert (send(only_if_state=True).state, clinic.sent) == ("failed", [])
    clinic.faults = [answering(502)] * 3
    run = send(only_if_state=True, retries=1, retry_delay=0)
    assert (run.state, len(clinic.sent)) == ("success", 1)


def test_a_dry_run_reads_the_state_too(clinic: Clinic) -> None:
    clinic.person(1)["state"] = "declined"
    assert send(only_if_state=True, delivery_mode="dry_run").xcom["outcome"] == "wrong_state"
    assert clinic.sent == []


def test_the_state_needs_an_event(clinic: Clinic) -> None:
    run = send(event_id=None, only_if_state=True, retries=2)
    assert (run.state, run.tries, clinic.reads) == ("failed", 1, [])
