"""Task processes killed while they send, under a real scheduler, executor and API server: nobody gets it twice."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from sqlalchemy.engine import URL

from airflow_provider_apptoto.delivery import OnUnknown
from airflow_provider_apptoto.state.database import StateDatabase
from airflow_provider_apptoto.state.sql_ledger import Selection, SqlLedgerStore
from airflow_provider_apptoto.state.store import Entry, State
from tests.chaos.attempts import End
from tests.chaos.checker import Observed, broken, not_put_right
from tests.chaos.driver import Played
from tests.chaos.people import number_of, person_of
from tests.faults import Exchange, FaultServer, Script, accepting, answering, resetting
from tests.test_scheduler import standalone, wait_for

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.scheduler

DAG = """
import pendulum
from datetime import timedelta
from airflow.sdk import DAG
from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageOperator

with DAG(dag_id="{dag_id}", schedule="@once", start_date=pendulum.datetime(2026, 1, 1, tz="UTC")):
    ApptotoSendMessageOperator.partial(
        task_id="send", apptoto_conn_id="{dag_id}", type="sms", message="See you at nine.", retries=2,
        retry_delay=timedelta(seconds=1), max_age=None,
    ).expand(to={people})
"""


def sender(exchange: Exchange) -> psutil.Process:
    """Return the task's process: it owns the other end of the socket."""
    peer = exchange.socket.getpeername()
    [pid] = {each.pid for each in psutil.net_connections(kind="tcp") if each.laddr == peer}
    return psutil.Process(pid)


def killing_before_acceptance(exchange: Exchange) -> None:
    sender(exchange).kill()


def killing_after_acceptance(exchange: Exchange) -> None:
    exchange.accept()
    sender(exchange).kill()


def killing_before_the_answer_is_read(exchange: Exchange) -> None:
    process = sender(exchange)
    process.send_signal(signal.SIGSTOP)
    accepting(exchange)
    process.kill()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """How the first requests for a person go; all further ones are accepted.

    :param ends: state and number of tries of the task.
    :param ledger: what the ledger says then.
    :param copies: that have reached the person.
    """

    scripts: tuple[Script, ...]
    ends: tuple[str, int]
    ledger: State
    copies: int


GOOD = Fate(scripts=(), ends=("success", 1), ledger=State.SENT, copies=1)
KILLED_TOO_EARLY = Fate(scripts=(killing_before_acceptance,), ends=("failed", 2), ledger=State.SENDING, copies=0)
KILLED = Fate(scripts=(killing_after_acceptance,), ends=("failed", 2), ledger=State.SENDING, copies=1)
LATER = answering(503, Retry_After="0")
FATES = [
    GOOD,
    KILLED_TOO_EARLY,
    KILLED,
    replace(KILLED, scripts=(killing_before_the_answer_is_read,)),
    replace(KILLED, scripts=(LATER, killing_after_acceptance)),
    Fate(scripts=(answering(500, accepted=True),), ends=("failed", 1), ledger=State.UNKNOWN, copies=1),
    Fate(scripts=(resetting(accepted=False),), ends=("failed", 1), ledger=State.UNKNOWN, copies=0),
    Fate(scripts=(answering(422),), ends=("failed", 1), ledger=State.REJECTED, copies=0),
    replace(GOOD, scripts=(LATER,)),
    replace(GOOD, scripts=(LATER,) * 3, ends=("success", 2)),  # the client itself makes three attempts a try
    GOOD,
    GOOD,
]
OVER = {"success", "failed", "skipped", "upstream_failed"}
OF_DAG = {"task_state": 0, "state_database": 100}
"""The DAGs, called as their connections, and the first person to whom each sends."""


class Server(FaultServer):
    """Gives every person their fate; it knows nothing of tasks and tries."""

    def __init__(self) -> None:
        super().__init__([self.play])
        self.seen: Counter[int] = Counter()

    def play(self, exchange: Exchange) -> None:
        person = person_of(exchange.request.json["to"])
        scripts = FATES[person % 100].scripts
        number = self.seen[person]
        self.seen[person] += 1
        (scripts[number] if number < len(scripts) else accepting)(exchange)

    def copies(self, dag_id: str) -> Counter[int]:
        """Return how many copies the person of each map index got."""
        first = OF_DAG[dag_id]
        people = (person_of(request.json["to"]) for request in self.accepted)
        return Counter(person - first for person in people if 0 <= person - first < len(FATES))


def query(database: Path, text: str, *arguments: str) -> list[Any]:
    with contextlib.closing(sqlite3.connect(database, timeout=30)) as connection, connection:
        return connection.execute(text, arguments).fetchall()


def ended(database: Path, dag_id: str) -> dict[int, tuple[str, int]]:
    """Return state and tries of a DAG's mapped tasks that have come to their end."""
    text = "select map_index, state, try_number from task_instance where dag_id = ? and map_index >= 0"
    with contextlib.suppress(sqlite3.OperationalError):
        rows = query(database, text, dag_id)
        return {index: (state, tries) for index, state, tries in rows if state in OVER}
    return {}


