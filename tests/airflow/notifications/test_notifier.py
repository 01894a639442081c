"""A notifier tells a person once what happened, and never makes it worse."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.configuration import conf
from airflow.providers.common.compat.sdk import task as sdk_task

from airflow_provider_apptoto import metrics
from airflow_provider_apptoto.client import ApptotoConfigurationError
from airflow_provider_apptoto.client.segments import estimate_segments
from airflow_provider_apptoto.hooks.apptoto import ApptotoHook
from airflow_provider_apptoto.notifications._sending import NotifierHook
from airflow_provider_apptoto.notifications.apptoto import ApptotoNotifier, send_apptoto_notification
from airflow_provider_apptoto.outbox import storm
from tests.support.dag_runs import run_dag
from tests.support.faults import FaultServer, answering
from tests.support.outboxes import NUMBER, OTHER_NUMBER
from tests.support.state_databases import forget_databases
from tests.support.task_state import FakeTaskState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.contract, pytest.mark.usefixtures("airflow_database", "quick_retries")]

LONGEST = (
    NotifierHook.ledger_timing.patience
    + NotifierHook.retry_policy.window
    + NotifierHook.total_timeout
    + sum(NotifierHook.ledger_timing.record_retries)
)
"""How many seconds a notification may take: to find the ledger, to fail, to be sent, to be recorded."""


@pytest.fixture(autouse=True)
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the backoff between two attempts."""
    for name in ("retry_policy", "ledger_timing"):
        monkeypatch.setattr(NotifierHook, name, getattr(ApptotoHook, name))


@pytest.fixture
def clinic() -> Iterator[FaultServer]:
    with FaultServer() as server:
        yield server


