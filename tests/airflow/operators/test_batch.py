"""A batch sends each row's message at most once, and reports every row, in DAGs that the installed Airflow runs."""

from __future__ import annotations

import contextlib
import datetime as dt
import importlib.util
import itertools
import json
import os
import re
import signal
import sqlite3
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import task

from airflow_provider_apptoto._airflow import HAS_RETRY_POLICY as HAS_TASK_STATE  # both are new in 3.3
from airflow_provider_apptoto.batch import sending
from airflow_provider_apptoto.batch.run import MAX_LISTED
from airflow_provider_apptoto.cli import main
from airflow_provider_apptoto.hooks import _state
from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageBatchOperator, ApptotoSendMessageOperator
from tests.support.airflow_home import HOME
from tests.support.dag_runs import Run, TaskRun, own_sigterm, run_dag
from tests.support.faults import Exchange, FaultServer, accepting, answering, not_listening, resetting

HAS_SDK = importlib.util.find_spec("airflow.sdk") is not None

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.faults import Script

pytestmark = [pytest.mark.contract, pytest.mark.usefixtures("airflow_database", "quick_retries")]

NOW = dt.timedelta(0)
SMS = {"type": "sms"}
DEFAULTS = {"type": "sms", "message": "Hi {{ row.first_name }}"}
STOLEN = "{{ conn.apptoto_default.password }}"


def number(person: int) -> str:
    return f"+1650555{1000 + person}"


def row(person: int, **columns: Any) -> dict[str, Any]:
    return {"to": number(person), "first_name": f"Name{person}", **columns}


def rows(count: int) -> list[dict[str, Any]]:
    return [row(person) for person in range(count)]


def batch(**fields: Any) -> ApptotoSendMessageBatchOperator:
    """Make a task that sends a batch."""
    return ApptotoSendMessageBatchOperator(**{"task_id": "batch", "defaults": DEFAULTS, **fields})


def made(value: Any) -> Any:
    """Make a task that returns this value, and return its output."""

    @task(task_id="made")
    def give() -> Any:
        return value

    return give()


class Clinic:
    """A DAG that can run again, and a server that receives its messages."""

    _numbers = itertools.count(1)

    def __init__(self, server: FaultServer, folder: Path, errors: dict[str, BaseException]) -> None:
        self.server = server
        self._errors = errors
        self._folder = folder
        self.dag_id = f"batch_{next(self._numbers)}"
        self.day = dt.datetime.now(dt.UTC)

    def run_all(self, build: Callable[[], object], **arguments: Any) -> Run:
        """Run the DAG. By default, repeat the same run, as a clear does."""
        self._errors.clear()
        return run_dag(build, **{"dag_id": self.dag_id, "at": self.day, **arguments})

    def run(self, build: Callable[[], object], **arguments: Any) -> TaskRun:
        """Run a DAG whose task ``batch`` is tested."""
        return self.run_all(build, **arguments)["batch"]

    def send(self, given: list[dict[str, Any]], *, at: dt.datetime | None = None, **fields: Any) -> TaskRun:
        """Run a batch of these rows, given as a file."""
        path = self.file(given)
        return self.run(lambda: batch(messages_path=path, **fields), at=at or self.day)

    def file(self, given: list[dict[str, Any]], name: str = "rows") -> str:
        """Return the path of a file of these rows."""
        path = self._folder / f"{name}.jsonl"
        path.write_text("\n".join(json.dumps(each) for each in given))
        return str(path)

    @property
    def error(self) -> str:
        """Why the task ``batch`` of the last run failed."""
        return self.errors["batch"]

    @property
    def errors(self) -> dict[str, str]:
        """Why tasks of the last run failed, by the id of the task."""
        return {task_id: str(error) for task_id, error in self._errors.items()}

    @property
    def copies(self) -> Counter[int]:
        """How many copies each person got."""
        return Counter(int(request.json["to"][-4:]) - 1000 for request in self.server.accepted)

    @property
    def labels(self) -> dict[str, dict[str, str] | None]:
        """The labels that the ledger shows, by channel and the last digits of the recipient."""
        query = "select channel, target, labels from apptoto_messages"
        with contextlib.closing(sqlite3.connect(self._folder / "state.db")) as state:
            found = state.execute(query).fetchall()
        return {f"{channel} {target[-4:]}": labels and json.loads(labels) for channel, target, labels in found}

    @property
    def texts(self) -> list[str]:
        return sorted(request.json["message"] for request in self.server.accepted)


@pytest.fixture
def clinic(
    connection: Callable[..., None],
    errors: dict[str, BaseException],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Clinic]:
    """Provide a DAG whose ledger is in a state database."""
    state = {"conn_type": "sqlite", "host": str(tmp_path / "state.db")}
    monkeypatch.setenv("AIRFLOW_CONN_STATE", json.dumps(state))
    with FaultServer() as server:
        connection(server.url, state_conn_id="state")
        yield Clinic(server, tmp_path, errors)


def report(dag_id: str, task_id: str = "batch") -> dict[str, Any]:
    """Return the XCom ``report`` of the newest run, which exists even if the task failed."""
    with contextlib.closing(sqlite3.connect(HOME / "airflow.db")) as airflow_db:
        text = "select value from xcom where dag_id = ? and task_id = ? and key = 'report' order by timestamp desc"
        [value, *_] = airflow_db.execute(text, (dag_id, task_id)).fetchone()
    found: Any = json.loads(value)
    while isinstance(found, str):  # newer Airflows encode JSON twice
        found = json.loads(found)
    return dict(found)


