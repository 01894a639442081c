"""Text everybody at an event, with braces of Airflow and braces of Apptoto."""

from __future__ import annotations

import pendulum
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageOperator

with DAG(
    dag_id="example_apptoto_two_languages",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    params={"appointment": 4711, "doctor": "Dr Lee"},
    tags=["example", "apptoto"],
) as dag:
    # [START howto_operator_apptoto_two_languages]
    ApptotoSendMessageOperator(
        task_id="remind_everybody",
        type="sms",
        event_id="{{ params.appointment }}",
        message=(
            # name and event are Apptoto's, params is Airflow's
            "Hi {{ name }}, {{ params.doctor }} sees you "
            "{{ event.start_time | date_and_time_phrase }}"
            # other Apptoto blocks need raw
            "{% raw %}{% if event.location %} at {{ event.location }}{% endif %}"
            "{% endraw %}."
        ),
    )
    # [END howto_operator_apptoto_two_languages]
