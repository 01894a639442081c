"""What the tests of the client share."""

from __future__ import annotations

import pytest

from tests.client.clock import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Give the client and its pacer a clock of the test's own, so that nothing really waits."""
    clock = Clock()
    for module in ("client", "pacing"):
        monkeypatch.setattr(f"airflow_provider_apptoto.client.{module}.time", clock)
    return clock
