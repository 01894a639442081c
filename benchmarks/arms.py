"""The arms: each a way to send many messages, with a DAG file and a reader of what its user is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.judge import Told
from benchmarks.people import person_of

if TYPE_CHECKING:
    from benchmarks.runs import Run

_OF_OUTCOME = {"unknown": Told.CHECK, "sending": Told.CHECK}


def _told_by_batch(run: Run, people: int) -> dict[int, Told]:
    """Read the report: it lists every message that was not sent."""
    report = run.xcom("report")
    if report is None:
        return {}
    if report["failures_left_out"]:
        raise RuntimeError("The report leaves failures out, so the figures mean nothing; send fewer messages")
    failures = {each["index"]: _OF_OUTCOME.get(each["outcome"], Told.NOT_SENT) for each in report["failures"]}
    return dict.fromkeys(range(people), Told.SENT) | failures


def _told_by_mapped(run: Run, people: int) -> dict[int, Told]:  # noqa: ARG001  the others need it
    """Read the state of each task, and the ledger entry of each that failed."""
    entries = run.entries()
    return {
        person: Told.SENT if state == "success" else _OF_OUTCOME.get(entries.get(person, ""), Told.NOT_SENT)
        for person, (state, _) in run.tasks.items()
    }


def _told_by_states(run: Run, people: int) -> dict[int, Told]:  # noqa: ARG001  the others need it
    """Read the state of each task: there is nothing else."""
    return {person: Told.SENT if state == "success" else Told.NOT_SENT for person, (state, _) in run.tasks.items()}


def _told_by_loop(run: Run, people: int) -> dict[int, Told]:
    """Read the list of failures; a loop that was killed leaves none."""
    state, _ = run.tasks[-1]
    failed = [] if state == "success" else run.xcom("failed")
    if failed is None:
        return {}
    return dict.fromkeys(range(people), Told.SENT) | {person_of(to): Told.NOT_SENT for to in failed}


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to send; its DAG file in ``dags/arms`` has its name.

    :param title: name in the tables.
    :param told: returns what the user is told of each person, from a run and the number of people.
    :param is_ours: whether it uses this provider.
    """

    title: str
    told: Callable[[Run, int], dict[int, Told]]
    is_ours: bool = False


ARMS = {
    "batch": Arm("our batch", _told_by_batch, is_ours=True),
    "mapped": Arm("our operator, mapped", _told_by_mapped, is_ours=True),
    "http_operator": Arm("HttpOperator, mapped", _told_by_states),
    "requests_loop": Arm("requests loop", _told_by_loop),
    "aiohttp_loop": Arm("aiohttp loop, limiter", _told_by_loop),
}
