"""Every example DAG does what it describes, against the sandbox."""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import inspect
import json
import re
import runpy
import sqlite3
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import airflow
import pendulum
import pytest
from airflow.models import DagRun
from airflow.providers.common.compat.sdk import DAG
from sqlalchemy import update

from airflow_provider_apptoto._airflow_triggers import has_shared_streams
from airflow_provider_apptoto.cli import main
from airflow_provider_apptoto.hooks.apptoto import ApptotoHook
from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageBatchOperator
from airflow_provider_apptoto.outbox.admin import LedgerAdmin, Selection
from airflow_provider_apptoto.outbox.schema import ledger
from airflow_provider_apptoto.sandbox.testing import running_sandbox
from tests.support.dag_runs import Run, run_file
from tests.support.entries import filled
from tests.support.windows import zone_at

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from airflow_provider_apptoto.sandbox.testing import ApptotoSandbox

EXAMPLES = Path(__file__).parents[2] / "example_dags"
REMINDERS = "example_apptoto_remind_tomorrow"
SUNDAY = 6
REPLACES = "If you have an earlier e-mail about these reminders, this one replaces it."
RECEIVED: dict[str, Collection[tuple[str, str | int]]] = {
    "example_apptoto_send_message": {
        ("sms", "+16505550199"),
        ("email", "mary@clinic.example"),
        ("call", "+16505550199"),
        ("sms", 123456),
    },
    "example_apptoto_mapped": {
        ("sms", "+16505550101"),
        ("sms", "+16505550102"),
        ("email", "ann@clinic.example"),
        ("email", "bob@clinic.example"),
    },
    "example_apptoto_hook": [("sms", "+16505550199"), ("sms", "+16505550101"), ("sms", "+16505550101")],
    "example_apptoto_dynamic_fields": {("sms", 123456)},
    "example_apptoto_escalation": [],  # without appointments
    "example_apptoto_once": {("sms", "+16505550199")},
    "example_apptoto_remind_tomorrow": {
        ("sms", "+16505550101"),
        ("sms", "+16505550102"),
        ("email", "reception@clinic.example"),
    },
    "example_apptoto_notifier": {("sms", "+16505550198")},
    "example_apptoto_office_hours": {("sms", "+16505550199")},
    "example_apptoto_purge": [],
    "example_apptoto_replies": [],
    "example_apptoto_taskflow": {
        ("sms", "+16505550199"),
        ("email", "mary@clinic.example"),
        ("sms", "+16505550101"),
        ("sms", "+16505550102"),
        ("sms", "+16505550105"),
    },
    "example_apptoto_two_languages": {("sms", 4711)},
    "first_message": {("sms", "+16505550199")},
}
APPOINTMENTS = """
create table patient (id integer primary key, first_name text, phone text, opted_out integer default 0);
create table appointment (id integer primary key, patient_id integer, doctor text, starts_at text);
insert into patient values (1, 'Ann', '+16505550101', 0), (2, 'Bob', '+16505550102', 0), (3, 'Cid', 'on request', 0),
    (4, 'Dan', '+16505550104', 1), (5, 'Eve', '+16505550105', 0);
insert into appointment values (4711, 1, 'Lee', :day || ' 09:00'), (4712, 2, 'Ray', :day || ' 09:30'),
    (4713, 3, 'Lee', :day || ' 10:00'), (4714, 4, 'Lee', :day || ' 11:00'), (4715, 5, 'Ray', '2026-01-05 09:00');
"""


@dataclass
class Result:
    """The result of an example DAG.

    :param messages: what the sandbox got.
    """

    run: Run
    messages: list[dict[str, Any]]

    def texts(self) -> dict[str, str]:
        """Return the texts by recipient."""
        return {message["to"]: message["message"] for message in self.messages}


def day_of_appointments() -> pendulum.DateTime:
    """Return the day whose appointments a run that begins now reads."""
    interval_end = pendulum.now("America/New_York")
    if airflow.__version__.startswith("2.") and interval_end.hour < 16:
        # the data interval of a manual run ends when the last scheduled one did, on newer Airflows now
        interval_end = interval_end.subtract(days=1)
    return interval_end.add(days=1)


def make_clinic(path: Path) -> None:
    """Create the database that an example reads; one person opted out, and one has an invalid number."""
    day = day_of_appointments().to_date_string()
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.executescript(APPOINTMENTS.replace(":day", f"'{day}'"))


