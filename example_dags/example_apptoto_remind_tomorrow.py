"""Reminds everybody who has an appointment tomorrow, and tells a colleague what became of it."""

from __future__ import annotations

from typing import Any

import pendulum
from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageBatchOperator, ApptotoSendMessageOperator

with DAG(
    dag_id="example_apptoto_remind_tomorrow",
    schedule="0 16 * * *",
    start_date=pendulum.datetime(2026, 1, 1, tz="America/New_York"),
    catchup=False,
    params={"folder": "/var/lib/clinic"},
    tags=["example", "apptoto"],
) as dag:
    # [START howto_batch_rows]
    @task
    def tomorrows_appointments(data_interval_end: Any = None, params: Any = None) -> str:
        """Write a file: what a task returns would show in Airflow, and these are people."""
        import csv
        import sqlite3
        from contextlib import closing
        from pathlib import Path

        from airflow.providers.common.compat.sdk import BaseHook

        query = """
            select appointment.id as appointment, patient.phone as "to", patient.first_name,
                   appointment.doctor, strftime('%H:%M', appointment.starts_at) as starts_at
              from appointment join patient on patient.id = appointment.patient_id
             where date(appointment.starts_at) = ? and not patient.opted_out
             order by appointment.starts_at
        """
        tomorrow = data_interval_end.in_timezone("America/New_York").add(days=1).to_date_string()
        path = Path(params["folder"]) / f"reminders-{tomorrow}.csv"
        database = BaseHook.get_connection("clinic").host
        with closing(sqlite3.connect(str(database))) as clinic, path.open("w", newline="", encoding="utf-8") as file:
            found = clinic.execute(query, (tomorrow,))
            rows = csv.writer(file)
            rows.writerow(column[0] for column in found.description)
            rows.writerows(found)
        return str(path)

    # [END howto_batch_rows]

    # [START howto_operator_apptoto_batch]
    remind = ApptotoSendMessageBatchOperator(
        task_id="remind",
        messages_path=tomorrows_appointments(),
        defaults={
            "type": "sms",
            "message": "Hi {{ row.first_name }}, Dr {{ row.doctor }} sees you tomorrow at {{ row.starts_at }}.",
        },
        key_field="appointment",
        reference_field="appointment",
        on_invalid="skip",
        max_rejected=0.05,
    )
    # [END howto_operator_apptoto_batch]

    # [START howto_batch_report]
    tell_reception = ApptotoSendMessageOperator(
        task_id="tell_reception",
        trigger_rule="all_done",
        type="email",
        to="reception@clinic.example",
        subject="Reminders of {{ ds }}",
        message=(
            "{% set report = ti.xcom_pull(task_ids='remind', key='report') %}"
            "{{ report.sent + report.deduplicated }} of {{ report.total }} were reminded."
            "{% for failure in report.failures %}\n"
            "Please call about appointment {{ failure.reference }}: {{ failure.outcome }}, {{ failure.reason }}"
            "{% endfor %}"
        ),
    )
    # [END howto_batch_report]

    remind >> tell_reception
