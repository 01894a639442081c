"""If the worker of a Python task that sends is killed, under a real scheduler, nobody gets a message twice."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.support.faults import Exchange, accepting
from tests.support.standalone import OVER, sender

if TYPE_CHECKING:
    from tests.support.standalone import Airflow

pytestmark = pytest.mark.scheduler

PEOPLE = 4
DAG = """
import pendulum
from datetime import timedelta
from airflow.sdk import DAG, get_current_context, task
from airflow_provider_apptoto.hooks.apptoto import ApptotoHook
from airflow_provider_apptoto.outbox.ledger import LedgerTiming

# what was killed while it sent is waited for as long as its answer might have taken, and this
ApptotoHook.total_timeout = 6.0
ApptotoHook.ledger_timing = LedgerTiming(margin=1.0)

with DAG(dag_id="{dag_id}", schedule="@once", start_date=pendulum.datetime(2026, 1, 1, tz="UTC")):
    @task(retries=3, retry_delay=timedelta(seconds=1))
    def tell(people):
        outbox = ApptotoHook("{conn_id}").outbox(get_current_context(), on_unknown="assume_sent", max_age=None)
        return [outbox.send(type="sms", to=to, message="See you at nine.").to_xcom()["outcome"] for to in people]

    tell({people})
"""


class KillingOnce:
    """Kills the process that sends to the second person of each DAG, once its message is accepted."""

    def __init__(self) -> None:
        self._killed: set[str] = set()

    def __call__(self, exchange: Exchange) -> None:
        to = exchange.request.json["to"]
        if to.endswith("1") and to not in self._killed:
            self._killed.add(to)
            exchange.accept()
            sender(exchange).kill()
        else:
            accepting(exchange)


def ended(airflow: Airflow, dag_id: str) -> bool:
    [[state]] = airflow.query("select state from dag_run where dag_id = %s", dag_id) or [[None]]
    return state in OVER


def test_a_python_task_whose_worker_is_killed_in_mid_send_texts_nobody_twice(airflow: Airflow) -> None:
    airflow.server.scripts = [KillingOnce()]
    people = {
        conn_id: [f"+1650555{first}{number}" for number in range(PEOPLE)]
        for conn_id, first in {"task_state": 700, "state_database": 800}.items()
    }
    for conn_id, numbers in people.items():
        dag_id = f"python_{conn_id}"
        airflow.add_dag(dag_id, DAG.format(dag_id=dag_id, conn_id=conn_id, people=numbers))
    for conn_id in people:
        airflow.wait_for(partial(ended, airflow, f"python_{conn_id}"))
    copies = Counter(request.json["to"] for request in airflow.server.accepted)
    assert copies == Counter(number for numbers in people.values() for number in numbers)
    for conn_id in people:
        text = "select state, try_number from task_instance where dag_id = %s"
        assert airflow.query(text, f"python_{conn_id}") == [("success", 2)]
