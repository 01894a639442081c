"""The context decides where the ledger is, and whether a message may be sent at all."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import get_current_context, task

from airflow_provider_apptoto._airflow import HAS_RETRY_POLICY as HAS_TASK_STATE  # both are new in 3.3
from airflow_provider_apptoto.client import ApptotoConfigurationError, ApptotoValidationError
from airflow_provider_apptoto.hooks.apptoto import ApptotoHook
from tests.support.dag_runs import run_dag
from tests.support.outboxes import NUMBER, OTHER_NUMBER, TEXT
from tests.support.state_databases import forget_databases
from tests.support.task_state import FakeTaskState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from airflow_provider_apptoto.outbox import Delivery
    from tests.support.faults import FaultServer

pytestmark = [pytest.mark.contract, pytest.mark.usefixtures("airflow_database", "quick_retries")]

MESSAGE: dict[str, Any] = {"type": "sms", "to": NUMBER, "message": TEXT}


@pytest.fixture
def state(
    clinic: FaultServer, connection: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Set an unused state database on the connection."""
    database = {"conn_type": "sqlite", "host": str(tmp_path / "state.db")}
    monkeypatch.setenv("AIRFLOW_CONN_STATE", json.dumps(database))
    forget_databases()
    connection(clinic.url, state_conn_id="state")


@pytest.fixture
def no_state(clinic: FaultServer, connection: Callable[..., None]) -> None:
    """Provide a connection without a state database."""
    connection(clinic.url)


def ti(**fields: Any) -> SimpleNamespace:
    known = {"dag_id": "clinic", "task_id": "remind", "run_id": "monday", "map_index": -1, "try_number": 1}
    return SimpleNamespace(**{**known, "max_tries": 0, "state": "failed", **fields})


def send(context: Mapping[str, Any], *, idempotency_key: str | None = None, **fields: Any) -> Delivery:
    """Send as a process that has just started."""
    outbox = ApptotoHook().outbox(context, max_age=None, idempotency_key=idempotency_key)
    return outbox.send(**{**MESSAGE, **fields})


# --- contexts without a task instance

WITHOUT_TI: dict[str, dict[str, Any]] = {
    "nothing": {},
    "a run that failed": {"dag_run": SimpleNamespace(dag_id="clinic", run_id="monday", state="failed")},
    "a DAG's callback": {"dag": SimpleNamespace(dag_id="clinic"), "run_id": "monday"},
}


@pytest.mark.usefixtures("state")
@pytest.mark.parametrize("kind", WITHOUT_TI)
def test_without_a_task_instance_an_idempotency_key_sends_once(clinic: FaultServer, kind: str) -> None:
    keys = ["deadline-1", "deadline-1", "deadline-2"]
    deliveries = [send(WITHOUT_TI[kind], idempotency_key=key) for key in keys]
    assert [delivery.outcome for delivery in deliveries] == ["sent", "deduplicated", "sent"]
    assert deliveries[0].try_number == 0
    assert len(clinic.accepted) == 2


@pytest.mark.usefixtures("state")
@pytest.mark.parametrize("kind", WITHOUT_TI)
def test_without_a_task_instance_and_a_key_nothing_is_sent(clinic: FaultServer, kind: str) -> None:
    with pytest.raises(
        ApptotoConfigurationError,
        match=r"context: has no task instance \(ti\), so idempotency_key is required",
    ) as raised:
        send(WITHOUT_TI[kind])
    assert (raised.value.code, clinic.connections) == ("idempotency_key_needed", 0)


@pytest.mark.usefixtures("no_state")
@pytest.mark.parametrize("idempotency_key", [None, "deadline-1"])
@pytest.mark.parametrize("kind", WITHOUT_TI)
def test_without_a_task_instance_and_a_state_database_nothing_is_sent(
    clinic: FaultServer, kind: str, idempotency_key: str | None
) -> None:
    with pytest.raises(ApptotoConfigurationError, match="set state_conn_id on the Apptoto connection") as raised:
        send(WITHOUT_TI[kind], idempotency_key=idempotency_key)
    assert (raised.value.code, clinic.connections) == ("state_database_needed", 0)


# --- callbacks of a task


