"""Batches interrupted under a real scheduler, executor and API server: they go on, and nobody gets it twice."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.chaos.people import number_of, person_of
from tests.faults import Exchange, FaultServer, accepting
from tests.test_scheduler import standalone, wait_for
from tests.test_scheduler_kills import OVER, query, sender

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.scheduler

DAG = """
import pendulum
from datetime import timedelta
from airflow.sdk import DAG
from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageBatchOperator

for dag_id, first in {dags}.items():
    with DAG(dag_id=dag_id, schedule="@once", start_date=pendulum.datetime(2026, 1, 1, tz="UTC")) as dag:
        ApptotoSendMessageBatchOperator(
            task_id="batch", messages_path=f"{folder}/{{dag_id}}.jsonl", defaults={{"type": "sms", "message": "Hi"}},
            concurrency=4, retries=2, retry_delay=timedelta(seconds=1), max_age=None,
        )
    globals()[dag_id] = dag
"""
PEOPLE = 24
DAGS = {"killed": 0, "told_to_end": 100}
"""Each DAG, and the first person to whom it sends."""


class Server(FaultServer):
    """Ends each DAG's task, once, when it has reached eight people."""

    def __init__(self) -> None:
        super().__init__([self.play])
        self._ended: set[str] = set()

    def play(self, exchange: Exchange) -> None:
        dag_id = "killed" if person_of(exchange.request.json["to"]) < DAGS["told_to_end"] else "told_to_end"
        accepted = sum(self.copies(dag_id).values())
        if accepted == 8 and dag_id not in self._ended:
            self._ended.add(dag_id)
            process = sender(exchange)
            if dag_id == "killed":
                exchange.accept()
                process.kill()
                return
            process.terminate()
        accepting(exchange)

    def copies(self, dag_id: str) -> Counter[int]:
        """Return how many copies each person of a DAG got."""
        people = (person_of(request.json["to"]) - DAGS[dag_id] for request in self.accepted)
        return Counter(person for person in people if 0 <= person < PEOPLE)


def test_a_batch_that_is_killed_or_told_to_end_goes_on_and_nobody_gets_it_twice(tmp_path: Path) -> None:
    (tmp_path / "dags").mkdir()
    for dag_id, first in DAGS.items():
        rows = (json.dumps({"to": number_of(first + person)}) for person in range(PEOPLE))
        (tmp_path / f"{dag_id}.jsonl").write_text("\n".join(rows))
    database = tmp_path / "airflow.db"

    def ended() -> dict[str, tuple[str, int]]:
        text = "select dag_id, state, try_number from task_instance where task_id = 'batch'"
        return {dag_id: (state, tries) for dag_id, state, tries in query(database, text) if state in OVER}

    with Server() as server:
        fields = {
            "conn_type": "apptoto",
            "login": "clinic@clinic.example",
            "password": "key",
            "host": server.url,
            "extra": {"requests_per_minute": 600, "timeout": 1},
        }
        with standalone(tmp_path, AIRFLOW_CONN_APPTOTO_DEFAULT=json.dumps(fields)):
            (tmp_path / "dags" / "clinic.py").write_text(DAG.format(dags=DAGS, folder=tmp_path))
            wait_for(lambda: len(ended()) == len(DAGS), tmp_path)
            ends = ended()
            states = "select value from task_state_store where dag_id = ? and key = 'apptoto-batch'"
            counts = {dag_id: json.loads(query(database, states, dag_id)[0][0]) for dag_id in DAGS}
        copies = {dag_id: server.copies(dag_id) for dag_id in DAGS}

    assert max(copies["killed"].values()) == max(copies["told_to_end"].values()) == 1
    assert ends["told_to_end"] == ("success", 2)
    assert len(copies["told_to_end"]) == PEOPLE
    assert counts["told_to_end"]["sent"] + counts["told_to_end"]["deduplicated"] == PEOPLE
    # of what was under way when it was killed nobody can tell, all others have it
    assert ends["killed"] == ("failed", 2)
    unknown = counts["killed"]["unknown"]
    assert 1 <= unknown <= 4
    assert PEOPLE - unknown < len(copies["killed"]) <= PEOPLE
    assert counts["killed"]["sent"] + counts["killed"]["deduplicated"] == PEOPLE - unknown
