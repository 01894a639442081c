"""The fields of a batch are rendered once, templates of rows wait for their row, and rows are hidden meanwhile."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_apptoto.batch.fields import RenderedBatch, render_batch_fields
from airflow_provider_apptoto.client import ApptotoValidationError
from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageBatchOperator
from airflow_provider_apptoto.privacy import AIRFLOW_MASK, Unrendered
from tests.support.dags import make_dag
from tests.support.planning import PHONE

# The Jinja environment comes from Airflow.
pytestmark = pytest.mark.contract

NAME = "Qzx7Name"


def make_task(**fields: Any) -> Any:
    return ApptotoSendMessageBatchOperator(task_id="send", **fields)


def rendered(task: Any, *, seen: tuple[Any, ...] = (), **context: Any) -> RenderedBatch:
    dag = make_dag()
    context = {"dag": dag, **context}
    return render_batch_fields(task, context, dag.get_template_env(), {id(each) for each in seen})


def first_fields(batch: RenderedBatch) -> dict[str, Any]:
    """Return the fields of the first row's message, if there is one."""
    renderer = batch.row_renderer()
    row: Any = next(batch.rows())
    columns = renderer.columns(getattr(row, "row", row))
    fields = renderer.fields(columns, renderer.shown(columns))
    return {name: value for name, value in fields.items() if value is not None}


def test_rows_in_the_dag_file_are_rendered_and_rows_of_another_task_are_not() -> None:
    rows = [{"to": "{{ number }}"}]
    assert first_fields(rendered(make_task(messages=rows), number=PHONE)) == {"to": PHONE}
    assert first_fields(rendered(make_task(messages=rows), seen=(rows,), number=PHONE)) == {"to": "{{ number }}"}


def test_rows_of_a_file_are_never_rendered_though_its_path_is(tmp_path: Any) -> None:
    (tmp_path / "rows.csv").write_text("to\n{{ number }}\n")
    task = make_task(messages_path=f"{tmp_path}/{{{{ name }}}}.csv")
    batch = rendered(task, number=PHONE, name="rows")
    assert task.messages_path == f"{tmp_path}/rows.csv"
    assert first_fields(batch) == {"to": "{{ number }}"}


def test_recipients_on_the_list_of_another_task_are_not_rendered() -> None:
    numbers = ["{{ number }}"]
    assert rendered(make_task(messages=[], suppression=numbers), number=PHONE).suppressed() == [PHONE]
    assert rendered(make_task(messages=[], suppression=numbers), seen=(numbers,)).suppressed() == numbers
    assert list(rendered(make_task(messages=[])).suppressed()) == []


def test_rows_stay_hidden_and_can_be_rendered_again_after_a_failure() -> None:
    fields = {"messages": [{"to": PHONE, "name": NAME}], "defaults": {"message": f"Hi {NAME}"}, "suppression": [PHONE]}
    task = make_task(**fields, idempotency_key="{{ nope }}")
    for _ in range(2):
        with pytest.raises(ApptotoValidationError, match="nope is undefined"):
            rendered(task)
        assert [repr(getattr(task, name)) for name in fields] == [AIRFLOW_MASK] * 3
        assert all(isinstance(getattr(task, name), Unrendered) for name in fields)
    assert first_fields(rendered(task, nope="key")) == {"to": PHONE, "message": f"Hi {NAME}"}
    assert [repr(getattr(task, name)) for name in fields] == [AIRFLOW_MASK] * 3


def test_a_batch_shows_nobody_its_rows() -> None:
    batch = rendered(make_task(messages=[{"to": PHONE}], defaults={"message": f"Hi {NAME}"}))
    for shown in (repr(batch), repr(batch.messages), repr(batch.defaults)):
        assert PHONE not in shown
        assert NAME not in shown
