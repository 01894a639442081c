"""Airflow metrics about messages. Tags contain no personal data and no run ids."""

from __future__ import annotations

import logging
import math
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import Stats

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_apptoto.client.outcomes import Outcome
    from airflow_provider_apptoto.client.rate_limit import RateLimiter

log = logging.getLogger(__name__)


def message(channel: str, outcome: Outcome, conn_id: str) -> None:
    """Count a message (``apptoto.messages``)."""
    tags = {"channel": channel, "outcome": str(outcome), "conn_id": conn_id}
    _emit(Stats.incr, "apptoto.messages", tags=tags)


def notification_failed(channel: str, conn_id: str) -> None:
    """Count a notification that failed (``apptoto.notifications.failed``)."""
    _emit(Stats.incr, "apptoto.notifications.failed", tags={"channel": channel, "conn_id": conn_id})


def request_took(seconds: float, status: int | None, conn_id: str) -> None:
    """Emit the duration of a request, from its first byte to its answer (``apptoto.request.duration``)."""
    kind = "none" if status is None else f"{status // 100}xx"
    tags = {"status": kind, "conn_id": conn_id}
    _emit(Stats.timing, "apptoto.request.duration", timedelta(seconds=seconds), tags=tags)


def read(status: int | None, conn_id: str) -> None:
    """Count a request that reads events (``apptoto.reads``); reads take slots of the rate limit like sends."""
    kind = "none" if status is None else f"{status // 100}xx"
    _emit(Stats.incr, "apptoto.reads", tags={"status": kind, "conn_id": conn_id})


def sent_now(conn_id: str) -> None:
    """Emit the time of the last send (``apptoto.last_sent``, seconds since 1970), for alerts on missing sends."""
    _emit(Stats.gauge, "apptoto.last_sent", int(time.time()), tags={"conn_id": conn_id})


def unresolved(count: int | None, conn_id: str) -> None:
    """Emit the number of ledger entries that a person must resolve (``apptoto.ledger.unknown``)."""
    if count is not None:
        _emit(Stats.gauge, "apptoto.ledger.unknown", count, tags={"conn_id": conn_id})


class MeteredRateLimiter:
    """Measures waits for slots (``apptoto.rate_limit.wait``) and counts backoffs (``apptoto.rate_limited``).

    :param limiter: assigns the slots.
    :param conn_id: the Apptoto connection.
    """

    def __init__(self, limiter: RateLimiter, conn_id: str) -> None:
        self._limiter = limiter
        self._tags = {"conn_id": conn_id}

    @property
    def interval(self) -> float:
        """Seconds between two slots."""
        return self._limiter.interval

    def reserve(self, max_wait: float = math.inf, lead: float = 0.0) -> float:
        """Reserve the next slot and return the seconds until then; reserve nothing beyond ``max_wait``."""
        wait = self._limiter.reserve(max_wait, lead)
        _emit(Stats.timing, "apptoto.rate_limit.wait", timedelta(seconds=wait), tags=self._tags)
        return wait

    def back_off(self, seconds: float) -> None:
        """Assign no slot for this many seconds."""
        _emit(Stats.incr, "apptoto.rate_limited", tags=self._tags)
        self._limiter.back_off(seconds)


def _emit(emit: Callable[..., None], name: str, *value: Any, **tags: Any) -> None:
    """Emit a metric; log errors, because a metric must not stop a message."""
    try:
        emit(name, *value, **tags)
    except Exception:
        log.exception("Could not emit the metric %s", name)