def only(counts: dict[str, Any]) -> dict[str, int]:
    """Return the nonzero counts."""
    return {name: count for name, count in counts.items() if isinstance(count, int) and count}


def by_person(scripts: dict[int, Script]) -> Script:
    """Return a script that answers these people as given, and accepts the messages of all others."""

    def play(exchange: Exchange) -> None:
        scripts.get(int(exchange.request.json["to"][-4:]) - 1000, accepting)(exchange)

    return play


# --- input


def test_rows_of_a_file_go_out_with_what_defaults_makes_of_their_columns(clinic: Clinic) -> None:
    run = clinic.send(
        rows(20),
        defaults={"type": "sms", "message": "Hi {{ row.first_name }}, {{ params.day }}"},
        params={"day": "at nine"},
    )
    assert (run.state, clinic.copies) == ("success", Counter(range(20)))
    assert clinic.texts == sorted(f"Hi Name{person}, at nine" for person in range(20))
    assert only(run.xcom) == {"total": 20, "sent": 20}
    assert report(clinic.dag_id) == run.xcom


def test_a_csv_file_s_path_is_templated_and_may_be_a_uri(clinic: Clinic, tmp_path: Path) -> None:
    (tmp_path / "day-7.csv").write_text("to;first_name\n+1 (650) 555-1000;Ann\n+16505551001;Bob\n")
    uri = f"file://{tmp_path}/day-{{{{ params.day }}}}.csv"
    run = clinic.run(lambda: batch(messages_path=uri, params={"day": 7}))
    assert (run.state, clinic.texts) == ("success", ["Hi Ann", "Hi Bob"])
    assert set(clinic.copies) == {0, 1}


def test_rows_that_stand_in_the_dag_are_templated(clinic: Clinic) -> None:
    given = [
        {"to": "{{ params.phone }}", "message": "Hi {{ params.name }}"},
        {"to": number(1), "first_name": "{{ ds[:3] }}", "message": "Hi {{ ds[:3] }}"},
    ]
    params = {"phone": number(0), "name": "Ann"}
    run = clinic.run(lambda: batch(messages=given, defaults={"type": "sms"}, params=params))
    assert (run.state, clinic.texts) == ("success", ["Hi 202", "Hi Ann"])


def test_rows_of_another_task_are_sent(clinic: Clinic) -> None:
    run = clinic.run(lambda: batch(messages=made(rows(3))))
    assert (run.state, clinic.texts) == ("success", ["Hi Name0", "Hi Name1", "Hi Name2"])


def test_rows_of_another_task_are_never_rendered(clinic: Clinic) -> None:
    run = clinic.run(lambda: batch(messages=made([row(1, message="Hi"), row(0, message=STOLEN)]), defaults=SMS))
    assert (run.state, clinic.server.requests) == ("failed", [])
    [failure] = report(clinic.dag_id)["failures"]
    assert (failure["index"], failure["outcome"]) == (1, "invalid")
    assert "render the text where it is made" in failure["reason"]


def test_rows_that_are_mapped_over_another_task_are_never_rendered(clinic: Clinic) -> None:
    def build() -> None:
        partial = ApptotoSendMessageBatchOperator.partial(task_id="batch", defaults=SMS)
        partial.expand_kwargs(made([{"messages": [row(0, message=STOLEN)]}]))

    assert clinic.run(build).state == "failed"
    assert "render the text where it is made" in clinic.error
    assert clinic.server.requests == []


def test_lists_that_batches_are_mapped_over_are_never_rendered(clinic: Clinic) -> None:
    def build() -> None:
        partial = ApptotoSendMessageBatchOperator.partial(task_id="batch", defaults=SMS)
        partial.expand(messages=made([[row(0, message="Hi Name0")], [row(1, message=STOLEN)]]))

    run = clinic.run_all(build)
    assert [each.state for each in run.tasks if each.task_id == "batch"] == ["success", "failed"]
    assert "render the text where it is made" in clinic.error
    assert clinic.texts == ["Hi Name0"]


def test_each_mapped_batch_sends_its_own_file(clinic: Clinic) -> None:
    paths = [clinic.file([row(person)], f"rows_{person}") for person in range(2)]

    def build() -> None:
        partial = ApptotoSendMessageBatchOperator.partial(task_id="batch", defaults=DEFAULTS)
        partial.expand(messages_path=paths)

    run = clinic.run_all(build)
    assert (run.state, clinic.copies) == ("success", Counter([0, 1]))


def test_a_task_that_gives_no_rows_at_all_fails(clinic: Clinic) -> None:
    run = clinic.run(lambda: batch(messages=made(None)))
    assert (run.state, clinic.server.requests) == ("failed", [])
    assert clinic.error.startswith("messages: is None")


def test_an_empty_list_is_nobody_and_succeeds(clinic: Clinic) -> None:
    run = clinic.send([])
    assert (run.state, only(run.xcom)) == ("success", {})


