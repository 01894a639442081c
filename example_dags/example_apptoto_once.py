"""Send one reminder per appointment, across all tasks, DAGs and runs."""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageOperator

with DAG(
    dag_id="example_apptoto_once",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    params={"appointment": 4711, "name": "Mary"},
    tags=["example", "apptoto"],
    doc_md=__doc__,
) as dag:
    # [START howto_operator_apptoto_once]
    ApptotoSendMessageOperator(
        task_id="remind",
        type="sms",
        to="+16505550199",
        message="Hi {{ params.name }}, we see you tomorrow.",
        idempotency_key="reminder-{{ params.appointment }}",  # sent once, even if another DAG uses this key
        reference="appointment-{{ params.appointment }}",  # shown in failures, to find the person
        labels={"clinic": "north", "campaign": "reminder"},  # for grouping in reports
        max_age=timedelta(hours=12),  # an older run sends nothing
    )
    # [END howto_operator_apptoto_once]
