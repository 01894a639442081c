"""Texts everybody who takes part in an event: some of the braces are Airflow's, the others Apptoto's."""

from __future__ import annotations

import pendulum
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageOperator

with DAG(
    dag_id="example_apptoto_two_languages",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    params={"event_id": 4711, "clinic": "Oak Street Clinic", "bring": ["your insurance card", "your referral"]},
    tags=["example", "apptoto"],
) as dag:
    # [START howto_operator_apptoto_two_languages]
    ApptotoSendMessageOperator(
        task_id="remind_everybody",
        type="sms",
        event_id="{{ params.event_id }}",
        message=(
            # Airflow's: params; Apptoto's: name, event
            "Hi {{ name }}, {{ params.clinic }} expects you {{ event.start_time | date_and_time_phrase }}."
            # Airflow's: a loop
            "{% for thing in params.bring %} Please bring {{ thing }}.{% endfor %}"
            # Apptoto's: all that stands in raw
            "{% raw %}{% if event.location %} We are at {{ event.location }}.{% endif %}{% endraw %}"
        ),
    )
    # [END howto_operator_apptoto_two_languages]
