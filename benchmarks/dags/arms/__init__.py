"""DAG files that a real Airflow runs: one for each way of sending, with a DAG for each scenario."""

from __future__ import annotations
