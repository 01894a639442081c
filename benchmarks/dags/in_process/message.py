"""A task that measures single messages, with the ledger in its own state."""

from __future__ import annotations

import pendulum
from airflow.providers.common.compat.sdk import DAG, get_current_context, task

with DAG("message", schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC")) as dag:

    @task
    def measure() -> None:
        """Measure."""
        from benchmarks.message import show_task_state

        context = get_current_context()
        conf = context["dag_run"].conf or {}
        show_task_state(conf["url"], context)

    measure()