def test_rows_of_appointments_keep_apptoto_s_own_fields(clinic: Clinic) -> None:
    text = "Hi {{ name }}, Dr {{ row.doctor }}: {{ event.start_time | date_and_time_phrase }}"
    defaults = {"type": "sms", "message": text}
    run = clinic.run(lambda: batch(messages=[{"event_id": 7, "doctor": "Lee"}], defaults=defaults))
    assert run.state == "success"
    assert clinic.texts == ["Hi {{ name }}, Dr Lee: {{ event.start_time | date_and_time_phrase }}"]


# --- all rows are checked before the first message leaves


def test_one_invalid_row_and_nothing_is_sent_and_the_task_is_not_retried(clinic: Clinic) -> None:
    bad: list[dict[str, Any]] = [
        {"to": "call me"},
        {"to": None, "first_name": "Ann"},
        row(3, first_name="{{ x }}"),
        row(0),
    ]
    run = clinic.send([*rows(3), *bad], retries=2, retry_delay=NOW)
    assert (run.state, run.tries, clinic.server.requests) == ("failed", 1, [])
    found = report(clinic.dag_id)
    assert only(found) == {"total": 7, "invalid": 3, "duplicate": 1}
    assert [(failure["index"], failure["reason"].partition(":")[0]) for failure in found["failures"]] == [
        (3, "message"),
        (4, "to"),
        (5, "message"),
    ]


def test_the_other_rows_can_be_sent_while_no_more_are_invalid_than_the_user_says(clinic: Clinic) -> None:
    given = [row(0, id=4711), row(1, id=4712, to="call me"), row(2, id=4713)]
    path = clinic.file(given)
    fields: dict[str, Any] = {"messages_path": path, "on_invalid": "send_others", "reference_column": "id"}
    expected = {1: "success", 0: "failed", "34%": "success", "33%": "failed"}

    def build() -> None:
        for index, most in enumerate(expected):
            batch(task_id=f"most_{index}", max_failed=most, **fields)

    run = clinic.run_all(build)
    for index, (most, state) in enumerate(expected.items()):
        found = report(clinic.dag_id, f"most_{index}")
        assert run[f"most_{index}"].state == state
        assert only(found) == {"total": 3, "invalid": 1} | ({"sent": 2} if state == "success" else {})
        [failure] = found["failures"]
        assert (failure["index"], failure["reference"]) == (1, "4712")
        assert (failure["code"], failure["column"]) == ("recipient_invalid", "to")
        if state == "failed":
            heading, listed, advice = clinic.errors[f"most_{index}"].splitlines()
            assert heading == "Nothing was sent: 1 of 3 rows are invalid:"
            assert listed.startswith("  line 2 (reference 4712): invalid: to: ")
            assert advice == (
                "Correct the rows and clear the task. That exceeds "
                f"max_failed={most!r}: to send the other rows, raise it."
            )
    assert clinic.copies == Counter([0, 2] * 2)


def test_a_row_that_gives_what_defaults_gives_is_invalid(clinic: Clinic) -> None:
    run = clinic.send([row(0), row(1, message="Another text")], on_invalid="send_others", max_failed=1)
    assert (run.state, clinic.texts) == ("success", ["Hi Name0"])
    [failure] = run.xcom["failures"]
    assert (failure["index"], failure["code"], failure["column"]) == (1, "given_twice", "message")


def table_of_six(folder: Path) -> str:
    """Write a CSV file: A1 can be sent, A2 and A6 can't, A3 is like A1, A4 opted out, A5 is sent to a mailbox."""
    path = folder / "people.csv"
    path.write_text(
        "id,to,first_name\n"
        f"A1,{number(0)},Ann\nA2,{number(1)},\n\nA3,{number(0)},Ann\nA4,{number(4)},Dan\nA5,{number(5)},Eve\n"
        "A6,on request,Fay\n"
    )
    return str(path)


def test_rows_that_are_left_out_are_logged_by_line_and_reference_under_a_heading_that_counts_them(
    clinic: Clinic, tmp_path: Path, provider_log: list[str]
) -> None:
    fields: dict[str, Any] = {"on_invalid": "send_others", "max_failed": 2}
    fields |= {"reference_column": "id", "suppression": [number(4)]}
    path = table_of_six(tmp_path)
    run = clinic.run(lambda: batch(messages_path=path, **fields))
    assert (run.state, clinic.copies) == ("success", Counter([0, 5]))
    [invalid] = [line for line in provider_log if "are invalid and are not sent" in line]
    heading, first, last = invalid.splitlines()
    assert heading == "2 of 6 rows are invalid and are not sent:"
    assert first.startswith("  line 3 (reference A2): invalid: message: row.first_name is empty, ")
    assert last.startswith("  line 8 (reference A6): invalid: to: ")
    assert "1 of 6 rows are suppressed:\n  line 6 (reference A4)" in provider_log
    assert "1 of 6 rows are duplicates:\n  line 5 (reference A3)" in provider_log
    assert not any("were not sent" in line for line in provider_log)
    found = report(clinic.dag_id)
    assert found["suppressed_rows"] == [{"index": 3, "line": 6, "reference": "A4"}]
    assert found["duplicate_rows"] == [{"index": 2, "line": 5, "reference": "A3"}]
    assert [(failure["index"], failure["line"]) for failure in found["failures"]] == [(1, 3), (5, 8)]


