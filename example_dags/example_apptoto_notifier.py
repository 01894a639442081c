"""Text the person on call when a DAG fails."""

from __future__ import annotations

import pendulum
from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_apptoto.notifications.apptoto import ApptotoNotifier
from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageOperator

# [START howto_notifier_apptoto]
on_call = ApptotoNotifier(type="sms", to="+16505550199")

with DAG(
    dag_id="example_apptoto_notifier",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    on_failure_callback=on_call,  # one text per failed run
    tags=["example", "apptoto"],
    doc_md=__doc__,
) as dag:

    @task(
        on_success_callback=ApptotoNotifier(
            type="sms", to="+16505550198", message="{{ ti.task_id }} is done"
        )
    )
    def load() -> None:
        """Do the work."""

    # [END howto_notifier_apptoto]

    # [START howto_notifier_apptoto_one_failed]
    # this needs no callback: the scheduler starts the task even if a worker was killed
    load() >> ApptotoSendMessageOperator(
        task_id="tell",
        type="sms",
        to="+16505550199",
        message="{{ dag.dag_id }} failed, run {{ run_id }}",
        trigger_rule="one_failed",
    )
    # [END howto_notifier_apptoto_one_failed]
