"""A replacement for Airflow's metrics that counts messages; test_metrics.py tests what Airflow really emits."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import timedelta


class Counts:
    """A fake of Airflow's metrics that counts messages."""

    def __init__(self) -> None:
        self.messages: Counter[str] = Counter()
        self.tags: list[dict[str, Any]] = []
        """The tags of each message."""
        self.gauges: list[tuple[str, object, dict[str, Any]]] = []
        self.timings: list[tuple[str, timedelta, dict[str, Any]]] = []

    def incr(self, name: str, *, tags: dict[str, Any]) -> None:
        if name == "apptoto.messages":
            self.messages[tags["outcome"]] += 1
            self.tags.append(tags)

    def gauge(self, name: str, value: object, *, tags: dict[str, Any]) -> None:
        self.gauges.append((name, value, tags))

    def timing(self, name: str, value: timedelta, *, tags: dict[str, Any]) -> None:
        self.timings.append((name, value, tags))
