"""From the log of a failed task to a message that is resolved, with either store, as somebody on call does it."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

pytest.importorskip("airflow.models.task_state_store", reason="task state needs Airflow 3.3 or newer")

from airflow.models.dag import DagModel
from airflow.models.dagbundle import DagBundleModel
from airflow.utils.session import create_session

from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageOperator
from airflow_provider_apptoto.plugins.apptoto import PREFIX
from tests.support.dag_runs import run_dag
from tests.support.faults import FaultServer, accepting, answering
from tests.support.state_databases import forget_databases

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fastapi.testclient import TestClient


@pytest.mark.usefixtures("quick_retries")
@pytest.mark.parametrize("store", ["task state", "state database"])
@pytest.mark.parametrize(("outcome", "copies"), [("sent", 1), ("not_sent", 2)])
def test_the_log_has_the_link_and_the_page_the_message_and_a_clear_does_the_rest(  # noqa: PLR0917
    client: Callable[[str], TestClient],
    connection: Callable[..., None],
    errors: dict[str, BaseException],
    provider_log: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    store: str,
    outcome: str,
    copies: int,
) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example/base/")
    monkeypatch.setenv("AIRFLOW_CONN_STATE", f'{{"conn_type": "sqlite", "host": "{tmp_path}/state.db"}}')
    forget_databases()
    dag_id = f"rehearsal_{store.replace(' ', '_')}_{outcome}"
    at = datetime(2026, 11, 29, 8, tzinfo=UTC)

    def run(server: FaultServer) -> Any:
        connection(server.url, **({"state_conn_id": "state"} if store == "state database" else {}))

        def build() -> None:
            ApptotoSendMessageOperator(
                task_id="remind", type="sms", to="+16505550199", message="Hi", reference="4711", max_age=None
            )

        return run_dag(build, dag_id=dag_id, at=at)

    with FaultServer() as server:
        server.scripts = [answering(500, {"error": "down"}, accepted=True), accepting]
        assert run(server).state == "failed"
        text = str(errors["remind"])
        [url] = re.findall(r"https://\S+", text)
        assert f"Messages of this task: {url}" in provider_log
        monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
        with create_session() as session:
            session.merge(DagBundleModel(name="dags-folder"))
            session.flush()
            session.merge(DagModel(dag_id=dag_id, bundle_name="dags-folder", is_stale=False, fileloc="/dags/a.py"))

        # 1. open the link
        op, link = client("op"), urlsplit(url)
        assert link.path == f"/base{PREFIX}/go"
        answer = op.get(f"go?{link.query}", follow_redirects=False)
        query = urlsplit(answer.headers["location"]).query
        [row] = op.get(f"api/open?{query}").json()["rows"]
        assert row["reference"] == "4711"
        # 2. resolve the message
        where = {"place": row["place"], "seen": [row["seen"]]} if row["place"] else {"source": row["source"]}
        body = {**where, "keys": [row["key"]], "note": "looked it up", "outcome": outcome}
        answer = op.post(f"api/dags/{row['dag_id']}/resolve", json=body)
        assert answer.json()["rows"][0]["state"] == outcome
        if store == "task state":
            return  # a second run of the same date loses it, unlike a clear: tests/scheduler/test_page.py
        # 3. clear the task
        monkeypatch.delenv("_AIRFLOW_PROCESS_CONTEXT")
        assert run(server).state == "success"
        assert len(server.accepted) == copies
