"""Measure a batch without Airflow: its use of the rate limit, and its speed without one."""

from __future__ import annotations

import functools
import statistics
import time
from typing import TYPE_CHECKING

from benchmarks import databases, ways
from benchmarks.people import number_of
from benchmarks.server import Conditions, Server
from benchmarks.settings import LATENCY, TEXT, say

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from sqlalchemy.engine import URL


def show_shares(server: Server, home: Path, seconds: float) -> None:
    """Print the share of its rate limit that a batch uses.

    :param seconds: length of each measurement.
    """
    latencies = (0.05, 0.5, 1.0, 3.0)
    print(
        f"Share of its rate limit that a batch uses, by the server's latency (rate limit and ledger in SQLite; "
        f"{seconds:g} s each)"
    )
    print(f"{'':<44}" + "".join(f"{f'{latency:g} s':>9}" for latency in latencies))
    for per_minute, concurrency in ((90, 8), (600, 32)):
        shares = []
        for latency in latencies:
            say(f"speed: {per_minute} per minute at a latency of {latency:g} s")
            numbers = [number_of(person) for person in range(int(per_minute / 60 * seconds))]
            database = databases.sqlite(home / f"state-{per_minute}-{latency}.db")
            send = ways.batch(
                server.url,
                ledger=database,
                rate_limit=database,
                requests_per_minute=per_minute,
                concurrency=concurrency,
            )
            send(numbers[:1])  # creates the tables
            server.reset(Conditions(latency=latency))
            send(numbers)
            # The first messages arrive late, because all threads start at once, so the rest would seem too fast.
            arrivals = server.seen().arrivals[len(numbers) // 4 :]
            shares.append((len(arrivals) - 1) / (arrivals[-1] - arrivals[0]) / (per_minute / 60))
        name = f"{per_minute} per minute, {concurrency} in flight at once"
        print(f"{name:<44}" + "".join(f"{share:>9.1%}" for share in shares))


def show_speeds(server: Server, home: Path, rounds: int) -> None:
    """Print messages per second without a rate limit, compared with a bare session."""
    with databases.postgresql() as postgresql:
        measured: dict[str, Callable[[Sequence[str]], None]] = {
            "bare requests.Session, one at a time": functools.partial(_bare, server)
        }
        measured |= _batches(server, databases.sqlite(home / "ledger.db"), postgresql)
        print(f"\nMessages per second without a rate limit, median of {rounds} rounds, and ratio to the bare session")
        for latency, count in ((0.0, 240), (LATENCY, 120)):  # 600 or more in 5 rounds
            server.reset(Conditions(latency=latency))
            numbers = [number_of(person) for person in range(count)]
            rates: dict[str, list[float]] = {name: [] for name in measured}
            for number in range(rounds):
                say(f"speed: no rate limit, latency {latency:g} s, round {number + 1} of {rounds}")
                for name, send in measured.items():
                    start = time.perf_counter()
                    send(numbers)
                    rates[name].append(count / (time.perf_counter() - start))
            medians = {name: statistics.median(each) for name, each in rates.items()}
            bare = next(iter(medians.values()))
            print(f"{f'server latency {latency * 1000:g} ms':<58}{'per second':>10}{'to bare':>10}")
            for name, median in medians.items():
                print(f"  {name:<56}{median:>10.0f}{median / bare:>9.2f}x")


def _bare(server: Server, numbers: Sequence[str]) -> None:
    ways.bare(server.url, ({"type": "sms", "to": number, "message": TEXT} for number in numbers))


def _batches(server: Server, sqlite: URL, postgresql: URL | None) -> dict[str, Callable[[Sequence[str]], None]]:
    """Return a batch for each place where a ledger can be kept without Airflow."""
    ledgers = {"no ledger": None, "ledger in SQLite": sqlite}
    if postgresql is not None:
        ledgers["ledger in PostgreSQL (fsync off)"] = postgresql
    return {
        f"batch, {name}, {concurrency} at once": ways.batch(
            server.url, ledger=ledger, rate_limit=None, concurrency=concurrency
        )
        for name, ledger in ledgers.items()
        for concurrency in (1, 8)
    }
