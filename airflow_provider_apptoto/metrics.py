"""What Airflow's metrics show of messages; no tag names a person or a run."""

from __future__ import annotations

import logging
import math
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import Stats

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_apptoto.client.pacing import Pacer

log = logging.getLogger(__name__)


def message(channel: str, outcome: str) -> None:
    """Count a message (``apptoto.messages``)."""
    _emit(Stats.incr, "apptoto.messages", tags={"channel": channel, "outcome": str(outcome)})


def request_took(seconds: float, status: int | None) -> None:
    """Time a request from its first byte to its answer (``apptoto.request.duration``)."""
    kind = "none" if status is None else f"{status // 100}xx"
    _emit(Stats.timing, "apptoto.request.duration", timedelta(seconds=seconds), tags={"status": kind})


def unresolved(count: int | None) -> None:
    """Show how many messages of the ledger wait for a person to resolve them (``apptoto.ledger.unknown``)."""
    if count is not None:
        _emit(Stats.gauge, "apptoto.ledger.unknown", count)


class MeteredPacer:
    """Times the waits for a pacer (``apptoto.pace.wait``), and counts refusals (``apptoto.rate_limited``)."""

    def __init__(self, pacer: Pacer) -> None:
        self._pacer = pacer

    def reserve(self, patience: float = math.inf) -> float:
        """Reserve the next departure, and return the seconds to wait until then; nothing beyond ``patience``."""
        wait = self._pacer.reserve(patience)
        _emit(Stats.timing, "apptoto.pace.wait", timedelta(seconds=wait))
        return wait

    def push_back(self, seconds: float) -> None:
        """Let nothing depart for this many seconds."""
        _emit(Stats.incr, "apptoto.rate_limited")
        self._pacer.push_back(seconds)


def _emit(emit: Callable[..., None], name: str, *value: Any, **tags: Any) -> None:
    """Emit a metric; none is worth a message, so what goes wrong is logged."""
    try:
        emit(name, *value, **tags)
    except Exception:
        log.exception("The metric %s could not be emitted", name)
