"""The result of a send; the same for the try that sent a message and for a later one."""

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

    :param outcome: ``sent``, ``deduplicated``, ``assumed_sent``, ``redirected``, ``dry_run``, or why it was withheld.
    :param type: ``sms``, ``call`` or ``email``.
    :param target: the original recipient, masked; ids in clear.
    :param reference: the user's own id, such as an appointment id.
    :param key: key of the ledger entry; ``None`` without a ledger.
    :param http_status: status of Apptoto's answer; ``None`` if nothing was sent or there is no complete answer.
    :param sent_at: when it was sent (ISO 8601, UTC, milliseconds).
    :param try_number: the try that sent it, from 1.
    :param response: the stored part of Apptoto's answer: ``success``, and the message's ``id`` as a string.
    :param segments: estimated SMS segments; ``None`` for other channels and stored templates.
    :param reason: why it was withheld, as text; not part of the XCom.
    :param held_until: when a held message may be sent; not part of the XCom.
    :param is_aged: whether it was withheld because its run is older than ``max_age``; not part of the XCom.
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
    held_until: datetime | None = None
    is_aged: bool = False

    def to_xcom(self) -> dict[str, Any]:
        """Return the delivery as plain values for an XCom."""
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
        """Return the delivery of a message that has a ledger entry."""
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
