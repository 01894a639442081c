"""The report of a run."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from airflow_provider_apptoto.outbox.entry import State
from tests.chaos.draws import FREEZES, Fault, LedgerFault, Point

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.chaos.run import Result

_MOST_SHOWN = 10
_UNKNOWN = frozenset({State.UNKNOWN, State.SENDING})


def summary(result: Result) -> dict[str, str]:
    """Return a row of the table; numbers that the server contradicts are in brackets."""
    observed = result.observed
    copies = observed.copies
    states = {entry.origin.map_index: entry.state for entry in observed.entries}
    successes = [task.person for task in observed.tasks if task.succeeded]
    failed = [task.person for task in observed.tasks if not task.succeeded]
    flagged = [person for person in failed if states.get(person) in _UNKNOWN]
    others = [person for person in failed if states.get(person) not in _UNKNOWN]
    extra = [count - 1 for count in copies.values() if count > 1]

    def accepted(people: Iterable[int]) -> int:
        return sum(copies[person] > 0 for person in people)

    return {
        "arm": result.arm.name,
        "extra copies (people hit)": f"{sum(extra)} ({len(extra)})",
        "never delivered": str(len(observed.tasks) - accepted(task.person for task in observed.tasks)),
        "successes (false)": f"{len(successes)} ({len(successes) - accepted(successes)})",
        "flagged unknown (really sent)": f"{len(flagged)} ({accepted(flagged)})" if observed.entries else "-",
        "left to a person: before, after a clear": "-"
        if result.unresolved is None
        else "{}, {}".format(*result.unresolved),
        "failed (really sent)": f"{len(others)} ({accepted(others)})",
        "promises": "none" if result.arm.memory is None else "BROKEN" if result.broken else "kept",
    }


def report(results: Sequence[Result]) -> str:
    """Return all that is printed."""
    rows = [summary(result) for result in results]
    parts = [
        tabulate(rows, headers="keys", disable_numparse=True),
        _counts("killed", Point, [(result.arm.name, result.kills) for result in results]),
        _counts("frozen", FREEZES, [(result.arm.name, result.freezes) for result in results]),
        _counts("two tries at once", ["pairs"], [(result.arm.name, Counter(pairs=result.live)) for result in results]),
        _counts("answered wrongly", Fault, [(result.arm.name, result.faults) for result in results]),
        _counts("the ledger", LedgerFault, [(result.arm.name, result.ledger_faults) for result in results]),
    ]
    for result in results:
        if result.broken:
            lines = [f"{result.arm.name}: {len(result.broken)} broken", *result.broken[:_MOST_SHOWN]]
            parts.append("\n  ".join(lines))
    return "\n\n".join(parts)


def _counts(what: str, kinds: Iterable[str], counts: Sequence[tuple[str, Counter[Any]]]) -> str:
    rows = [[kind, *(count[kind] for _, count in counts)] for kind in kinds]
    return tabulate(rows, headers=[what, *(name for name, _ in counts)])
