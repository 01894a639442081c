"""A DAG whose metrics a test reads. As a program, this file runs it, and then emits the same metrics without tags.

``python tests/support/metered_dag.py PORT`` sends those without tags to this port.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import sys
from typing import Any

import pendulum
from airflow.providers.common.compat.sdk import DAG, Stats

from airflow_provider_apptoto import metrics
from airflow_provider_apptoto.client import InProcessRateLimiter, Outcome
from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageOperator

TEXT = "Gwendolyn, your scan was fine"
SENT, REFUSED_ONCE, UNKNOWN, NOT_SENT = (f"+1650555777{digit}" for digit in range(4))
REJECTED = "gwendolyn@patient.example"
OCCASION = "scan-of-gwendolyn"

with DAG(
    dag_id="metered",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    default_args={"message": TEXT, "retries": 0},
) as dag:
    send = ApptotoSendMessageOperator(task_id="send", type="sms", to=SENT, idempotency_key=OCCASION)
    again = ApptotoSendMessageOperator(task_id="again", type="sms", to=SENT, idempotency_key=OCCASION)
    ApptotoSendMessageOperator(task_id="wait", type="call", to=REFUSED_ONCE)
    ApptotoSendMessageOperator(task_id="lose", type="sms", to=UNKNOWN)
    ApptotoSendMessageOperator(task_id="off", type="call", to=NOT_SENT)
    ApptotoSendMessageOperator(task_id="refuse", type="email", subject="News", to=REJECTED)
    send >> again


def keep_api_server() -> None:
    """Let Airflow 3.0 to 3.2 create its API server once instead of once per task, which takes seconds."""
    with contextlib.suppress(ImportError):
        supervisor: Any = importlib.import_module("airflow.sdk.execution_time.supervisor")
        supervisor.in_process_api_server = functools.cache(supervisor.in_process_api_server)


def emit_without_tags(port: str) -> None:
    """Emit metrics of each kind in a child process, which has its own StatsD client."""
    child = os.fork()
    if child:
        assert os.waitpid(child, 0)[1] == 0
        return
    os.environ |= {"AIRFLOW__METRICS__STATSD_INFLUXDB_ENABLED": "False", "AIRFLOW__METRICS__STATSD_PORT": port}
    stats: Any = Stats
    stats.instance = None  # Airflow before 3.2 would keep the parent's client
    metrics.message("sms", Outcome.SENT, "a")
    metrics.request_took(0.5, 200, "a")
    metrics.sent_now("a")
    metrics.unresolved(2, "a")
    metrics.unresolved(None, "a")
    limiter = metrics.MeteredRateLimiter(InProcessRateLimiter(6000), "a")
    limiter.reserve()
    limiter.back_off(0)
    os._exit(0)


if __name__ == "__main__":
    keep_api_server()
    dag.test()
    emit_without_tags(sys.argv[1])
