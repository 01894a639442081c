"""Send with a mapped task of this provider for each message."""

from __future__ import annotations

from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageOperator
from benchmarks.dags.common import TEXT, dags

for people in dags("mapped"):
    ApptotoSendMessageOperator.partial(task_id="send", type="sms", message=TEXT, max_age=None).expand(to=people)
