"""The outbox page changes nothing while a real task runs; afterwards a clear does what a person recorded."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
import requests

from tests.support.faults import Exchange, accepting, answering
from tests.support.standalone import DEADLINE

if TYPE_CHECKING:
    from tests.support.standalone import Airflow

pytestmark = pytest.mark.scheduler

DAG_ID = "resolved_on_the_page"
DAG = f"""
import pendulum
from airflow.sdk import DAG
from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageBatchOperator

with DAG(dag_id="{DAG_ID}", schedule="@once", start_date=pendulum.datetime(2026, 1, 1, tz="UTC")):
    ApptotoSendMessageBatchOperator(
        task_id="remind", messages=[{{"to": "+16505550181"}}, {{"to": "+16505550182"}}], concurrency=1, max_age=None,
        defaults={{"type": "sms", "message": "Hi"}},
    )
"""


class Page:
    """The outbox page of a running Airflow, as its script uses it."""

    def __init__(self, airflow: Airflow) -> None:
        self._airflow = airflow
        self._root = f"http://127.0.0.1:{airflow.environment['AIRFLOW__API__PORT']}"

    def call(self, path: str, body: dict[str, Any] | None = None) -> requests.Response:
        token = requests.get(f"{self._root}/auth/token", timeout=DEADLINE).json()["access_token"]
        method = "GET" if body is None else "POST"
        headers = {"Authorization": f"Bearer {token}"}
        url = f"{self._root}/apptoto/{path}"
        return requests.request(method, url, json=body, headers=headers, timeout=DEADLINE)

    def open_cases(self) -> list[dict[str, Any]]:
        [[run_id]] = self._airflow.query("select run_id from dag_run where dag_id = %s", DAG_ID)
        query = requests.models.PreparedRequest()
        query.prepare_url("http://x/api/open", {"dag": DAG_ID, "run": run_id})
        rows: list[dict[str, Any]] = self.call(str(query.path_url).removeprefix("/")).json()["rows"]
        return rows

    def resolve(self, row: dict[str, Any], outcome: str) -> requests.Response:
        body = {"place": row["place"], "keys": [row["key"]], "seen": [row["seen"]], "note": "seen in Apptoto"}
        return self.call(f"api/dags/{DAG_ID}/resolve", {**body, "outcome": outcome})


def test_a_message_is_resolved_only_after_its_task_has_ended(airflow: Airflow) -> None:
    arrived, may_go_on = threading.Event(), threading.Event()

    def play(exchange: Exchange) -> None:
        if exchange.request.json["to"].endswith("1"):
            answering(500, accepted=True)(exchange)
        else:
            arrived.set()
            may_go_on.wait(DEADLINE)
            accepting(exchange)

    def state() -> str:
        found = airflow.query("select state from task_instance where dag_id = %s", DAG_ID)
        return str(found[0][0]) if found else ""

    airflow.server.scripts = [play]
    airflow.add_dag(DAG_ID, DAG)
    page = Page(airflow)
    try:
        airflow.wait_for(arrived.is_set)
        assert state() == "running"
        [row] = page.open_cases()
        refused = page.resolve(row, "not_sent")
        assert refused.status_code == 409
        assert "its state is running" in refused.json()["detail"]
        assert page.open_cases() == [row]
    finally:
        may_go_on.set()
    runs = "select 1 from dag_run where dag_id = %s and state = 'failed'"  # a clear before that gets lost
    airflow.wait_for(lambda: state() == "failed" and bool(airflow.query(runs, DAG_ID)))

    # somebody edits the value in Airflow's own page after this page was loaded
    values = "select value from task_state_store where dag_id = %s and key = %s"
    [[value]] = airflow.query(values, DAG_ID, f"apptoto-message-{row['key']}")
    edit = "update task_state_store set value = %s where dag_id = %s and key = %s"
    airflow.execute(edit, value.replace('"unknown"', '"not_sent"'), DAG_ID, f"apptoto-message-{row['key']}")
    assert page.resolve(row, "sent").status_code == 409
    airflow.execute(edit, value, DAG_ID, f"apptoto-message-{row['key']}")

    [row] = page.open_cases()
    assert page.resolve(row, "sent").status_code == 200
    assert page.open_cases() == []
    airflow.clear(DAG_ID, only_failed=True)
    airflow.wait_for(lambda: state() == "success")
    recipients = sorted(request.json["to"] for request in airflow.server.requests)
    assert recipients == ["+16505550181", "+16505550182"]
