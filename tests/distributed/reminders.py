"""The DAG: one batch for half of the people, and a mapped task for each of the others."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from pathlib import Path

import pendulum
from airflow.sdk import DAG

from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageBatchOperator, ApptotoSendMessageOperator

people = Path(os.environ["DISTRIBUTED_PEOPLE"])

with DAG(
    dag_id="reminders",
    schedule="@once",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    default_args={"retries": 5, "retry_delay": timedelta(seconds=1), "max_age": None},
):
    ApptotoSendMessageBatchOperator(
        task_id="batch",
        messages_path=str(people / "batch.jsonl"),
        reference_column="reference",
        defaults={"type": "sms", "message": "See you at nine."},
        priority_weight=2,  # it takes longest
    )
    ApptotoSendMessageOperator.partial(task_id="mapped", type="sms", message="See you at nine.").expand_kwargs(
        [json.loads(line) for line in (people / "mapped.jsonl").read_text().splitlines()]
    )
