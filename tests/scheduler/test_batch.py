"""An interrupted batch continues in the next try under a real scheduler, and nobody gets a message twice."""

from __future__ import annotations

import json
import threading
from collections import Counter
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
import pendulum
from datetime import timedelta
from airflow.sdk import DAG
from airflow_provider_apptoto.hooks.apptoto import ApptotoHook
from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageBatchOperator
from airflow_provider_apptoto.outbox.ledger import LedgerTiming

ApptotoHook.total_timeout = 6.0
ApptotoHook.ledger_timing = LedgerTiming(margin=1.0)

for dag_id, first in {dags}.items():
    with DAG(dag_id=dag_id, schedule="@once", start_date=pendulum.datetime(2026, 1, 1, tz="UTC")) as dag:
        ApptotoSendMessageBatchOperator(
            task_id="batch", apptoto_conn_id="task_state", messages_path=f"{folder}/{{dag_id}}.jsonl",
            defaults={{"type": "sms", "message": "Hi"}}, concurrency=4, retries=2, retry_delay=timedelta(seconds=1),
            max_age=None,
        )
    globals()[dag_id] = dag
"""
PEOPLE = 24
DAGS = {"killed": 200, "told_to_end": 300}
"""Each DAG, and the first person to whom it sends."""


class Plays:
    """Ends each DAG's task once, after it has reached eight people."""

    def __init__(self, airflow: Airflow) -> None:
        self._airflow = airflow
        self._ended: set[str] = set()
        self._lock = threading.Lock()  # of requests that arrive together, one ends the task

    def __call__(self, exchange: Exchange) -> None:
        dag_id = "killed" if person_of(exchange.request.json["to"]) < DAGS["told_to_end"] else "told_to_end"
        with self._lock:
            ends = dag_id not in self._ended and sum(copies(self._airflow, dag_id).values()) >= 8
            if ends:
                self._ended.add(dag_id)
        if ends:
            process = sender(exchange)
            if dag_id == "killed":
                exchange.accept()
                process.kill()
                return
            process.terminate()
        accepting(exchange)


def copies(airflow: Airflow, dag_id: str) -> Counter[int]:
    """Return how many copies each person of a DAG got."""
    people = (person_of(request.json["to"]) - DAGS[dag_id] for request in airflow.server.accepted)
    return Counter(person for person in people if 0 <= person < PEOPLE)


def test_a_batch_that_is_killed_or_told_to_end_goes_on_and_nobody_gets_it_twice(
    airflow: Airflow, tmp_path: Path
) -> None:
    for dag_id, first in DAGS.items():
        rows = (json.dumps({"to": number_of(first + person)}) for person in range(PEOPLE))
        (tmp_path / f"{dag_id}.jsonl").write_text("\n".join(rows))

    def ended() -> dict[str, tuple[str, int]]:
        text = "select dag_id, state, try_number from task_instance where task_id = 'batch'"
        return {dag_id: (state, tries) for dag_id, state, tries in airflow.query(text) if state in OVER}

    airflow.server.scripts = [Plays(airflow)]
    airflow.add_dag("batches", DAG.format(dags=DAGS, folder=tmp_path))
    airflow.wait_for(lambda: len(ended()) == len(DAGS))
    ends = ended()
    states = "select value from task_state_store where dag_id = %s and key = 'apptoto-batch'"
    counts = {dag_id: json.loads(airflow.query(states, dag_id)[0][0]) for dag_id in DAGS}
    got = {dag_id: copies(airflow, dag_id) for dag_id in DAGS}

    assert max(got["killed"].values()) == max(got["told_to_end"].values()) == 1
    assert ends["told_to_end"] == ("success", 2)
    assert len(got["told_to_end"]) == PEOPLE
    assert counts["told_to_end"]["sent"] + counts["told_to_end"]["deduplicated"] == PEOPLE
    # messages in flight at the kill are unknown, all others arrived
    assert ends["killed"] == ("failed", 2)
    unknown = counts["killed"]["unknown"]
    assert 1 <= unknown <= 4
    assert PEOPLE - unknown < len(got["killed"]) <= PEOPLE
    assert counts["killed"]["sent"] + counts["killed"]["deduplicated"] == PEOPLE - unknown
