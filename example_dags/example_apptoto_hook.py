"""Send from a Python task, and act on the outcome."""

from __future__ import annotations

from typing import Any

import pendulum
from airflow.providers.common.compat.sdk import DAG, task

with DAG(
    dag_id="example_apptoto_hook",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    tags=["example", "apptoto"],
) as dag:
    # [START howto_hook_outbox]
    @task(retries=2)
    def text_or_mail() -> dict[str, Any]:
        """Text Mary, or send her an e-mail if her number is rejected."""
        from airflow.providers.common.compat.sdk import get_current_context

        from airflow_provider_apptoto.client import ApptotoRejectedError
        from airflow_provider_apptoto.hooks.apptoto import ApptotoHook

        outbox = ApptotoHook().outbox(get_current_context())
        text, reference, labels = (
            "Your results are in.",
            "appointment-4711",
            {"clinic": "north"},
        )
        try:
            delivery = outbox.send(
                type="sms",
                to="+16505550199",
                message=text,
                reference=reference,
                labels=labels,
            )
        except ApptotoRejectedError:
            delivery = outbox.send(
                type="email",
                to="mary@clinic.example",
                subject="Results",
                message=text,
                reference=reference,
                labels=labels,
            )
        return delivery.to_xcom()

    # [END howto_hook_outbox]

    # [START howto_hook_outbox_items]
    @task(retries=2)
    def text_appointments() -> None:
        """Send one person two texts, one per appointment."""
        from airflow.providers.common.compat.sdk import (
            AirflowSkipException,
            get_current_context,
        )

        from airflow_provider_apptoto.hooks.apptoto import ApptotoHook

        outbox = ApptotoHook().outbox(get_current_context())
        for appointment, time in {"4711": "9:00", "4712": "14:30"}.items():
            delivery = outbox.send(
                type="sms",
                to="+16505550101",
                message=f"Your appointment is at {time}.",
                item=appointment,  # distinguishes the two messages to one person
                reference=f"appointment-{appointment}",
            )
            if delivery.outcome.is_withheld:  # the run is older than max_age
                raise AirflowSkipException(delivery.reason)

    # [END howto_hook_outbox_items]

    text_or_mail() >> text_appointments()
