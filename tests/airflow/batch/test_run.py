"""What only informs never ends a batch, and a batch that could not tell what it had sent does not wait."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_apptoto import metrics
from airflow_provider_apptoto.batch.fields import RenderedBatch
from airflow_provider_apptoto.batch.options import BatchOptions
from airflow_provider_apptoto.batch.rendering import Columns
from airflow_provider_apptoto.batch.run import run
from airflow_provider_apptoto.client import ApptotoConfigurationError, Message
from airflow_provider_apptoto.outbox.guards import Guards
from airflow_provider_apptoto.outbox.window import SendWindow
from airflow_provider_apptoto.templating.fields import renderer_of
from airflow_provider_apptoto.templating.provenance import FieldSource, SourceKind
from tests.support.clock import Clock
from tests.support.dags import make_dag
from tests.support.faults import FaultServer
from tests.support.memory_store import MemoryStore
from tests.support.outboxes import NUMBER, outbox_of

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.contract

HOURS = Guards(window=SendWindow.parse("Mon-Fri 09:00-18:00"), may_hold=True)


def batch() -> RenderedBatch:
    dag = make_dag()
    none = FieldSource(None, SourceKind.VALUE)
    row = {"type": "sms", "to": NUMBER, "message": "Hi"}
    return RenderedBatch(
        renderer=renderer_of({"dag": dag}, dag.get_template_env()),
        resolve=cast("Callable[[str, Any], FieldSource]", None),  # for values in the DAG file
        messages=FieldSource([row], SourceKind.VALUE),
        messages_path=None,
        defaults=none,
        suppression=none,
    )


def failing(*_: object, **__: object) -> None:
    raise OSError("Airflow is away")


def test_a_batch_ends_as_it_would_though_airflow_takes_no_report_no_progress_and_no_metric(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metrics, "Stats", SimpleNamespace(incr=failing, timing=failing, gauge=failing))
    monkeypatch.setattr("airflow_provider_apptoto._airflow.never_expire", lambda: "for ever")
    context = {"ti": SimpleNamespace(xcom_push=failing), "task_state_store": SimpleNamespace(set=failing)}
    with FaultServer() as server:
        outbox = outbox_of(server, MemoryStore(), Clock())
        report = run(batch(), BatchOptions(), outbox, Message, context, default_region=None)
    assert (report["sent"], len(server.accepted)) == (1, 1)


def test_a_batch_without_a_ledger_does_not_hold_messages() -> None:
    with FaultServer() as server:
        outbox = outbox_of(server, None, Clock(), guards=HOURS)
        with pytest.raises(ApptotoConfigurationError, match="is 'hold', but there is no ledger") as raised:
            run(batch(), BatchOptions(), outbox, Message, {}, default_region=None)
    assert isinstance(raised.value, AirflowFailException)
    assert raised.value.code == "state_database_needed"
    assert server.connections == 0


def test_a_row_is_not_shown() -> None:
    assert repr(Columns({"to": NUMBER})) == "***"
