"""Remove old entries from the ledger each month, and keep them in a file."""

from __future__ import annotations

from typing import Any

import pendulum
from airflow.providers.common.compat.sdk import DAG, task

with DAG(
    dag_id="example_apptoto_purge",
    schedule="0 3 1 * *",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    params={"folder": "/var/lib/clinic"},
    tags=["example", "apptoto"],
) as dag:
    # [START howto_purge]
    @task(retries=2)
    def purge(params: Any = None) -> int:
        """Write entries older than [apptoto] keep_days to a new file; remove them."""
        from pathlib import Path

        from airflow_provider_apptoto.hooks.apptoto import ApptotoHook

        now = pendulum.now("UTC").format("YYYY-MM-DD-HHmmss")
        return ApptotoHook().purge(
            export=Path(params["folder"]) / f"apptoto-{now}.jsonl"
        )

    # [END howto_purge]

    purge()
