"""The task or the callback that sends a message."""

from __future__ import annotations

from enum import Enum
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_apptoto.outbox.origin import Origin, is_retry


@pytest.mark.parametrize(
    ("try_number", "max_tries", "retries", "retried"),
    [
        (1, 0, 0, False),
        (1, 3, 3, False),
        (2, 3, 3, True),
        (4, 3, 3, True),
        (2, 1, 0, False),  # cleared after its one try
        (3, 5, 3, False),  # cleared after its second try: two, and three retries
        (4, 5, 3, True),
    ],
)
def test_a_retry_is_told_from_a_clear(try_number: int, max_tries: int, retries: int, retried: bool) -> None:
    context = {
        "ti": SimpleNamespace(try_number=try_number, max_tries=max_tries),
        "task": SimpleNamespace(retries=retries),
    }
    assert is_retry(context) is retried


def test_a_task_that_is_not_mapped_has_the_map_index_that_airflow_gives_it() -> None:
    ti = SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=None, try_number=3, state="failed")
    origin = Origin.from_context({"ti": ti})
    assert (origin.map_index, origin.try_number) == (-1, 3)


@pytest.mark.parametrize(
    ("of", "kind", "shown"),
    [
        (
            {"ti": SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=2, try_number=1, state="failed")},
            "callback:failed",
            "d.t[2], run r (callback:failed)",
        ),
        (
            {"dag_run": SimpleNamespace(dag_id="d", run_id="r", state="success")},
            "callback:success",
            "d, run r (callback:success)",
        ),
        ({"dag": SimpleNamespace(dag_id="d"), "run_id": "r"}, "callback:dag", "d, run r (callback:dag)"),
    ],
    ids=["of a task", "of a run", "of a DAG"],
)
def test_a_callback_is_told_from_the_task_that_it_is_called_for(of: dict[str, Any], kind: str, shown: str) -> None:
    origin = Origin.from_context(of)
    assert (origin.kind, str(origin), origin.is_task) == (kind, shown, False)
    fields = origin.to_dict()
    assert Origin.take_from(fields) == origin
    assert fields == {}


def test_the_kind_of_a_callback_does_not_depend_on_how_a_version_prints_its_states() -> None:
    class PrintedOtherwise(Enum):
        FAILED = "failed"

    ti = SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=-1, try_number=1, state=PrintedOtherwise.FAILED)
    assert Origin.from_context({"ti": ti}).kind == "callback:failed"
