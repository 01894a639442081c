"""The sensor waits for answers in each of its modes, in DAGs that the installed Airflow runs."""

from __future__ import annotations

import datetime as dt
import json
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import airflow
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException, task

from airflow_provider_apptoto.client import ApptotoConfigurationError, ApptotoError
from airflow_provider_apptoto.operators.apptoto import ApptotoListEventsOperator, ApptotoSendMessageBatchOperator
from airflow_provider_apptoto.sensors.apptoto import ApptotoAnswerSensor
from tests.support.appointments import DAY, NAMES, Clinic, answers_meanwhile, row
from tests.support.dag_runs import run_dag
from tests.support.faults import answering
from tests.support.marked_people import rendered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.dag_runs import TaskRun
    from tests.support.faults import Exchange, FaultServer, Script

pytestmark = [pytest.mark.contract, pytest.mark.usefixtures("airflow_database", "quick_retries")]

MODES: dict[str, dict[str, Any]] = {
    "poke": {"deferrable": False, "mode": "poke"},
    "reschedule": {"deferrable": False, "mode": "reschedule"},
    "deferrable": {"deferrable": True},
}
ENDS = {"return": ["success", "success"], "fail": ["failed", "skipped"], "skip": ["skipped", "skipped"]}
"""State of a task that timed out, by ``on_timeout``: usually, and with ``soft_fail`` or ``never_fail``."""
reschedules = pytest.mark.skipif(
    airflow.__version__.startswith("3.0."),
    reason="in a DAG test, Airflow 3.0 takes the time of an earlier reschedule for text, and any such sensor fails",
)
modes = pytest.mark.parametrize(
    "mode", [pytest.param(mode, marks=reschedules) if mode == "reschedule" else mode for mode in MODES]
)


@pytest.fixture
def clinic(server: FaultServer) -> Clinic:
    clinic = Clinic.of(40)
    server.scripts = [clinic]
    return clinic


