"""DAGs without tasks, for the environment, macros and delimiters that a DAG gives to a text."""

from __future__ import annotations

from typing import Any

import pendulum
from airflow.providers.common.compat.sdk import DAG


def make_dag(**arguments: Any) -> Any:
    """Return a DAG without tasks.

    :param arguments: further arguments of the DAG.
    """
    return DAG(dag_id="dag", schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), **arguments)