def over(database: Path, dag_id: str) -> bool:
    """Whether all tasks of a DAG have come to their end."""
    return len(ended(database, dag_id)) == len(FATES)


def entries(home: Path, dag_id: str) -> list[Entry]:
    """Return a DAG's ledger."""
    if dag_id == "state_database":
        return [entry for entry, _ in ledger(home).entries(Selection())]
    text = "select value from task_state_store where dag_id = ? and key like 'apptoto-message-%'"
    return [Entry.from_dict(json.loads(value)) for (value,) in query(home / "airflow.db", text, dag_id)]


def ledger(home: Path) -> SqlLedgerStore:
    return SqlLedgerStore(StateDatabase(URL.create("sqlite", database=str(home / "state.db"))), "")


def observed(home: Path, dag_id: str, server: Server) -> Observed:
    tasks = [
        Played(
            person=index,
            succeeded=state == "success",
            ends=(End.SUCCESS if state == "success" else End.FAILED,),
            killed_at=(),
            said=state,
        )
        for index, (state, _) in ended(home / "airflow.db", dag_id).items()
    ]
    return Observed(tasks=tasks, copies=server.copies(dag_id), entries=entries(home, dag_id))


def run(environment: dict[str, str], command: Sequence[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command],
        env={**{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def resolve(home: Path, dag_id: str, environment: dict[str, str], found: Observed) -> None:
    """Do as people who have looked up each message of which nobody could tell whether it was sent."""
    for state in (State.SENT, State.NOT_SENT):
        unresolved = [
            entry
            for entry in found.entries
            if entry.is_unresolved and bool(found.copies[entry.origin.map_index]) is (state is State.SENT)
        ]
        if dag_id == "state_database":
            keys = [entry.key for entry in unresolved]
            resolving = ["airflow_provider_apptoto", "ledger", "resolve", *keys, "--conn-id", dag_id]
            run(environment, [*resolving, "--to", state, "--note", "looked into the inbox"])
        for entry in unresolved if dag_id == "task_state" else ():
            edit = "update task_state_store set value = json_set(value, '$.state', ?) where dag_id = ? and key = ?"
            query(home / "airflow.db", edit, state, dag_id, f"apptoto-message-{entry.key}")


def test_tasks_killed_while_they_send_send_nothing_twice_and_end_right_once_people_have_looked(tmp_path: Path) -> None:
    (tmp_path / "dags").mkdir()
    with Server() as server:
        account = {"conn_type": "apptoto", "login": "clinic@clinic.example", "password": "key", "host": server.url}
        extras: dict[str, dict[str, Any]] = {"task_state": {}, "state_database": {"state_conn_id": "ledger"}}
        environment = {
            "AIRFLOW_HOME": str(tmp_path),
            "AIRFLOW_CONN_LEDGER": json.dumps({"conn_type": "sqlite", "host": str(tmp_path / "state.db")}),
            # a killed send is waited for as long as its answer might have taken, and 30 s
            **{
                f"AIRFLOW_CONN_{dag_id.upper()}": json.dumps({**account, "extra": {"timeout": 5, **extra}})
                for dag_id, extra in extras.items()
            },
        }
        with standalone(tmp_path, **environment, AIRFLOW__CORE__PARALLELISM="6") as database:
            for dag_id, first in OF_DAG.items():
                people = [number_of(first + index) for index in range(len(FATES))]
                (tmp_path / "dags" / f"{dag_id}.py").write_text(DAG.format(dag_id=dag_id, people=people))
            for dag_id in OF_DAG:
                wait_for(partial(over, database, dag_id), tmp_path)
            for dag_id in OF_DAG:
                found = observed(tmp_path, dag_id, server)
                assert broken(found, OnUnknown.FAIL) == []
                assert ended(database, dag_id) == dict(enumerate(fate.ends for fate in FATES))
                assert [found.copies[index] for index in range(len(FATES))] == [fate.copies for fate in FATES]
                states = {entry.origin.map_index: entry.state for entry in found.entries}
                assert states == dict(enumerate(fate.ledger for fate in FATES))
                resolve(tmp_path, dag_id, environment, found)
                run(environment, ["airflow", "tasks", "clear", "--yes", "--only-failed", dag_id])
            for dag_id in OF_DAG:
                wait_for(partial(over, database, dag_id), tmp_path)
            for dag_id in OF_DAG:
                assert not_put_right(observed(tmp_path, dag_id, server)) == []
                run(environment, ["airflow", "tasks", "clear", "--yes", dag_id])
            for dag_id in OF_DAG:  # a run that had succeeded
                wait_for(partial(over, database, dag_id), tmp_path)
                assert not_put_right(observed(tmp_path, dag_id, server)) == []
