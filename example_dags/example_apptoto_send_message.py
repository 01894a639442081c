"""Send an SMS, an e-mail, a call, and a text to the participant of an appointment."""

from __future__ import annotations

import pendulum
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageOperator

with DAG(
    dag_id="example_apptoto_send_message",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    params={"name": "Mary"},
    tags=["example", "apptoto"],
) as dag:
    # [START howto_operator_apptoto_sms]
    ApptotoSendMessageOperator(
        task_id="text_mary",
        type="sms",
        to="+16505550199",
        message="Hi {{ params.name }}, your results are in. Please call us.",
        reference="appointment-4711",
    )
    # [END howto_operator_apptoto_sms]

    # [START howto_operator_apptoto_email]
    ApptotoSendMessageOperator(
        task_id="mail_mary",
        type="email",
        to="mary@clinic.example",
        subject=(
            "Your results of {{ (dag_run.logical_date or dag_run.run_after) | ds }}"
        ),
        message="Hi {{ params.name }},\n\nyour results are in. Please call us.\n",
    )
    # [END howto_operator_apptoto_email]

    # [START howto_operator_apptoto_call]
    ApptotoSendMessageOperator(
        task_id="call_mary",
        type="call",
        to="+16505550199",
        message="Hello {{ params.name }}. Your results are in. Please call us.",
    )
    # [END howto_operator_apptoto_call]

    # [START howto_operator_apptoto_participant]
    ApptotoSendMessageOperator(
        task_id="text_participant",
        type="sms",
        participant_id="123456",
        template_id="789",
    )
    # [END howto_operator_apptoto_participant]
