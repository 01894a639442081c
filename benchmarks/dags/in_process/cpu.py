"""A batch for each place where a ledger can be kept; its CPU time is measured."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pendulum
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageBatchOperator
from benchmarks.meter import cpu_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow.providers.common.compat.sdk import Context

spent: list[float] = []
"""CPU seconds of each step of the last run."""


@contextlib.contextmanager
def measured() -> Iterator[None]:
    """Measure the CPU time of a step."""
    start = cpu_seconds()
    try:
        yield
    finally:
        spent.append(cpu_seconds() - start)


class MeasuredBatchOperator(ApptotoSendMessageBatchOperator):
    """Sends a batch, and measures all that the operator does in a try."""

    def render_template_fields(self, *arguments: Any, **named: Any) -> None:
        """Render the fields."""
        with measured():
            super().render_template_fields(*arguments, **named)

    def execute(self, context: Context) -> dict[str, Any]:
        """Send the batch."""
        with measured():
            return super().execute(context)


def build(dag_id: str) -> DAG:
    """Return a DAG whose connection has the name of the DAG."""
    with DAG(dag_id, schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC")) as dag:
        MeasuredBatchOperator(
            task_id="send",
            messages_path="{{ dag_run.conf['path'] }}",
            defaults={"type": "sms", "message": "Hi {{ row.name }}, see you at nine."},
            concurrency=8,
            apptoto_conn_id=dag_id,
        )
    return dag


dags = {dag_id: build(dag_id) for dag_id in ("database", "task_state")}
for each in dags.values():
    globals()[each.dag_id] = each  # Airflow looks for DAGs among a module's own names
