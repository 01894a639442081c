"""The undocumented parts of the installed Airflow work as the provider expects."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import get_current_context, literal, task

from airflow_provider_apptoto._airflow import (
    is_from_expand_kwargs,
    is_literal,
    is_running_task,
    runs_tasks_on_one_host,
    string_environment,
)
from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageOperator
from tests.support.dag_runs import run_dag
from tests.support.dags import make_dag

pytestmark = pytest.mark.contract


# --- the running task


@pytest.mark.usefixtures("airflow_database")
def test_a_running_task_is_told_by_its_own_context_alone() -> None:
    contexts: dict[str, Any] = {}

    def build() -> None:
        @task
        def earlier() -> None:
            contexts["earlier"] = get_current_context()

        @task
        def later() -> dict[str, bool]:
            own: Any = get_current_context()
            contexts["later"] = own
            each = {
                "own": own,
                "own, as a dictionary": {"ti": own["ti"]},
                "of an earlier task": contexts["earlier"],
                "of an equal task instance": {"ti": copy.copy(own["ti"])},
                "of a DAG": {"dag": own["dag"]},
                "empty": {},
            }
            return {name: is_running_task(context) for name, context in each.items()}

        earlier() >> later()

    run = run_dag(build)
    assert run["later"].xcom == {
        "own": True,
        "own, as a dictionary": True,
        "of an earlier task": False,
        "of an equal task instance": False,
        "of a DAG": False,
        "empty": False,
    }
    assert not is_running_task(contexts["later"])  # no task runs any more


# --- where tasks run


@pytest.mark.parametrize(
    ("executor", "on_one_host"),
    [
        ("LocalExecutor", True),
        ("SequentialExecutor", True),
        ("airflow.executors.local_executor.LocalExecutor", True),
        ("mine:airflow.executors.local_executor.LocalExecutor", True),
        ("mine:LocalExecutor", True),
        (" LocalExecutor , mine:airflow.executors.local_executor.LocalExecutor ", True),
        ("LocalExecutor;clinic=LocalExecutor", True),
        ("=LocalExecutor;clinic=mine:LocalExecutor", True),
        ("CeleryExecutor", False),
        ("LocalExecutor,CeleryExecutor", False),
        ("LocalExecutor, KubernetesExecutor", False),
        ("LocalExecutor:airflow.providers.celery.executors.celery_executor.CeleryExecutor", False),
        ("LocalExecutor;clinic=CeleryExecutor", False),
        ("clinic.executors.LocalExecutor", False),
    ],
)
def test_executors_of_one_host_are_told_by_what_they_are_not_by_their_alias(
    executor: str, on_one_host: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", executor)
    assert runs_tasks_on_one_host() == on_one_host


# --- fields


def test_a_literal_is_told_from_what_else_airflow_resolves() -> None:
    @task
    def text() -> str:
        return "Hi"

    with make_dag():
        output = text()
    assert is_literal(literal("Hi"))
    assert not any(map(is_literal, (output, "Hi", None, 5)))


def test_a_task_outside_of_a_dag_was_given_nothing_by_another_task() -> None:
    operator = ApptotoSendMessageOperator(task_id="send", type="sms", to="+16505550199", message="Hi")
    assert not is_from_expand_kwargs(operator, "message", "Hi", {})


@pytest.mark.parametrize("native", [False, True])
def test_numbers_in_a_template_become_a_string_also_in_a_dag_that_renders_native_objects(native: bool) -> None:
    dag = make_dag(render_template_as_native_obj=native)
    env = string_environment({"dag": dag}, dag.get_template_env())
    assert env.from_string("{{ 12 }}").render() == "12"
