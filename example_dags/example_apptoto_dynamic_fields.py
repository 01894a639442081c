"""Text the participant of an appointment: the example in Apptoto's documentation."""

from __future__ import annotations

import pendulum
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageOperator

with DAG(
    dag_id="example_apptoto_dynamic_fields",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    tags=["example", "apptoto"],
) as dag:
    # [START howto_operator_apptoto_dynamic_fields]
    ApptotoSendMessageOperator(
        task_id="remind_participant",
        participant_id="123456",
        type="sms",
        message=(
            "Hi there {{ name }}!  You're upcoming appointment is at "
            "{{ event.start_time | date_and_time_phrase }}."
        ),
    )
    # [END howto_operator_apptoto_dynamic_fields]
