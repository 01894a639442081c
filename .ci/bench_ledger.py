"""Print what ledger and pace add to the sending of one message, beside a bare send over loopback.

Run as ``python .ci/bench_ledger.py`` by a Python that has this project's test tools; PostgreSQL is used if installed.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import runpy
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy.engine import URL

    from airflow_provider_apptoto.client import ApptotoClient, Message
    from airflow_provider_apptoto.state.store import LedgerStore

ROUNDS = 5
MESSAGES = 60
"""A round."""
FEW = 8
"""The same, where each takes long: dag.test() plays Airflow's API server too."""
A_MINUTE = 1e9
"""As good as no limit: what is measured is the asking, not the waiting."""
BARE = "bare send"
NAME = "apptoto_bench_task_state"

DAG = f"""
import pendulum
from airflow.providers.common.compat.sdk import DAG, get_current_context, task

with DAG(dag_id="{NAME}", schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC")) as dag:
    @task
    def measure():
        probe(get_current_context())

    measure()
"""


class Hook:
    """What delivery needs of a hook, about a client that is there."""

    def __init__(self, client: ApptotoClient) -> None:
        self.get_conn = lambda: client

    def build_message(self, **fields: Any) -> Message:
        """Return a checked message."""
        from airflow_provider_apptoto.client import Message

        return Message(**fields)


numbers = itertools.count()


def delivering(client: ApptotoClient, store: LedgerStore | None) -> Callable[[], object]:
    """Return what sends one more message along the operators' road."""
    from airflow_provider_apptoto.delivery import Scope, deliver
    from airflow_provider_apptoto.state.store import Origin

    hook: Any = Hook(client)

    def send() -> object:
        number = next(numbers)
        origin = Origin(dag_id="bench", task_id="send", run_id=f"run {number}", map_index=-1, try_number=1)
        fields = {"type": "sms", "to": f"+1650555{number % 10_000:04}", "message": "Hi", "redact": True}
        return deliver(fields, hook, Scope(origin=origin, store=store))

    return send


def bare(client: ApptotoClient) -> Callable[[], object]:
    """Return what sends one more message by the client alone."""
    from airflow_provider_apptoto.client import Message

    return lambda: client.send(Message(type="sms", to="+16505550199", message="Hi"))


def compare(ways: dict[str, Callable[[], object]], messages: int = MESSAGES) -> dict[str, float]:
    """Return the median of each in milliseconds, measured in turns, so that other work falls on all alike."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for send in ways.values():
        send()  # makes tables and connections
    for _ in range(ROUNDS):
        for name, send in ways.items():
            for _ in range(messages):
                start = time.perf_counter()
                send()
                taken[name].append((time.perf_counter() - start) * 1000)
    return {name: statistics.median(times) for name, times in taken.items()}


def show(title: str, medians: dict[str, float]) -> None:
    """Print a table of medians, and of what they are to the bare send."""
    print(f"\n{title:<46}{'ms':>8}{'to bare':>9}")
    for name, median in medians.items():
        print(f"{name:<46}{median:>8.2f}{median / medians[BARE]:>8.1f}x")


@contextlib.contextmanager
def postgres_url() -> Iterator[URL | None]:
    """Give the address of an empty database, if PostgreSQL is installed."""
    from sqlalchemy.engine import URL

    from tests.support import postgres

    if postgres.programs() is None:
        yield None
        return
    with postgres.running() as port:
        name = postgres.new_database(port)
        yield URL.create("postgresql+psycopg2", username=postgres.USER, host="127.0.0.1", port=port, database=name)


def in_task_state(client: ApptotoClient, home: Path) -> None:
    """Measure inside of a task that a real Airflow runs."""
    from airflow.utils import db

    db.initdb()

    def probe(context: dict[str, Any]) -> None:
        from airflow_provider_apptoto.state.task_state import TaskStateLedgerStore

        task_state = context.get("task_state_store")
        if task_state is None:
            print("\nledger in task state: not measured, this Airflow has none")
            return
        store = TaskStateLedgerStore(task_state)
        ways = {BARE: bare(client), "+ ledger in task state": delivering(client, store)}
        with contextlib.redirect_stdout(sys.__stdout__):
            show(f"in a task of dag.test(), median of {ROUNDS * FEW}", compare(ways, FEW))

    path = home / "dags" / f"{NAME}.py"
    path.parent.mkdir()
    path.write_text(DAG)
    runpy.run_path(str(path), init_globals={"probe": probe})["dag"].test()


def main() -> None:
    """Measure, and print."""
    from sqlalchemy.engine import URL

    from airflow_provider_apptoto.client import ApptotoClient, InProcessPacer
    from airflow_provider_apptoto.state.database import StateDatabase
    from airflow_provider_apptoto.state.pace import SqlPacer
    from airflow_provider_apptoto.state.sql_ledger import SqlLedgerStore
    from tests.support.faults import FaultServer

    home = Path(os.environ["AIRFLOW_HOME"])
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(FaultServer())

        def client(pace: StateDatabase | None = None) -> ApptotoClient:
            account = server.url, "bench@clinic.example"
            pacer = SqlPacer(pace, account, A_MINUTE) if pace else InProcessPacer(A_MINUTE)
            return stack.enter_context(
                ApptotoClient(base_url=server.url, login=account[1], api_key="sekret-api-key", pacer=pacer)
            )

        sqlite = StateDatabase(URL.create("sqlite", database=str(home / "state.db")))
        plain = client()
        ways = {
            BARE: bare(plain),
            "+ the operators' road, no ledger": delivering(plain, None),
            "+ pace in SQLite": bare(client(sqlite)),
            "+ ledger in SQLite": delivering(plain, SqlLedgerStore(sqlite, "")),
            "+ ledger and pace in SQLite": delivering(client(sqlite), SqlLedgerStore(sqlite, "")),
        }
        url = stack.enter_context(postgres_url())
        if url is None:
            print("PostgreSQL is not installed: not measured")
        else:
            print("PostgreSQL runs with fsync off: a real one takes a disk's time more, for each commit")
            database = StateDatabase(url)
            ways |= {
                "+ pace in PostgreSQL": bare(client(database)),
                "+ ledger in PostgreSQL": delivering(plain, SqlLedgerStore(database, "")),
                "+ ledger and pace in PostgreSQL": delivering(client(database), SqlLedgerStore(database, "")),
            }
        show(f"one message, median of {ROUNDS * MESSAGES}", compare(ways))
        in_task_state(plain, home)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="apptoto-bench-") as folder:
        os.environ["AIRFLOW_HOME"] = folder
        os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
        os.environ["AIRFLOW__CORE__DAGS_FOLDER"] = f"{folder}/dags"
        os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "ERROR"
        logging.disable(logging.INFO)  # a line a message is the same in all ways, and hides the figures
        main()
