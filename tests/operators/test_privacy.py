"""Marked people, run through every kind of end: afterwards they stand nowhere that the provider writes to."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from typing import TYPE_CHECKING, Any

import airflow
import pytest

from tests.airflow_runs import run_tasks
from tests.conftest import HOME
from tests.faults import Exchange, FaultServer, accepting, answering, hanging

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.contract, pytest.mark.usefixtures("airflow_database")]

KEY = "Sekret-Api-Key-81d2"
TEXT = "Dear Wilhelmina Abendroth, your biopsy was benign"
SUBJECT = "Regarding Wilhelmina's biopsy"
ADDRESS = "wilhelmina.abendroth@clinic.example"
NUMBERS = {
    kind: f"+1650555{7700 + number}"
    for number, kind in enumerate(("sent", "refused", "unknown", "busy", "hangs", "mapped", "other", "dry", "failing"))
}
PEOPLE = {**NUMBERS, "text": TEXT, "subject": SUBJECT, "address": ADDRESS, "smuggling": f"{TEXT} {{{{ name }}}}"}
MARKS = [KEY, "Wilhelmina", "wilhelmina", "Abendroth", "biopsy", *(number[2:] for number in NUMBERS.values())]

# The people come from outside the DAG when its fields are rendered: its source, and what Airflow stores of it, is the
# author's. A macro of the DAG's own may fail with a person in its error.
MACROS = """user_defined_macros={
    "person": lambda key: __import__("json").loads(__import__("os").environ["PEOPLE"])[key],
    "fail": lambda person: {}[person],
}, default_args={"retries": 1, "retry_delay": timedelta(0), "type": "sms"}"""

TASKS = """
text = "{{ person('text') }}"

def send(task_id, **fields):
    fields.setdefault("message", text)
    return ApptotoSendMessageOperator(task_id=task_id, **fields)

send("sent", to="{{ person('sent') }}")
send("mail", type="email", to="{{ person('address') }}", subject="{{ person('subject') }}")
send("refused", to="{{ person('refused') }}")
send("unknown", to="{{ person('unknown') }}")
send("busy", to="{{ person('busy') }}")
send("hangs", to="{{ person('hangs') }}", execution_timeout=timedelta(seconds=1))
send("dry", to="{{ person('dry') }}", delivery_mode="dry_run")
send("no_number", to="{{ person('text') }}")
send("no_address", type="email", to="{{ person('address') }}@@", subject="{{ person('subject') }}")
send("two_targets", to="{{ person('failing') }}", event_id="{{ person('failing') }}")
send("wrong_id", event_id="{{ person('failing') }}")
send("wrong_type", type="{{ person('text') }}", to="{{ person('failing') }}")
send("subject_of_sms", to="{{ person('failing') }}", subject="{{ person('subject') }}")
send("two_lines", type="email", to="{{ person('address') }}", subject="{{ person('subject') }}\\nBcc: a@b.example")
send("smuggling", event_id=1, message="{{ person('smuggling') }}")
send("undefined", to="{{ person('failing') }}", message=text + " {{ nope }}")
send("undefined_by_value", to="{{ person('failing') }}", message="{{ {}[person('text')].x }}")
send("failing_macro", to="{{ person('failing') }}", message="{{ fail(person('text')) }}")
send("failing_recipient", to="{{ fail(person('failing')) }}")
send("unclosed", to="{{ person('failing') }}", message=text + "{{")
send("itself", to="{{ person('failing') }}", message="{{ task.to }}")
ApptotoSendMessageOperator.partial(task_id="mapped", message=text).expand(
    to=["{{ person('mapped') }}", "{{ person('refused') }}", "{{ fail(person('other')) }}"])

def batch(task_id, *rows, **fields):
    rows = [{"to": "{{ person('%s') }}" % person, **columns} for person, columns in rows]
    source = {} if "messages_path" in fields else {"messages": rows}
    defaults = {"type": "sms", "message": text}
    ApptotoSendMessageBatchOperator(task_id=task_id, retries=0, **{"defaults": defaults, **source, **fields})

batch("batch", ("sent", {}), ("refused", {}), ("mapped", {}), max_rejected=1, suppression=["{{ person('mapped') }}"])
batch("batch_of_a_file", messages_path="{{ person('file') }}", defaults={"type": "sms", "message": "{{ row.name }}"})
batch("batch_unknown", ("unknown", {}), ("busy", {}), ("hangs", {}))
batch("batch_of_bad_rows", ("text", {}), ("address", {}), ("failing", {"subject": text}), ("other", {"type": text}),
      ("other", {"message": "{{ person('smuggling') }}"}), ("other", {"message": text, "event_id": 1}),
      ("other", {"message": "{{ {}[person('text')].x }}"}), ("other", {"name": "{{ fail(person('text')) }}"}))
