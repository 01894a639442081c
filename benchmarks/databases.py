"""Databases for ledgers and rate limits."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy.engine import URL


def sqlite(path: Path) -> URL:
    """Return the address of a SQLite file."""
    from sqlalchemy.engine import URL

    return URL.create("sqlite", database=str(path))


@contextlib.contextmanager
def postgresql() -> Iterator[URL | None]:
    """Give the address of an empty PostgreSQL database, or ``None`` where PostgreSQL is not installed."""
    from sqlalchemy.engine import URL

    from tests.support import postgres

    if postgres.programs() is None:
        print("PostgreSQL is not installed: not measured")
        yield None
        return
    print("PostgreSQL runs with fsync off: a commit of a production database also waits for a disk write")
    with postgres.running() as port:
        name = postgres.new_database(port)
        yield URL.create("postgresql+psycopg2", username=postgres.USER, host="127.0.0.1", port=port, database=name)