@pytest.fixture
def state(
    clinic: FaultServer, connection: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Set an unused state database on the connection."""
    database = {"conn_type": "sqlite", "host": str(tmp_path / "state.db")}
    monkeypatch.setenv("AIRFLOW_CONN_STATE", json.dumps(database))
    forget_databases()
    connection(clinic.url, state_conn_id="state")


@pytest.fixture
def no_state(clinic: FaultServer, connection: Callable[..., None]) -> None:
    """Provide a connection without a state database."""
    connection(clinic.url)


def task(state: str | None = "failed", exception: object = None, **fields: Any) -> dict[str, Any]:
    """Return the context of a callback of a task."""
    known = {"dag_id": "clinic", "task_id": "load", "run_id": "monday", "map_index": -1, "try_number": 1}
    ti = SimpleNamespace(**{**known, "max_tries": 2, "state": state, **fields})
    return {"ti": ti, "run_id": "monday", **({} if exception is None else {"exception": exception})}


def run(state: str = "failed", reason: str = "task_failure", clear_number: int | None = 0) -> dict[str, Any]:
    """Return the context of a callback of a DAG; its task instance may be any."""
    dag_run = SimpleNamespace(dag_id="clinic", run_id="monday", state=state, clear_number=clear_number)
    return {**task("success"), "dag_run": dag_run, "reason": reason}


def deadline(number: int | None = 7) -> dict[str, Any]:
    dag_run = {"dag_id": "clinic", "dag_run_id": "monday", "logical_date": None}
    return {"dag_run": dag_run, "deadline": {"id": number, "deadline_time": "2026-03-02T18:00:00Z"}}


class HITLOperator:
    """Named as Airflow's operator."""

    subject = "Send the reminders?"


def notify(context: dict[str, Any], **fields: Any) -> None:
    """Notify as Airflow calls it, in a process that has just started."""
    ApptotoNotifier(**{"type": "sms", "to": NUMBER, **fields})(context)


def texts(clinic: FaultServer) -> list[str]:
    return [request.json["message"] for request in clinic.accepted]


TEXTS: dict[str, tuple[dict[str, Any], str]] = {
    "failure": (
        task(exception=ValueError("no rows")),
        "Failed: clinic.load, run monday\nTry 1 of 3\nValueError: no rows",
    ),
    "failure, told by the scheduler": (
        task(exception="{'killed': 'by signal 9'}"),
        "Failed: clinic.load, run monday\nTry 1 of 3\n{'killed': 'by signal 9'}",
    ),
    "failure, told by the DAG processor": (task(None), "Failed: clinic.load, run monday\nTry 1 of 3"),
    "failure without an exception": (task(), "Failed: clinic.load, run monday\nTry 1 of 3"),
    "retry": (
        task("up_for_retry", ValueError("no rows")),
        "Failed, will be retried: clinic.load, run monday\nTry 1 of 3\nValueError: no rows",
    ),
    "mapped": (task(map_index=4), "Failed: clinic.load[4], run monday\nTry 1 of 3"),
    "success": (task("success"), "Succeeded: clinic.load, run monday"),
    "skipped": (task("skipped"), "Skipped: clinic.load, run monday"),
    "start": (task("running"), "Started: clinic.load, run monday"),
    "a person is asked": (
        {**task("running"), "task": HITLOperator()},
        "Waiting for an answer: clinic.load, run monday\nSend the reminders?",
    ),
    "DAG failure": (run(), "DAG failed: clinic, run monday\nReason: task failure"),
    "DAG timeout": (run(reason="timed_out"), "DAG failed: clinic, run monday\nReason: timed out"),
    "DAG success": (run("success", "success"), "DAG succeeded: clinic, run monday"),
    "deadline": (deadline(), "Deadline missed: clinic, run monday\nDue at 2026-03-02T18:00:00Z"),
    "nothing known": ({}, "Airflow notification: an Airflow DAG"),
}


@pytest.mark.usefixtures("state")
@pytest.mark.parametrize("kind", TEXTS)
def test_the_default_text_says_what_happened_and_is_sent_once(clinic: FaultServer, kind: str) -> None:
    context, text = TEXTS[kind]
    notify(context)
    assert texts(clinic) == [text]
    notify(context)
    assert len(clinic.accepted) == (2 if kind == "nothing known" else 1)


@pytest.mark.usefixtures("state")
@pytest.mark.parametrize(
    ("first", "second"),
    [
        (task(), task(try_number=2)),
        (task(), task("up_for_retry")),
        (task(), task(map_index=1)),
        (run(), run(clear_number=1)),
        (run(clear_number=None), run(clear_number=None)),
        (deadline(), deadline(8)),
        (deadline(None), deadline(None)),
        (task(exception=ValueError("a")), task(exception=ValueError("b"))),
    ],
)
def test_another_occasion_is_another_message(
    clinic: FaultServer, first: dict[str, Any], second: dict[str, Any]
) -> None:
    for context in (first, second):
        notify(context)
    assert len(clinic.accepted) == 2


@pytest.mark.usefixtures("state")
def test_a_message_of_the_task_itself_is_another_one(clinic: FaultServer) -> None:
    context = task()
    ApptotoHook().outbox(context, max_age=None).send(type="sms", to=NUMBER, message=TEXTS["failure"][1])
    notify(context)
    notify(context, to=OTHER_NUMBER)
    assert len(clinic.accepted) == 3


@pytest.mark.usefixtures("no_state")
def test_without_a_state_database_it_is_sent_and_one_warning_says_what_is_missing(
    clinic: FaultServer, caplog: pytest.LogCaptureFixture
) -> None:
    task_state = FakeTaskState()
    for _ in range(2):
        notify({**task(), "task_state_store": task_state})
    assert (len(clinic.accepted), task_state.calls) == (2, [])
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert [sum(text.startswith(each) for text in warnings) for each in ("No ledger", "storm_limit is not")] == [1, 1]


@pytest.mark.usefixtures("no_state")
def test_a_text_is_rendered_cleaned_cut_and_masked(clinic: FaultServer) -> None:
    error = ValueError(f"{{{{ conn.x.password }}}} of {NUMBER}, mary@clinic.example\x07 " + "x" * 900)
    notify(task(exception=error))
    notify(task(exception=error), message="{{ ti.task_id }}: {{ exception }}" + "\N{SNOWMAN}" * 500)
    notify(deadline(), message="{{ dag_run.run_id }} is late")
    default, own, late = texts(clinic)
    for text in (default, own):
        assert estimate_segments(text).parts <= 3
        assert not any(part in text for part in ("{{", NUMBER, "mary@", "\x07"))
    assert own.startswith("load: ValueError: { { conn.x.password }} of +1•••0199")
    assert own.endswith("...")
    assert late == "monday is late"


@pytest.mark.usefixtures("no_state")
@pytest.mark.parametrize("message", ["{{ missing }}", "{{ ", " \n ", "{{ None }}"])
def test_a_text_that_cannot_be_sent_is_replaced_by_the_default_text(
    clinic: FaultServer, caplog: pytest.LogCaptureFixture, message: str
) -> None:
    notify(task(), message=message)
    assert texts(clinic) == [TEXTS["failure without an exception"][1]]
    assert any("sending the default text" in each.message for each in caplog.records if each.levelname == "ERROR")


@pytest.mark.usefixtures("no_state")
@pytest.mark.parametrize("to", ["{{ missing }}", "no number"])
def test_a_failure_is_logged_and_counted_and_not_raised(
    clinic: FaultServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    counted: list[tuple[str, str]] = []
    monkeypatch.setattr(metrics, "notification_failed", lambda *tags: counted.append(tags))
    notify(task(), to=to)
    assert (len(clinic.accepted), counted) == (0, [("sms", "apptoto_default")])
    assert any("Notification failed" in each.message for each in caplog.records if each.levelname == "ERROR")


def test_a_failure_is_known_before_airflow_kills_the_process_that_runs_callbacks() -> None:
    assert conf.getfloat("core", "task_success_overtime") > LONGEST


@pytest.mark.usefixtures("state")
def test_what_apptoto_refuses_is_logged_and_in_the_ledger(
    clinic: FaultServer, caplog: pytest.LogCaptureFixture
) -> None:
    clinic.scripts = [answering(422, {"success": False})]
    notify(task())
    assert "Notification failed" in caplog.text
    database = ApptotoHook().state_database
    assert database is not None
    with database.transaction() as connection:
        rows = connection.exec_driver_sql("select outcome, origin, task_id from apptoto_messages").all()
    assert [tuple(row) for row in rows] == [("rejected", "callback:failed", "load")]


@pytest.mark.usefixtures("state")
def test_an_email_has_a_subject(clinic: FaultServer) -> None:
    notify(task(), type="email", to="mary@clinic.example")
    assert clinic.accepted[0].json["subject"] == "Failed: clinic.load, run monday"


@pytest.mark.usefixtures("state")
def test_the_triggerer_awaits_it(clinic: FaultServer) -> None:
    notifier = ApptotoNotifier(type="sms", to=NUMBER)
    for _ in range(2):
        asyncio.run(notifier.async_notify(deadline()))  # type: ignore[arg-type]
    assert texts(clinic) == [TEXTS["deadline"][1]]


@pytest.mark.parametrize("wrong", [{"type": "fax"}, {"to": " "}, {"storm_limit": "many"}])
def test_a_wrong_parameter_is_an_error_when_the_dag_is_parsed(wrong: dict[str, Any]) -> None:
    fields: dict[str, Any] = {"type": "sms", "to": NUMBER, **wrong}
    with pytest.raises(ApptotoConfigurationError, match=rf"^{next(iter(wrong))}: "):
        _ = ApptotoNotifier(**fields)


def test_the_alias_creates_a_notifier() -> None:
    assert isinstance(send_apptoto_notification(type="sms", to=NUMBER), ApptotoNotifier)


# --- storms


@pytest.mark.usefixtures("state")
def test_of_many_failures_at_once_five_are_told_and_the_next_text_says_how_many_were_held_back(
    clinic: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda index: notify(task(map_index=index)), range(30)))
    assert len(clinic.accepted) == 5
    notify(task(map_index=99), to=OTHER_NUMBER)  # has a limit of their own
    notify(task(map_index=99), storm_limit="off")
    assert len(clinic.accepted) == 7
    later = time.time() + 3601
    monkeypatch.setattr(storm, "time", SimpleNamespace(time=lambda: later))
    for index in (100, 100, 101):
        notify(task(map_index=index))
    assert [text.splitlines()[-1] for text in texts(clinic)[7:]] == [
        "25 more notifications were held back.",
        "Try 1 of 3",
    ]


@pytest.mark.usefixtures("state")
def test_a_message_that_was_sent_does_not_count_again(clinic: FaultServer) -> None:
    for _ in range(3):
        notify(task(), storm_limit="2/hour")
    for index in range(3):
        notify(task(map_index=index), storm_limit="2/hour")
    assert len(clinic.accepted) == 2


def fail() -> None:
    raise ValueError("no rows")


@pytest.mark.usefixtures("state")
def test_a_dag_and_a_task_that_fail_are_told_by_their_callbacks(clinic: FaultServer) -> None:
    """`dags test` gives the callback of the DAG a DAG that renders no templates."""
    run_dag(
        sdk_task(on_failure_callback=notifier("of the task"))(fail),
        dag_id="clinic_load",
        on_failure_callback=notifier("{{ run_id and dag_run.dag_id }}"),
    )
    assert sorted(texts(clinic)) == ["clinic_load", "of the task"]


def notifier(message: str) -> ApptotoNotifier:
    return ApptotoNotifier(type="sms", to=NUMBER, message=message)
