"""Under a real scheduler, each kind of callback tells a person once."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.support.faults import accepting
from tests.support.standalone import OVER

if TYPE_CHECKING:
    from tests.support.standalone import Airflow

pytestmark = pytest.mark.scheduler

DAG_ID = "notified"
DAG = """
import pendulum
from datetime import timedelta
from airflow.sdk import DAG, task
from airflow.sdk.definitions.deadline import AsyncCallback, DeadlineAlert, DeadlineReference
from airflow_provider_apptoto.notifications.apptoto import ApptotoNotifier
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk.exceptions import AirflowSkipException

def tell(digits):
    fields = {{"type": "sms", "to": "+16505559" + digits, "apptoto_conn_id": "{conn_id}", "storm_limit": "off"}}
    return fields

DEADLINE = DeadlineAlert(
    reference=DeadlineReference.FIXED_DATETIME(pendulum.datetime(2026, 1, 1, tz="UTC")),
    interval=timedelta(seconds=1),
    callback=AsyncCallback(ApptotoNotifier, kwargs=tell("006")),
)

with DAG(
    dag_id="{dag_id}",
    schedule="@once",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    on_failure_callback=ApptotoNotifier(**tell("005")),
    deadline=DEADLINE,
):
    @task(
        retries=1,
        retry_delay=timedelta(seconds=1),
        on_retry_callback=ApptotoNotifier(**tell("001")),
        on_failure_callback=ApptotoNotifier(**tell("002")),
    )
    def fail():
        raise ValueError("no rows")

    @task(on_success_callback=ApptotoNotifier(**tell("003")))
    def succeed():
        pass

    @task(on_skipped_callback=ApptotoNotifier(**tell("004")))
    def skip():
        raise AirflowSkipException("nothing to do")

    fail(), succeed(), skip()
    ApprovalOperator(
        task_id="ask",
        subject="Send 3,000 reminders?",
        notifiers=[ApptotoNotifier(**tell("007"))],
        response_timeout=timedelta(seconds=1),
        defaults=["Approve"],
    )
"""
STORM = """
import pendulum
from airflow.sdk import DAG, task
from airflow_provider_apptoto.notifications.apptoto import ApptotoNotifier

notifier = ApptotoNotifier(type="sms", to="+16505559010", apptoto_conn_id="state_database", storm_limit="5/hour")

with DAG(dag_id="storm", schedule="@once", start_date=pendulum.datetime(2026, 1, 1, tz="UTC")):
    @task(on_failure_callback=notifier)
    def fail(number):
        raise ValueError(number)

    fail.expand(number=list(range({failures})))
"""
FAILURES = 20
BEGINNINGS = {
    "+16505559001": "Failed, will be retried: notified.fail, run ",
    "+16505559002": "Failed: notified.fail, run ",
    "+16505559003": "Succeeded: notified.succeed, run ",
    "+16505559004": "Skipped: notified.skip, run ",
    "+16505559005": "DAG failed: notified, run ",
    "+16505559006": "Deadline missed: notified, run ",
    "+16505559007": "Waiting for an answer: notified.ask, run ",
}


def test_each_callback_tells_a_person_once_what_happened(airflow: Airflow) -> None:
    airflow.server.scripts = [accepting]
    airflow.add_dag(DAG_ID, DAG.format(dag_id=DAG_ID, conn_id="state_database"))

    def are_told() -> bool:
        rows = airflow.query("select state from dag_run where dag_id = %s", DAG_ID)
        told = {request.json["to"] for request in airflow.server.accepted}
        return [state for [state] in rows if state in OVER] != [] and told >= BEGINNINGS.keys()

    airflow.wait_for(are_told)
    texts = sorted((request.json["to"], request.json["message"]) for request in airflow.server.accepted)
    assert [to for to, _ in texts] == sorted(BEGINNINGS)
    for to, text in texts:
        assert text.startswith(BEGINNINGS[to])
    assert "ValueError: no rows" in dict(texts)["+16505559002"]
    assert "Send 3,000 reminders?" in dict(texts)["+16505559007"]

    airflow.clear(DAG_ID, only_failed=True)  # in the morning, somebody tries again, and it fails again
    airflow.wait_for(lambda: copies(airflow)["+16505559002"] == 2 and copies(airflow)["+16505559005"] == 2)
    assert copies(airflow).keys() == BEGINNINGS.keys()
    again = {"+16505559001", "+16505559002", "+16505559005"}
    assert {to for to, count in copies(airflow).items() if count > 1} <= again


def test_many_failures_in_many_processes_send_as_many_texts_as_the_limit_allows(airflow: Airflow) -> None:
    airflow.server.scripts = [accepting]
    airflow.add_dag("storm", STORM.format(failures=FAILURES))

    def have_failed() -> bool:
        states = airflow.query("select state from task_instance where dag_id = 'storm' and map_index >= 0")
        return [state for [state] in states] == ["failed"] * FAILURES and not airflow.workers()

    airflow.wait_for(have_failed)
    assert copies(airflow) == {"+16505559010": 5}


def copies(airflow: Airflow) -> Counter[str]:
    """Return how many texts each person got."""
    return Counter(request.json["to"] for request in airflow.server.accepted)
