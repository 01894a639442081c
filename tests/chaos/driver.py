"""Plays Airflow: tries tasks, several at once, until they succeed, fail or run out of tries."""

from __future__ import annotations

import contextlib
import multiprocessing
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.chaos.attempts import Attempt, End, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.context import ForkServerContext

    from tests.chaos.arms import Arm
    from tests.chaos.draws import Draws, LedgerFault, Point

MOST_TRIES = 4
AT_ONCE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a task has to do.

    :param draws: where its attempts are killed; ``None``: nowhere.
    :param first_try: more than 1 when it was cleared.
    """

    arm: Arm
    folder: Path
    url: str
    person: int
    draws: Draws | None
    first_try: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What became of a task.

    :param ends: of its tries.
    :param killed_at: where tries were killed.
    :param ledger_faults: how the ledger of tries went wrong.
    :param said: by the last one.
    """

    person: int
    succeeded: bool
    ends: tuple[End, ...]
    killed_at: tuple[Point, ...]
    said: str
    ledger_faults: tuple[LedgerFault, ...] = ()


def play(task: Task) -> Played:
    """Run a task to its end."""
    ends: list[End] = []
    killed_at: list[Point] = []
    ledger_faults: list[LedgerFault] = []
    said = ""
    for try_number in range(task.first_try, task.first_try + MOST_TRIES):
        point = task.draws.kill(task.person, try_number, task.arm.points) if task.draws else None
        has_ledger = task.arm.memory is not None
        fault = task.draws.ledger_fault(task.person, try_number) if task.draws and has_ledger else None
        if fault is not None:
            ledger_faults.append(fault[0])
        attempt = Attempt(
            arm=task.arm,
            folder=task.folder,
            url=task.url,
            person=task.person,
            try_number=try_number,
            kill_at=point,
            ledger_fault=fault,
        )
        end, said = run(attempt)
        ends.append(end)
        if end is End.KILLED and point is not None:
            killed_at.append(point)
        if end not in {End.KILLED, End.RETRYABLE}:
            break
    return Played(
        person=task.person,
        succeeded=ends[-1] is End.SUCCESS,
        ends=tuple(ends),
        killed_at=tuple(killed_at),
        said=said,
        ledger_faults=tuple(ledger_faults),
    )


def processes() -> ForkServerContext:
    """Return where processes come from: a process of one thread that has loaded what attempts need."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.chaos.attempts"])
    return context


@contextlib.contextmanager
def workers() -> Iterator[Executor]:
    """Give processes that run tasks; each has one thread, as a process that forks should."""
    with ProcessPoolExecutor(AT_ONCE, mp_context=processes()) as pool:
        yield pool
