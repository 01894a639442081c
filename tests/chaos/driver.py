"""Stand in for Airflow: run tasks concurrently and retry them until they succeed, fail or have no tries left."""

from __future__ import annotations

import contextlib
import multiprocessing
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.chaos.attempts import Attempt, Process
from tests.chaos.draws import LedgerFault, Wake
from tests.support.promises import End, Played

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.context import ForkServerContext

    from tests.chaos.arms import Arm
    from tests.chaos.draws import Draws, Halt

MOST_TRIES = 4
AT_ONCE = 8
_TRIED_AGAIN = {End.KILLED, End.FROZEN, End.RETRYABLE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """The job of a task.

    :param draws: what happens to its tries; ``None``: nothing.
    :param first_try: more than 1 when it was cleared.
    """

    arm: Arm
    folder: Path
    url: str
    person: int
    draws: Draws | None
    first_try: int = 1


def play(task: Task) -> Played:
    """Run a task to its end."""
    playing = _Play(task)
    try:
        return playing.run()
    except BaseException:
        for process in playing.frozen:
            process.kill()
        raise


@dataclass(slots=True)
class _Play:
    """A task that runs."""

    task: Task
    ends: list[End] = field(default_factory=list)
    halted: list[Halt] = field(default_factory=list)
    ledger_faults: list[LedgerFault] = field(default_factory=list)
    live: int = 0
    silent: int = 0
    woken: list[tuple[End, str]] = field(default_factory=list)
    frozen: list[Process] = field(default_factory=list)
    said: str = ""

    def run(self) -> Played:
        number, last = self.task.first_try, self.task.first_try + MOST_TRIES - 1
        while number <= last:
            draws = self.task.draws
            is_live = draws is not None and number < last and draws.is_live(self.task.person, number)
            self.live += is_live
            self._run_at_once([number, number + 1] if is_live else [number])
            number += 1 + is_live
            if self.ends[-1] not in _TRIED_AGAIN:
                break
        return Played(
            person=self.task.person,
            succeeded=self.ends[-1] is End.SUCCESS,
            ends=tuple(self.ends),
            killed_at=tuple(halt.point for halt in self.halted if halt.wake is None),
            frozen_at=tuple(halt.point for halt in self.halted if halt.wake is not None),
            said=self.said,
            ledger_faults=tuple(self.ledger_faults),
            live=self.live,
            silent=self.silent,
            woken=tuple(self.woken),
            frozen=tuple(self.frozen),
        )

    def _run_at_once(self, numbers: list[int]) -> None:
        """Run one try, or two at the same time; frozen tries resume during or after them."""
        before = self.frozen
        running = [Process.start(self._attempt(number, alone=len(numbers) == 1)) for number in numbers]
        beside = [process for process in before if _wake(process) is Wake.BESIDE]
        for process in beside:
            process.wake()
        ended = [(process, *process.wait()) for process in running]
        after = [process for process in before if _wake(process) is Wake.AFTER]
        for process in after:
            process.wake()
        self.woken += [process.wait() for process in beside + after]
        self.frozen = [process for process in before if process not in beside + after]
        for process, end, said in ended:
            self._note(process, end, said)

    def _attempt(self, number: int, *, alone: bool) -> Attempt:
        arm, draws, person = self.task.arm, self.task.draws, self.task.person
        halt = draws.halt(person, number, arm.points) if draws else None
        return Attempt(
            arm=arm,
            folder=self.task.folder,
            url=self.task.url,
            person=person,
            try_number=number,
            # two concurrent tries are not frozen: the second is the successor of the first
            halt=halt if alone or halt is None or halt.wake is None else None,
            ledger_fault=draws.ledger_fault(person, number) if draws and arm.memory is not None else None,
        )

    def _note(self, process: Process, end: End, said: str) -> None:
        attempt = process.attempt
        is_lost = attempt.ledger_fault is not None and attempt.ledger_fault[0] is LedgerFault.LOST
        self.ends.append(end)
        self.said = said
        self.silent += (end in {End.KILLED, End.FROZEN} or is_lost) and not process.began_to_write
        if attempt.ledger_fault is not None:
            self.ledger_faults.append(attempt.ledger_fault[0])
        if end in {End.KILLED, End.FROZEN} and attempt.halt is not None:
            self.halted.append(attempt.halt)
        if end is End.FROZEN:
            self.frozen.append(process)


def _wake(process: Process) -> Wake | None:
    return None if process.attempt.halt is None else process.attempt.halt.wake


def processes() -> ForkServerContext:
    """Return the fork server: a single-threaded process that has imported what tries need."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.chaos.attempts"])
    return context


@contextlib.contextmanager
def workers() -> Iterator[Executor]:
    """Provide processes that run tasks; each is single-threaded, because it forks."""
    with ProcessPoolExecutor(AT_ONCE, mp_context=processes()) as pool:
        yield pool
