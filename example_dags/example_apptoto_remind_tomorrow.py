"""Remind patients of tomorrow's appointments, and tell the reception whom to call."""

from __future__ import annotations

from typing import Any

import pendulum
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, task

from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageBatchOperator

with DAG(
    dag_id="example_apptoto_remind_tomorrow",
    schedule="0 16 * * *",
    start_date=pendulum.datetime(2026, 1, 1, tz="America/New_York"),
    catchup=False,
    params={"folder": "/var/lib/clinic"},
    tags=["example", "apptoto"],
) as dag:
    # [START howto_batch_rows]
    def day_after(data_interval_end: Any, dag_run: Any) -> Any:
        """Return the day after the run, which may have no data interval."""
        run_at = pendulum.instance(data_interval_end or dag_run.run_after)
        return run_at.in_timezone("America/New_York").add(days=1)

    @task
    def tomorrows_appointments(
        data_interval_end: Any = None, dag_run: Any = None, params: Any = None
    ) -> str:
        """Write the rows to a file: Airflow shows what a task returns."""
        import csv
        import sqlite3
        from contextlib import closing
        from pathlib import Path

        from airflow.providers.common.compat.sdk import BaseHook

        query = """
            select appointment.id as appointment, patient.phone as "to",
                   patient.first_name, appointment.doctor, :day as day,
                   strftime('%H:%M', appointment.starts_at) as starts_at,
                   'north' as clinic
              from appointment join patient on patient.id = appointment.patient_id
             where date(appointment.starts_at) = :date and not patient.opted_out
             order by appointment.starts_at
        """
        tomorrow = day_after(data_interval_end, dag_run)
        path = Path(params["folder"]) / f"reminders-{tomorrow.to_date_string()}.csv"
        database = BaseHook.get_connection("clinic").host
        with (
            closing(sqlite3.connect(str(database))) as clinic,
            path.open("w", newline="", encoding="utf-8") as file,
        ):
            values = {
                "date": tomorrow.to_date_string(),
                "day": tomorrow.format("dddd, MMMM D"),
            }
            found = clinic.execute(query, values)
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
            "message": (
                "Hi {{ row.first_name }}, Dr {{ row.doctor }} sees you "
                "on {{ row.day }} at {{ row.starts_at }}."
            ),
        },
        id_column="appointment",
        reference_column="appointment",
        label_columns=["clinic"],
        on_invalid="send_others",
        max_failed=10,
    )
    # [END howto_operator_apptoto_batch]

    # [START howto_batch_report]
    @task(trigger_rule="all_done")
    def mail_to_reception(
        data_interval_end: Any = None, dag_run: Any = None, ti: Any = None
    ) -> list[dict[str, str]]:
        """Return an e-mail about whom to call. Its key changes with its text."""
        import hashlib

        why = {
            "unknown": "we do not know whether the text arrived",
            "rejected": "the text was refused; please check the phone number",
            "not_sent": "the text was not sent",
            "invalid": "the phone number or another detail is missing or wrong",
        }
        day = day_after(data_interval_end, dag_run).format("dddd, MMMM D")
        report = ti.xcom_pull(task_ids="remind", key="report")
        if report is None:  # the task was killed, or could not start
            lines = [
                (
                    f"The reminders for {day} were interrupted. "
                    "Some patients may not have been reminded."
                )
            ]
        else:
            reminded = report["sent"] + report["deduplicated"]
            lines = [
                (
                    f"{reminded} of {report['total']} patients with an appointment "
                    f"on {day} were reminded."
                )
            ]
            for failure in report["failures"]:
                lines.append(
                    f"Please call about appointment {failure['reference']}: "
                    f"{why[failure['outcome']]}."
                )
            if report["failures_left_out"]:
                lines.append(
                    f"{report['failures_left_out']} more need a call. "
                    "Please ask IT for the full list."
                )
        lines.append(
            "If you have an earlier e-mail about these reminders, this one replaces it."
        )
        text = "\n".join(lines)
        return [
            {
                "subject": f"Reminders for {day}",
                "message": text,
                "key": hashlib.sha256(text.encode()).hexdigest(),
            }
        ]

    mail = mail_to_reception()
    tell_reception = ApptotoSendMessageBatchOperator(
        task_id="tell_reception",
        messages=mail,
        defaults={"type": "email", "to": "reception@clinic.example"},
        id_column="key",
        max_age=None,
    )
    remind >> mail
    # [END howto_batch_report]

    # [START howto_batch_watcher]
    @task(trigger_rule="one_failed", retries=0)
    def fail_the_run() -> None:
        """Fail the run if a task failed: only the last tasks decide its state."""
        raise AirflowFailException("A task of this run failed: see its log.")

    [remind, tell_reception] >> fail_the_run()
    # [END howto_batch_watcher]
