"""Compares what the server accepted with what Airflow says, and with the agreed rate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

WORKERS = 2
"""Of a cluster: at least as many must have sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What is known once all tasks have ended.

    :param copies: what each person got, by the server's own list.
    :param named: people whose task, or whose row of the batch, is reported as failed; all others as a success.
    """

    copies: Counter[int]
    named: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What was seen of a run.

    :param messages: number of people; half of them, from 0 on, are the batch's.
    :param first: after the tasks of the first run ended.
    :param cleared: after the failed ones were cleared.
    :param cleared_again: after all were cleared.
    :param tries_killed: tasks that were killed in the middle of a request.
    :param requests_killed: requests whose senders were killed.
    :param away: seconds for which there was no PostgreSQL.
    :param restarts: processes of Airflow that ended by themselves, and were started again.
    :param resolved: entries of the ledger that people resolved, by what they found.
    :param most: requests in the busiest window, by its seconds.
    :param agreed: the same, as agreed.
    :param refused: requests answered by 429.
    :param by_worker: accepted messages of the first run, by worker.
    """

    messages: int
    first: Observed
    cleared: Observed
    cleared_again: Observed
    tries_killed: int
    requests_killed: int
    away: float
    restarts: Counter[str]
    resolved: Counter[str]
    most: Mapping[float, int]
    agreed: Mapping[float, int]
    refused: int
    by_worker: Counter[str]
    seconds: float

    @property
    def people(self) -> range:
        return range(self.messages)

    @property
    def lost(self) -> list[int]:
        """People who got nothing from the first run, which reports a success."""
        return [who for who in self.people if not self.first.copies[who] and who not in self.first.named]


def broken(result: Result) -> list[str]:
    """Return which promises were broken, and over whom."""
    lines = []
    ends = {"first": result.first, "cleared": result.cleared, "cleared again": result.cleared_again}
    for when, observed in ends.items():
        copies = sorted(observed.copies.items())
        lines += [f"{when}: {_who(result, who)} got {count} copies" for who, count in copies if count > 1]
        lines += [
            f"{when}: person {who}, whom nobody meant, got a message" for who, _ in copies if who >= result.messages
        ]
        if observed is result.first:
            lines += [f"{when}: {_who(result, who)} got nothing, but is reported as sent" for who in result.lost]
        else:
            lines += [f"{when}: {_who(result, who)} got nothing" for who in result.people if not observed.copies[who]]
            lines += [f"{when}: {_who(result, who)} is reported as failed" for who in sorted(observed.named)]
    for seconds, most in result.most.items():
        if most > result.agreed[seconds]:
            lines.append(f"{most} requests came within {seconds:.0f} s, and {result.agreed[seconds]} were agreed")
    if len(result.by_worker) < WORKERS:
        lines.append(f"only {', '.join(result.by_worker) or 'nobody'} sent")
    return lines


def rows(result: Result) -> list[tuple[str, str]]:
    """Return the table."""
    first, half = result.first, result.messages // 2
    extra = sum(count > 1 for count in result.cleared_again.copies.values())
    named = [who for who in result.people if who in first.named]
    without = sum(not first.copies[who] for who in named)
    kept = [
        (f"busiest {seconds:.0f} s: requests (agreed)", f"{most} ({result.agreed[seconds]})")
        for seconds, most in result.most.items()
    ]
    return [
        ("messages: by a batch, by mapped tasks", f"{half}, {result.messages - half}"),
        ("killed in mid-request: tries, requests", f"{result.tries_killed}, {result.requests_killed}"),
        ("PostgreSQL killed, and away for", f"{result.away:.0f} s"),
        ("Airflow's own processes that ended and were restarted", _counts(result.restarts)),
        ("first run: people who got the message", str(len(first.copies))),
        ("first run: got nothing, but reported as sent", str(len(result.lost))),
        ("first run: reported as failed (got nothing)", f"{len(named)} ({without})"),
        ("unknown messages that were resolved", _counts(result.resolved)),
        ("failed tasks cleared: people with exactly one copy", _exactly_one(result, result.cleared)),
        ("all tasks cleared: people with exactly one copy", _exactly_one(result, result.cleared_again)),
        ("people with more than one copy", str(extra)),
        *kept,
        ("requests refused with 429", str(result.refused)),
        ("first run: messages by worker", _counts(result.by_worker)),
        ("duration", f"{result.seconds:.0f} s"),
    ]


def _exactly_one(result: Result, observed: Observed) -> str:
    return f"{sum(observed.copies[who] == 1 for who in result.people)} of {result.messages}"


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"


def _who(result: Result, who: int) -> str:
    return f"person {who} ({'batch' if who < result.messages // 2 else 'mapped'})"
