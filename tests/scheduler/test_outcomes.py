"""Each outcome of a send ends its task as documented under a real scheduler, and nothing shows personal data."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.faults import Exchange, accepting, answering
from tests.support.standalone import KEY

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.standalone import Airflow

pytestmark = pytest.mark.scheduler

DAG = """
import json
import pendulum
from datetime import timedelta
from pathlib import Path
from airflow.sdk import DAG
from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageOperator

def read(name):
    return json.loads(Path("{path}").read_text())[name]

with DAG(dag_id="clinic", schedule="@once", start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
         user_defined_macros={{"person": lambda number: read("person") + number, "text": lambda: read("text")}},
         default_args={{"type": "sms", "max_age": None, "retries": 3, "retry_delay": timedelta(seconds=1)}}):
    text = "{{{{ text() }}}}"
    ApptotoSendMessageOperator(task_id="sent", to="{{{{ person('01') }}}}", message=text)
    ApptotoSendMessageOperator(task_id="later", to="{{{{ person('02') }}}}", message=text)
    ApptotoSendMessageOperator(task_id="unknown", to="{{{{ person('03') }}}}", message=text)
    ApptotoSendMessageOperator(task_id="failing", retries=0, to="{{{{ person('05') }}}}",
                               message=text + "{{{{ {{}}[person('05')].x }}}}")
    ApptotoSendMessageOperator.partial(task_id="mapped_later", message=text).expand(to=["{{{{ person('04') }}}}"])
"""
PERSON = "+165055577"
TEXT = "Wilhelmina, your biopsy was benign"


def by_recipient(exchange: Exchange) -> None:
    """Accept one message, ask to retry two after an hour, and fail on one."""
    to = exchange.request.json["to"]
    if to == f"{PERSON}01":
        accepting(exchange)
    elif to == f"{PERSON}03":
        answering(500, {"error": f"{to} {TEXT} {KEY}"}, accepted=True)(exchange)
    else:
        answering(503, Retry_After="3600")(exchange)


def tasks(airflow: Airflow) -> dict[str, Any]:
    """Return state, tries and the delay of the next try of every task."""
    text = "select task_id, state, try_number, retry_delay_override from task_instance where dag_id = 'clinic'"
    return {row[0]: row[1:] for row in airflow.query(text)}


def settled(airflow: Airflow) -> bool:
    """Whether every task has ended or waits for a retry."""
    states = [task[0] for task in tasks(airflow).values()]
    return len(states) == 5 and set(states) <= {"success", "failed", "up_for_retry"}


def holding(airflow: Airflow, mark: str) -> list[str]:
    """Return the logs and tables of an Airflow that contain a text."""
    files = (path for path in airflow.home.rglob("*") if path.is_file())
    found = [str(path.relative_to(airflow.home)) for path in files if mark.encode() in path.read_bytes()]
    return [*found, *(["the metadata database"] if mark.encode() in airflow.dump() else [])]


def test_a_scheduler_gives_each_outcome_its_due_and_shows_nobody(airflow: Airflow, tmp_path: Path) -> None:
    people = tmp_path / "people.json"  # outside of what is searched below
    people.write_text(json.dumps({"person": PERSON, "text": TEXT}))
    airflow.server.scripts = [by_recipient]
    airflow.add_dag("clinic", DAG.format(path=people))
    airflow.wait_for(lambda: settled(airflow))
    assert tasks(airflow) == {
        "sent": ("success", 1, None),
        "unknown": ("failed", 1, None),
        "failing": ("failed", 1, None),
        "later": ("up_for_retry", 1, 3600),
        "mapped_later": ("up_for_retry", 1, 3600),
    }
    recipients = sorted(request.json["to"] for request in airflow.server.requests)
    assert recipients == [f"{PERSON}0{number}" for number in range(1, 5)]
    assert "the metadata database" in holding(airflow, "mapped_later")
    assert holding(airflow, "sms to +1•••7701: sent, HTTP 200")
    assert [holding(airflow, mark) for mark in (PERSON[2:], "Wilhelmina", "biopsy", KEY)] == [[]] * 4
