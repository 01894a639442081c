"""Waits for answers in a real triggerer share their reads, survive its death, and leave nothing personal behind."""

from __future__ import annotations

import datetime as dt
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.appointments import NAMES, Clinic, row

if TYPE_CHECKING:
    import contextlib

    from tests.support.standalone import Airflow

pytestmark = pytest.mark.scheduler

INTERVAL = 3
ALONE = 12
DAG = """
import pendulum
from airflow.sdk import DAG
from airflow_provider_apptoto.sensors.apptoto import ApptotoAnswerSensor

ROWS = {rows}
WAIT = dict(apptoto_conn_id="fast", replies={{"yes": "^y"}}, since="{since}", poke_interval={interval}, deferrable=True)
with DAG("answers", schedule="@once", start_date=pendulum.datetime(2026, 1, 1, tz="UTC")):
    ApptotoAnswerSensor(task_id="all", appointments=ROWS, **WAIT)
    ApptotoAnswerSensor.partial(task_id="each", **WAIT).expand(appointments=[[row] for row in ROWS[:{alone}]])
"""


def states(airflow: Airflow) -> list[tuple[str, str]]:
    found = airflow.query("select task_id, state from task_instance where dag_id = 'answers'")
    return sorted((task, str(state)) for task, state in found)


def test_waits_share_one_read_a_cycle_and_a_killed_triggerer_loses_no_answer(
    airflow: Airflow, until_the_end: contextlib.ExitStack
) -> None:
    clinic = Clinic.of(40)
    airflow.server.scripts = [clinic]
    since = dt.datetime.now(dt.UTC).isoformat()
    rows = [row(number) for number in clinic.events]
    airflow.add_dag("answers", DAG.format(rows=rows, since=since, interval=INTERVAL, alone=ALONE))
    waiting = [("all", "deferred"), *[("each", "deferred")] * ALONE]
    airflow.wait_for(lambda: states(airflow) == waiting and not airflow.workers())
    time.sleep(2 * INTERVAL)  # the triggerer has taken all of them
    before, began = len(clinic.reads), time.monotonic()
    airflow.wait_for(lambda: len(clinic.reads) >= before + 2 * 5)
    cycles = (time.monotonic() - began) / INTERVAL + 1
    assert len(clinic.reads) - before <= cycles * 2  # one page and an empty one, for all tasks together

    airflow.kill("triggerer")
    for number in range(1, 31):
        clinic.say(number, "Yes, said the patient")
    until_the_end.enter_context(airflow.component("triggerer"))
    airflow.wait_for(lambda: states(airflow) == [("all", "deferred"), *[("each", "success")] * ALONE])
    for number in range(31, 41):
        clinic.person(number)["state"] = "confirmed"
    airflow.wait_for(lambda: all(state == "success" for _, state in states(airflow)))

    dump = airflow.dump().decode(errors="replace")
    assert "visit-40" in dump  # to show that it holds what the tasks returned
    for private in (*NAMES, "said the patient"):
        assert private not in dump
