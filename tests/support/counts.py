"""A stand-in for Airflow's metrics that counts messages; test_metrics.py shows what Airflow really emits."""

from __future__ import annotations

from collections import Counter
from typing import Any


class Counts:
    """Airflow's metrics, as far as messages are counted."""

    def __init__(self) -> None:
        self.messages: Counter[str] = Counter()

    def incr(self, name: str, *, tags: dict[str, Any]) -> None:
        if name == "apptoto.messages":
            self.messages[tags["outcome"]] += 1

    def timing(self, *_: object, **__: object) -> None:
        pass

    gauge = timing
