"""Which tests run in the same xdist worker: those that share what takes long to start.

(``xdist_group`` would say so in each file, but pytest-xdist 3.8 ignores it under pytest 9.2.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    import pytest

TOGETHER = (
    "tests/scheduler/",  # an Airflow
    "tests/airflow/outbox/test_minute.py",  # a minute
    "tests/airflow/outbox/test_stalls.py",  # processes
    "tests/chaos/",  # a process to fork from
    "tests/unit/outbox/",  # a PostgreSQL
    "tests/unit/sandbox/",  # a sandbox
)
"""Files and folders; the longest come first. Of all other tests, those of a file share a process."""


class Workers(LoadScopeScheduling):
    """Hands out files and folders in the order of collection."""

    def _split_scope(self, nodeid: str) -> str:
        return next((each for each in TOGETHER if nodeid.startswith(each)), nodeid.partition("::")[0])


def longest_first(item: pytest.Item) -> int:
    """Return a key that sorts what takes longest to the front, so that no worker is left alone with it at the end."""
    return next((place for place, each in enumerate(TOGETHER) if item.nodeid.startswith(each)), len(TOGETHER))
