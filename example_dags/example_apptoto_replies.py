"""Tell the reception when a patient replies anything but yes (Airflow 3.3 or newer)."""

from __future__ import annotations

from typing import Any

import pendulum
from airflow.sdk import DAG, Asset, AssetWatcher, task

from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageBatchOperator
from airflow_provider_apptoto.triggers.apptoto import ApptotoReplyTrigger

# [START howto_trigger_apptoto_reply]
replies = Asset(
    name="patients_replies",
    watchers=[
        AssetWatcher(
            name="patients_replies",
            trigger=ApptotoReplyTrigger(
                replies={
                    "yes": r"^\s*(1|y|yes)\b",
                    "no": r"^\s*(2|n|no)\b",
                    "unclear": ".*",
                },
            ),
        )
    ],
)
# [END howto_trigger_apptoto_reply]

with DAG(
    dag_id="example_apptoto_replies",
    schedule=[replies],
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    tags=["example", "apptoto"],
) as dag:
    # [START howto_trigger_apptoto_reply_use]
    @task
    def whom_to_call(triggering_asset_events: Any = None) -> list[dict[str, Any]]:
        """Return a row for each reply of this run that needs a call."""
        found = {
            reply["reply_id"]: reply
            for events in (triggering_asset_events or {}).values()
            for event in events
            for reply in event.extra["payload"]["replies"]
        }
        in_order = sorted(found.values(), key=lambda reply: reply["at"] or "")
        return [
            {
                "reply_id": reply["reply_id"],
                "appointment": reply["reference"] or f"no. {reply['event_id']}",
                "answer": reply["answer"],
            }
            for reply in in_order
            if reply["answer"] != "yes"
        ]

    tell_reception = ApptotoSendMessageBatchOperator(
        task_id="tell_reception",
        messages=whom_to_call(),
        defaults={
            "type": "email",
            "to": "reception@clinic.example",
            "subject": "Please call a patient",
            "message": (
                "The answer to appointment {{ row.appointment }} is: {{ row.answer }}."
            ),
        },
        id_column="reply_id",
        idempotency_key="reply",  # a reply that comes in two runs is sent once
        reference_column="appointment",
        max_age=None,
    )
    # [END howto_trigger_apptoto_reply_use]

    # [START howto_trigger_apptoto_reply_errors]
    @task(retries=0)
    def fail_if_replies_are_not_read(triggering_asset_events: Any = None) -> None:
        """Fail the run if Apptoto could not be read, so that Airflow tells somebody."""
        for events in (triggering_asset_events or {}).values():
            for event in events:
                if "error" in event.extra["payload"]:
                    raise RuntimeError(event.extra["payload"]["error"])

    fail_if_replies_are_not_read()
    # [END howto_trigger_apptoto_reply_errors]
