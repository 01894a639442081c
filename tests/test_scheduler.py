"""The operator under a real scheduler, executor and API server, as a deployment runs it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.faults import Exchange, FaultServer, accepting, answering

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.scheduler

DEADLINE = 240
"""Seconds after which a state is taken never to come; not a measure of speed."""

DAG = """
import os
import pendulum
from datetime import timedelta
from airflow.sdk import DAG
from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageOperator

with DAG(dag_id="clinic", schedule="@once", start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
         user_defined_macros={"person": lambda number: os.environ["PERSON"] + number,
                              "text": lambda: os.environ["TEXT"]},
         default_args={"type": "sms", "max_age": None, "retries": 3, "retry_delay": timedelta(seconds=1)}):
    text = "{{ text() }}"
    ApptotoSendMessageOperator(task_id="sent", to="{{ person('01') }}", message=text)
    ApptotoSendMessageOperator(task_id="later", to="{{ person('02') }}", message=text)
    ApptotoSendMessageOperator(task_id="unknown", to="{{ person('03') }}", message=text)
    ApptotoSendMessageOperator(task_id="failing", retries=0, to="{{ person('05') }}",
                               message=text + "{{ {}[person('05')].x }}")
    ApptotoSendMessageOperator.partial(task_id="mapped_later", message=text).expand(to=["{{ person('04') }}"])
"""
PERSON = "+165055577"
TEXT = "Wilhelmina, your biopsy was benign"
KEY = "Sekret-Api-Key-81d2"


def by_recipient(exchange: Exchange) -> None:
    """Accept one, put two off for an hour, and break down over one."""
    to = exchange.request.json["to"]
    if to == f"{PERSON}01":
        accepting(exchange)
    elif to == f"{PERSON}03":
        answering(500, {"error": f"{to} {TEXT} {KEY}"}, accepted=True)(exchange)
    else:
        answering(503, Retry_After="3600")(exchange)


@contextlib.contextmanager
def standalone(home: Path, **environment: str) -> Iterator[Path]:
    """Run ``airflow standalone`` in a home of its own, and give the path of its database once its API answers.

    A task that starts before would use up a try of Airflow's.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")},
        "AIRFLOW_HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # standalone starts its parts by name
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "2",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__WORKERS": "1",
        # On a loaded machine the start of a task may take its worker longer than Airflow's five seconds, and a try.
        "AIRFLOW__CORE__PARALLELISM": "1",
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
        **environment,
    }
    with (home / "standalone.log").open("wb") as log:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("airflow"), "standalone"],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            wait_for(lambda: listening(port), home)
            yield home / "airflow.db"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def listening(port: int) -> bool:
    """Whether somebody accepts connections on a port of loopback."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def wait_for(condition: Callable[[], bool], home: Path) -> None:
    """Wait until a condition holds; what Airflow logged is shown where it never does."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail((home / "standalone.log").read_text())
        time.sleep(0.5)


def tasks(database: Path) -> dict[str, Any]:
    """Return state, tries and the delay of the next try of every task."""
    query = "select task_id, state, try_number, retry_delay_override from task_instance where dag_id = 'clinic'"
    with contextlib.suppress(sqlite3.OperationalError), contextlib.closing(sqlite3.connect(database)) as connection:
        return {row[0]: row[1:] for row in connection.execute(query)}
    return {}


def settled(database: Path) -> bool:
    """Whether every task has come to rest."""
    states = {task[0] for task in tasks(database).values()}
    return len(tasks(database)) == 5 and states <= {"success", "failed", "up_for_retry"}


def holding(home: Path, mark: str) -> list[str]:
    """Return the files of an Airflow, its database and logs among them, that hold a text."""
    files = (path for path in home.rglob("*") if path.is_file())
    return [str(path.relative_to(home)) for path in files if mark.encode() in path.read_bytes()]


def test_a_scheduler_gives_each_outcome_its_due_and_shows_nobody(tmp_path: Path) -> None:
    (tmp_path / "dags").mkdir()
    with FaultServer([by_recipient]) as server:
        fields = {"conn_type": "apptoto", "login": "clinic@clinic.example", "password": KEY, "host": server.url}
        people = {"PERSON": PERSON, "TEXT": TEXT}
        with standalone(tmp_path, AIRFLOW_CONN_APPTOTO_DEFAULT=json.dumps(fields), **people) as database:
            (tmp_path / "dags" / "clinic.py").write_text(DAG)
            wait_for(lambda: settled(database), tmp_path)
            ended = tasks(database)
    assert ended == {
        "sent": ("success", 1, None),
        "unknown": ("failed", 1, None),
        "failing": ("failed", 1, None),
        "later": ("up_for_retry", 1, 3600),
        "mapped_later": ("up_for_retry", 1, 3600),
    }
    sent = sorted(request.json["to"] for request in server.requests)
    assert sent == [f"{PERSON}0{number}" for number in range(1, 5)]
    assert holding(tmp_path, "sms to +1•••7701: sent, HTTP 200")
    assert [holding(tmp_path, mark) for mark in (PERSON[2:], "Wilhelmina", "biopsy", KEY)] == [[]] * 4
