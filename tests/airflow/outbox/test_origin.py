"""The origin of a message is the task or the callback that sends it."""

from __future__ import annotations

from enum import Enum
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_apptoto.outbox import origin
from airflow_provider_apptoto.outbox.origin import Origin, is_retry

if TYPE_CHECKING:
    from pytest_mock import MockerFixture


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


@pytest.mark.parametrize("missing", ["ti", "task"])
def test_without_a_task_there_is_no_retry(missing: str) -> None:
    context = {"ti": SimpleNamespace(try_number=4, max_tries=3), "task": SimpleNamespace(retries=3)}
    assert is_retry({**context, missing: None}) is False


def test_a_task_that_runs_is_an_origin_of_its_own_kind(mocker: MockerFixture) -> None:
    ti = SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=None, try_number=3, state="running")
    running = mocker.patch.object(origin, "is_running_task", return_value=True)
    found = Origin.from_context({"ti": ti})
    assert found == Origin(dag_id="d", task_id="t", run_id="r", map_index=-1, try_number=3, kind="task")
    assert (str(found), found.is_task) == ("d.t, run r", True)
    running.assert_called_once_with({"ti": ti})


CALLBACKS: dict[str, tuple[dict[str, Any], Origin, str]] = {
    "of a task": (
        {"ti": SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=2, try_number=1, state="failed")},
        Origin(dag_id="d", task_id="t", run_id="r", map_index=2, try_number=1, kind="callback:failed"),
        "d.t[2], run r (callback:failed)",
    ),
    "of a task of no known state": (
        {"ti": SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=0, try_number=1)},
        Origin(dag_id="d", task_id="t", run_id="r", map_index=0, try_number=1, kind="callback:task"),
        "d.t[0], run r (callback:task)",
    ),
    "of a run": (
        {"dag_run": SimpleNamespace(dag_id="d", run_id="r", state="success")},
        Origin(dag_id="d", task_id="", run_id="r", map_index=-1, try_number=0, kind="callback:success"),
        "d, run r (callback:success)",
    ),
    "of a DAG": (
        {"dag": SimpleNamespace(dag_id="d"), "run_id": "r"},
        Origin(dag_id="d", task_id="", run_id="r", map_index=-1, try_number=0, kind="callback:dag"),
        "d, run r (callback:dag)",
    ),
    "of nothing": (
        {},
        Origin(dag_id="", task_id="", run_id="", map_index=-1, try_number=0, kind="callback:dag"),
        ", run  (callback:dag)",
    ),
}


@pytest.mark.parametrize("of", CALLBACKS)
def test_a_callback_is_told_from_the_task_that_it_is_called_for(of: str) -> None:
    context, expected, shown = CALLBACKS[of]
    found = Origin.from_context(context)
    assert (found, str(found), found.is_task) == (expected, shown, False)
    fields = found.to_dict()
    assert Origin.take_from(fields) == found
    assert fields == {}


def test_the_kind_of_a_callback_does_not_depend_on_how_a_version_prints_its_states() -> None:
    class PrintedOtherwise(Enum):
        FAILED = "failed"

    ti = SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=-1, try_number=1, state=PrintedOtherwise.FAILED)
    assert Origin.from_context({"ti": ti}).kind == "callback:failed"
