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
        # sent once, even if another DAG uses this key
        idempotency_key="reminder-{{ params.appointment }}",
        # shown in failures, to find the person
        reference="appointment-{{ params.appointment }}",
        # for grouping in reports
        labels={"clinic": "north", "campaign": "reminder"},
        max_age=timedelta(hours=12),  # an older run sends nothing
    )
    # [END howto_operator_apptoto_once]
