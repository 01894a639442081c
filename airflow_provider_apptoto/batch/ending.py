"""Decide how the task of a batch ends: a pure function of its results."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from airflow_provider_apptoto.client.outcomes import Outcome
from airflow_provider_apptoto.outbox.policy import OnUnknown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_apptoto.batch.options import BatchOptions


class End(Enum):
    """How the task of a batch ends."""

    SUCCESS = auto()
    SKIP = auto()
    RETRY = auto()
    """The next try sends the rest."""
    RETRY_UNKNOWN = auto()
    """The next try resends the messages that may have been sent (``on_unknown="resend"``)."""
    HOLD = auto()
    """Wait for the sending window of the held messages."""
    FAIL = auto()
    """A retry would not help, or would do harm."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a task ends, and the text of its error or log line."""

    end: End
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The facts that decide how the task ends.

    :param counts: number of rows by outcome.
    :param messages: number of messages to send.
    :param on_unknown: the ``on_unknown`` of the task.
    :param has_ledger: whether a retry can look up what was sent.
    :param was_begun: whether an earlier try of the task started sending.
    :param too_old: why the run is too old for the remaining messages; empty if it is not.
    :param stopped: why sending stopped; empty if it did not.
    """

    counts: Mapping[Outcome, int]
    messages: int
    on_unknown: str
    has_ledger: bool
    was_begun: bool = False
    too_old: str = ""
    stopped: str = ""


def ending(facts: Facts, options: BatchOptions) -> Ending:  # noqa: PLR0911  one per kind of ending
    """Decide how the task ends."""
    counts = facts.counts
    unsent, unknown, rejected, invalid = (
        counts[outcome] for outcome in (Outcome.NOT_SENT, Outcome.UNKNOWN, Outcome.REJECTED, Outcome.INVALID)
    )
    text = (
        f"Of {facts.messages} messages, {unsent} were not sent, {unknown} may have been sent, {rejected} were rejected"
    )
    if unsent:
        return _retry(facts, End.RETRY, f"{text}: {facts.stopped or 'see the list'}", "sends the rest")
    if counts[Outcome.HELD]:
        return Ending(End.HOLD, f"{counts[Outcome.HELD]} of {facts.messages} messages are held for send_window")
    if rejected + invalid > options.most_failed(facts.messages + invalid):
        also = f", and {invalid} rows were invalid" if invalid else ""
        return Ending(End.FAIL, f"{text}{also}: more than max_failed={options.max_failed!r}")
    if unknown and facts.on_unknown != OnUnknown.RESEND:
        return Ending(End.FAIL, text)
    if counts[Outcome.TOO_OLD] and (facts.too_old or not _done(counts)):
        return _too_old(facts)
    if unknown:
        return _retry(facts, End.RETRY_UNKNOWN, text, "resends the messages that may have been sent")
    return Ending(End.SUCCESS, text if rejected else "")


def _retry(facts: Facts, end: End, text: str, what: str) -> Ending:
    """Let the next try continue, unless it would resend messages that were delivered."""
    if facts.has_ledger or not (_done(facts.counts) or facts.counts[Outcome.UNKNOWN]):
        return Ending(end, f"{text}. The next try {what}")
    return Ending(
        End.FAIL,
        f"{text}. No ledger is configured, so a retry would resend messages that were delivered. The task is not "
        "retried. Set state_conn_id on the Apptoto connection to keep a ledger",
    )


def _too_old(facts: Facts) -> Ending:
    """Skip the task. If an earlier try started sending, fail it: a skip would hide that the batch is incomplete."""
    some = f"{facts.counts[Outcome.TOO_OLD]} of {facts.messages} messages were not sent"
    if not facts.too_old:
        return Ending(End.SKIP, f"{some}: their not_after has passed")
    if facts.was_begun:
        return Ending(End.FAIL, f"{some}: an earlier try started sending, but now {facts.too_old}")
    return Ending(End.SKIP, f"{some}: {facts.too_old}")


def _done(counts: Mapping[Outcome, int]) -> int:
    """Return how many messages are done."""
    return sum(count for outcome, count in counts.items() if outcome.is_done)
