"""Send with a mapped task of Airflow's HTTP provider for each message."""

from __future__ import annotations

import json

from airflow.providers.http.operators.http import HttpOperator

from benchmarks.dags.common import TEXT, TIMEOUT, dags

for people in dags("http_operator"):
    HttpOperator.partial(
        task_id="send",
        http_conn_id="http_server",
        endpoint="v1/send_message",
        method="POST",
        pool="few",
        headers={"Content-Type": "application/json"},
        extra_options={"timeout": TIMEOUT},
        response_check=lambda response: response.json()["success"] is True,
    ).expand(data=[json.dumps({"type": "sms", "to": to, "message": TEXT}) for to in people])
