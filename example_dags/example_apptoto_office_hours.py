"""Text a person only in office hours, by their own clock."""

from __future__ import annotations

import pendulum
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageOperator

with DAG(
    dag_id="example_apptoto_office_hours",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    params={"phone": "+16505550199", "timezone": "America/Chicago"},
    tags=["example", "apptoto"],
) as dag:
    # [START howto_send_window]
    ApptotoSendMessageOperator(
        task_id="confirm",
        type="sms",
        to="{{ params.phone }}",
        message="Your appointment is confirmed.",
        send_window="Mon-Sat 09:00-18:00, Sun 12:00-18:00",
        when_closed="hold",
        recipient_timezone="{{ params.timezone }}",
    )
    # [END howto_send_window]
