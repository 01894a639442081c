"""State databases for tests: a SQLite file, or a database of the tests' PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy.engine import URL

from airflow_provider_apptoto.outbox import database
from tests.support import postgres

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def url_of(kind: str, request: pytest.FixtureRequest, folder: Path) -> URL:
    """Return the URL of a database that is empty or does not exist yet.

    :param kind: ``sqlite`` or ``postgresql``.
    :param request: the request of the test or fixture; starts PostgreSQL when it is needed.
    :param folder: where the SQLite file goes.
    """
    if kind == "sqlite":
        return URL.create("sqlite", database=str(folder / "state.db"))
    port = request.getfixturevalue("postgres_port")
    name = postgres.new_database(port)
    return URL.create("postgresql+psycopg2", username=postgres.USER, host="127.0.0.1", port=port, database=name)


def forget_databases() -> None:
    """Make this process forget its state databases, like a new process."""
    for used in database._databases.values():
        used._engine.dispose()
    database._databases.clear()
