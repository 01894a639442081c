"""Text one person."""

from __future__ import annotations

import pendulum
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageOperator

with DAG(
    dag_id="first_message",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    params={"name": "Mary"},
) as dag:
    ApptotoSendMessageOperator(
        task_id="text_mary",
        type="sms",
        to="+16505550199",
        message="Hi {{ params.name }}, your results are in. Please call us.",
    )
