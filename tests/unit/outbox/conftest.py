"""Fixtures for the tests of the outbox that need no Airflow."""

from __future__ import annotations

import pytest

from airflow_provider_apptoto.outbox import entry, ledger
from airflow_provider_apptoto.outbox.stores import task_state as task_state_module
from tests.support.clock import Clock
from tests.support.task_state import FakeTaskState


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Provide the clock of the ledger, which only the test advances."""
    clock = Clock()
    for module in (entry, ledger):
        monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def task_state(monkeypatch: pytest.MonkeyPatch) -> FakeTaskState:
    """Provide an unused task state; no Airflow is needed."""
    monkeypatch.setattr(task_state_module, "never_expire", lambda: "for ever")
    return FakeTaskState()
