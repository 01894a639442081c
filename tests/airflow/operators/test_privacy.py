"""After every kind of outcome, nothing that the provider writes contains personal data."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import airflow
import pytest

from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageOperator
from tests.support.dag_runs import run_dag
from tests.support.faults import FaultServer
from tests.support.marked_people import (
    KEY,
    MACROS,
    MARKS,
    NUMBERS,
    PEOPLE,
    SUCCESSFUL,
    TEXT,
    WHY_OTHERS_FAIL,
    by_recipient,
    database,
    every_kind_of_end,
    log_files,
    of,
    rendered,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


pytestmark = [pytest.mark.contract, pytest.mark.usefixtures("airflow_database", "quick_retries")]

SHOWN = {"to": "+16505557799", "message": "Dear Roderick, your scan was fine"}


def console(capfd: pytest.CaptureFixture[str]) -> str:
    """Return what was printed; Airflow 3.0's own test runs print the key as they mask it, and the locals of frames."""
    shown = capfd.readouterr()
    return "" if airflow.__version__.startswith("3.0.") else shown.out + shown.err


@pytest.fixture
def _people(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"to": NUMBERS["other"], "name": TEXT}))
    monkeypatch.setenv("PEOPLE", json.dumps({**PEOPLE, "file": str(rows)}))


@pytest.mark.usefixtures("_people")
def test_people_stand_in_no_log_error_xcom_or_table(
    connection: Callable[..., None],
    capfd: pytest.CaptureFixture[str],
    provider_log: list[str],
    errors: dict[str, BaseException],
) -> None:
    arguments = {"retries": 1, "retry_delay": timedelta(0), "type": "sms"}
    with FaultServer([by_recipient]) as server:
        connection(server.url, password=KEY, timeout=5)
        run = run_dag(every_kind_of_end, user_defined_macros=MACROS, default_args=arguments)
    places = {
        "output": console(capfd),
        "log": "\n".join(provider_log),
        "log files": log_files(),
        "database": database(),
        "xcom": json.dumps([task.xcom for task in run.tasks]),
        "errors": "\n".join(map(str, errors.values())),
    }
    assert {task.task_id for task in run.tasks if task.state == "success"} == SUCCESSFUL | {"mapped"}
    assert errors.keys() == WHY_OTHERS_FAIL.keys()
    assert [task for task, problem in WHY_OTHERS_FAIL.items() if problem not in str(errors[task])] == []
    assert {task.tries for task in run.tasks if task.task_id == "busy"} == {2}
    assert TEXT in [request.json["message"] for request in server.accepted]
    assert "rejected" in places["log"]
    assert [(place, mark) for place, text in places.items() for mark in MARKS if mark in text] == []


def test_without_redaction_recipient_and_text_are_shown_but_never_the_key(
    connection: Callable[..., None],
    capfd: pytest.CaptureFixture[str],
    provider_log: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PEOPLE", json.dumps(SHOWN))
    with FaultServer() as server:
        connection(server.url, password=KEY)
        run = run_dag(
            lambda: ApptotoSendMessageOperator(
                task_id="send", type="sms", redact=False, to=of("to"), message=of("message")
            ),
            user_defined_macros=MACROS,
        )
    assert run["send"].xcom["target"] == SHOWN["to"]
    assert any(f"sms to {SHOWN['to']}: sent" in line for line in provider_log)
    assert SHOWN["to"] in rendered()
    assert SHOWN["message"] in rendered()
    for place in (console(capfd), str(provider_log), log_files(), database(), str(run["send"].xcom)):
        assert KEY not in place


def test_a_mask_is_never_sent(connection: Callable[..., None], errors: dict[str, BaseException]) -> None:
    number, address = "+16505550199", "mary@clinic.example"
    masked: dict[str, tuple[dict[str, Any], str]] = {
        "number": ({"to": "+1•••0199", "message": "Hi"}, "is not a phone number"),
        "stars": ({"to": "***", "message": "Hi"}, "to: is a mask"),
        "text_of_stars": ({"to": number, "message": "***"}, "message: is a mask"),
        "text": ({"to": number, "message": "•••"}, "message: is a mask"),
        "address": ({"type": "email", "to": "m•••@•••.example", "message": "Hi"}, "is not a valid e-mail address"),
        "subject": ({"type": "email", "to": address, "subject": "***", "message": "Hi"}, "subject: is a mask"),
    }

    def build() -> None:
        for task_id, (fields, _) in masked.items():
            ApptotoSendMessageOperator(task_id=task_id, **{"type": "sms", **fields})

    with FaultServer() as server:
        connection(server.url)
        run = run_dag(build)
    assert {task.state for task in run.tasks} == {"failed"}
    assert errors.keys() == masked.keys()
    assert [task_id for task_id, (_, problem) in masked.items() if problem not in str(errors[task_id])] == []
    assert server.connections == 0
