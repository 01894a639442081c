"""A large batch uses little memory per row: it keeps the message and drops the row."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageBatchOperator
from tests.support.dags import make_dag

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

ROWS = 10_000
MAX_BYTES_PER_ROW = 800
"""A row takes about 600; it took 1,000 when a list of all rows, as dicts, was kept in addition to the messages."""


def test_a_row_of_a_file_takes_less_than_800_bytes(
    tmp_path: Path, connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    connection("https://api.apptoto.com")
    monkeypatch.setenv("AIRFLOW__LOGGING__LOGGING_LEVEL", "ERROR")
    few, all_of_them = written(tmp_path / "few.csv", 100), written(tmp_path / "rows.csv", ROWS)
    # a separate process, because memory that other tests freed would be reused here
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(bytes_taken, few, all_of_them).result() / ROWS < MAX_BYTES_PER_ROW


def written(path: Path, rows: int) -> Path:
    with path.open("w") as file:
        file.write("to,first_name,doctor,appointment\n")
        for row in range(rows):
            file.write(f"+1650{200 + row % 800}{1000 + row // 800:04},Name{row},Lee,{4_711_000 + row}\n")
    return path


def bytes_taken(few: Path, all_of_them: Path) -> int:
    """Return the peak memory that a batch takes in addition to what the process had before.

    :param few: rows of a first batch, which loads every module before the memory is measured.
    """
    assert send(few) == 100
    before = memory("VmRSS")
    assert send(all_of_them) == ROWS
    return memory("VmHWM") - before


def memory(name: str) -> int:
    """Return the memory of this process in bytes; ``ru_maxrss`` is at least that of the parent process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    [kilobytes] = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
    return int(kilobytes) * 1024


def send(path: Path) -> int:
    """Send the rows of a file in a dry run, and return the number of messages."""
    from airflow.sdk.execution_time.context import set_current_context  # not on Airflow 2, which also imports this file

    with make_dag() as dag:
        task = ApptotoSendMessageBatchOperator(
            task_id="remind",
            messages_path=str(path),
            max_messages=None,
            max_age=None,
            delivery_mode="dry_run",
            defaults={
                "type": "sms",
                "message": "Hi {{ row.first_name }}, Dr {{ row.doctor }} sees you tomorrow. If you can't come, please "
                "call us before noon at +1 650 555 0100, so that somebody else can.",
            },
            id_column="appointment",
            reference_column="appointment",
        )
    ti = SimpleNamespace(
        dag_id="dag",
        task_id="remind",
        run_id="run",
        map_index=-1,
        try_number=1,
        max_tries=0,
        xcom_push=lambda **_: None,
    )
    context: Any = {"ti": ti, "task": task, "dag": dag, "ds": "2026-11-22"}
    with set_current_context(context):
        task.render_template_fields(context)
        report: dict[str, int] = task.execute(context)
    return report["dry_run"]
