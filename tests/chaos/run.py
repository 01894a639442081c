"""Run an arm: inject faults, record the damage, resolve the messages, and resume the frozen tries."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_apptoto.outbox.entry import State
from airflow_provider_apptoto.outbox.policy import OnUnknown
from tests.chaos.attempts import DEADLINE
from tests.chaos.driver import MOST_TRIES, Task, play
from tests.chaos.server import ChaosServer
from tests.support.promises import Observed, Played, broken, not_put_right, undone

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Executor
    from pathlib import Path

    from tests.chaos.arms import Arm
    from tests.chaos.draws import Draws, Fault, LedgerFault, Point
    from tests.chaos.memory import Memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The results of an arm.

    :param broken: promises of the ledger that were broken; an arm without a ledger promises nothing.
    :param live: tries that were still running when the next one started.
    :param unresolved: with appointments, messages that a person must resolve, before and after all failed tasks were
        cleared once: the next try looks into their conversations.
    """

    arm: Arm
    observed: Observed
    broken: list[str] = field(default_factory=list)
    kills: Counter[Point] = field(default_factory=Counter)
    freezes: Counter[Point] = field(default_factory=Counter)
    live: int = 0
    unresolved: tuple[int, int] | None = None
    faults: Counter[Fault] = field(default_factory=Counter)
    ledger_faults: Counter[LedgerFault] = field(default_factory=Counter)


def run_arm(arm: Arm, draws: Draws, sends: int, folder: Path, workers: Executor) -> Result:
    """Send to everybody under faults, check, resolve unknown messages, resume frozen tries, and check again.

    :param folder: an empty one.
    """
    memory = None if arm.memory is None else arm.memory(folder)
    found: list[str] = []
    unresolved = None
    with ChaosServer(draws) as server:

        def observe(tasks: Sequence[Played]) -> Observed:
            return Observed(tasks=tasks, copies=server.copies(), entries=memory.entries() if memory else [])

        tasks = [Task(arm=arm, folder=folder, url=server.url, person=person, draws=draws) for person in range(sends)]
        played = list(workers.map(play, tasks))
        try:
            observed = observe(played)
            if memory is not None:
                found += broken(observed, arm.on_unknown)
            server.behaves = True
            if memory is not None and arm.on_unknown is OnUnknown.FAIL:
                again = functools.partial(Task, arm=arm, folder=folder, url=server.url, draws=None)
                failed = [task.person for task in played if not task.succeeded]
                _wait_for_leases(memory)
                if arm.appointments:
                    found_open = _count_unresolved(memory)
                    looking = [again(person=person, first_try=1 + MOST_TRIES) for person in failed]
                    looked = list(workers.map(play, looking))
                    failed = [task.person for task in looked if not task.succeeded]
                    unresolved = found_open, _count_unresolved(memory)
                _resolve_by_truth(memory, server.copies())
                clear = [again(person=person, first_try=1 + 2 * MOST_TRIES) for person in failed]
                found += not_put_right(observe(list(workers.map(play, clear))))
            before = observe(played)
            played = [_with_woken(task) for task in played]
            after = observe(played)
            if memory is None:
                observed = after
            else:
                found += [*undone(before, after), *broken(after, arm.on_unknown)]
        finally:
            for process in [process for task in played for process in task.frozen]:
                process.kill()
        return Result(
            arm=arm,
            observed=observed,
            broken=list(dict.fromkeys(found)),
            kills=Counter(point for task in played for point in task.killed_at),
            freezes=Counter(point for task in played for point in task.frozen_at),
            live=sum(task.live for task in played),
            unresolved=unresolved,
            faults=server.faults,
            ledger_faults=Counter(fault for task in played for fault in task.ledger_faults),
        )


def _with_woken(task: Played) -> Played:
    """Resume the tries of a task that are still frozen, and wait until they end."""
    woken = [process.wake_and_wait() for process in task.frozen]
    return dataclasses.replace(task, woken=(*task.woken, *woken), frozen=())


def _wait_for_leases(memory: Memory) -> None:
    """Wait until no try can be sending a message."""
    deadline = time.monotonic() + DEADLINE
    while any(entry.state is State.SENDING and entry.is_live for entry in memory.entries()):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _count_unresolved(memory: Memory) -> int:
    return sum(entry.is_unresolved for entry in memory.entries())


def _resolve_by_truth(memory: Memory, copies: Counter[int]) -> None:
    """Resolve each message that may have been sent."""
    for entry in memory.entries():
        if entry.is_unresolved:
            memory.resolve(entry, State.SENT if copies[entry.origin.map_index] else State.NOT_SENT)
