"""Databases for ledgers and rate limits."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy.engine import URL


def sqlite(path: Path) -> URL:
    """Return the address of a SQLite file."""
    from sqlalchemy.engine import URL

    return URL.create("sqlite", database=str(path))


@contextlib.contextmanager
def postgresql() -> Iterator[URL | None]:
    """Give the address of an empty PostgreSQL database, or ``None`` where PostgreSQL is not installed."""
    with postgresql_databases() as create:
        yield None if create is None else create()


@contextlib.contextmanager
def postgresql_databases() -> Iterator[Callable[[], URL] | None]:
    """Give a function that creates empty PostgreSQL databases, or ``None`` where PostgreSQL is not installed."""
    from sqlalchemy.engine import URL

    from tests.support import postgres

    if postgres.programs() is None:
        print("PostgreSQL is not installed: not measured")
        yield None
        return
    print("PostgreSQL runs with fsync off: a commit of a production database also waits for a disk write")
    with postgres.running() as port:
        address = URL.create("postgresql+psycopg2", username=postgres.USER, host="127.0.0.1", port=port)
        yield lambda: address.set(database=postgres.new_database(port))
