"""The results of a batch: counts, failed rows and progress."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_apptoto.batch.plan import place
from airflow_provider_apptoto.client.outcomes import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from airflow_provider_apptoto.batch.plan import LeftOut, Plan, PlannedMessage
    from airflow_provider_apptoto.batch.rehearsal import Rehearsal
    from airflow_provider_apptoto.client.errors import ApptotoError

MAX_REPORT_BYTES = 62_000
"""Maximum size of the report as JSON. Airflow's stores take 64 KB, some of it for themselves."""
FAILED = (Outcome.UNKNOWN, Outcome.REJECTED, Outcome.NOT_SENT)
"""Outcomes of failed messages. Those that a person must resolve come first."""
MAX_NAMED = 1000
"""Maximum number of failures listed for each outcome; further failures are only counted."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A row whose message was not sent, or may have been sent.

    :param code: stable name of the cause.
    :param column: the column that caused it, if known.
    """

    index: int
    line: int | None
    reference: str | None
    key: str | None
    outcome: Outcome
    http_status: int | None
    code: str
    column: str | None
    reason: str

    def __str__(self) -> str:
        """Return a line for logs and errors."""
        status = "" if self.http_status is None else f", HTTP {self.http_status}"
        key = f", key {self.key}" if self.key is not None and self.outcome.needs_person else ""
        return f"{place(self.index, self.line, self.reference)}{key}: {self.outcome}{status}: {self.reason}"


class BatchResults:
    """Counts the outcomes of a batch. Safe to use from several threads.

    :param plan: the plan of the batch.
    :param has_ledger: whether there is a ledger, so that keys are reported.
    :param rehearsal: adds up the messages of a dry run; ``None``: no dry run.
    """

    def __init__(self, plan: Plan, *, has_ledger: bool, rehearsal: Rehearsal | None = None) -> None:
        self.rehearsal = rehearsal
        self._plan = plan
        self._has_ledger = has_ledger
        self._lock = threading.Lock()
        self._counts: Counter[Outcome] = Counter()
        self._failures: dict[Outcome, list[Failure]] = {outcome: [] for outcome in FAILED}
        self._untried: list[Failure] = []
        self._started = time.monotonic()

    def add(
        self,
        message: PlannedMessage,
        outcome: Outcome,
        error: ApptotoError | None = None,
        *,
        held_until: datetime | None = None,
    ) -> None:
        """Count the outcome of a message.

        :param error: why it failed.
        :param held_until: when a held message may be sent.
        """
        with self._lock:
            self._counts[outcome] += 1
            if self.rehearsal is not None:
                self.rehearsal.add(message, outcome, held_until)
            named = self._failures.get(outcome)
            if named is not None and error is not None and len(named) < MAX_NAMED:
                named.append(self._failure(message, outcome, error.status, error.code, error.reason))

    def add_untried(self, messages: Sequence[PlannedMessage], reason: str) -> None:
        """Count messages that were not tried."""
        with self._lock:
            self._counts[Outcome.NOT_SENT] += len(messages)
            room = MAX_NAMED - len(self._untried)
            self._untried += [
                self._failure(message, Outcome.NOT_SENT, None, "stopped", f"not tried: {reason}")
                for message in messages[:room]
            ]

    def _failure(
        self, message: PlannedMessage, outcome: Outcome, status: int | None, code: str, reason: str
    ) -> Failure:
        key = message.key if self._has_ledger else None
        return Failure(message.index, message.line, message.reference, key, outcome, status, code, None, reason)

    def __getitem__(self, outcome: Outcome) -> int:
        """Return how many rows have an outcome."""
        with self._lock:
            return self._counts[outcome] + self._rows().get(outcome, 0)

    def _rows(self) -> Mapping[Outcome, int]:
        """Return how many rows have no message, by outcome."""
        plan = self._plan
        return {
            Outcome.INVALID: plan.invalid,
            Outcome.SUPPRESSED: plan.suppressed,
            Outcome.DUPLICATE: plan.duplicates,
        }

    def counts(self) -> dict[str, int]:
        """Return the number of rows in total and by outcome so far."""
        return {"total": self._plan.rows} | {str(outcome): self[outcome] for outcome in Outcome}

    @property
    def messages(self) -> int:
        """Number of messages to send."""
        return len(self._plan.messages)

    @property
    def done(self) -> int:
        """Number of messages that are done."""
        return sum(self[outcome] for outcome in Outcome if outcome.is_done)

    def failures(self, *, untried: bool) -> Iterator[Failure]:
        """Yield the failed messages that are listed.

        :param untried: whether to include messages that were not tried.
        """
        with self._lock:
            failures = [*itertools.chain.from_iterable(self._failures.values()), *(self._untried if untried else ())]
        yield from failures

    def invalid(self) -> Iterator[Failure]:
        """Yield the invalid rows that are listed."""
        for row in self._plan.problems:
            reason = f"{row.field}: {row.reason}"
            yield Failure(row.index, row.line, row.reference, None, Outcome.INVALID, None, row.code, row.column, reason)

    def report(self) -> dict[str, Any]:
        """Return the counts, and as many rows as fit: first failures, then suppressed rows, then duplicates."""
        counts: dict[str, Any] = self.counts()
        if self.rehearsal is not None:
            counts["rehearsal"] = self.rehearsal.report()
        room = MAX_REPORT_BYTES - len(json.dumps(counts))
        named: dict[str, list[dict[str, Any]]] = {}
        lists: dict[str, Iterable[Failure | LeftOut]] = {
            "failures": itertools.chain(self.failures(untried=True), self.invalid()),
            "suppressed_rows": self._plan.suppressed_rows,
            "duplicate_rows": self._plan.duplicate_rows,
        }
        for name, rows in lists.items():
            named[name] = []
            for row in rows:
                fields = {field: str(value) if field == "outcome" else value for field, value in asdict(row).items()}
                room -= len(json.dumps(fields)) + 2
                if room < 0:
                    break
                named[name].append(fields)
        failed = sum(self[outcome] for outcome in (*FAILED, Outcome.INVALID))
        return {**counts, **named, "failures_left_out": failed - len(named["failures"])}

    def progress(self) -> str:
        """Return the progress as one line."""
        withheld = [outcome for outcome in Outcome if outcome.is_withheld and outcome is not Outcome.SUPPRESSED]
        ended = self.done + sum(self[outcome] for outcome in (*FAILED, Outcome.HELD, *withheld))
        # messages that an earlier try sent take no time, and would make the estimate too short
        asked = ended - self[Outcome.DEDUPLICATED]
        seconds = time.monotonic() - self._started
        rate = asked * 60 / seconds if seconds else 0.0
        failed = ", ".join(f"{self[outcome]} {outcome}" for outcome in FAILED if self[outcome]) or "none failed"
        left = (
            f", about {_duration((self.messages - ended) * 60 / rate)} left" if rate and ended < self.messages else ""
        )
        return f"{self.done} of {self.messages} messages done, {failed}; {rate:.1f} per minute{left}"

    def table(self) -> str:
        """Return the counts as a table."""
        shown = {"total", str(Outcome.SENT)}
        rows = [(name, count) for name, count in self.counts().items() if count or name in shown]
        return "\n".join(f"  {name:<14}{count:>9,}" for name, count in rows)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else f"{seconds} s"
