"""What Airflow's metrics show of messages; no tag names a person or a run."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import Stats

if TYPE_CHECKING:
    from airflow_provider_apptoto.client.pacing import Pacer


def message(channel: str, outcome: str) -> None:
    """Count a message (``apptoto.messages``)."""
    Stats.incr("apptoto.messages", tags={"channel": channel, "outcome": str(outcome)})


def request_took(seconds: float, status: int | None) -> None:
    """Time a request from its first byte to its answer (``apptoto.request.duration``)."""
    kind = "none" if status is None else f"{status // 100}xx"
    Stats.timing("apptoto.request.duration", timedelta(seconds=seconds), tags={"status": kind})


def unresolved(count: int | None) -> None:
    """Show how many messages of the ledger wait for a person to resolve them (``apptoto.ledger.unknown``)."""
    if count is not None:
        Stats.gauge("apptoto.ledger.unknown", count)


class MeteredPacer:
    """Times the waits for a pacer (``apptoto.pace.wait``), and counts refusals (``apptoto.rate_limited``)."""

    def __init__(self, pacer: Pacer) -> None:
        self._pacer = pacer

    def reserve(self, patience: float = math.inf) -> float:
        """Reserve the next departure, and return the seconds to wait until then; nothing beyond ``patience``."""
        wait = self._pacer.reserve(patience)
        Stats.timing("apptoto.pace.wait", timedelta(seconds=wait))
        return wait

    def push_back(self, seconds: float) -> None:
        """Let nothing depart for this many seconds."""
        Stats.incr("apptoto.rate_limited")
        self._pacer.push_back(seconds)
