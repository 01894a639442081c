"""State databases of the tests' own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy.engine import URL

from airflow_provider_apptoto.state.database import StateDatabase
from tests import postgres

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def postgres_port() -> Iterator[int]:
    """Run one PostgreSQL for all tests, and give its port."""
    with postgres.running() as port:
        yield port


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StateDatabase]:
    """Give a state database that nobody has used, of each kind that can be had here."""
    database = StateDatabase(url_of(request.param, request, tmp_path))
    yield database
    database._engine.dispose()


def url_of(kind: str, request: pytest.FixtureRequest, folder: Path) -> URL:
    """Return the URL of a database that is empty, or not there yet."""
    if kind == "sqlite":
        return URL.create("sqlite", database=str(folder / "state.db"))
    port = request.getfixturevalue("postgres_port")
    name = postgres.new_database(port)
    return URL.create("postgresql+psycopg2", username=postgres.USER, host="127.0.0.1", port=port, database=name)
