"""What became of a batch: counts, the names of those who may have got nothing, and how fast it goes."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_apptoto.batch.plan import place
from airflow_provider_apptoto.client.routing import DeliveryMode
from airflow_provider_apptoto.delivery import ASSUMED_SENT, DEDUPLICATED
from airflow_provider_apptoto.state.store import State

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from airflow_provider_apptoto.batch.plan import LeftOut, Plan, PlannedMessage

REPORT_BYTES = 62_000
"""Of JSON: Airflow's stores take 64 KB, and add some of their own."""
INVALID, SUPPRESSED, DUPLICATE = NO_MESSAGE = ("invalid", "suppressed", "duplicate")
"""What rows are that make no message."""
DONE = (State.SENT, "redirected", DeliveryMode.DRY_RUN, DEDUPLICATED, ASSUMED_SENT)
"""Outcomes after which nothing is left to do."""
FAILED = (State.UNKNOWN, State.REJECTED, State.NOT_SENT)
"""The others; the first is what a person has to look at first."""
_OUTCOMES = tuple(str(outcome) for outcome in (*DONE, *FAILED, *NO_MESSAGE))
MOST_NAMED = 1000
"""Failures of one outcome that are kept by name; the rest are counted."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A row whose message was not sent, or of which nobody can tell."""

    index: int
    line: int | None
    reference: str | None
    key: str | None
    outcome: str
    http_status: int | None
    reason: str

    def __str__(self) -> str:
        """Say it in a line."""
        status = "" if self.http_status is None else f", HTTP {self.http_status}"
        key = f", key {self.key}" if self.key is not None and self.outcome == State.UNKNOWN else ""
        return f"{place(self.index, self.line, self.reference)}{key}: {self.outcome}{status}: {self.reason}"


class Tally:
    """Counts what becomes of the messages of a batch; for any number of threads.

    :param plan: what is to be sent.
    :param has_ledger: whether keys mean anything.
    """

    def __init__(self, plan: Plan, *, has_ledger: bool) -> None:
        self._plan = plan
        self._has_ledger = has_ledger
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._failures: dict[str, list[Failure]] = {str(outcome): [] for outcome in FAILED}
        self._untried: list[Failure] = []
        self._started = time.monotonic()

    def add(self, message: PlannedMessage, outcome: str, *, status: int | None = None, reason: str = "") -> None:
        """Count what became of a message."""
        outcome = str(outcome)
        with self._lock:
            self._counts[outcome] += 1
            named = self._failures.get(outcome)
            if named is not None and len(named) < MOST_NAMED:
                named.append(self._failure(message, outcome, status, reason))

    def add_untried(self, messages: Sequence[PlannedMessage], reason: str) -> None:
        """Count messages whose turn never came."""
        outcome, reason = str(State.NOT_SENT), f"not tried: {reason}"
        with self._lock:
            self._counts[outcome] += len(messages)
            room = MOST_NAMED - len(self._untried)
            self._untried += [self._failure(message, outcome, None, reason) for message in messages[:room]]

    def _failure(self, message: PlannedMessage, outcome: str, status: int | None, reason: str) -> Failure:
        key = message.key if self._has_ledger else None
        return Failure(message.index, message.line, message.reference, key, outcome, status, reason)

    def __getitem__(self, outcome: str) -> int:
        """Return how many messages came to an outcome."""
        with self._lock:
            return self._counts[str(outcome)]

    def counts(self) -> dict[str, int]:
        """Return how many rows there are, and what they came to so far."""
        plan = self._plan
        rows = {INVALID: plan.invalid, SUPPRESSED: plan.suppressed, DUPLICATE: plan.duplicates}
        with self._lock:
            return {"total": plan.rows} | {name: rows.get(name, self._counts[name]) for name in _OUTCOMES}

    def failures(self, *, untried: bool) -> Iterator[Failure]:
        """Yield the failed messages that are kept by name.

        :param untried: also those whose turn never came.
        """
        with self._lock:
            failures = [*itertools.chain.from_iterable(self._failures.values()), *(self._untried if untried else ())]
        yield from failures

    def invalid(self) -> Iterator[Failure]:
        """Yield the invalid rows that are kept by name."""
        for problem in self._plan.problems:
            reason = f"{problem.field}: {problem.reason}"
            yield Failure(problem.index, problem.line, problem.reference, None, INVALID, None, reason)

    def report(self) -> dict[str, Any]:
        """Return the counts, and as many rows as there is room for: failures, then suppressed, then duplicate ones."""
        counts = self.counts()
        room = REPORT_BYTES - len(json.dumps(counts))
        named: dict[str, list[dict[str, Any]]] = {}
        lists: dict[str, Iterable[Failure | LeftOut]] = {
            "failures": itertools.chain(self.failures(untried=True), self.invalid()),
            "suppressed_rows": self._plan.suppressed_rows,
            "duplicate_rows": self._plan.duplicate_rows,
        }
        for name, rows in lists.items():
            named[name] = []
            for row in rows:
                fields = asdict(row)
                room -= len(json.dumps(fields)) + 2
                if room < 0:
                    break
                named[name].append(fields)
        failed = sum(counts[name] for name in (*map(str, FAILED), INVALID))
        return {**counts, **named, "failures_left_out": failed - len(named["failures"])}

    def progress(self) -> str:
        """Say in a line how far it is."""
        counts, messages = self.counts(), len(self._plan.messages)
        ended = sum(counts[str(outcome)] for outcome in (*DONE, *FAILED))
        # what an earlier try had sent takes no time, and would make the rest look near
        asked = ended - counts[DEDUPLICATED]
        seconds = time.monotonic() - self._started
        pace = asked * 60 / seconds if seconds else 0.0
        failed = ", ".join(f"{counts[name]} {name}" for name in map(str, FAILED) if counts[name]) or "none failed"
        left = f", about {_duration((messages - ended) * 60 / pace)} left" if pace and ended < messages else ""
        done = sum(counts[str(outcome)] for outcome in DONE)
        return f"{done} of {messages} messages done, {failed}; {pace:.1f} a minute{left}"

    def table(self) -> str:
        """Return the counts as a table."""
        rows = [(name, count) for name, count in self.counts().items() if count or name in {"total", State.SENT}]
        return "\n".join(f"  {name:<14}{count:>9,}" for name, count in rows)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else f"{seconds} s"
