"""Runs an arm: chaos, a look at the damage, then a person puts it right."""

from __future__ import annotations

import functools
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_apptoto.delivery import OnUnknown
from airflow_provider_apptoto.state.store import State
from tests.chaos.checker import Observed, broken, not_put_right
from tests.chaos.driver import MOST_TRIES, Task, play
from tests.chaos.server import ChaosServer

if TYPE_CHECKING:
    from concurrent.futures import Executor
    from pathlib import Path

    from tests.chaos.arms import Arm
    from tests.chaos.draws import Draws, Fault, LedgerFault, Point
    from tests.chaos.memory import Memory

DEADLINE = 60
"""Seconds after which a state is taken never to come; not a measure of speed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of an arm.

    :param broken: promises of the ledger that were broken; nothing is promised of an arm that has none.
    """

    arm: Arm
    observed: Observed
    broken: list[str] = field(default_factory=list)
    kills: Counter[Point] = field(default_factory=Counter)
    faults: Counter[Fault] = field(default_factory=Counter)
    ledger_faults: Counter[LedgerFault] = field(default_factory=Counter)


def run_arm(arm: Arm, draws: Draws, sends: int, folder: Path, workers: Executor) -> Result:
    """Send to everybody under chaos, check, and where people can put it right have them do so, and check again.

    :param folder: an empty one.
    """
    memory = None if arm.memory is None else arm.memory(folder)
    with ChaosServer(draws) as server:

        def observe(tasks: list[Task]) -> Observed:
            played = list(workers.map(play, tasks))
            return Observed(tasks=played, copies=server.copies(), entries=memory.entries() if memory else [])

        tasks = [Task(arm=arm, folder=folder, url=server.url, person=person, draws=draws) for person in range(sends)]
        observed = observe(tasks)
        found = [] if memory is None else broken(observed, arm.on_unknown)
        if memory is not None and arm.on_unknown is OnUnknown.FAIL:
            server.behaves = True
            _resolve_by_truth(memory, server.copies())
            again = functools.partial(
                Task, arm=arm, folder=folder, url=server.url, draws=None, first_try=1 + MOST_TRIES
            )
            cleared = observe([again(person=task.person) for task in observed.tasks if not task.succeeded])
            found += not_put_right(cleared)
        kills = Counter(point for task in observed.tasks for point in task.killed_at)
        return Result(
            arm=arm,
            observed=observed,
            broken=found,
            kills=kills,
            faults=server.faults,
            ledger_faults=Counter(fault for task in observed.tasks for fault in task.ledger_faults),
        )


def _resolve_by_truth(memory: Memory, copies: Counter[int]) -> None:
    """Say of each message that nobody could tell of whether it was sent, as soon as nobody can be at work on it."""
    deadline = time.monotonic() + DEADLINE
    while any(entry.state is State.SENDING and entry.is_live for entry in memory.entries()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for entry in memory.entries():
        if entry.is_unresolved:
            memory.resolve(entry, State.SENT if copies[entry.origin.map_index] else State.NOT_SENT)