def connect_clinic(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Create the connection of the examples to the clinic's database in this folder."""
    patch.setenv("AIRFLOW_CONN_CLINIC", json.dumps({"conn_type": "sqlite", "host": str(folder / "clinic.db")}))


@pytest.fixture(scope="module")
def result_of(
    airflow_database: None,  # noqa: ARG001  it is needed, not used
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], Result]:
    """Provide a function that runs an example DAG, once for all tests."""

    @functools.cache
    def run(name: str) -> Result:
        folder = tmp_path_factory.mktemp(name)
        make_clinic(folder / "clinic.db")
        with running_sandbox(folder / "sandbox") as sandbox, pytest.MonkeyPatch.context() as patch:
            connect_clinic(folder, patch)
            # the office is open where it is 3 p.m.
            conf = {"folder": str(folder), "timezone": zone_at(15, dt.datetime.now(dt.UTC))}
            run = run_file(name, (EXAMPLES / f"{name}.py").read_text(), conf=conf)
            return Result(run, sandbox.messages())

    return run


@pytest.mark.contract
def test_every_example_dag_is_run() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == RECEIVED.keys()


def example(name: str) -> Any:
    """Return the parameter of a test for an example DAG."""
    is_too_old = name == "example_apptoto_replies" and not has_shared_streams()
    return pytest.param(name, marks=pytest.mark.skipif(is_too_old, reason="needs Airflow 3.3"))


@pytest.mark.contract
@pytest.mark.parametrize("name", [example(name) for name in sorted(RECEIVED)])
def test_an_example_dag_sends_what_it_says(name: str, result_of: Callable[[str], Result]) -> None:
    result = result_of(name)
    assert result.run.state == "success"
    received = [
        (message["type"], message["to"] or message["participant_id"] or message["event_id"])
        for message in result.messages
    ]
    assert sorted(received, key=str) == sorted(RECEIVED[name], key=str)


@pytest.mark.usefixtures("airflow_database")
def test_a_refused_text_becomes_an_e_mail(apptoto_sandbox: ApptotoSandbox) -> None:
    apptoto_sandbox.fault(status=422)
    run = run_file("example_apptoto_hook", (EXAMPLES / "example_apptoto_hook.py").read_text())
    assert run["text_or_mail"].state == "success"
    apptoto_sandbox.wait_for_message("mary@clinic.example", type="email", containing="results")
    apptoto_sandbox.assert_no_message("+16505550199")
    assert [message["type"] for message in apptoto_sandbox.messages()] == ["email", "sms", "sms"]


@pytest.mark.contract
def test_functions_write_the_texts_and_the_rows(result_of: Callable[[str], Result]) -> None:
    result = result_of("example_apptoto_taskflow")
    assert result.texts()["+16505550199"] == "3 new results are in."
    assert result.texts()["mary@clinic.example"] == "Your appointment 4711 is confirmed."
    assert result.texts()["+16505550102"] == "Hi Bob, the clinic is closed on Monday."
    assert result.run["tell_patients"].xcom["invalid"] == 1


@pytest.mark.contract
@pytest.mark.skipif(not has_shared_streams(), reason="needs Airflow 3.3")
def test_the_example_for_replies_lists_each_once_and_fails_if_they_are_not_read() -> None:
    example = runpy.run_path(str(EXAMPLES / "example_apptoto_replies.py"))
    late, early, confirmed = (
        {
            "reply_id": name,
            "event_id": 7,
            "participant_id": 8,
            "reference": reference,
            "answer": answer,
            "at": f"2026-11-30T12:0{minute}:00.000Z",
        }
        for name, reference, answer, minute in (
            ("b", None, "no", 2),
            ("a", "visit-1", "unclear", 1),
            ("c", "visit-2", "yes", 3),
        )
    )
    payloads: list[dict[str, Any]] = [{"replies": [late]}, {"replies": [early, late, confirmed]}]
    events = {"asset": [SimpleNamespace(extra={"payload": payload}) for payload in payloads]}
    assert example["whom_to_call"].function(events) == [
        {"reply_id": "a", "appointment": "visit-1", "answer": "unclear"},
        {"reply_id": "b", "appointment": "no. 7", "answer": "no"},
    ]
    example["fail_if_replies_are_not_read"].function(events)
    payloads[0]["error"] = "Apptoto rejected the login"
    with pytest.raises(RuntimeError, match="Apptoto rejected the login"):
        example["fail_if_replies_are_not_read"].function(events)


@pytest.mark.usefixtures("airflow_database")
def test_the_example_for_office_hours_waits_where_the_office_is_closed(apptoto_sandbox: ApptotoSandbox) -> None:
    name = "example_apptoto_office_hours"
    zone = zone_at(3, dt.datetime.now(dt.UTC))
    run = run_file(name, (EXAMPLES / f"{name}.py").read_text(), conf={"timezone": zone})
    assert run["confirm"].xcom["outcome"] == "sent"
    apptoto_sandbox.wait_for_message("+16505550199", containing="confirmed")
    [hold] = apptoto_sandbox.holds()
    opening = dt.datetime.fromisoformat(hold["held_until"]).astimezone(ZoneInfo(zone))
    assert f"{opening:%H:%M}" == ("12:00" if opening.weekday() == SUNDAY else "09:00")


