"""What the ledger keeps of a message, and what it asks of the place where it is kept."""

from __future__ import annotations

import dataclasses
import secrets
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Mapping


class State(StrEnum):
    """Where a message stands."""

    CLAIMED = "claimed"
    """A task is about to send it; no byte has left."""
    SENDING = "sending"
    """The first byte is about to leave, or has left."""
    SENT = "sent"
    NOT_SENT = "not_sent"
    REJECTED = "rejected"
    UNKNOWN = "unknown"


UNDER_WAY = frozenset({State.CLAIMED, State.SENDING})
"""States of a message that a task works on, or did when it was killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The try of a task that a message comes from."""

    dag_id: str
    task_id: str
    run_id: str
    map_index: int
    try_number: int

    @property
    def task(self) -> tuple[str, str, str, int]:
        """The task instance, whichever its try."""
        return self.dag_id, self.task_id, self.run_id, self.map_index

    def __str__(self) -> str:
        """Show the task instance."""
        mapped = f"[{self.map_index}]" if self.map_index >= 0 else ""
        return f"{self.dag_id}.{self.task_id}{mapped}, run {self.run_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What is kept of one message; nothing of it is personal.

    :param key: what makes the message this one and no other (:func:`.ledger.message_key`).
    :param state: where it stands.
    :param fingerprint: keyed hash of what it says.
    :param type: ``sms``, ``call`` or ``email``.
    :param origin: the try that last worked on it.
    :param lease: seconds from ``updated_at`` for which that try may be at work; 0 once it is done.
    :param updated_at: when it came to this state (seconds since 1970, UTC).
    :param sent_at: when the first byte of its last request was about to leave (seconds since 1970, UTC).
    :param reference: the user's own id of the thing.
    :param in_doubt: whether an earlier try may have sent it, and ``on_unknown="resend"`` tried again.
    :param http_status: status of Apptoto's answer.
    :param reason: what the server or the network said, made safe to show.
    :param version: another one after each change, so that a change made meanwhile is noticed.
    """

    key: str
    state: State
    fingerprint: str
    type: str
    origin: Origin
    lease: float = 0.0
    updated_at: float = field(default_factory=time.time)
    sent_at: float | None = None
    reference: str | None = None
    in_doubt: bool = False
    http_status: int | None = None
    reason: str = ""
    version: str = field(default_factory=lambda: secrets.token_hex(8))

    def changed(self, state: State, **fields: Any) -> Self:
        """Return it in another state, as of now."""
        return dataclasses.replace(
            self, state=state, updated_at=time.time(), version=secrets.token_hex(8), **{"lease": 0.0, **fields}
        )

    @property
    def is_live(self) -> bool:
        """Whether whoever has it under way may still be at work."""
        return self.state in UNDER_WAY and self.remaining > 0

    @property
    def remaining(self) -> float:
        """Seconds until its lease has run out, never more than the lease: a clock may have been put back."""
        return min(self.updated_at + self.lease - time.time(), self.lease)

    @property
    def is_unresolved(self) -> bool:
        """Whether nobody can tell if it was sent; a task that was killed while it sent leaves ``sending`` behind."""
        return self.state is State.UNKNOWN or (self.may_be_sent and not self.is_live)

    @property
    def may_be_sent(self) -> bool:
        """Whether it may have been sent, as far as the ledger can tell."""
        return self.state in {State.UNKNOWN, State.SENDING} or (self.state is State.CLAIMED and self.in_doubt)

    @property
    def at(self) -> str:
        """When it was sent, or came to this state without (ISO 8601, UTC)."""
        at = self.sent_at if self.sent_at is not None and self.state is State.SENT else self.updated_at
        return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")

    @property
    def answer(self) -> str:
        """What came of its request."""
        status = "no complete answer" if self.http_status is None else f"HTTP {self.http_status}"
        return f"{status} ({self.reason})" if self.reason else status

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        fields = dataclasses.asdict(self)
        return {**fields.pop("origin"), **fields}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_dict` returned.

        :raises ValueError: it is not that.
        """
        try:
            names = [each.name for each in dataclasses.fields(Origin)]
            origin = Origin(**{name: fields[name] for name in names})
            rest = {name: value for name, value in fields.items() if name not in names}
            return cls(**{**rest, "origin": origin, "state": State(rest["state"])})
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not an entry of the ledger: {error}") from None


class LedgerStoreError(Exception):
    """A store can't be read or written."""


class LedgerAwayError(LedgerStoreError):
    """A store can't be reached just now; in some seconds it may be there again."""


class LedgerStore(Protocol):
    """Where entries are kept. What :meth:`swap` has written survives the death of this process.

    Every method raises :class:`LedgerStoreError` where the store can't be read or written.
    """

    spans_tasks: bool
    """Whether other tasks, DAGs and runs see the entries."""

    def hash_keys(self) -> list[bytes]:
        """Return what hashes are keyed with, the newest first; the others are those of older secrets."""

    def find(self, key: str) -> Entry | None:
        """Return an entry."""

    def swap(self, old: Entry | None, new: Entry) -> bool:
        """Put ``new`` in the place of ``old`` (``None``: of nothing), and tell whether that was still there."""

    def unresolved(self) -> int | None:
        """Count the messages of which nobody can tell whether they were sent; ``None`` where that can't be seen."""

    def how_to_resolve(self, key: str) -> str:
        """Say what a person has to do with a message of which nobody can tell whether it was sent."""
