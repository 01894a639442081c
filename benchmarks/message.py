"""Compare the time of one message through the outbox with that of the client alone."""

from __future__ import annotations

import contextlib
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any

from benchmarks import databases, in_process, ways
from benchmarks.server import Conditions, Server

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

ROUNDS = 5
MESSAGES = 60
"""Messages per way in a round."""
FEW = 8
"""The same for slow messages: ``dag.test()`` runs Airflow's API server too."""
BARE = "client alone"


def show(server: Server, home: Path) -> None:
    """Print the wall time of a message, by the storage of its ledger and its rate limit."""
    server.reset(Conditions(latency=0.0))
    sqlite = databases.sqlite(home / "state.db")
    measured = {
        BARE: ways.client(server.url),
        "outbox, no ledger": ways.outbox(server.url),
        "client, rate limit in SQLite": ways.client(server.url, rate_limit=sqlite),
        "outbox, ledger in SQLite": ways.outbox(server.url, ledger=sqlite),
        "outbox, ledger and rate limit in SQLite": ways.outbox(server.url, ledger=sqlite, rate_limit=sqlite),
    }
    with databases.postgresql() as postgresql:
        if postgresql is not None:
            measured |= {
                "client, rate limit in PostgreSQL": ways.client(server.url, rate_limit=postgresql),
                "outbox, ledger in PostgreSQL": ways.outbox(server.url, ledger=postgresql),
                "outbox, ledger and rate limit in PostgreSQL": ways.outbox(
                    server.url, ledger=postgresql, rate_limit=postgresql
                ),
            }
        _show(f"one message, median of {ROUNDS * MESSAGES}", _medians(measured, MESSAGES))
    from benchmarks.dags.in_process import message

    in_process.migrate()
    in_process.run(message.dag, {"url": server.url})


def show_task_state(url: str, context: Mapping[str, Any]) -> None:
    """Print the wall time of a message whose ledger is in the state of the running task."""
    with contextlib.redirect_stdout(sys.__stdout__):
        if context.get("task_state_store") is None:
            print("\nLedger in task state: not measured, this Airflow has no task state")
            return
        measured = {BARE: ways.client(url), "outbox, ledger in task state": ways.outbox_in_task_state(url, context)}
        _show(f"in a task of dag.test(), median of {ROUNDS * FEW}", _medians(measured, FEW))


def _medians(measured: Mapping[str, Callable[[], object]], messages: int) -> dict[str, float]:
    """Return the median of each way in milliseconds; interleaved, so that other load affects all of them alike."""
    times: dict[str, list[float]] = {name: [] for name in measured}
    for send in measured.values():
        send()  # creates tables and connections
    for _ in range(ROUNDS):
        for name, send in measured.items():
            for _ in range(messages):
                start = time.perf_counter()
                send()
                times[name].append((time.perf_counter() - start) * 1000)
    return {name: statistics.median(each) for name, each in times.items()}


def _show(title: str, medians: Mapping[str, float]) -> None:
    print(f"\n{title:<46}{'ms':>8}{'to client':>11}")
    for name, median in medians.items():
        print(f"{name:<46}{median:>8.2f}{median / medians[BARE]:>10.1f}x")