@pytest.mark.contract
@pytest.mark.usefixtures("airflow_database")
def test_only_those_who_do_not_answer_are_called_and_the_front_desk_gets_the_rest(
    apptoto_sandbox: ApptotoSandbox,
) -> None:
    start = pendulum.now("America/Los_Angeles").add(days=1).at(10)
    # the sandbox's magic numbers: what their owners do after a message
    people = {
        "confirms": "+12025550100",
        "cancels": "+12025550110",
        "asks": "+12025550130",
        "answers a call": "+12025550151",
        "never answers": "+12025550150",
        "has confirmed before": "+12025550150",
    }
    ids = {
        name: apptoto_sandbox.appointments.add(name, phone, start_time=start, external_id=name)
        for name, phone in people.items()
    }
    apptoto_sandbox.appointments.confirm(ids["has confirmed before"])
    name = "example_apptoto_escalation"
    run = run_file(name, (EXAMPLES / f"{name}.py").read_text(), conf={"wait_after_texts": 6, "wait_after_calls": 6})
    assert run.state == "success"
    got: dict[str, set[object]] = {"sms": set(), "call": set(), "email": set()}
    for message in apptoto_sandbox.messages():
        got[str(message["type"])].add(message["recipient_name"] or message["to"])
    assert got["sms"] == people.keys() - {"has confirmed before"}
    assert got["call"] == {"answers a call", "never answers"}
    assert got["email"] == {"frontdesk@clinic.example"}
    mail = str(apptoto_sandbox.wait_for_message(type="email")["message"])
    named = {person for person, added in ids.items() if f"event {added.event_id}" in mail}
    assert named == {"never answers", "asks"}
    database = ApptotoHook().state_database
    assert database is not None
    steps = Counter((record.entry.channel, record.entry.state) for record in LedgerAdmin(database).select(Selection()))
    assert steps == {("sms", "sent"): 5, ("call", "sent"): 2, ("email", "sent"): 1}


@pytest.mark.contract
def test_the_example_of_the_endpoints_page_goes_out_verbatim(result_of: Callable[[str], Result]) -> None:
    names = ("example_apptoto_dynamic_fields", "example_apptoto_two_languages")
    assert [message["message"] for name in names for message in result_of(name).messages] == [
        # apidocs.apptoto.com/reference/v1send_message, spelling included
        "Hi there {{ name }}!  You're upcoming appointment is at {{ event.start_time | date_and_time_phrase }}.",
        (
            "Hi {{ name }}, Dr Lee sees you {{ event.start_time | date_and_time_phrase }}"
            "{% if event.location %} at {{ event.location }}{% endif %}."
        ),
    ]


@pytest.mark.contract
def test_the_reminders_say_the_day_and_the_reception_learns_whom_to_call(result_of: Callable[[str], Result]) -> None:
    day = f"{day_of_appointments():dddd, MMMM D}"
    texts = result_of(REMINDERS).texts()
    assert texts["+16505550101"] == f"Hi Ann, Dr Lee sees you on {day} at 09:00."
    assert texts["+16505550102"] == f"Hi Bob, Dr Ray sees you on {day} at 09:30."
    assert texts["reception@clinic.example"].splitlines() == [
        f"2 of 3 patients with an appointment on {day} were reminded.",
        "Please call about appointment 4713: the phone number or another detail is missing or wrong.",
        REPLACES,
    ]


# --- reminders that fail


@pytest.mark.contract
@pytest.mark.usefixtures("airflow_database", "apptoto_sandbox")
def test_the_example_that_purges_keeps_what_it_removes_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = ApptotoHook().state_database
    assert database is not None
    filled(database)
    with database.transaction() as connection:
        connection.execute(update(ledger).values(updated_at=time.time() - 3 * 86_400))
    source = (EXAMPLES / "example_apptoto_purge.py").read_text()
    runs = []
    for days in ("4", "2"):
        monkeypatch.setenv("AIRFLOW__APPTOTO__KEEP_DAYS", days)
        (tmp_path / days).mkdir()
        runs.append(run_file("example_apptoto_purge", source, conf={"folder": str(tmp_path / days)})["purge"].xcom)
    assert runs == [0, 4]
    [file] = (tmp_path / "2").glob("apptoto-*.jsonl")
    assert [json.loads(line)["state"] for line in file.read_text().splitlines()] == [
        "sent",
        "redirected",
        "not_sent",
        "rejected",
    ]
    assert {record.entry.state for record in LedgerAdmin(database).select(Selection())} == {"sending", "unknown"}


