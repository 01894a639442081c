"""The outcomes of a message, and how an HTTP answer maps to one."""

from __future__ import annotations

import email.utils
import json
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC
from enum import StrEnum
from http import HTTPStatus
from typing import Any

from airflow_provider_apptoto.privacy import safe_text

_SUCCESS = range(200, 300)
_REDIRECT = range(300, 400)
_CLIENT_ERROR = range(400, 500)
_DAY = 86_400.0
_ERRORS = ("error", "errors")
_MAX_SHOWN = 2_000
"""Bytes of an HTML page that are searched for an error text."""
_RETRYABLE_READS = {408, 425, 429, 500, 502, 503, 504}


class Outcome(StrEnum):
    """The outcome of a message or of a row."""

    SENT = "sent"
    """Apptoto accepted it. Delivery is not confirmed."""
    REDIRECTED = "redirected"
    """Apptoto accepted it for the redirect recipient (``delivery_mode="redirect"``)."""
    DRY_RUN = "dry_run"
    DEDUPLICATED = "deduplicated"
    """An earlier try, or another task with the same ``idempotency_key``, had sent it."""
    ASSUMED_SENT = "assumed_sent"
    """Unknown, and counted as sent because of ``on_unknown="assume_sent"``."""
    SUPPRESSED = "suppressed"
    CAPPED = "capped"
    TOO_OLD = "too_old"
    OUTSIDE_WINDOW = "outside_window"
    WRONG_STATE = "wrong_state"
    HELD = "held"
    """Held until its sending window opens."""
    INVALID = "invalid"
    DUPLICATE = "duplicate"
    NOT_SENT = "not_sent"
    """A retry is safe."""
    REJECTED = "rejected"
    UNKNOWN = "unknown"
    """It may have been sent: a person must find out."""

    @property
    def is_done(self) -> bool:
        """Whether the message needs no further action."""
        return self in _DONE

    @property
    def is_withheld(self) -> bool:
        """Whether the message was withheld on purpose, so the task is skipped."""
        return self in _WITHHELD

    @property
    def needs_person(self) -> bool:
        """Whether a person must find out if it was sent."""
        return self is Outcome.UNKNOWN


_DONE = frozenset({Outcome.SENT, Outcome.REDIRECTED, Outcome.DRY_RUN, Outcome.DEDUPLICATED, Outcome.ASSUMED_SENT})
_WITHHELD = frozenset(
    {Outcome.SUPPRESSED, Outcome.CAPPED, Outcome.TOO_OLD, Outcome.OUTSIDE_WINDOW, Outcome.WRONG_STATE}
)


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of one HTTP exchange.

    :param written: whether any byte of the request was written.
    :param status: HTTP status, or ``None`` without a complete answer.
    :param retry_after: seconds that the server asked to wait, or ``None``.
    :param location: host that a redirect points to.
    :param body: body of the answer.
    :param failure: why there is no complete answer, safe to show.
    """

    written: bool
    status: int | None = None
    retry_after: float | None = None
    location: str = ""
    body: bytes = field(default=b"", repr=False)  # it may repeat the message
    failure: str = ""

    def json(self) -> Any:
        """Return the body as JSON; ``None`` if it is not JSON, or has a duplicate key."""
        try:
            return json.loads(self.body, object_pairs_hook=_unambiguous)
        except (ValueError, RecursionError):
            return None

    def said(self, private: tuple[str, ...]) -> str:
        """Return the server's error text, safe to show.

        Apptoto documents no format for errors, so ``error``, ``message`` and ``errors`` are tried, then the whole text.

        :param private: texts of the request that the server may have echoed.
        """
        body = self.json()
        if isinstance(body, Mapping):
            found = next((body[key] for key in ("error", "message", "errors") if body.get(key)), "")
            text = found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)
        else:
            text = re.sub(r"<[^>]*>", " ", self.body[:_MAX_SHOWN].decode(errors="replace"))
        return safe_text(text, private=private)


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        msg = "duplicate key"
        raise ValueError(msg)
    return found


def classify_send(answer: Answer) -> Outcome:  # noqa: PLR0911  one per row of the table
    """Return the outcome of the message whose request got this answer.

    The table is the failure matrix in docs/reliability.rst. Apptoto documents only ``success: true``; the rest follows
    from the HTTP status (RFC 9110, RFC 6585, RFC 8470).
    """
    if answer.status is None:
        return Outcome.UNKNOWN if answer.written else Outcome.NOT_SENT
    if answer.status in _SUCCESS:
        body = answer.json()
        success = body.get("success") if isinstance(body, Mapping) else None
        if success is True:
            # an answer with both success and an error contradicts itself
            return Outcome.UNKNOWN if any(body.get(name) for name in _ERRORS) else Outcome.SENT
        return Outcome.REJECTED if success is False else Outcome.UNKNOWN
    if answer.status in {HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}:
        return Outcome.NOT_SENT
    if answer.status == HTTPStatus.SERVICE_UNAVAILABLE and answer.retry_after is not None:
        return Outcome.NOT_SENT
    # 408: a proxy may send it for a request that it had forwarded. 303: the result is at another URL.
    if answer.status in {HTTPStatus.SEE_OTHER, HTTPStatus.REQUEST_TIMEOUT}:
        return Outcome.UNKNOWN
    return Outcome.REJECTED if answer.status in _REDIRECT or answer.status in _CLIENT_ERROR else Outcome.UNKNOWN


def is_final(status: int) -> bool:
    """Return whether no further answer to the same request can follow: it was a success or a plain rejection."""
    gave_up = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}
    return status in _SUCCESS or (status in _CLIENT_ERROR and status not in gave_up)


def classify_read(answer: Answer) -> Outcome:
    """Return the outcome of a read, which is safe to repeat: ``NOT_SENT`` means that another attempt may succeed."""
    if answer.status is None or answer.status in _RETRYABLE_READS:
        return Outcome.NOT_SENT
    if answer.status in _SUCCESS:
        return Outcome.SENT if isinstance(answer.json(), Mapping) else Outcome.UNKNOWN
    return Outcome.REJECTED


def parse_retry_after(value: str | None) -> float | None:
    """Return the delay in seconds of a ``Retry-After`` header, which holds seconds or a date (RFC 9110).

    ``None`` if the header is missing or can't be parsed; at most a day.
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = email.utils.parsedate_to_datetime(value)
            # the oldest of the three HTTP date formats has no zone; all are GMT
            seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return min(max(seconds, 0.0), _DAY) if math.isfinite(seconds) else None
