"""A batch for each place where a ledger can be kept, and a dry run; what the operator takes is measured."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import pendulum
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageBatchOperator
from benchmarks.meter import cpu_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow.providers.common.compat.sdk import Context

MESSAGE = "Hi {{ row.name }}, see you at nine."


class Spent(NamedTuple):
    """What a step took, in seconds.

    :param cpu: CPU time of this process.
    :param wall: wall time.
    """

    cpu: float
    wall: float


spent: list[Spent] = []
"""The steps of the last run."""


@contextlib.contextmanager
def measured() -> Iterator[None]:
    """Measure a step."""
    cpu, wall = cpu_seconds(), time.perf_counter()
    try:
        yield
    finally:
        spent.append(Spent(cpu_seconds() - cpu, time.perf_counter() - wall))


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


def build(dag_id: str, **settings: Any) -> DAG:
    """Return a DAG whose connection has the name of the DAG."""
    with DAG(dag_id, schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC")) as dag:
        MeasuredBatchOperator(
            task_id="send",
            messages_path="{{ dag_run.conf['path'] }}",
            defaults={"type": "sms", "message": MESSAGE},
            max_messages=None,
            concurrency=8,
            apptoto_conn_id=dag_id,
            **settings,
        )
    return dag


dags = {
    **{dag_id: build(dag_id) for dag_id in ("sqlite", "postgresql", "task_state")},
    "dry_run": build("dry_run", delivery_mode="dry_run"),
}
for each in dags.values():
    globals()[each.dag_id] = each  # Airflow looks for DAGs among a module's own names
