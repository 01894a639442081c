"""Two Airflows with one state database that run the same task at the same time share its messages."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.support import postgres
from tests.support.faults import Exchange, accepting
from tests.support.standalone import OVER, Airflow, standalone

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.scheduler

DAG_ID = "shared"
ROWS = 60
DAG = """
import pendulum
from airflow.sdk import DAG
from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageBatchOperator

with DAG(dag_id="{dag_id}", schedule="@once", start_date=pendulum.datetime(2026, 1, 1, tz="UTC")):
    ApptotoSendMessageBatchOperator(
        task_id="send", apptoto_conn_id="shared", max_age=None, retries=0,
        messages=[{{"to": to}} for to in {people}], defaults={{"type": "sms", "message": "See you at nine."}},
    )
"""


def task_states(airflow: Airflow) -> list[str | None]:
    return [state for (state,) in airflow.query("select state from task_instance where dag_id = %s", DAG_ID)]


def is_over(airflow: Airflow) -> bool:
    return any(state in OVER for state in task_states(airflow))


def test_two_schedulers_on_one_state_database_send_each_message_once_and_both_finish(
    airflow: Airflow, tmp_path: Path, postgres_port: int
) -> None:
    people = [f"+16505553{number:03}" for number in range(ROWS)]
    database = {**airflow.database, "dbname": postgres.new_database(postgres_port)}
    location = f"{postgres.USER}@127.0.0.1:{postgres_port}/{database['dbname']}"
    own = {name: value for name, value in airflow.environment.items() if name.startswith("AIRFLOW_CONN_")} | {
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://{location}",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": f"postgresql+asyncpg://{location}",
    }
    with standalone(tmp_path, **own) as environment:
        other = Airflow(home=tmp_path, environment=environment, database=database, server=airflow.server)
        both = (airflow, other)

        def answering_once_both_run(exchange: Exchange) -> None:
            for each in both:
                each.wait_for(lambda each=each: any(state in {"running", *OVER} for state in task_states(each)))  # type: ignore[misc]
            accepting(exchange)

        airflow.server.scripts = [answering_once_both_run]
        for each in both:
            each.add_dag(DAG_ID, DAG.format(dag_id=DAG_ID, people=people))
        for each in both:
            each.wait_for(partial(is_over, each))
        assert [task_states(each) for each in both] == [["success"], ["success"]]
    assert Counter(request.json["to"] for request in airflow.server.requests) == Counter(people)