def test_the_error_of_invalid_rows_lists_them_by_line_and_nobody_else(clinic: Clinic, tmp_path: Path) -> None:
    path = table_of_six(tmp_path)
    assert clinic.run(lambda: batch(messages_path=path, suppression=[number(4)])).state == "failed"
    heading, *listed, advice = clinic.error.splitlines()
    assert heading == "Nothing was sent: 2 of 6 rows are invalid:"
    assert [line.partition(": ")[0] for line in listed] == ["  line 3", "  line 8"]
    assert advice == (
        "Correct the rows and clear the task. To send the other rows, set "
        'on_invalid="send_others", and set max_failed to how many rows may fail.'
    )


def test_the_error_of_failed_messages_lists_these_and_no_invalid_rows(clinic: Clinic) -> None:
    clinic.server.scripts = [by_person({2: answering(422, {"error": "no such number"})})]
    clinic.send([row(0), {"to": "call me"}, row(2)], on_invalid="send_others", max_failed=1)
    heading, listed = clinic.error.splitlines()
    assert heading.startswith("Of 2 messages, 0 were not sent, 0 may have been sent, 1 were rejected, and 1 rows ")
    assert listed == "  line 3: rejected, HTTP 422: no such number"


def test_a_heading_counts_also_the_rows_for_which_its_list_has_no_room(clinic: Clinic) -> None:
    clinic.run(lambda: batch(messages=[{"to": "call me"}] * (MAX_LISTED + 7)))
    heading, *listed, more, _ = clinic.error.splitlines()
    assert heading.startswith(f"Nothing was sent: {MAX_LISTED + 7} of {MAX_LISTED + 7} rows")
    assert (len(listed), listed[-1].partition(":")[0]) == (MAX_LISTED, f"  row {MAX_LISTED - 1}")
    assert more == "  and 7 more; see the XCom report"


def test_a_list_of_invalid_rows_alone_fails_however_many_may_be_invalid(clinic: Clinic) -> None:
    run = clinic.send([{"phone": number(0)}, {"phone": number(1)}], on_invalid="send_others", max_failed="100%")
    assert (run.state, only(report(clinic.dag_id))) == ("failed", {"total": 2, "invalid": 2})
    assert clinic.error.endswith("There are no other rows to send.")


WRONG: list[tuple[str, Any, str]] = [
    ("idempotency_key", " ", "must not be blank; name the occasion, or omit it"),
    ("defaults", {"mesage": "Hi"}, "did you mean message?"),
    ("defaults", ["sms"], "must be a mapping of fields, not list"),
    (
        "defaults",
        {"type": "sms", "message": "Hi {{ row.first_name"},
        "a variable that starts on line 1 is never closed",
    ),
    ("suppression", number(0), "must be a list of phone numbers and e-mail addresses, not str"),
]
"""Templated parameters, which are checked when the task runs. ``test_parsing`` has the others."""


def test_a_wrong_templated_parameter_sends_nothing(clinic: Clinic) -> None:
    path = clinic.file(rows(3))

    def build() -> None:
        for index, (name, value, _) in enumerate(WRONG):
            batch(**{"task_id": f"{name}_{index}", "messages_path": path, name: value})

    run = clinic.run_all(build)
    assert len(run.tasks) == len(WRONG)
    assert {each.state for each in run.tasks} == {"failed"}
    for index, (name, _, problem) in enumerate(WRONG):
        error = clinic.errors[f"{name}_{index}"]
        assert error.startswith(name)
        assert problem in error
    assert clinic.server.requests == []


def test_a_wrong_parameter_of_a_mapped_batch_fails_it_at_once(clinic: Clinic) -> None:
    path = clinic.file(rows(1))
    wrong: list[dict[str, Any]] = [
        {"messages_path": path, "on_invalid": "skip"},
        {"messages_path": path, "max_failed": 0.05},
        {"messages_path": path, "messages": rows(1)},
        {"defaults": DEFAULTS},
    ]

    def build() -> None:
        partial = ApptotoSendMessageBatchOperator.partial(task_id="batch", retries=3, retry_delay=NOW)
        partial.expand_kwargs([*wrong, {"messages_path": path, "defaults": DEFAULTS}])

    run = clinic.run_all(build)
    assert [(each.state, each.tries) for each in run.tasks] == [("failed", 1)] * 4 + [("success", 1)]
    assert clinic.copies == Counter([0])


def test_a_macro_that_is_called_as_the_row_is_refused(clinic: Clinic) -> None:
    assert clinic.run(lambda: batch(messages=rows(1)), user_defined_macros={"row": 1}).state == "failed"
    assert clinic.error.startswith("row: is reserved for the columns of a row")
    assert clinic.server.requests == []


# --- guards


def test_a_list_that_is_too_long_sends_nothing(clinic: Clinic) -> None:
    assert clinic.send(rows(4), max_messages=3).state == "failed"
    assert clinic.error.startswith("max_messages: is 3, but the batch has more messages")
    assert clinic.server.requests == []
    assert clinic.send(rows(3), max_messages=3).state == "success"


