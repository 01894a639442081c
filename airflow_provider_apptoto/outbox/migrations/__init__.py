"""Numbered migrations of the state database: plain SQL for each dialect.

A migration that was released is never changed: databases exist that it made. The next change is a new module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_apptoto.outbox.migrations import v1, v2

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MIGRATIONS: tuple[Mapping[str, Sequence[str]], ...] = (v1.STATEMENTS, v2.STATEMENTS)
"""By version, from 1; each maps a dialect to its statements."""


def statements(dialect: str, from_version: int) -> list[str]:
    """Return the statements that bring a database up to date; the last of them write its version.

    :param dialect: ``sqlite`` or ``postgresql``.
    :param from_version: the version that the database has; 0: it has no tables.
    """
    return [
        *(statement for migration in MIGRATIONS[from_version:] for statement in migration[dialect]),
        "DELETE FROM apptoto_meta WHERE name = 'schema_version'",
        f"INSERT INTO apptoto_meta (name, value) VALUES ('schema_version', '{len(MIGRATIONS)}')",  # noqa: S608  a number
    ]
