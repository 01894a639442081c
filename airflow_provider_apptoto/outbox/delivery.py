"""The result of a send, the same for the try that sent a message and for one that finds it sent."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from airflow_provider_apptoto.outbox.entry import iso

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from airflow_provider_apptoto.client import Message, Outcome
    from airflow_provider_apptoto.outbox.entry import Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """The result of sending one message.

    :param outcome: ``sent``, ``deduplicated``, ``assumed_sent``, ``redirected`` or ``dry_run``; or why it was withheld.
    :param type: ``sms``, ``call`` or ``email``.
    :param target: who it was meant for, masked; ids in clear.
    :param reference: the user's own id of the thing.
    :param key: of its ledger entry; ``None`` without a ledger.
    :param http_status: status of Apptoto's answer; ``None`` if nothing was sent, or no complete answer came.
    :param sent_at: when it was sent (ISO 8601, UTC, milliseconds).
    :param try_number: the try that sent it, from 1.
    :param response: what is kept of Apptoto's answer: ``success``, and the message's ``id`` as a string.
    :param segments: estimated SMS segments; ``None`` for other channels and stored templates.
    :param reason: why it was withheld, in words; not part of the XCom.
    """

    outcome: Outcome
    type: str
    target: str
    reference: str | None = None
    key: str | None = None
    http_status: int | None = None
    sent_at: str | None = None
    try_number: int | None = None
    response: Mapping[str, Any] = field(default_factory=dict)
    segments: int | None = None
    reason: str = ""

    def to_xcom(self) -> dict[str, Any]:
        """Return it as an XCom: plain values."""
        return {
            "outcome": str(self.outcome),
            "type": self.type,
            "target": self.target,
            "reference": self.reference,
            "key": self.key,
            "http_status": self.http_status,
            "sent_at": self.sent_at,
            "try_number": self.try_number,
            "response": dict(self.response),
            "segments": self.segments,
        }

    @classmethod
    def of_entry(cls, outcome: Outcome, message: Message, entry: Entry) -> Self:
        """Return the delivery that a ledger entry tells of."""
        return cls(
            outcome=outcome,
            type=entry.channel,
            target=message.target,
            reference=entry.reference,
            key=entry.key,
            http_status=entry.http_status,
            sent_at=entry.at,
            try_number=entry.origin.try_number,
            response=entry.response,
            segments=entry.segments,
        )

    @classmethod
    def without_entry(
        cls, outcome: Outcome, message: Message, *, sent_at: datetime | None = None, **fields: Any
    ) -> Self:
        """Return the delivery of a message that has no ledger entry."""
        shown = None if sent_at is None else iso(sent_at.timestamp())
        return cls(outcome=outcome, type=message.type, target=message.target, sent_at=shown, **fields)