def test_a_thousand_is_the_limit_unless_somebody_says_otherwise(clinic: Clinic) -> None:
    path = clinic.file(rows(1001))

    def build() -> None:
        batch(task_id="limited", messages_path=path, delivery_mode="dry_run")
        batch(task_id="unlimited", messages_path=path, delivery_mode="dry_run", max_messages=None)

    run = clinic.run_all(build)
    assert run["limited"].state == "failed"
    assert clinic.errors["limited"].startswith("max_messages: is 1000, but the batch has more messages")
    unlimited = run["unlimited"]
    assert (unlimited.state, only(unlimited.xcom)) == ("success", {"total": 1001, "dry_run": 1001})


def test_rows_that_would_cost_or_do_harm_are_invalid(clinic: Clinic, connection: Callable[..., None]) -> None:
    connection(clinic.server.url, state_conn_id="state", default_region="US")
    given = [
        row(0),
        row(1, to="+5351234567"),
        row(2, to="1-900-555-0199"),
        row(3, first_name="a" * 458),
        row(4, first_name="\x1b[2J"),
        row(5, to="650-555-1005"),
    ]
    assert clinic.send(given).state == "failed"
    assert clinic.server.requests == []
    _, *listed, _ = clinic.error.splitlines()
    assert [line.split(": ")[2] for line in listed] == ["to", "to", "message", "message"]
    run = clinic.send(given, on_invalid="send_others", max_failed=4)
    assert (run.state, clinic.copies) == ("success", Counter([0, 5]))
    longer = clinic.send(given, on_invalid="send_others", max_failed=4, max_segments=None)
    assert (longer.state, clinic.copies) == ("success", Counter([0, 3, 5]))


def test_those_who_opted_out_get_nothing_and_are_counted(clinic: Clinic) -> None:
    opted_out = ["+1 650-555-1001", None, (number(2),)]
    run = clinic.run(lambda: batch(messages=rows(4), suppression=made(opted_out)))
    assert (run.state, clinic.copies) == ("success", Counter([0, 3]))
    assert only(run.xcom) == {"total": 4, "sent": 2, "suppressed": 2}


def test_everybody_opted_out_is_no_failure(clinic: Clinic) -> None:
    run = clinic.send(rows(1), suppression=[number(0)])
    assert (run.state, only(run.xcom)) == ("success", {"total": 1, "suppressed": 1})


def test_a_dry_run_checks_all_and_sends_none(clinic: Clinic) -> None:
    run = clinic.send(rows(3), delivery_mode="dry_run")
    assert (run.state, only(run.xcom), clinic.server.requests) == ("success", {"total": 3, "dry_run": 3}, [])


def test_what_is_redirected_goes_to_the_stand_in(clinic: Clinic, connection: Callable[..., None]) -> None:
    connection(clinic.server.url, redirect_phone_to="+16505559999", delivery_mode="redirect")
    run = clinic.send(rows(2))
    assert only(run.xcom) == {"total": 2, "redirected": 2}
    assert {request.json["to"] for request in clinic.server.accepted} == {"+16505559999"}


def test_a_run_that_is_too_old_is_skipped(clinic: Clinic) -> None:
    old = dt.datetime(2026, 3, 2, tzinfo=dt.UTC)
    run = clinic.send(rows(2), at=old)
    assert (run.state, clinic.server.requests) == ("skipped", [])
    assert clinic.send(rows(2), max_age=None, at=old).state == "success"
    # what was sent is not skipped
    assert clinic.send(rows(2), at=old).state == "success"
    # and an incomplete batch does not succeed
    assert clinic.send([row(2), *rows(2)], at=old).state == "failed"
    assert only(report(clinic.dag_id)) == {"total": 3, "deduplicated": 2, "too_old": 1}
    assert clinic.error.startswith("1 of 3 messages were not sent: an earlier try started sending, but now the run is ")
    assert clinic.copies == Counter([0, 1])


# --- delivery


def test_a_cleared_batch_sends_nothing_again(clinic: Clinic) -> None:
    clinic.send(rows(10))
    again = clinic.send(rows(10))
    assert (again.state, clinic.copies) == ("success", Counter(range(10)))
    assert only(again.xcom) == {"total": 10, "deduplicated": 10}


def test_a_clear_sends_who_was_added_and_nobody_else_whatever_the_order(clinic: Clinic) -> None:
    clinic.send(rows(5))
    again = clinic.send([row(5), *reversed(rows(5))])
    assert only(again.xcom) == {"total": 6, "sent": 1, "deduplicated": 5}
    assert clinic.copies == Counter(range(6))


def test_a_row_that_is_refused_stops_no_other_and_fails_the_task_for_good(clinic: Clinic) -> None:
    clinic.server.scripts = [by_person({3: answering(422, {"error": "no such number"})})]
    run = clinic.send(
        [row(person, id=f"A{person}") for person in range(10)], retries=2, retry_delay=NOW, reference_column="id"
    )
    assert (run.state, run.tries, len(clinic.copies)) == ("failed", 1, 9)
    found = report(clinic.dag_id)
    assert only(found) == {"total": 10, "sent": 9, "rejected": 1}
    [failure] = found["failures"]
    assert failure == {
        "index": 3,
        "line": 4,
        "reference": "A3",
        "key": failure["key"],
        "outcome": "rejected",
        "http_status": 422,
        "code": "rejected",
        "column": None,
        "reason": "no such number",
    }
    assert re.fullmatch("[0-9a-f]{32}", failure["key"])


