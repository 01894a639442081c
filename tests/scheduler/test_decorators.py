"""The rows that a function yields reach each person once, and are stored nowhere, despite a killed worker."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.support.faults import Exchange, accepting
from tests.support.people import number_of, person_of
from tests.support.standalone import OVER, sender

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.standalone import Airflow

pytestmark = pytest.mark.scheduler

DAG = """
import sqlite3
from contextlib import closing
from datetime import timedelta

import pendulum
from airflow.sdk import DAG, task
from airflow_provider_apptoto.hooks.apptoto import ApptotoHook
from airflow_provider_apptoto.outbox.ledger import LedgerTiming

ApptotoHook.total_timeout = 6.0
ApptotoHook.ledger_timing = LedgerTiming(margin=1.0)

with DAG(dag_id="yields", schedule="@once", start_date=pendulum.datetime(2026, 1, 1, tz="UTC")) as dag:
    @task.apptoto_message_batch(
        apptoto_conn_id="fast",
        defaults={{"type": "sms", "message": "Hi {{{{ row.name }}}}"}},
        id_column="id",
        max_age=None,
        max_messages=None,
        concurrency={concurrency},
        retries=2,
        retry_delay=timedelta(seconds=1),
    )
    def remind(path):
        with closing(sqlite3.connect(path)) as clinic:
            for item, number, name in clinic.execute("select id, number, name from patient order by id"):
                yield {{"id": item, "to": number, "name": name}}

    remind("{path}")
"""
PEOPLE, KILLED_AFTER, CONCURRENCY = 3000, 1000, 8
NAME = "Wilhelmina"
FIRST = 10_000
"""The first person: no other DAG of this Airflow sends to these people, so their numbers stand in no other source."""


class Kills:
    """Kills the worker once, while it sends."""

    def __init__(self, airflow: Airflow) -> None:
        self._airflow = airflow
        self._has_killed = False

    def __call__(self, exchange: Exchange) -> None:
        if len(self._airflow.server.accepted) >= KILLED_AFTER and not self._has_killed:
            self._has_killed = True
            process = sender(exchange)
            exchange.accept()
            process.kill()
            return
        accepting(exchange)


def test_the_rows_of_a_generator_reach_each_person_once_and_are_stored_nowhere(
    airflow: Airflow, tmp_path: Path
) -> None:
    path = tmp_path / "clinic.db"
    with closing(sqlite3.connect(path)) as clinic, clinic:
        clinic.execute("create table patient (id integer, number text, name text)")
        rows = ((person, number_of(FIRST + person), f"{NAME}{person}") for person in range(PEOPLE))
        clinic.executemany("insert into patient values (?, ?, ?)", rows)

    def ended() -> list[tuple[str, int]]:
        found = airflow.query("select state, try_number from task_instance where dag_id = 'yields'")
        return [(state, tries) for state, tries in found if state in OVER]

    airflow.server.scripts = [Kills(airflow)]
    airflow.add_dag("yields", DAG.format(path=path, concurrency=CONCURRENCY))
    airflow.wait_for(lambda: len(ended()) == 1)

    copies = Counter(person_of(request.json["to"]) for request in airflow.server.accepted)
    assert max(copies.values()) == 1
    # messages in flight at the kill are unknown, and a person resolves them; all others arrived
    assert ended() == [("failed", 2)]
    assert PEOPLE - CONCURRENCY < len(copies) <= PEOPLE
    assert {request.json["message"] for request in airflow.server.accepted} <= {
        f"Hi {NAME}{person}" for person in range(PEOPLE)
    }
    stored = {"metadata database": airflow.dump()}
    stored |= {str(file): file.read_bytes() for file in airflow.home.rglob("*") if file.is_file()}
    marks = [NAME.encode(), *(number_of(FIRST + person).encode() for person in (0, 1234, PEOPLE - 1))]
    assert len(stored) > 2
    assert [place for place, data in stored.items() if any(mark in data for mark in marks)] == []
