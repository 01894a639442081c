"""Code that the DAG files of all arms share."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pendulum
from airflow.sdk import DAG, get_current_context

if TYPE_CHECKING:
    from collections.abc import Iterator

_BENCH: dict[str, Any] = json.loads(os.environ["BENCH"])
"""Settings that benchmarks/scenarios.py passes to all processes of its Airflow."""
URL: str = _BENCH["url"]
TEXT: str = _BENCH["text"]
RATE: float = _BENCH["rate"]
"""Requests per second."""
TIMEOUT: float = _BENCH["timeout"]
"""Seconds."""
ATTEMPTS = 3
"""Attempts of a loop per message, as many as the provider's client makes."""


def dags(arm: str) -> Iterator[list[str]]:
    """Open a DAG for each scenario, and give the phone numbers that it sends to.

    :param arm: name of the arm; one that was not chosen has no DAGs.
    """
    if arm not in _BENCH["arms"]:
        return
    for scenario, people in _BENCH["people"].items():
        with DAG(
            f"{arm}-{scenario}",
            schedule="@once",
            start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
            default_args={"retries": 3, "retry_delay": timedelta(seconds=1)},
        ):
            yield people


def finish(failed: list[str]) -> None:
    """End a loop: report what was not sent, and fail if that is anything.

    :raises RuntimeError: something was not sent.
    """
    if failed:
        get_current_context()["ti"].xcom_push(key="failed", value=failed)
        raise RuntimeError(f"{len(failed)} messages were not sent")
