"""A ledger entry: the stored state of one message."""

from __future__ import annotations

import dataclasses
import secrets
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self

from airflow_provider_apptoto.client.answers import describe_status
from airflow_provider_apptoto.client.outcomes import Outcome
from airflow_provider_apptoto.outbox.origin import Origin

if TYPE_CHECKING:
    from collections.abc import Mapping


class State(StrEnum):
    """The state of a message: ``sending``, then its outcome."""

    SENDING = "sending"
    """The first byte is about to be written, or was written."""
    SENT = Outcome.SENT.value
    REDIRECTED = Outcome.REDIRECTED.value
    NOT_SENT = Outcome.NOT_SENT.value
    REJECTED = Outcome.REJECTED.value
    UNKNOWN = Outcome.UNKNOWN.value


DELIVERED = frozenset({State.SENT, State.REDIRECTED})
"""States of messages that must not be sent again."""


def iso(seconds: float) -> str:
    """Return a time as ISO 8601 in UTC, with milliseconds.

    :param seconds: since 1970.
    """
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """The stored state of one message. It contains no personal data.

    :param key: identifies the message (:func:`~airflow_provider_apptoto.outbox.ledger.message_key`).
    :param state: ``sending``, or the outcome.
    :param fingerprint: keyed hash of the text.
    :param channel: ``sms``, ``call`` or ``email``.
    :param origin: the try that last processed it.
    :param target: masked recipient, or the id of an event or a participant; ``None`` in entries of older versions.
    :param recipient: keyed hash of the recipient; ``None`` for events and participants.
    :param reference: the user's own id, such as an appointment id.
    :param account: masked login of the Apptoto account.
    :param labels: up to four names and values for reports; no personal data.
    :param segments: estimated SMS segments.
    :param lease: seconds from ``updated_at`` during which that try may still be sending; 0 when it is done.
    :param created_at: time of the first try (seconds since 1970, UTC).
    :param updated_at: when the state was set (seconds since 1970, UTC).
    :param sent_at: when the first byte of the last request was about to be written (seconds since 1970, UTC).
    :param in_doubt: whether an earlier try may have sent it and ``on_unknown="resend"`` sent it again.
    :param http_status: status of Apptoto's answer.
    :param code: error code.
    :param reason: error text of the server or the network, masked.
    :param response_id: Apptoto's id of the message.
    :param version: changes with each write, to detect concurrent writes.
    """

    key: str
    state: State
    fingerprint: str
    channel: str
    origin: Origin
    target: str | None = None
    recipient: str | None = None
    reference: str | None = None
    account: str | None = None
    labels: Mapping[str, str] | None = None
    segments: int | None = None
    lease: float = 0.0
    created_at: float = field(default_factory=time.time)
    updated_at: float = field(default_factory=time.time)
    sent_at: float | None = None
    in_doubt: bool = False
    http_status: int | None = None
    code: str | None = None
    reason: str = ""
    response_id: str | None = None
    version: str = field(default_factory=lambda: secrets.token_hex(8))

    def changed(self, state: State, **fields: Any) -> Self:
        """Return a copy in another state, as of now."""
        return dataclasses.replace(
            self, state=state, updated_at=time.time(), version=secrets.token_hex(8), **{"lease": 0.0, **fields}
        )

    @property
    def is_live(self) -> bool:
        """Whether a try may still be sending it."""
        return self.state is State.SENDING and self.remaining > 0

    @property
    def remaining(self) -> float:
        """Seconds until the lease ends; at most the lease, because the clock may have been set back."""
        return min(self.updated_at + self.lease - time.time(), self.lease)

    @property
    def may_be_sent(self) -> bool:
        """Whether the message may have been sent, according to the ledger."""
        return self.state in {State.UNKNOWN, State.SENDING}

    @property
    def is_unresolved(self) -> bool:
        """Whether a person must find out if it was sent; a task killed while sending leaves ``sending``."""
        return self.may_be_sent and not self.is_live

    @property
    def at(self) -> str:
        """When it was sent; if it was not, when its state was set (ISO 8601, UTC)."""
        return iso(self.sent_at if self.sent_at is not None and self.state in DELIVERED else self.updated_at)

    @property
    def response(self) -> dict[str, Any]:
        """The stored part of Apptoto's answer."""
        if self.state not in DELIVERED:
            return {}
        return {"success": True} if self.response_id is None else {"success": True, "id": self.response_id}

    @property
    def answer(self) -> str:
        """Apptoto's answer, as text."""
        status = describe_status(self.http_status)
        return f"{status} ({self.reason})" if self.reason else status

    def to_dict(self) -> dict[str, Any]:
        """Return the entry as JSON values."""
        names = [each.name for each in dataclasses.fields(self) if each.name != "origin"]
        fields = {name: getattr(self, name) for name in names}
        return {**fields, "state": str(self.state), **self.origin.to_dict()}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Return an entry from the values that :meth:`to_dict` returned.

        :raises ValueError: the values are not an entry.
        """
        try:
            rest = dict(fields)
            origin = Origin.take_from(rest)
            return cls(**{**rest, "origin": origin, "state": State(rest["state"])})
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a ledger entry: {error}") from None
