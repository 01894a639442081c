"""Send each message in its own task: from a list, and from rows of a task."""

from __future__ import annotations

import pendulum
from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageOperator

with DAG(
    dag_id="example_apptoto_mapped",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    tags=["example", "apptoto"],
) as dag:
    # [START howto_operator_apptoto_expand]
    ApptotoSendMessageOperator.partial(
        task_id="text_staff",
        type="sms",
        message=(
            "The lab closes at noon on "
            "{{ (dag_run.logical_date or dag_run.run_after) | ds }}."
        ),
    ).expand(to=["+16505550101", "+16505550102"])
    # [END howto_operator_apptoto_expand]

    # [START howto_operator_apptoto_expand_kwargs]
    @task
    def todays_results() -> list[dict[str, str]]:
        """Return one row per message; real rows come from a database."""
        return [
            {
                "to": "ann@clinic.example",
                "message": "Ann, your results are in.",
                "reference": "appointment-1",
            },
            {
                "to": "bob@clinic.example",
                "message": "Bob, your results are in.",
                "reference": "appointment-2",
            },
        ]

    ApptotoSendMessageOperator.partial(
        task_id="mail_results",
        type="email",
        subject="Your results",
    ).expand_kwargs(todays_results())
    # [END howto_operator_apptoto_expand_kwargs]