def test_so_many_may_be_refused_as_the_user_says(clinic: Clinic) -> None:
    clinic.server.scripts = [by_person({3: answering(422), 4: answering(422)})]
    path, expected = clinic.file(rows(5)), {2: "success", 1: "failed", "40%": "success", "39.9%": "failed"}

    def build() -> None:
        for index, most in enumerate(expected):
            batch(task_id=f"most_{index}", messages_path=path, max_failed=most)

    run = clinic.run_all(build)
    for index, state in enumerate(expected.values()):
        assert run[f"most_{index}"].state == state
        assert only(report(clinic.dag_id, f"most_{index}")) == {"total": 5, "sent": 3, "rejected": 2}
    assert clinic.copies == Counter([0, 1, 2] * len(expected))


def test_a_refused_account_stops_at_once_and_is_no_row_s_fault(clinic: Clinic, connection: Callable[..., None]) -> None:
    path = clinic.file(rows(20))
    with contextlib.ExitStack() as stack:
        servers = {
            status: stack.enter_context(FaultServer([*[accepting] * 5, answering(status)]))
            for status in (401, 402, 403)
        }
        for status, server in servers.items():
            connection(server.url, conn_id=f"http_{status}", state_conn_id="state")

        def build() -> None:
            for status in servers:
                fields = {"task_id": f"http_{status}", "apptoto_conn_id": f"http_{status}"}
                batch(**fields, messages_path=path, concurrency=4, max_failed=20)

        run = clinic.run_all(build)
    for status, server in servers.items():
        assert run[f"http_{status}"].state == "failed"
        assert f"Apptoto rejected the account: HTTP {status}" in clinic.errors[f"http_{status}"]
        assert only(report(clinic.dag_id, f"http_{status}")) == {"total": 20, "sent": 5, "not_sent": 15}
        assert len(server.requests) <= 5 + 4  # requests in flight still complete


def test_a_try_after_a_refused_account_sends_the_rest(clinic: Clinic) -> None:
    clinic.server.scripts = [*[accepting] * 5, answering(402), accepting]
    run = clinic.send(rows(20), concurrency=1, retries=1, retry_delay=NOW)
    assert (run.state, run.tries, clinic.copies) == ("success", 2, Counter(range(20)))
    assert only(run.xcom) == {"total": 20, "sent": 15, "deduplicated": 5}


def test_a_batch_that_stops_again_still_says_what_an_earlier_try_had_sent(clinic: Clinic) -> None:
    clinic.server.scripts = [by_person({0: answering(402)})]
    clinic.send(list(reversed(rows(10))), concurrency=1)
    assert only(report(clinic.dag_id)) == {"total": 10, "sent": 9, "not_sent": 1}
    clinic.send([row(10), *rows(10), row(11)], concurrency=1)
    assert only(report(clinic.dag_id)) == {"total": 12, "sent": 1, "deduplicated": 9, "not_sent": 2}
    reasons = [failure["reason"] for failure in report(clinic.dag_id)["failures"]]
    assert reasons == ["", "not tried: Apptoto rejected the account: HTTP 402"]


def test_an_outage_stops_the_batch_before_thousands_are_unknown(clinic: Clinic) -> None:
    clinic.server.scripts = [*[accepting] * 6, resetting(accepted=True)]
    run = clinic.send(rows(50), concurrency=4, max_consecutive_failures=3)
    found = report(clinic.dag_id)
    assert run.state == "failed"
    # the last of the six may arrive after two failures, and end their row; requests in flight still complete
    assert 3 <= found["unknown"] <= 2 + 3 + 3
    assert found["sent"] == 6
    assert found["not_sent"] == 50 - 6 - found["unknown"]


def test_what_others_in_between_settle_is_no_outage(clinic: Clinic) -> None:
    clinic.server.scripts = [by_person(dict.fromkeys(range(1, 20, 2), resetting(accepted=False)))]
    clinic.send(rows(20), concurrency=1, max_consecutive_failures=2)
    assert only(report(clinic.dag_id)) == {"total": 20, "sent": 10, "unknown": 10}


def test_an_outage_is_over_in_the_next_try_and_what_may_have_been_sent_is_left_alone(clinic: Clinic) -> None:
    clinic.server.scripts = [*[accepting] * 6, *[answering(500, accepted=True)] * 3, accepting]
    run = clinic.send(rows(30), concurrency=1, max_consecutive_failures=3, retries=1, retry_delay=NOW)
    assert (run.state, run.tries) == ("failed", 2)
    found = report(clinic.dag_id)
    assert only(found) == {"total": 30, "sent": 21, "deduplicated": 6, "unknown": 3}
    assert clinic.copies == Counter(range(30))
    assert [failure["index"] for failure in found["failures"]] == [6, 7, 8]


def test_a_server_that_can_t_be_reached_is_not_tried_for_every_row(
    clinic: Clinic, connection: Callable[..., None], provider_log: list[str]
) -> None:
    with not_listening() as port:
        connection(f"http://127.0.0.1:{port}", state_conn_id="state")
        run = clinic.send(rows(100), concurrency=2)
    assert (run.state, only(report(clinic.dag_id))) == ("failed", {"total": 100, "not_sent": 100})
    assert sum("Connection refused" in line and "not_sent" in line for line in provider_log) < 20


