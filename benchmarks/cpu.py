"""Compare the CPU time of a message in a batch with that of a ``requests`` call."""

from __future__ import annotations

import json
import os
import statistics
from collections import Counter
from typing import TYPE_CHECKING

from benchmarks import in_process, ways
from benchmarks.meter import cpu_seconds
from benchmarks.people import number_of
from benchmarks.server import Conditions, Server
from benchmarks.settings import API_KEY, LOGIN, say

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BARE, SQLITE, TASK_STATE = (
    "bare requests.Session().post",
    "batch, ledger and rate limit in SQLite",
    "batch, ledger in Airflow's task state",
)
ROUND = (BARE, SQLITE, BARE, TASK_STATE, BARE)
"""More rounds for the bare loop: it is the shortest, so other load distorts it the most."""
WARM_UP = 8
"""Messages of the first, unmeasured run of each way: it imports modules and creates tables."""
RULES = """\
CPU of one message in a batch of {messages}; median of {rounds} interleaved rounds, with three bare loops in each.
Counted: user and system time of this process with all its threads, and of its ended children, from the rendering of the
task's fields to the end of execute. The batch operator reads and renders the rows; its concurrency is 8, and its rate
limit never delays a message. dag.test() runs Airflow's supervisor and API server in this process too, so both sides of
a task state request count. Not counted: imports, the creation of tables, the rest of the DAG run, and the HTTP server,
which is another process. The bare loop posts the same bodies with the same authentication."""


def show(server: Server, home: Path, *, messages: int, rounds: int) -> None:
    """Print the CPU time of each way, and its ratio to the bare loop."""
    in_process.migrate()
    ways.lift_connection_limit()
    measured: dict[str, Callable[[list[dict[str, str]]], float]] = {
        BARE: lambda bodies: _bare(server, bodies),
        SQLITE: _batch(server, home, "database"),
        TASK_STATE: _batch(server, home, "task_state"),
    }
    times: dict[str, list[float]] = {name: [] for name in measured}
    for number in range(rounds + 1):
        count = messages if number else WARM_UP
        bodies = [_body(person) for person in range(count)]
        for name in ROUND:
            server.reset(Conditions(latency=0.0))
            seconds = measured[name](bodies)
            if server.seen().copies != Counter(range(count)):
                raise RuntimeError(f"{name}: not every person got one message, so the times mean nothing")
            say(f"cpu, {f'round {number} of {rounds}' if number else 'warm-up'}: {name}: {seconds:.2f} s")
            if number:
                times[name].append(seconds / count * 1000)
    print(RULES.format(messages=messages, rounds=rounds))
    print(f"\n{'':<42}{'ms':>9}{'to bare':>10}{'least to most':>24}")
    bare = statistics.median(times[BARE])
    for name, each in times.items():
        median = statistics.median(each)
        spread = f"{min(each):.2f} to {max(each):.2f} ms"
        print(f"{name:<42}{median:>9.2f}{median / bare:>9.1f}x  {spread:>22}")
    print(f"Load of the machine: {os.getloadavg()[1]:.1f} (average of 5 minutes)")


def _body(person: int) -> dict[str, str]:
    return {"type": "sms", "to": number_of(person), "message": f"Hi Person {person}, see you at nine."}


def _bare(server: Server, bodies: list[dict[str, str]]) -> float:
    start = cpu_seconds()
    ways.bare(server.url, bodies)
    return cpu_seconds() - start


def _batch(server: Server, home: Path, dag_id: str) -> Callable[[list[dict[str, str]]], float]:
    """Return a function that runs a DAG of :mod:`benchmarks.dags.in_process.cpu` and returns its CPU seconds."""
    extra: dict[str, object] = {"requests_per_minute": ways.UNLIMITED}
    if dag_id == "database":
        extra["state_conn_id"] = "state"
        os.environ["AIRFLOW_CONN_STATE"] = json.dumps({"conn_type": "sqlite", "host": str(home / "state.db")})
    account = {"conn_type": "apptoto", "login": LOGIN, "password": API_KEY, "host": server.url, "extra": extra}
    os.environ[f"AIRFLOW_CONN_{dag_id.upper()}"] = json.dumps(account)
    path = home / f"{dag_id}.jsonl"

    def run(bodies: list[dict[str, str]]) -> float:
        from benchmarks.dags.in_process import cpu

        rows = ({"to": body["to"], "name": f"Person {person}"} for person, body in enumerate(bodies))
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        cpu.spent.clear()
        in_process.run(cpu.dags[dag_id], {"path": str(path)})
        return sum(cpu.spent)

    return run
