"""A pytest plugin for ``make quick``: a test that imports Airflow, directly or indirectly, fails."""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType


class _NoAirflow(MetaPathFinder):
    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:  # noqa: ARG002
        if fullname.partition(".")[0] == "airflow":
            raise ImportError("tests in tests/unit run without Airflow: this one belongs into tests/airflow")


sys.meta_path.insert(0, _NoAirflow())
