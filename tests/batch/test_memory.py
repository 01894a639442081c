"""What a large batch needs of memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

ROWS = 100_000
MOST_MEGABYTES = 150
PROGRAM = """
import json, resource, sys, types
import pendulum, psutil
from airflow.sdk import DAG
from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageBatchOperator

with DAG(dag_id="clinic", schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC")) as dag:
    task = ApptotoSendMessageBatchOperator(
        task_id="remind", messages_path=sys.argv[1], max_messages=None, max_age=None, delivery_mode="dry_run",
        defaults={"type": "sms", "message": "Hi {{ row.first_name }}, Dr {{ row.doctor }} sees you tomorrow. If you "
                  "can't come, please call us before noon at +1 650 555 0100, so that somebody else can."},
        key_field="appointment", reference_field="appointment",
    )
ti = types.SimpleNamespace(
    dag_id="clinic", task_id="remind", run_id="run", map_index=-1, try_number=1, xcom_push=lambda **_: None
)
context = {"ti": ti, "dag": dag, "ds": "2026-11-22"}
start = psutil.Process().memory_info().rss
task.render_template_fields(context)
report = task.execute(context)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"done": report["dry_run"], "megabytes": (peak - start) / 1e6}))
"""


def test_a_hundred_thousand_rows_of_a_file_take_less_than_150_mb(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    with path.open("w") as file:
        file.write("to,first_name,doctor,appointment\n")
        for row in range(ROWS):
            file.write(f"+1650{200 + row % 800}{1000 + row // 800:04},Name{row},Lee,{4_711_000 + row}\n")
    fields = {"conn_type": "apptoto", "login": "clinic@clinic.example", "password": "key"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path)],
        env={
            **os.environ,
            "AIRFLOW_CONN_APPTOTO_DEFAULT": json.dumps(fields),
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["done"] == ROWS
    assert result["megabytes"] < MOST_MEGABYTES