@pytest.fixture
def later() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Provide a function that calls another one in two seconds."""
    timers = []

    def call(function: Callable[[], None]) -> None:
        timers.append(threading.Timer(2, function))
        timers[-1].start()

    yield call
    for timer in timers:
        timer.join()


def wait(mode: str, *numbers: int, **fields: Any) -> TaskRun:
    arguments: dict[str, Any] = {
        "appointments": [row(number) for number in numbers or range(1, 41)],
        "replies": {"yes": r"^\s*y", "no": r"^\s*n"},
        "poke_interval": 0.3,
        "timeout": 40,
        "since": dt.datetime.now(dt.UTC) - dt.timedelta(minutes=1),
        **MODES[mode],
        **fields,
    }
    return run_dag(lambda: ApptotoAnswerSensor(task_id="answers", **arguments))["answers"]


def executed(*numbers: int, context: dict[str, Any] | None = None, **fields: Any) -> dict[str, int]:
    """Execute a sensor without a run, and return what it counts."""
    rows = [row(number) for number in numbers]
    arguments: dict[str, Any] = {"replies": {"yes": r"^\s*y"}, "poke_interval": 0.3, **fields}
    sensor = ApptotoAnswerSensor(task_id="answers", appointments=rows, **arguments)
    given: Any = {"ti": SimpleNamespace(xcom_push=lambda **_: None), **(context or {})}
    found: dict[str, Any] = sensor.execute(given)
    return {name: count for name, count in found["counts"].items() if count}


def counts(run: TaskRun) -> dict[str, int]:
    return {name: count for name, count in run.xcom["counts"].items() if count}


@modes
def test_forty_clients_answer_in_every_way(clinic: Clinic, later: Any, mode: str) -> None:
    for number in range(1, 31):
        clinic.person(number)["state"] = "confirmed"
    clinic.say(31, "hm")
    clinic.say(31, "x", event_type="sent", delivery_failed=True)

    def others() -> None:
        for number in range(32, 41):
            clinic.say(number, "No, sorry" if number % 2 else "Yes")

    later(others)
    run = wait(mode)
    assert run.state == "success"
    assert counts(run) == {"total": 40, "confirmed": 30, "undelivered": 1, "yes": 5, "no": 4}
    assert [each["event_id"] for each in run.xcom["unanswered"]] == [31]
    shown = json.dumps(run.xcom) + rendered()
    assert not any(private in shown for private in (*NAMES, "sorry"))


@pytest.mark.parametrize("is_mapped", [False, True])
def test_rendered_fields_show_no_column_that_could_be_personal(clinic: Clinic, *, is_mapped: bool) -> None:
    """The rows may be those of a batch, with numbers and names."""
    clinic.say(1, "yes")
    rows = [{**row(1), "name": "Gwendolyn", "to": "+16505550001", "sent_at": "2026-01-01T00:00Z"}]
    fields: Any = {"task_id": "answers", "replies": {"yes": "y"}}

    def build() -> None:
        if is_mapped:
            ApptotoAnswerSensor.partial(**fields).expand(appointments=[rows])
        else:
            ApptotoAnswerSensor(appointments=rows, **fields)

    [run] = run_dag(build).tasks
    assert run.xcom["counts"]["yes"] == 1
    shown = rendered()
    assert "visit-1" in shown
    assert "sent_at" in shown
    assert not any(private in shown for private in NAMES)


@modes
def test_answers_before_the_wait_began_count_and_end_it_at_once(clinic: Clinic, mode: str) -> None:
    now = dt.datetime.now(dt.UTC)
    clinic.say(1, "yes", at=now - dt.timedelta(seconds=30))
    clinic.say(2, "yes", at=now - dt.timedelta(hours=1))  # to an earlier message
    run = wait(mode, 1)
    assert counts(run) == {"total": 1, "yes": 1}
    assert len(clinic.reads) == 2
    assert counts(wait(mode, 2, timeout=1)) == {"total": 1, "no_answer": 1}


@modes
@pytest.mark.parametrize("flag", ["", "soft_fail", "never_fail"])
@pytest.mark.parametrize(("on_timeout", "states"), ENDS.items())
def test_partial_answers_are_kept_however_the_wait_ends(
    clinic: Clinic, mode: str, on_timeout: str, states: list[str], flag: str
) -> None:
    clinic.say(1, "yes")
    run = wait(mode, 1, 2, 99, timeout=1, on_timeout=on_timeout, retries=2, **({flag: True} if flag else {}))
    assert (run.state, run.tries) == (states[bool(flag)], 1)
    assert counts(run) == {"total": 3, "yes": 1, "no_answer": 1, "not_found": 1}
    assert run.xcom["unanswered"] == [{name: value for name, value in row(2).items() if name != "state"}]


@pytest.mark.parametrize("mode", ["poke", "deferrable"])  # `execute` needs a run in the other one
@pytest.mark.parametrize("flag", ["soft_fail", "never_fail"])
def test_a_deadline_acts_as_a_timeout(clinic: Clinic, mode: str, flag: str) -> None:
    del clinic
    fields: dict[str, Any] = {"deadline": "2026-01-01T00:00Z", flag: True, **MODES[mode]}
    assert executed(1, **fields) == {"total": 1, "no_answer": 1}
    with pytest.raises(AirflowSkipException, match=rf"Skipped \({flag}=True\): 1 of 1 appointments were not answered"):
        executed(1, on_timeout="fail", **fields)


@modes
@pytest.mark.parametrize("is_late", [False, True], ids=["first", "later"])
@pytest.mark.parametrize("flag", ["soft_fail", "never_fail"])
@pytest.mark.parametrize("status", [401, 500])
def test_reads_that_fail_end_the_task_alike_in_all_modes(
    clinic: Clinic, mode: str, status: int, flag: str, *, is_late: bool
) -> None:
    """As Airflow documents it, ``soft_fail`` is for what another try would not help."""
    clinic.faults = [*([answering(200, {"events": []})] if is_late else []), *[answering(status)] * 50]
    state = "failed" if (status, flag) == (500, "soft_fail") else "skipped"
    assert wait(mode, 1, max_errors=2, **{flag: True}).state == state


def test_answers_to_a_run_for_tomorrow_count_today(clinic: Clinic) -> None:
    """Whoever triggers a run may give it a logical date in the future; its texts are sent now."""
    now = dt.datetime.now(dt.UTC)
    clinic.say(1, "yes")
    clinic.say(2, "yes", at=now - dt.timedelta(hours=1))
    run = SimpleNamespace(run_after=now - dt.timedelta(minutes=1))
    context = {"logical_date": now + dt.timedelta(days=1), "dag_run": run}
    assert executed(1, 2, context=context, deadline="2026-01-01T00:00Z") == {"total": 2, "yes": 1, "no_answer": 1}


def test_the_last_read_begins_after_the_deadline(clinic: Clinic) -> None:
    """Otherwise an answer is lost that came before the deadline, while an earlier read went on."""
    clinic.faults = [answers_meanwhile(clinic)]
    deadline = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=0.5)
    assert executed(1, since=deadline - dt.timedelta(minutes=1), deadline=deadline) == {"total": 1, "yes": 1}


def test_an_event_that_can_not_be_looked_up_hides_no_other(clinic: Clinic, server: FaultServer) -> None:
    """How Apptoto answers for a deleted event is not documented."""

    def refusing(exchange: Exchange) -> None:
        (answering(422) if "event?id=1&" in exchange.request.path else clinic)(exchange)

    server.scripts = [refusing]
    del clinic.events[1]
    clinic.events[2]["start_time"] = (DAY + dt.timedelta(days=9)).isoformat()
    assert executed(1, 2, deadline="2026-01-01T00:00Z") == {"total": 2, "not_found": 1, "no_answer": 1}


def test_a_wait_whose_last_answer_was_moved_away_is_complete(clinic: Clinic) -> None:
    clinic.events[1]["start_time"] = (DAY + dt.timedelta(days=9)).isoformat()
    clinic.person(1)["state"] = "confirmed"
    clinic.say(2, "x", event_type="sent", delivery_failed=True)
    found = executed(
        1, 2, on_timeout="fail", deadline="2026-01-01T00:00Z", since=dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    )
    assert found == {"total": 2, "confirmed": 1, "undelivered": 1}


@modes
def test_a_deadline_ends_the_wait_before_the_timeout(clinic: Clinic, mode: str) -> None:
    del clinic
    began = time.monotonic()
    deadline = (dt.datetime.now(dt.UTC) + dt.timedelta(seconds=2)).isoformat()
    assert counts(wait(mode, 1, deadline=deadline, timeout=600)) == {"total": 1, "no_answer": 1}
    assert time.monotonic() - began < 600
    assert counts(wait(mode, 1, deadline="2026-01-01T00:00Z")) == {"total": 1, "no_answer": 1}


@modes
def test_an_appointment_that_was_moved_is_found_at_the_end(clinic: Clinic, mode: str) -> None:
    clinic.events[1]["start_time"] = (DAY + dt.timedelta(days=9)).isoformat()
    clinic.say(1, "yes")
    clinic.events[2]["is_deleted"] = True
    assert counts(wait(mode, 1, 2, 3, timeout=1)) == {"total": 3, "yes": 1, "not_found": 1, "no_answer": 1}


@modes
def test_errors_that_pass_lose_nothing(clinic: Clinic, mode: str) -> None:
    clinic.say(1, "yes")
    clinic.faults = [answering(502)] * 3 + [answering(200, b"<p>Maintenance</p>")]
    assert counts(wait(mode, 1)) == {"total": 1, "yes": 1}


@modes
@pytest.mark.parametrize(("fault", "tries"), [(answering(500), 2), (answering(401), 1)], ids=["500", "401"])
def test_errors_that_last_fail_the_task_with_a_clear_text(
    clinic: Clinic, provider_log: list[str], mode: str, fault: Script, tries: int
) -> None:
    clinic.faults = [fault] * 50
    run = wait(mode, 1, max_errors=2, retries=1, retry_delay=0)
    assert (run.state, run.tries, run.xcom) == ("failed", tries, None)
    assert provider_log


def test_a_last_read_that_fails_is_no_result(clinic: Clinic) -> None:
    clinic.faults = [answering(500)] * 3
    with pytest.raises(ApptotoError, match=r"could not be read: the last read failed: .*HTTP 500"):
        executed(1, deadline="2026-01-01T00:00Z")


def test_in_reschedule_mode_a_wait_for_the_account_keeps_no_slot(clinic: Clinic) -> None:
    clinic.faults = [answering(429, Retry_After="600")]
    sensor = ApptotoAnswerSensor(task_id="answers", appointments=[row(1)], mode="reschedule", poke_interval=0.1)
    sensor._prepare({})  # `execute` needs a run in this mode
    assert sensor.poke({}) is False


def test_a_connection_that_does_not_exist_is_named(clinic: Clinic) -> None:
    del clinic
    with pytest.raises(ApptotoError, match="Reading with the connection nope failed: AirflowNotFoundException"):
        executed(1, apptoto_conn_id="nope", max_errors=1)


def test_nobody_to_wait_for_is_no_wait(clinic: Clinic) -> None:
    run = wait("deferrable", appointments=[])
    assert (run.state, counts(run), run.xcom["unanswered"], clinic.reads) == ("success", {}, [], [])


@pytest.mark.parametrize(
    "fields",
    [{"appointments": "rows"}, {"appointments": [{"id": 1}]}, {"since": "noon"}, {"deadline": "2026-01-01"}],
    ids=repr,
)
def test_wrong_rows_and_times_fail_the_task_without_a_retry(clinic: Clinic, fields: dict[str, Any]) -> None:
    run = wait("poke", retries=2, **fields)
    assert (run.state, run.tries, clinic.reads) == ("failed", 1, [])


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"answered": ["cancelled"]}, "'cancelled' is not one of"),
        ({"answered": None}, "must be a list of states"),
        ({"replies": {"yes": "("}}, "is not a pattern"),
        ({"on_timeout": "pass"}, "'pass' is not one of return, fail, skip"),
        ({"max_errors": 0}, "0 is not an integer of at least 1"),
    ],
)
def test_a_wrong_parameter_is_found_when_the_dag_file_is_parsed(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(ApptotoConfigurationError, match=problem) as raised:
        ApptotoAnswerSensor(task_id="answers", appointments=[], **fields)
    assert isinstance(raised.value, AirflowFailException)


@modes
def test_remind_wait_and_call_who_has_not_answered(clinic: Clinic, mode: str) -> None:
    """No name or number enters Airflow, and nobody who answered is called."""
    clinic.events[2]["external_id"] = None  # as most events of a calendar

    def build() -> None:
        events = ApptotoListEventsOperator(task_id="events", begin=DAY, end=DAY + dt.timedelta(minutes=4))
        texts: dict[str, Any] = {"task_id": "text", "defaults": {"type": "sms", "message": "Coming, {{ name }}?"}}
        text: Any = ApptotoSendMessageBatchOperator(messages=events.output, **texts)

        @task
        def answering_clients() -> None:
            clinic.say(1, "yes")
            clinic.person(3)["state"] = "confirmed"

        answers: Any = ApptotoAnswerSensor(
            task_id="answers",
            appointments=events.output,
            replies={"yes": "y"},
            timeout=2,
            poke_interval=0.3,
            **MODES[mode],
        )
        call = ApptotoSendMessageBatchOperator(
            task_id="call",
            messages=answers.output["unanswered"],
            defaults={"type": "call", "message": "Please confirm, {{ name }}"},
            reference_column="external_id",
            only_if_state=True,
        )
        text >> answering_clients() >> answers >> call

    run = run_dag(build)
    assert run.state == "success"
    calls = [message["participant_id"] for message in clinic.sent if message["type"] == "call"]
    assert sorted(calls) == [1002, 1004]
    shown = json.dumps([each.xcom for each in run.tasks]) + rendered()
    assert not any(private in shown for private in NAMES)


@pytest.mark.parametrize(("count", "pages"), [(1, 1), (1000, 5), (10_000, 50)])
def test_the_requests_of_a_cycle_are_the_pages_and_one(clinic: Clinic, count: int, pages: int) -> None:
    clinic.events = Clinic.of(count).events
    for number in clinic.events:
        clinic.person(number)["state"] = "confirmed"
    assert executed(*clinic.events) == {"total": count, "confirmed": count}
    assert len(clinic.reads) == pages + 1
