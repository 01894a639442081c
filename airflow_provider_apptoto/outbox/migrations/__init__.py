"""Numbered migrations of the state database: plain SQL for each dialect.

Never change a released migration, because databases were created with it. Add a new module for each change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_apptoto.outbox.migrations import v1, v2, v3, v4

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MIGRATIONS: tuple[Mapping[str, Sequence[str]], ...] = (
    v1.STATEMENTS,
    v2.STATEMENTS,
    v3.STATEMENTS,
    v4.STATEMENTS,
)
"""Statements by dialect, for each version from 1."""


def statements(dialect: str, from_version: int) -> list[str]:
    """Return the statements that upgrade a database to the current version; the last ones store that version.

    :param dialect: ``sqlite`` or ``postgresql``.
    :param from_version: current version of the database; 0: it has no tables.
    """
    return [
        *(statement for migration in MIGRATIONS[from_version:] for statement in migration[dialect]),
        "DELETE FROM apptoto_meta WHERE name = 'schema_version'",
        f"INSERT INTO apptoto_meta (name, value) VALUES ('schema_version', '{len(MIGRATIONS)}')",  # noqa: S608  a number
    ]