def test_what_may_have_been_sent_is_resolved_as_for_a_single_message(
    clinic: Clinic, capsys: pytest.CaptureFixture[str]
) -> None:
    clinic.server.scripts = [by_person({1: answering(500, accepted=True), 2: answering(500)})]
    assert clinic.send(rows(4), retries=2, retry_delay=NOW).tries == 1
    keys = {failure["index"]: failure["key"] for failure in report(clinic.dag_id)["failures"]}
    clinic.server.scripts = []
    assert clinic.send(rows(4)).state == "failed"
    for index, state in ((1, "sent"), (2, "not_sent")):
        main(["ledger", "resolve", keys[index], "--to", state, "--note", "looked it up"])
    capsys.readouterr()
    run = clinic.send(rows(4))
    assert (run.state, clinic.copies) == ("success", Counter(range(4)))


def test_with_resend_the_next_try_sends_what_may_have_been_sent(clinic: Clinic) -> None:
    clinic.server.scripts = [answering(500, accepted=True), accepting]
    run = clinic.send(rows(5), concurrency=1, on_unknown="resend", retries=1, retry_delay=NOW)
    assert (run.state, run.tries, clinic.copies) == ("success", 2, Counter([0, *range(5)]))


def test_with_assume_sent_the_batch_succeeds_but_an_outage_still_stops_it(clinic: Clinic) -> None:
    clinic.server.scripts = [answering(500, accepted=True), accepting]
    run = clinic.send(rows(5), concurrency=1, on_unknown="assume_sent")
    assert (run.state, only(run.xcom)) == ("success", {"total": 5, "sent": 4, "assumed_sent": 1})
    clinic.server.scripts = [answering(500)]
    later = clinic.day + dt.timedelta(seconds=1)
    clinic.send(rows(30), concurrency=1, on_unknown="assume_sent", at=later)
    assert only(report(clinic.dag_id)) == {"total": 30, "assumed_sent": 5, "not_sent": 25}


def test_an_id_column_tells_two_messages_to_one_person_apart(clinic: Clinic) -> None:
    given = [{**row(0), "id": 1, "first_name": "Ann"}, {**row(0), "id": 2, "first_name": "Bob"}]
    assert clinic.send(given).state == "failed"
    assert "set id_column so that a retry can tell them apart" in clinic.error
    assert clinic.server.requests == []
    run = clinic.send(given, id_column="id")
    assert (run.state, clinic.texts) == ("success", ["Hi Ann", "Hi Bob"])
    # the same appointment, whose patient has a new number
    assert only(clinic.send([{**row(9), "id": 1}], id_column="id").xcom) == {"total": 1, "deduplicated": 1}


def test_labels_stand_in_the_ledger_in_clear(clinic: Clinic) -> None:
    given = [row(0, clinic="north", floor=3), row(1, clinic=None, floor=4), row(2, clinic=None, floor=None)]
    path = clinic.file(given)

    def build() -> None:
        batch(messages_path=path, label_columns=["clinic", "floor"])
        labels = {"clinic": "{{ params.clinic }}", "campaign": made("fall")}
        ApptotoSendMessageOperator(
            task_id="single", type="sms", to=number(9), message="Hi", labels=labels, params={"clinic": "south"}
        )

    assert clinic.run_all(build).state == "success"
    assert clinic.labels == {
        f"sms {number(0)[-4:]}": {"clinic": "north", "floor": "3"},
        f"sms {number(1)[-4:]}": {"floor": "4"},
        f"sms {number(2)[-4:]}": None,
        f"sms {number(9)[-4:]}": {"clinic": "south", "campaign": "fall"},
    }


def test_a_label_that_could_not_be_kept_is_an_invalid_row(clinic: Clinic) -> None:
    assert clinic.send([row(0, clinic="north"), row(1, clinic="a\nb")], label_columns=["clinic"]).state == "failed"
    [failure] = report(clinic.dag_id)["failures"]
    assert (failure["index"], failure["code"], failure["column"]) == (1, "name_invalid", "clinic")
    assert clinic.server.requests == []


