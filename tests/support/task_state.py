"""A replacement for Airflow's task state of one task instance, with the methods that a ledger uses."""

from __future__ import annotations

import json
from typing import Any


class FakeTaskState:
    """Keeps JSON, as Airflow does, and counts the calls."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.calls: list[str] = []
        """``get`` or ``set``, and the name."""

    def get(self, key: str) -> Any:
        self.calls.append(f"get {key}")
        return json.loads(self.values[key]) if key in self.values else None

    def set(self, key: str, value: Any, *, retention: object) -> None:
        assert retention is not None, "Airflow would drop it before its run"
        self.calls.append(f"set {key}")
        self.values[key] = json.dumps(value)

    def edit(self, key: str, **fields: Any) -> None:
        """Edit a value as a person does in Airflow's UI."""
        self.values[key] = json.dumps({**json.loads(self.values[key]), **fields})
