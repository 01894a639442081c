"""Write the text, or the rows of a batch, in a Python function."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pendulum
from airflow.providers.common.compat.sdk import DAG, task

if TYPE_CHECKING:
    from collections.abc import Iterator

with DAG(
    dag_id="example_apptoto_taskflow",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    tags=["example", "apptoto"],
) as dag:
    # [START howto_taskflow_message]
    @task
    def count_results() -> int:
        """Return how many results arrived."""
        return 3

    @task.apptoto_message(type="sms", to="+16505550199")
    def tell(count: Any) -> str:
        """Tell the lab how many results arrived."""
        return (
            "There are no new results today."
            if count == 0
            else f"{count} new results are in."
        )

    # [END howto_taskflow_message]

    # [START howto_taskflow_mapping]
    @task.apptoto_message(type="email")
    def confirm(appointment: int) -> dict[str, Any]:
        """Confirm an appointment by e-mail."""
        return {
            "to": "mary@clinic.example",
            "subject": "Your appointment",
            "message": f"Your appointment {appointment} is confirmed.",
            "reference": f"appointment-{appointment}",
            "idempotency_key": f"confirm-{appointment}",
        }

    # [END howto_taskflow_mapping]

    # [START howto_taskflow_batch]
    @task.apptoto_message_batch(
        defaults={
            "type": "sms",
            "message": "Hi {{ row.first_name }}, the clinic is closed on Monday.",
        },
        id_column="patient",
        on_invalid="send_others",
        max_failed=10,
    )
    def tell_patients() -> Iterator[dict[str, Any]]:
        """Yield a row for each patient who did not opt out."""
        import sqlite3
        from contextlib import closing

        from airflow.providers.common.compat.sdk import BaseHook

        with closing(
            sqlite3.connect(str(BaseHook.get_connection("clinic").host))
        ) as clinic:
            query = "select id, phone, first_name from patient where not opted_out"
            for patient, phone, first_name in clinic.execute(query):
                yield {"patient": patient, "to": phone, "first_name": first_name}

    # [END howto_taskflow_batch]

    tell(count_results()) >> confirm(4711) >> tell_patients()
