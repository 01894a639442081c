"""Airflow metrics about messages. No tag names a person or a run."""

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


def request_took(seconds: float, status: int | None, conn_id: str) -> None:
    """Time a request from its first byte to its answer (``apptoto.request.duration``)."""
    kind = "none" if status is None else f"{status // 100}xx"
    tags = {"status": kind, "conn_id": conn_id}
    _emit(Stats.timing, "apptoto.request.duration", timedelta(seconds=seconds), tags=tags)


def sent_now(conn_id: str) -> None:
    """Show when an account last sent (``apptoto.last_sent``, seconds since 1970): silence can raise an alert."""
    _emit(Stats.gauge, "apptoto.last_sent", int(time.time()), tags={"conn_id": conn_id})


def unresolved(count: int | None, conn_id: str) -> None:
    """Show how many messages of the ledger may have been sent, and wait for a person (``apptoto.ledger.unknown``)."""
    if count is not None:
        _emit(Stats.gauge, "apptoto.ledger.unknown", count, tags={"conn_id": conn_id})


class MeteredRateLimiter:
    """Times the waits for slots (``apptoto.rate_limit.wait``), and counts refusals (``apptoto.rate_limited``).

    :param limiter: gives the slots.
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
        """Reserve the next slot, and return the seconds until then; nothing beyond ``max_wait``."""
        wait = self._limiter.reserve(max_wait, lead)
        _emit(Stats.timing, "apptoto.rate_limit.wait", timedelta(seconds=wait), tags=self._tags)
        return wait

    def back_off(self, seconds: float) -> None:
        """Give no slot for this many seconds."""
        _emit(Stats.incr, "apptoto.rate_limited", tags=self._tags)
        self._limiter.back_off(seconds)


def _emit(emit: Callable[..., None], name: str, *value: Any, **tags: Any) -> None:
    """Emit a metric; none is worth a message, so what goes wrong is logged."""
    try:
        emit(name, *value, **tags)
    except Exception:
        log.exception("The metric %s could not be emitted", name)
