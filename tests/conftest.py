"""Fixtures for all tests. Nothing here imports Airflow, because the tests in ``unit`` run without it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support import airflow_home, postgres

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airflow_provider_apptoto.outbox.database import StateDatabase

airflow_home.set_up()

# Results depend neither on the speed of the machine (no deadline, no check of slowness) nor on chance: the
# same examples are tried each time.
settings.register_profile("apptoto", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("apptoto")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Run tests that share something in the same process."""
    from tests.support.workers import Workers

    return Workers(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the slowest tests first if several processes share the tests."""
    if airflow_home.IS_WORKER:
        from tests.support.workers import longest_first

        items.sort(key=longest_first)


@pytest.fixture
def provider_log() -> Iterator[list[str]]:
    """Provide the provider's log. Airflow reconfigures logging in its first run, so ``caplog`` may miss it."""
    lines: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    logger, collector = logging.getLogger("airflow_provider_apptoto"), Collector()
    level = logger.level
    logger.addHandler(collector)
    logger.setLevel(min(logger.getEffectiveLevel(), logging.INFO))  # without Airflow, only warnings are logged
    yield lines
    logger.setLevel(level)
    logger.removeHandler(collector)


@pytest.fixture(scope="session")
def postgres_port() -> Iterator[int]:
    """Run one PostgreSQL for all tests, and yield its port."""
    with postgres.running() as port:
        yield port


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StateDatabase]:
    """Provide a state database that is unused, of each kind that is available here."""
    from airflow_provider_apptoto.outbox.database import StateDatabase
    from tests.support.state_databases import url_of

    database = StateDatabase(url_of(request.param, request, tmp_path))
    yield database
    database._engine.dispose()
