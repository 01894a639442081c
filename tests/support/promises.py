"""Check the promises of the ledger: compare what the server accepted with what the ledger and Airflow record."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from airflow_provider_apptoto.outbox.entry import State
from airflow_provider_apptoto.outbox.policy import OnUnknown

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow_provider_apptoto.outbox.entry import Entry
    from tests.chaos.attempts import Process
    from tests.chaos.draws import LedgerFault, Point

NOT_SENT = frozenset({State.NOT_SENT, State.REJECTED})
"""States in which nobody got the message."""


class End(StrEnum):
    """What Airflow sees of a try."""

    SUCCESS = "success"
    RETRYABLE = "retryable"
    """An exception after which Airflow tries again."""
    FAILED = "failed"
    """``AirflowFailException``."""
    KILLED = "killed"
    FROZEN = "frozen"
    """Its heartbeat stopped, so Airflow treats it as dead."""
    BROKEN = "broken"
    """An exception that none of this should raise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """The results of a task.

    :param ends: of its tries.
    :param killed_at: where tries were killed.
    :param frozen_at: where tries were frozen.
    :param said: by the last one.
    :param ledger_faults: how the ledger of tries went wrong.
    :param live: tries that were still running when the next one started.
    :param silent: tries that were stopped before they wrote to their ledger.
    :param woken: ends of tries that were frozen and resumed.
    :param frozen: tries that are frozen still.
    """

    person: int
    succeeded: bool
    ends: tuple[End, ...]
    killed_at: tuple[Point, ...]
    said: str
    frozen_at: tuple[Point, ...] = ()
    ledger_faults: tuple[LedgerFault, ...] = ()
    live: int = 0
    silent: int = 0
    woken: tuple[tuple[End, str], ...] = ()
    frozen: tuple[Process, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """The data after a run.

    :param tasks: what Airflow saw.
    :param copies: what each person got, by the server's own list.
    :param entries: the ledger.
    """

    tasks: Sequence[Played]
    copies: Counter[int]
    entries: Sequence[Entry]

    def entry(self, person: int) -> Entry | None:
        """Return the entry of a person's message."""
        return next((entry for entry in self.entries if entry.origin.map_index == person), None)


def broken(observed: Observed, on_unknown: OnUnknown) -> list[str]:
    """Return which promises of the ledger were broken, and over whom."""
    return [*_one_state_each(observed), *_truth(observed, at_most_once=on_unknown is OnUnknown.FAIL)]


def undone(before: Observed, after: Observed) -> list[str]:
    """Return who got another copy, or whose entry changed, by tries that had been frozen, though it was sent before."""
    now = {entry.origin.map_index: entry for entry in after.entries}
    lines = []
    for task in after.tasks:
        was = before.entry(task.person)
        if was is not None and was.state is State.SENT:
            more = after.copies[task.person] - before.copies[task.person]
            if more or now.get(task.person) != was:
                lines.append(f"{_who(task)}, woken: {more} more copies, {now.get(task.person)}")
    return lines


def not_put_right(cleared: Observed) -> list[str]:
    """Return who did not have exactly one copy once people had resolved what was unknown, and cleared the tasks."""
    copies = cleared.copies
    return [
        f"{_who(task)}, cleared: {'success' if task.succeeded else 'failed'}, {copies[task.person]} copies"
        for task in cleared.tasks
        if not task.succeeded or copies[task.person] != 1
    ]


def _one_state_each(observed: Observed) -> Iterator[str]:
    count = Counter(entry.origin.map_index for entry in observed.entries)
    people = {task.person for task in observed.tasks}
    if strangers := count.keys() - people:
        yield f"entries of nobody: {sorted(strangers)}"
    for task in observed.tasks:
        # if each try was stopped before it wrote, there is no entry
        is_silent = task.silent == len(task.ends)
        if count[task.person] != 1 and not (is_silent and count[task.person] == 0):
            yield f"{_who(task)}: {count[task.person]} entries"


def _truth(observed: Observed, *, at_most_once: bool) -> Iterator[str]:
    entries = {entry.origin.map_index: entry for entry in observed.entries}
    for task in observed.tasks:
        entry = entries.get(task.person)
        state = None if entry is None else entry.state
        copies = observed.copies[task.person]
        if End.BROKEN in task.ends:
            yield f"{_who(task)}: {task.said}"
        for end, said in task.woken:
            if end is End.BROKEN or (end is End.SUCCESS and copies == 0):
                yield f"{_who(task)}: woken, {end} with {copies} copies: {said}"
        if task.succeeded and copies == 0:
            yield f"{_who(task)}: success, and not accepted"
        if task.succeeded and state is not State.SENT:
            yield f"{_who(task)}: success, and the ledger says {state}"
        if state is State.SENT and copies == 0:
            yield f"{_who(task)}: sent by the ledger, and not accepted"
        if at_most_once and copies > 1:
            yield f"{_who(task)}: {copies} copies"
        if at_most_once and copies and (state is None or state in NOT_SENT):
            yield f"{_who(task)}: {state} by the ledger, and accepted"


def _who(task: Played) -> str:
    killed, frozen = (", ".join(points) or "never" for points in (task.killed_at, task.frozen_at))
    return f"person {task.person} ({', '.join(task.ends)}; killed {killed}; frozen {frozen}; live {task.live})"