batch("batch_of_ambiguous_rows", ("other", {}), ("other", {"message": text + "!"}))
batch("batch_of_doubtful_keys", ("other", {"key": text * 9}), key_field="key")
batch("batch_of_a_failing_default", ("other", {}), defaults={"type": "sms", "message": "{{ fail(person('text')) }}"})
batch("batch_with_bad_suppression", ("other", {}), suppression=["{{ person('text') }}"])
"""
SUCCESSFUL = {"sent", "mail", "dry", "batch", "batch_of_a_file"}


def by_recipient(exchange: Exchange) -> None:
    """Answer each person in a way of their own, and say all that is known of them."""
    echo = {"error": f"{exchange.request.body.decode()} by {KEY} {TEXT} {exchange.request.json['to'][2:]}"}
    script = {
        NUMBERS["refused"]: answering(422, echo),
        NUMBERS["unknown"]: answering(500, echo),
        NUMBERS["busy"]: answering(503, echo, Retry_After="0"),
        NUMBERS["hangs"]: hanging,
    }.get(exchange.request.json["to"], accepting)
    script(exchange)


def database() -> str:
    """Return every value of every table of the metadata database."""

    def values(connection: sqlite3.Connection) -> Iterator[str]:
        tables = connection.execute("select name from sqlite_master where type = 'table'").fetchall()
        for (table,) in tables:
            for row in connection.execute(f'select * from "{table}"'):  # noqa: S608  the names are the database's own
                for value in row:
                    yield value.decode(errors="replace") if isinstance(value, bytes) else str(value)

    with contextlib.closing(sqlite3.connect(HOME / "airflow.db")) as connection:
        return "\n".join(values(connection))


def log_files() -> str:
    """Return all that Airflow has logged to files."""
    return "\n".join(path.read_text(errors="replace") for path in (HOME / "logs").rglob("*") if path.is_file())


def console(capfd: pytest.CaptureFixture[str]) -> str:
    """Return what was printed; Airflow 3.0's own test runs print the key as they mask it, and the locals of frames."""
    shown = capfd.readouterr()
    return "" if airflow.__version__.startswith("3.0.") else shown.out + shown.err


def rendered() -> str:
    """Return what the page of rendered fields shows."""
    with contextlib.closing(sqlite3.connect(HOME / "airflow.db")) as connection:
        return str(connection.execute("select rendered_fields from rendered_task_instance_fields").fetchall())


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_provider_apptoto.client.client.BACKOFF", 0.01)
    monkeypatch.setenv("PEOPLE", json.dumps(PEOPLE))


@pytest.mark.usefixtures("_quick")
def test_people_stand_in_no_log_error_xcom_or_table(
    connection: Callable[..., None],
    capfd: pytest.CaptureFixture[str],
    provider_log: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"to": NUMBERS["other"], "name": TEXT}))
    monkeypatch.setenv("PEOPLE", json.dumps({**PEOPLE, "file": str(rows)}))
    with FaultServer([by_recipient]) as server:
        connection(server.url, password=KEY, timeout=5)
        run = run_tasks(TASKS, arguments=MACROS)
    places = {
        "output": console(capfd),
        "log": "\n".join(provider_log),
        "log files": log_files(),
        "database": database(),
        "xcom": json.dumps([task.xcom for task in run.tasks]),
    }
    assert {task.task_id for task in run.tasks if task.state == "success"} == SUCCESSFUL | {"mapped"}
    assert {task.tries for task in run.tasks if task.task_id == "busy"} == {2}
    assert TEXT in [request.json["message"] for request in server.accepted]
    assert "rejected" in places["log"]
    assert [(place, mark) for place, text in places.items() for mark in MARKS if mark in text] == []


@pytest.mark.usefixtures("_quick")
def test_without_redaction_recipient_and_text_are_shown_but_never_the_key(
    connection: Callable[..., None], capfd: pytest.CaptureFixture[str], provider_log: list[str]
) -> None:
    with FaultServer() as server:
        connection(server.url, password=KEY)
        run = run_tasks(
            "ApptotoSendMessageOperator(task_id='send', redact=False, to=\"{{ person('other') }}\", "
            "message=\"{{ person('text') }}\")",
            arguments=MACROS,
        )
    assert run["send"].xcom["target"] == NUMBERS["other"]
    assert any(f"sms to {NUMBERS['other']}: sent" in line for line in provider_log)
    assert NUMBERS["other"] in rendered()
    assert TEXT in rendered()
    for place in (console(capfd), str(provider_log), log_files(), database(), str(run["send"].xcom)):
        assert KEY not in place


@pytest.mark.parametrize(
    "fields",
    [
        {"to": "+1•••0199", "message": "Hi"},
        {"to": "***", "message": "Hi"},
        {"to": "+16505550199", "message": "***"},
        {"to": "+16505550199", "message": "•••"},
        {"type": "email", "to": "m•••@•••.example", "message": "Hi"},
        {"type": "email", "to": "mary@clinic.example", "subject": "***", "message": "Hi"},
    ],
)
def test_a_mask_is_never_sent(connection: Callable[..., None], fields: dict[str, Any]) -> None:
    arguments = ", ".join(f"{name}={value!r}" for name, value in {"type": "sms", **fields}.items())
    with FaultServer() as server:
        connection(server.url)
        run = run_tasks(f"ApptotoSendMessageOperator(task_id='send', {arguments})")
    assert run.state == "failed"
    assert server.connections == 0
