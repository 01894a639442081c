"""Show what each guard adds to the time of one message, on a state database."""

from __future__ import annotations

import itertools
import os
import random
import statistics
import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from benchmarks import databases, in_process, ways
from benchmarks.people import number_of
from benchmarks.server import Conditions, Server
from benchmarks.settings import say

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from sqlalchemy.engine import URL

MESSAGES = 30
"""Messages per arm in a round."""
SIZES = (0, 1_000, 100_000)
"""Opt-outs in the state databases. Each size has a database of its own."""
PEOPLE = 200
"""Recipients: few, so that ``at_most`` has up to a dozen messages to count. None of them opted out."""
LISTS = ("campaigns", "news")
WINDOW = "Mon-Fri 00:00-24:00, Sat-Sun 00:00-24:00"
"""Always open, with two entries to parse, like most windows."""
ZONE = "America/New_York"
LIMIT = "5000/day"
"""Never reached."""
LIMITS = "4000/hour, 5000/day, 9000/7d"
DAY = timedelta(days=1)
RULES = """\
One message through hook.outbox(context).send(), with a new outbox for each. Ledger, rate limit and opt-outs are in the
same state database. All arms send one message in turn, in random order, in {rounds} rounds of {messages} messages.
ms: wall time, median of the rounds. adds, to none: difference and ratio to "no guard" in the same round. "no guard,
again" shows what is chance. CPU: CPU time of this process in ms. SQL: statements per message.
Every sender with a state database looks up opt-outs. Only this benchmark can leave them out: above "opt-outs"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """The guards of a message.

    :param settings: of the outbox.
    :param optouts: opt-outs in the database; ``None``: they are not looked up.
    :param zone: time zone of the recipient; ``None``: that of the number.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    optouts: int | None = None
    zone: str | None = None


BARE = "no guard"
EMPTY, SMALL, LARGE = (f"opt-outs, {size:,} entries" if size else "opt-outs, empty table" for size in SIZES)
ARMS = {
    BARE: Arm(),
    "no guard, again": Arm(),
    "max_age": Arm(settings={"max_age": DAY}),
    "send_window, zone given": Arm(settings={"send_window": WINDOW}, zone=ZONE),
    "send_window, zone of the number": Arm(settings={"send_window": WINDOW}),
    "at_most, one limit": Arm(settings={"at_most": LIMIT}),
    "at_most, three limits": Arm(settings={"at_most": LIMITS}),
    EMPTY: Arm(optouts=SIZES[0]),
    SMALL: Arm(optouts=SIZES[1]),
    LARGE: Arm(optouts=SIZES[2]),
    f"{LARGE}, two optout_lists": Arm(settings={"optout_lists": LISTS}, optouts=SIZES[2]),
    "all together": Arm(
        settings={"max_age": DAY, "send_window": WINDOW, "at_most": LIMITS, "optout_lists": LISTS}, optouts=SIZES[2]
    ),
}

Medians = dict[str, tuple[float, float]]
"""Milliseconds of a message by arm: wall time, and CPU time of this process."""

_order = random.Random(1)  # noqa: S311  not a secret


def show(server: Server, home: Path, rounds: int) -> None:
    """Print the time of a message with each guard, and its ratio to that of a message without any."""
    in_process.migrate()
    ways.lift_connection_limit()
    server.reset(Conditions(latency=0.0))
    print(RULES.format(rounds=rounds, messages=MESSAGES))
    _show(server, {size: databases.sqlite(home / f"state-{size}.db") for size in SIZES}, rounds)
    with databases.postgresql_databases() as create:
        if create is not None:
            _show(server, {size: create() for size in SIZES}, rounds)
    print(f"Load of the machine: {os.getloadavg()[1]:.1f} (average of 5 minutes)")


def _show(server: Server, states: Mapping[int, URL], count: int) -> None:
    """Measure and print all arms on one kind of database.

    :param states: an empty database for each number of opt-outs.
    :param count: number of rounds.
    """
    kind = next(iter(states.values())).get_backend_name()
    for size, state in states.items():
        ways.connect(server.url, f"{kind}_{size}", state)
        say(f"guards, {kind}: {size:,} opt-outs")
        ways.opt_out(f"{kind}_{size}", map(number_of, range(PEOPLE, PEOPLE + size)), LISTS)
    sends = {
        name: ways.guarded(
            f"{kind}_{arm.optouts or 0}",
            map(number_of, itertools.cycle(range(PEOPLE))),
            arm.settings,
            obeys_optouts=arm.optouts is not None,
            recipient_timezone=arm.zone,
        )
        for name, arm in ARMS.items()
    }
    statements = {}
    for name, send in sends.items():
        send()  # opens connections, and reads the data of time zones
        statements[name] = ways.statements(send)
    rounds: list[Medians] = []
    for number in range(count):
        say(f"guards, {kind}: round {number + 1} of {count}")
        rounds.append(_round(sends))
    print(f"\n{f'one message, {kind}':<44}{'ms':>7}{'adds':>7}{'to none':>9}{'least to most':>15}{'CPU':>7}{'SQL':>5}")
    for name in ARMS:
        ratios = [each[name][0] / each[BARE][0] for each in rounds]
        wall, cpu = (statistics.median(each[name][which] for each in rounds) for which in (0, 1))
        added = statistics.median(each[name][0] - each[BARE][0] for each in rounds)
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        row = f"{name:<44}{wall:>7.2f}{added:>7.2f}{statistics.median(ratios):>8.2f}x{spread:>15}"
        print(f"{row}{cpu:>7.2f}{statements[name]:>5}")
    growth = statistics.median(each[LARGE][0] / each[EMPTY][0] for each in rounds)
    print(f"A message with {SIZES[-1]:,} opt-outs takes {growth:.2f}x the time of one with an empty table")


def _round(sends: Mapping[str, Callable[[], object]]) -> Medians:
    """Send with each arm in turn, so that other load affects all of them alike, and return the medians."""
    wall: dict[str, list[float]] = {name: [] for name in sends}
    cpu: dict[str, list[float]] = {name: [] for name in sends}
    for _ in range(MESSAGES):
        for name in _order.sample(list(sends), len(sends)):
            start, cpu_start = time.perf_counter(), time.process_time()
            sends[name]()
            wall[name].append((time.perf_counter() - start) * 1000)
            cpu[name].append((time.process_time() - cpu_start) * 1000)
    return {name: (statistics.median(wall[name]), statistics.median(cpu[name])) for name in sends}