@pytest.mark.usefixtures("state")
def test_a_callback_remembers_its_messages_apart_from_those_of_its_task_and_of_other_callbacks(
    clinic: FaultServer,
) -> None:
    states = ["failed", "up_for_retry", "failed", "success"]
    outcomes = [send({"ti": ti(state=state)}).outcome for state in states]
    assert outcomes == ["sent", "sent", "deduplicated", "sent"]
    assert send({"ti": ti(try_number=2)}).outcome == "deduplicated"  # Airflow may call it twice
    assert len(clinic.accepted) == 3


@pytest.mark.usefixtures("state")
def test_an_idempotency_key_is_the_same_in_a_callback_and_in_a_task(clinic: FaultServer) -> None:
    sent: list[str] = []

    def build() -> None:
        @task
        def tell() -> None:
            sent.append(send(get_current_context(), idempotency_key="monday").outcome)

        tell()

    run_dag(build)
    assert (sent, send({"ti": ti()}, idempotency_key="monday").outcome) == (["sent"], "deduplicated")
    assert len(clinic.accepted) == 1


@pytest.mark.usefixtures("no_state")
def test_a_callback_does_not_use_task_state_and_needs_the_state_database(clinic: FaultServer) -> None:
    task_state = FakeTaskState()
    with pytest.raises(ApptotoConfigurationError, match="is not from a running task") as raised:
        send({"ti": ti(), "task_state_store": task_state})
    assert (raised.value.code, task_state.calls, clinic.connections) == ("state_database_needed", [], 0)


# --- tasks


def run_once(body: Callable[[Any], None]) -> str:
    """Run a Python task, and return its state."""

    def build() -> None:
        @task
        def tell() -> None:
            body(get_current_context())

        tell()

    return run_dag(build)["tell"].state


@pytest.mark.usefixtures("state")
def test_a_python_task_sends_once_in_a_try_and_tells_two_texts_to_one_person_apart(clinic: FaultServer) -> None:
    outcomes: list[str] = []

    def body(context: Any) -> None:
        messages: list[dict[str, Any]] = [{}, {}, {"to": OTHER_NUMBER}, {"message": "Another", "item": "bill"}]
        outcomes.extend(send(context, **fields).outcome for fields in messages)
        send(context, message="Another")  # by a second outbox of the same try

    assert run_once(body) == "failed"
    assert outcomes == ["sent", "deduplicated", "sent", "sent"]
    assert len(clinic.accepted) == 3


@pytest.mark.skipif(not HAS_TASK_STATE, reason="came with Airflow 3.3")
@pytest.mark.usefixtures("no_state")
def test_a_python_task_is_remembered_in_task_state(clinic: FaultServer) -> None:
    outcomes: list[str] = []
    errors: list[Exception] = []

    def body(context: Any) -> None:
        outcomes.extend(send(context).outcome for _ in range(2))
        with pytest.raises(ApptotoConfigurationError) as raised:
            send(context, idempotency_key="monday")
        errors.append(raised.value)
        with pytest.raises(ApptotoValidationError, match="item: is required"):
            send(context, message="Another")

    assert run_once(body) == "success"
    assert outcomes == ["sent", "deduplicated"]
    assert str(errors[0]).startswith("idempotency_key: needs a state database")
    assert len(clinic.accepted) == 1


def test_a_limit_without_a_state_database_is_refused(clinic: FaultServer, connection: Callable[..., None]) -> None:
    connection(clinic.url, at_most="2/day")
    with pytest.raises(ApptotoConfigurationError, match=r"^at_most: needs a state database") as raised:
        ApptotoHook().send_message(**MESSAGE)
    assert raised.value.code == "state_database_needed"
    assert clinic.connections == 0


@pytest.mark.usefixtures("no_state")
def test_a_rate_limit_that_other_hosts_do_not_keep_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    ApptotoHook().get_conn()
    assert "The rate limit is not shared between hosts: set state_conn_id" in caplog.text


@pytest.mark.usefixtures("state")
@pytest.mark.parametrize(
    "wrong", [{"on_unknown": "retry"}, {"max_age": 24}, {"idempotency_key": " "}, {"when_closed": "hold"}]
)
def test_a_wrong_policy_is_refused_before_anything_is_looked_up(clinic: FaultServer, wrong: dict[str, Any]) -> None:
    with pytest.raises(ApptotoConfigurationError, match=rf"^{next(iter(wrong))}: "):
        ApptotoHook().outbox({"ti": ti()}, **wrong)
    assert clinic.connections == 0
