"""Build plans as the operator does, with the environment of a DAG and real messages, without running Airflow."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from airflow_provider_apptoto.batch.options import BatchOptions
from airflow_provider_apptoto.batch.plan import Plan, Planner
from airflow_provider_apptoto.batch.rendering import RowRenderer
from airflow_provider_apptoto.batch.rows import ROW
from airflow_provider_apptoto.client import Message
from airflow_provider_apptoto.outbox.guards import Guards
from airflow_provider_apptoto.outbox.ledger import message_key
from airflow_provider_apptoto.outbox.origin import Origin
from airflow_provider_apptoto.outbox.suppression import Suppression
from airflow_provider_apptoto.templating.fields import renderer_of
from airflow_provider_apptoto.templating.provenance import FieldSource, SourceKind, resolve
from tests.support.dags import make_dag

if TYPE_CHECKING:
    from collections.abc import Iterable

PHONE = "+16505550199"
OTHER_PHONE = "+16505550198"
ADDRESS = "mary@clinic.com"
SECRET = "Qzx7Value"
"""Part of every value of an invalid row; no error may show it."""


def key_of(message: Message, item: str | None) -> str:
    return message_key(
        b"salt",
        message,
        account=("https://api.apptoto.com", "clinic@example.com"),
        mode="live",
        origin=Origin(dag_id="dag", task_id="send", run_id="run", map_index=-1, try_number=1),
        idempotency_key=None,
        item=item,
    )


def plan_of(
    rows: Iterable[Any],
    defaults: Any = None,
    *,
    kind: SourceKind = SourceKind.VALUE,
    defaults_kind: SourceKind = SourceKind.TEMPLATE,
    context: dict[str, Any] | None = None,
    dynamic_fields: tuple[str, ...] = (),
    suppression: object = (),
    region: str | None = None,
    id_column: str | None = None,
    reference_column: str | None = None,
    label_columns: tuple[str, ...] = (),
    timezone_column: str | None = None,
    not_after_column: str | None = None,
    max_messages: int | None = None,
    guards: Guards | None = None,
    **dag_arguments: Any,
) -> Plan:
    """Return the plan of these rows.

    :param kind: of the rows: ``TEMPLATE`` if they stand in the DAG file, ``VALUE`` if a task or a file gives them.
    :param defaults_kind: the same for ``defaults``.
    """
    dag = make_dag(**dag_arguments)
    env = dag.get_template_env()
    variables = {"dag": dag, **(context or {})}
    renderer = RowRenderer(
        renderer_of({**variables, ROW: None}, env, dynamic_fields),
        functools.partial(resolve, context=variables, env=env),
        row_kind=kind,
        defaults=FieldSource(defaults, defaults_kind),
    )
    planner = Planner(
        renderer=renderer,
        build=functools.partial(Message, default_region=region),
        key_of=key_of,
        suppression=Suppression(suppression, region),
        guards=Guards() if guards is None else guards,
        options=BatchOptions(
            id_column=id_column,
            reference_column=reference_column,
            label_columns=label_columns,
            timezone_column=timezone_column,
            not_after_column=not_after_column,
            max_messages=max_messages,
        ),
    )
    return planner.plan(rows)


def payloads(plan: Plan) -> list[dict[str, Any]]:
    """Return what a plan without invalid rows would send, in order."""
    assert plan.problems == []
    assert plan.invalid == 0
    return [planned.message.payload() for planned in plan.messages]


def texts(plan: Plan) -> list[Any]:
    return [payload.get("message") for payload in payloads(plan)]


def problems(plan: Plan) -> list[tuple[int, str | None, str, str]]:
    """Return the problem of each invalid row, after checking that nothing printable shows a value."""
    assert SECRET not in repr(plan.problems)
    assert SECRET not in repr(plan.messages)
    return [(problem.index, problem.reference, problem.field, problem.reason) for problem in plan.problems]


def refused(plan: Plan) -> tuple[str, str]:
    """Return the field and the reason of the only row, which is invalid."""
    assert plan.messages == []
    [(index, _, field, reason)] = problems(plan)
    assert index == 0
    return field, reason
