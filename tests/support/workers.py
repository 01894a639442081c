"""Assign tests to xdist workers: tests that share something that is slow to start run in the same worker.

(``xdist_group`` in each file would be simpler, but pytest-xdist 3.8 ignores it under pytest 9.2.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    import pytest

TOGETHER = (
    "tests/scheduler/",  # an Airflow
    "tests/browser/",  # an API server and a browser
    "tests/airflow/outbox/test_minute.py",  # a minute
    "tests/airflow/outbox/test_stalls.py",  # processes
    "tests/chaos/",  # a process to fork from
    "tests/unit/outbox/",  # a PostgreSQL
    "tests/unit/sandbox/",  # a sandbox
)
"""Files and folders, slowest first. The tests of any other file share a process."""


class Workers(LoadScopeScheduling):
    """Hands out files and folders in the order of collection."""

    def _split_scope(self, nodeid: str) -> str:
        return next((each for each in TOGETHER if nodeid.startswith(each)), nodeid.partition("::")[0])


def longest_first(item: pytest.Item) -> int:
    """Return a sort key that puts the slowest tests first, so that no worker runs one alone at the end."""
    return next((place for place, each in enumerate(TOGETHER) if item.nodeid.startswith(each)), len(TOGETHER))
