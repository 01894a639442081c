"""Compare a message in a batch, with each store of its ledger, with a ``requests`` call: CPU and wall time."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections import Counter
from typing import TYPE_CHECKING

from benchmarks import databases, in_process, ways
from benchmarks.meter import cpu_seconds
from benchmarks.people import number_of
from benchmarks.server import Conditions, Server
from benchmarks.settings import say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from sqlalchemy.engine import URL

    Bodies = Sequence[dict[str, str]]
    Measured = Callable[[Bodies], tuple[float, float]]

BARE = "bare requests.Session().post"
TITLES = {
    "sqlite": "batch, ledger and rate limit in SQLite",
    "postgresql": "batch, ledger and rate limit in PostgreSQL",
    "task_state": "batch, ledger in Airflow's task state",
}
WARM_UP = 8
"""Messages of the first, unmeasured run of each way: it imports modules and creates tables."""
RULES = """\
One message in a batch of {messages}; medians of {rounds} interleaved rounds, with a bare loop before each batch and at
the end. CPU: user and system time of this process with all its threads, and of its ended children. Wall: time that
passes. Both from the rendering of the task's fields to the end of execute. The batch operator reads and renders the
rows; its concurrency is 8, its rate limit never delays a message, and the server answers at once. dag.test() runs
Airflow's supervisor and API server in this process too, so both sides of a task state request count. Not counted:
imports, the creation of tables, the rest of the DAG run, and the HTTP server, which is another process. The bare loop
posts the same bodies with the same authentication, one at a time."""


def show(server: Server, home: Path, *, messages: int, rounds: int) -> None:
    """Print CPU and wall time of a message by each way, and their ratios to the bare loop."""
    in_process.migrate()
    ways.lift_connection_limit()
    with databases.postgresql() as postgresql:
        states = {"sqlite": databases.sqlite(home / "state.db"), "postgresql": postgresql, "task_state": None}
        measured: dict[str, Measured] = {BARE: lambda bodies: _bare(server, bodies)}
        for dag_id, state in states.items():
            if state is not None or dag_id == "task_state":
                measured[TITLES[dag_id]] = _batch(server, home, dag_id, state)
        times = _measure(server, measured, messages, rounds)
    print(RULES.format(messages=messages, rounds=rounds))
    print(f"\n{'':<44}{'CPU ms':>9}{'to bare':>9}{'wall ms':>9}{'to bare':>9}{'wall, least to most':>22}")
    cpu_of_bare, wall_of_bare = (statistics.median(column) for column in zip(*times[BARE], strict=True))
    for name, each in times.items():
        cpu, wall = (statistics.median(column) for column in zip(*each, strict=True))
        walls = [one[1] for one in each]
        row = f"{name:<44}{cpu:>9.2f}{cpu / cpu_of_bare:>8.1f}x{wall:>9.2f}{wall / wall_of_bare:>8.1f}x"
        print(f"{row}{f'{min(walls):.2f} to {max(walls):.2f}':>22}")
    print(f"Load of the machine: {os.getloadavg()[1]:.1f} (average of 5 minutes)")


def _measure(
    server: Server, measured: dict[str, Measured], messages: int, rounds: int
) -> dict[str, list[tuple[float, float]]]:
    """Return CPU and wall time of a message in milliseconds, by way, for each run of it.

    :raises RuntimeError: somebody got no message, or two.
    """
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in measured}
    for number in range(rounds + 1):
        count = messages if number else WARM_UP
        bodies = [_body(person) for person in range(count)]
        for name in _order(measured):
            server.reset(Conditions(latency=0.0))
            cpu, wall = measured[name](bodies)
            if server.seen().copies != Counter(range(count)):
                raise RuntimeError(f"{name}: not every person got one message, so the times mean nothing")
            say(f"batch, {f'round {number} of {rounds}' if number else 'warm-up'}: {name}: {wall:.2f} s")
            if number:
                times[name].append((cpu / count * 1000, wall / count * 1000))
    return times


def _order(measured: dict[str, Measured]) -> Iterator[str]:
    """Yield the ways of a round. The bare loop comes often: it is the shortest, so other load distorts it the most."""
    for name in measured:
        if name != BARE:
            yield BARE
            yield name
    yield BARE


def _body(person: int) -> dict[str, str]:
    return {"type": "sms", "to": number_of(person), "message": f"Hi Person {person}, see you at nine."}


def _bare(server: Server, bodies: Bodies) -> tuple[float, float]:
    cpu, wall = cpu_seconds(), time.perf_counter()
    ways.bare(server.url, bodies)
    return cpu_seconds() - cpu, time.perf_counter() - wall


def _batch(server: Server, home: Path, dag_id: str, state: URL | None) -> Measured:
    """Return a function that runs a DAG of :mod:`benchmarks.dags.in_process.batch`, and returns its seconds."""
    ways.connect(server.url, dag_id, state)
    path = home / f"{dag_id}.jsonl"

    def run(bodies: Bodies) -> tuple[float, float]:
        from benchmarks.dags.in_process import batch

        rows = ({"to": body["to"], "name": f"Person {person}"} for person, body in enumerate(bodies))
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        batch.spent.clear()
        in_process.run(batch.dags[dag_id], {"path": str(path)})
        return sum(each.cpu for each in batch.spent), sum(each.wall for each in batch.spent)

    return run
