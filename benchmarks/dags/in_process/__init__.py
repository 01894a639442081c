"""DAG files that ``dag.test()`` runs in the benchmark's own process."""

from __future__ import annotations