@dataclass
class Clinic:
    """The reminders of one run of their DAG, which can be cleared."""

    sandbox: ApptotoSandbox
    folder: Path

    def remind(self) -> Run:
        """Run all tasks of the run, or repeat them."""
        source = (EXAMPLES / f"{REMINDERS}.py").read_text()
        return run_file(REMINDERS, source, conf={"folder": str(self.folder)})

    @property
    def mails(self) -> list[list[str]]:
        """The lines of each e-mail to the reception, without the last line, which is always the same."""
        messages = sorted(self.sandbox.messages(), key=lambda message: int(str(message["id"])))
        mails = [str(message["message"]).splitlines() for message in messages if message["type"] == "email"]
        assert {mail[-1] for mail in mails} <= {REPLACES}
        return [mail[:-1] for mail in mails]


@pytest.fixture
def clinic(
    airflow_database: None,  # noqa: ARG001
    apptoto_sandbox: ApptotoSandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Clinic:
    at = pendulum.now("UTC")
    date = "logical_date" if "logical_date" in inspect.signature(DAG.test).parameters else "execution_date"
    # each run of the DAG is the same run, as after a clear
    monkeypatch.setattr(DagRun, "generate_run_id", lambda *_, **__: f"manual__{at.isoformat()}")
    monkeypatch.setattr(DAG, "test", functools.partialmethod(DAG.test, **{date: at}))
    make_clinic(tmp_path / "clinic.db")
    connect_clinic(tmp_path, monkeypatch)
    return Clinic(apptoto_sandbox, tmp_path)


@pytest.mark.contract
def test_a_doubtful_reminder_fails_the_run_and_once_it_is_resolved_the_reception_gets_a_correction(
    clinic: Clinic, capsys: pytest.CaptureFixture[str]
) -> None:
    day = f"{day_of_appointments():dddd, MMMM D}"
    wrong_number = "Please call about appointment 4713: the phone number or another detail is missing or wrong."
    clinic.sandbox.fault(kind="reset", accepted=True)
    first = clinic.remind()
    assert (first["remind"].state, first["tell_reception"].state, first.state) == ("failed", "success", "failed")
    [[counts, doubtful, invalid]] = clinic.mails
    assert counts == f"1 of 3 patients with an appointment on {day} were reminded."
    asked, appointment = re.subn(r"\b471[12]\b", "N", doubtful), re.findall(r"471[12]", doubtful)
    assert asked == ("Please call about appointment N: we do not know whether the text arrived.", 1)
    assert invalid == wrong_number
    main(["ledger", "resolve", "--reference", *appointment, "--to", "sent", "--note", "seen in Apptoto"])
    capsys.readouterr()
    assert clinic.remind().state == "success"
    assert clinic.mails[1:] == [
        [f"2 of 3 patients with an appointment on {day} were reminded.", wrong_number],
    ]
    assert clinic.remind().state == "success"
    assert len(clinic.mails) == 2
    assert sum(message["type"] == "sms" for message in clinic.sandbox.messages()) == 2


@pytest.mark.contract
def test_reminders_that_leave_no_report_fail_the_run_and_the_reception_is_told(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = f"{day_of_appointments():dddd, MMMM D}"
    with monkeypatch.context() as patch:
        execute = ApptotoSendMessageBatchOperator.execute

        def killed(self: ApptotoSendMessageBatchOperator, context: Any) -> dict[str, Any]:
            if self.task_id == "remind":
                raise RuntimeError("the try ended before it could store its report")
            return execute(self, context)

        patch.setattr(ApptotoSendMessageBatchOperator, "execute", killed)
        run = clinic.remind()
    assert (run["tell_reception"].state, run.state) == ("success", "failed")
    interrupted = f"The reminders for {day} were interrupted. Some patients may not have been reminded."
    assert clinic.mails == [[interrupted]]
    assert clinic.remind().state == "success"
    assert clinic.mails[1][0] == f"2 of 3 patients with an appointment on {day} were reminded."


@pytest.mark.contract
@pytest.mark.skipif(airflow.__version__.startswith("2."), reason="before Airflow 3 each run has a logical date")
def test_reminders_of_a_run_without_a_logical_date_are_sent(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DAG, "test", functools.partialmethod(DAG.test, logical_date=None))
    assert clinic.remind().state == "success"
    assert len(clinic.sandbox.messages()) == 3
