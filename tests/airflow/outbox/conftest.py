"""Fixtures for the tests of the outbox that need Airflow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_provider_apptoto import metrics
from airflow_provider_apptoto.outbox import cancellation, entry, ledger
from airflow_provider_apptoto.outbox.stores import task_state
from tests.support.clock import Clock
from tests.support.counts import Counts
from tests.support.faults import FaultServer
from tests.support.memory_store import MemoryStore
from tests.support.task_state import FakeTaskState

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Provide the clock of the outbox, which only waits advance."""
    clock = Clock()
    clock.now = 1_790_000_000.123
    for module in (cancellation, entry, ledger):
        monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def clinic() -> Iterator[FaultServer]:
    """Provide the server that receives the messages."""
    with FaultServer() as server:
        yield server


@pytest.fixture
def memory() -> MemoryStore:
    """Provide an unused ledger."""
    return MemoryStore()


@pytest.fixture
def fake_task_state(monkeypatch: pytest.MonkeyPatch) -> FakeTaskState:
    """Provide an unused task state, on any Airflow."""
    monkeypatch.setattr(task_state, "never_expire", lambda: "for ever")
    return FakeTaskState()


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counts:
    """Provide the counts; test_metrics.py shows what Airflow emits."""
    counts = Counts()
    monkeypatch.setattr(metrics, "Stats", counts)
    return counts