def test_without_its_ledger_a_batch_sends_nothing_and_is_tried_again(
    clinic: Clinic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = {"conn_type": "sqlite", "host": str(tmp_path / "no_such_folder" / "state.db")}
    monkeypatch.setenv("AIRFLOW_CONN_STATE", json.dumps(nowhere))
    run = clinic.send(rows(2), retries=1, retry_delay=NOW)
    assert (run.state, run.tries, clinic.server.requests) == ("failed", 2, [])
    assert "the state database can't be used" in clinic.error


def test_an_occasion_and_an_id_column_send_once_over_runs(clinic: Clinic) -> None:
    given = [row(person, id=person) for person in range(3)]
    fields: dict[str, Any] = {"id_column": "id", "idempotency_key": "reminder"}
    clinic.send(given, **fields)
    run = clinic.send([*given, row(3, id=3)], at=clinic.day + dt.timedelta(seconds=1), **fields)
    assert only(run.xcom) == {"total": 4, "sent": 1, "deduplicated": 3}
    assert clinic.copies == Counter(range(4))


def test_without_a_ledger_a_batch_that_was_cut_short_is_not_retried(
    clinic: Clinic, connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_state.AccountState, "ledger_store", lambda *_: None)
    connection(clinic.server.url)
    clinic.server.scripts = [*[accepting] * 5, answering(401)]
    run = clinic.send(rows(20), concurrency=1, retries=2, retry_delay=NOW)
    assert (run.state, run.tries, clinic.copies) == ("failed", 1, Counter(range(5)))
    clinic.server.scripts = [answering(401), accepting]
    run = clinic.send(rows(20), concurrency=1, retries=2, retry_delay=NOW, at=clinic.day + dt.timedelta(seconds=1))
    assert (run.state, run.tries) == ("success", 2)


@pytest.mark.skipif(not HAS_TASK_STATE, reason="before 3.3 Airflow has no task state")
def test_task_state_is_enough_for_a_batch_to_go_on(clinic: Clinic, connection: Callable[..., None]) -> None:
    connection(clinic.server.url)
    clinic.server.scripts = [*[accepting] * 3, answering(402), accepting]
    run = clinic.send(rows(8), concurrency=1, retries=1, retry_delay=NOW)
    assert (run.state, run.tries, clinic.copies) == ("success", 2, Counter(range(8)))


# --- what it says while it runs


def test_it_says_how_far_it_is_and_what_became_of_the_rows(
    clinic: Clinic, provider_log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "PROGRESS_SECONDS", 0.05)
    said = threading.Event()

    def waiting(exchange: Exchange) -> None:
        """Let the last message wait until the log reports all others."""
        if exchange.request.json["to"] == number(9):
            while not any(line.startswith("9 of 10 messages done, none failed; ") for line in provider_log):
                said.wait(0.01)
        accepting(exchange)

    clinic.server.scripts = [waiting]
    clinic.send(rows(10))
    assert any(
        re.search(r"^9 of 10 messages done, none failed; [\d.]+ per minute, about .* left$", line)
        for line in provider_log
    )
    assert any(re.search(r"^10 of 10 messages done, none failed; [\d.]+ per minute$", line) for line in provider_log)
    assert any(re.search(r"\n  total +10\n  sent +10$", line) for line in provider_log)
    assert not any(number(0)[-4:] in line for line in provider_log)


@pytest.mark.skipif(not HAS_TASK_STATE, reason="before 3.3 Airflow has no task state")
def test_the_counts_stand_in_the_task_s_state_while_it_runs(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "PROGRESS_SECONDS", 0.05)
    seen: list[dict[str, int]] = []

    def shown() -> dict[str, int]:
        query = "select value from task_state_store where dag_id = ? and key = 'apptoto-batch'"
        with contextlib.closing(sqlite3.connect(HOME / "airflow.db", timeout=30)) as airflow_db:
            found = airflow_db.execute(query, (clinic.dag_id,)).fetchone()
        return only(json.loads(found[0])) if found else {}

    def looking(exchange: Exchange) -> None:
        if exchange.request.json["to"] == number(4):
            while shown() != {"total": 5, "sent": 4}:
                exchange.server.released.wait(0.05)
            seen.append(shown())
        accepting(exchange)

    clinic.server.scripts = [looking]
    clinic.send(rows(5))
    assert seen == [{"total": 5, "sent": 4}]
    assert shown() == {"total": 5, "sent": 5}


# --- interruption


@contextlib.contextmanager
def ended_early() -> Iterator[None]:
    """Catch the exception that ends a task early on Airflow 2, whose ``dag.test`` re-raises it."""
    try:
        yield
    except BaseException as error:
        if HAS_SDK or type(error).__name__ not in {"AirflowTaskTimeout", "AirflowTaskTerminated"}:
            raise


def test_after_sigterm_nothing_new_leaves_what_was_under_way_is_recorded_and_the_rest_is_sent_later(
    clinic: Clinic, connection: Callable[..., None]
) -> None:
    def terminating(exchange: Exchange) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        accepting(exchange)

    connection(clinic.server.url, state_conn_id="state", requests_per_minute=300)  # one in 0.2 s
    clinic.server.scripts = [*[accepting] * 2, terminating, accepting]
    with own_sigterm(), ended_early():
        assert clinic.send(rows(40), concurrency=2).state == "failed"
    found = report(clinic.dag_id)
    assert found["unknown"] == 0
    assert 3 <= found["sent"] == len(clinic.copies) < 40
    connection(clinic.server.url, state_conn_id="state")
    assert (clinic.send(rows(40)).state, clinic.copies) == ("success", Counter(range(40)))


def test_a_task_that_is_out_of_time_goes_on_in_the_next_try(clinic: Clinic, connection: Callable[..., None]) -> None:
    def running_out(exchange: Exchange) -> None:
        """Make the timer that Airflow sets for ``execution_timeout`` expire now."""
        if signal.getitimer(signal.ITIMER_REAL)[0]:
            signal.setitimer(signal.ITIMER_REAL, 0.001)
        accepting(exchange)

    connection(clinic.server.url, state_conn_id="state", requests_per_minute=300)  # one in 0.2 s
    clinic.server.scripts = [*[accepting] * 2, running_out, accepting]
    with ended_early():
        assert clinic.send(rows(40), concurrency=2, execution_timeout=dt.timedelta(minutes=5)).state == "failed"
    assert 3 <= report(clinic.dag_id)["sent"] == len(clinic.copies) < 40
    connection(clinic.server.url, state_conn_id="state")
    assert (clinic.send(rows(40)).state, clinic.copies) == ("success", Counter(range(40)))
