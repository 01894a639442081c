"""Measure the outbox page: what it reads from a large state database."""

from __future__ import annotations

import os
import statistics
import time
from typing import TYPE_CHECKING

from benchmarks import databases, in_process, reads, ways
from benchmarks.people import number_of
from benchmarks.settings import say

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from sqlalchemy.engine import URL

SMALL = 2_000
"""Messages of the ledger that the large one is compared with."""
RULES = """\
What one request of the outbox page reads, 50 rows at most; median of {rounds}, interleaved. The ledger has {dags} DAGs,
runs of {run} messages, and one open case in {rare:,} messages. to small: ratio to a ledger of {small:,} messages, which
shows how far the time grows with the ledger. SQL: statements. Not counted: HTTP, login, and the browser."""


def show(home: Path, *, messages: int, rounds: int) -> None:
    """Print the time of each thing that the page reads, and its ratio to a small ledger."""
    in_process.migrate()
    ways.lift_connection_limit()
    print(RULES.format(rounds=rounds, dags=reads.DAGS, run=reads.RUN, rare=reads.RARE, small=SMALL))
    sizes = (SMALL, messages)
    _show("SQLite", {size: databases.sqlite(home / f"page-{size}.db") for size in sizes}, rounds)
    with databases.postgresql_databases() as create:
        if create is not None:
            _show("PostgreSQL", {size: create() for size in sizes}, rounds)
    print(f"Load of the machine: {os.getloadavg()[1]:.1f} (average of 5 minutes)")


def _show(kind: str, states: Mapping[int, URL], rounds: int) -> None:
    """Fill the databases, measure and print.

    :param states: an empty database for each size.
    """
    conn_ids = {size: f"{kind.lower()}_{size}" for size in states}
    reads.allow_page(conn_ids.values())
    for size, state in states.items():
        ways.connect("http://127.0.0.1:9", conn_ids[size], state)  # nothing is sent
        start = time.perf_counter()
        reads.fill_ledger(state, size)
        say(f"page, {kind}: {size:,} messages written in {time.perf_counter() - start:.0f} s")
    asked = {size: _asked(conn_ids[size], size) for size in states}
    small, large = states
    print(f"\n{f'{large:,} messages, {kind}':<44}{'ms':>8}{'max':>8}{'to small':>10}{'rows':>6}{'SQL':>5}")
    for name in asked[large]:
        times: dict[int, list[float]] = {size: [] for size in states}
        found = {size: asked[size][name]() for size in states}  # opens the connections
        for _ in range(rounds):
            for size in states:
                start = time.perf_counter()
                asked[size][name]()
                times[size].append((time.perf_counter() - start) * 1000)
        median = statistics.median(times[large])
        row = f"{name:<44}{median:>8.1f}{max(times[large]):>8.1f}{median / statistics.median(times[small]):>9.1f}x"
        print(f"{row}{found[large]:>6}{ways.statements(asked[large][name]):>5}")


def _asked(conn_id: str, size: int) -> dict[str, Callable[[], int]]:
    """Return what is read, by name."""
    everything, some = reads.dag_ids(), reads.dag_ids(reads.DAGS // 4)
    middle = size // 2
    run = middle // reads.RUN
    return {
        "newest messages": reads.page(conn_id, everything),
        "newest messages of the user's 5 DAGs": reads.page(conn_id, some),
        "page in the middle of the ledger": reads.page(conn_id, everything, after=reads.start_of(middle)),
        "messages of a DAG": reads.page(conn_id, everything, dag="dag_3"),
        "messages of a run": reads.page(conn_id, everything, dag=f"dag_{run % reads.DAGS}", run=f"run_{run}"),
        "open cases": reads.page(conn_id, everything, outcome=["unknown"], limit=200),
        "search by reference": reads.page(conn_id, everything, f"appointment-{middle}"),
        "search by phone number": reads.page(conn_id, everything, number_of(middle // 4)),
        "search for a number that got nothing": reads.page(conn_id, everything, "+12125550100"),
    }
