"""Count the requests of a poll for answers, by the number of appointments."""

from __future__ import annotations

import os
import statistics
import time
from typing import TYPE_CHECKING, NamedTuple

from benchmarks import events, reads, ways
from benchmarks.meter import cpu_seconds
from benchmarks.server import Conditions, Server
from benchmarks.settings import LATENCY, say

if TYPE_CHECKING:
    from collections.abc import Callable

COUNTS = (40, 280, 1_000, 10_000)
"""Appointments: of a clinic's day, of its week, and more."""
PER_MINUTE = 90
"""The default rate limit of a connection."""
RULES = """\
One poll for the answers of that many appointments, with one participant and two texts each; median of {rounds}.
Requests: as the server counted them. of a minute: their share of the default rate limit, {per_minute} per minute, if
the poll runs once a minute; the rest is left for messages. s: wall time without a rate limit; the server has a latency
of {latency:g} ms. MB: size of the answers. by event: requests of a loop over get_event (computed)."""


class Cost(NamedTuple):
    """What a poll took: wall time and CPU time in seconds, requests, and bytes of the answers."""

    wall: float
    cpu: float
    requests: int
    bytes: int


def show(server: Server, rounds: int) -> None:
    """Print requests and time of a poll of the sensor and of the trigger for replies."""
    ways.lift_connection_limit()
    ways.connect(server.url, "polls")
    print(RULES.format(rounds=rounds, per_minute=PER_MINUTE, latency=LATENCY * 1000))
    print(f"\n{'':<24}{'events':>8}{'requests':>10}{'of a minute':>13}{'s':>8}{'CPU s':>8}{'MB':>7}{'by event':>10}")
    polls = {
        "ApptotoAnswerSensor": reads.answers("polls", *events.window()),
        "ApptotoReplyTrigger": reads.replies("polls", 9),
    }
    for name, poll in polls.items():
        for count in COUNTS:
            say(f"polls: {name}, {count:,} appointments")
            costs = [_cost(server, poll, count) for _ in range(rounds + 1)][1:]  # the first one imports and connects
            wall, cpu, requests, size = (statistics.median(column) for column in zip(*costs, strict=True))
            row = f"{name:<24}{count:>8,}{requests:>10.0f}{requests / PER_MINUTE:>12.0%} {wall:>8.2f}{cpu:>8.2f}"
            print(f"{row}{size / 1e6:>7.2f}{count:>10,}")
    print(f"Load of the machine: {os.getloadavg()[1]:.1f} (average of 5 minutes)")


def _cost(server: Server, poll: Callable[[], int], count: int) -> Cost:
    """Poll once.

    :raises RuntimeError: not every appointment was read.
    """
    server.reset(Conditions(events=count))
    wall, cpu = time.perf_counter(), cpu_seconds()
    found = poll()
    wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
    if found != count:
        raise RuntimeError(f"{found} of {count} appointments were read, so the figures mean nothing")
    seen = server.seen()
    return Cost(wall, cpu, seen.reads, seen.sent_bytes)
