"""What is promised where Airflow itself decides when a task runs, is retried, killed or cleared."""

from __future__ import annotations

KEY = "Sekret-Api-Key-81d2"
"""API key of all connections of this folder's Airflow."""
