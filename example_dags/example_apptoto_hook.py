"""Sends from within a Python task, and acts upon the answer."""

from __future__ import annotations

import pendulum
from airflow.providers.common.compat.sdk import DAG, task

with DAG(
    dag_id="example_apptoto_hook",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    tags=["example", "apptoto"],
) as dag:
    # [START howto_hook_apptoto]
    @task(retries=0)  # a retry might send twice what may have been sent: ApptotoUnknownOutcomeError
    def text_or_mail() -> str:
        """Text Mary, or send her an e-mail where Apptoto refuses her number."""
        from airflow_provider_apptoto.client import ApptotoRejectedError
        from airflow_provider_apptoto.hooks.apptoto import ApptotoHook

        hook = ApptotoHook()
        text = "Your results are in."
        try:
            result = hook.send_message(type="sms", to="+16505550199", message=text)
        except ApptotoRejectedError:
            result = hook.send_message(type="email", to="mary@clinic.example", subject="Results", message=text)
        return result.outcome

    text_or_mail()
    # [END howto_hook_apptoto]
