"""Send with the batch operator of this provider."""

from __future__ import annotations

from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageBatchOperator
from benchmarks.dags.common import TEXT, dags

for people in dags("batch"):
    ApptotoSendMessageBatchOperator(
        task_id="send", messages=[{"to": to} for to in people], defaults={"type": "sms", "message": TEXT}, max_age=None
    )
