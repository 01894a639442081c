"""What a message is remembered by: nothing is sent where that would be forgotten."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_apptoto.client import ApptotoConfigurationError
from airflow_provider_apptoto.outbox.identity import check_ledger, texts_of
from airflow_provider_apptoto.outbox.origin import Origin
from airflow_provider_apptoto.outbox.policy import SendPolicy

STORES: dict[str, Any] = {
    "none": None,
    "task state": SimpleNamespace(is_shared=False),
    "database": SimpleNamespace(is_shared=True),
}
TASK = Origin(dag_id="d", task_id="t", run_id="r", map_index=-1, try_number=1)
DAG = Origin(dag_id="d", task_id="", run_id="r", map_index=-1, try_number=0, kind="callback:failed")


@pytest.mark.parametrize(
    ("origin", "key", "store"),
    [
        (TASK, None, "none"),
        (TASK, None, "task state"),
        (TASK, None, "database"),
        (TASK, "monday", "database"),
        (DAG, "monday", "database"),
    ],
)
def test_a_policy_that_the_ledger_can_keep_passes(origin: Origin, key: str | None, store: str) -> None:
    check_ledger(SendPolicy(idempotency_key=key), STORES[store], origin)


@pytest.mark.parametrize(
    ("origin", "key", "store", "field", "code"),
    [
        (TASK, "monday", "none", "idempotency_key", "state_database_needed"),
        (TASK, "monday", "task state", "idempotency_key", "state_database_needed"),
        (DAG, "monday", "none", "idempotency_key", "state_database_needed"),
        (DAG, None, "database", "context", "idempotency_key_needed"),
        (DAG, None, "none", "context", "idempotency_key_needed"),
    ],
)
def test_a_policy_that_needs_a_shared_ledger_is_refused_without_one(
    origin: Origin, key: str | None, store: str, field: str, code: str
) -> None:
    with pytest.raises(ApptotoConfigurationError, match="set state_conn_id on the Apptoto connection") as raised:
        check_ledger(SendPolicy(idempotency_key=key), STORES[store], origin)
    assert (raised.value.field, raised.value.code) == (field, code)


def test_the_texts_of_a_try_are_those_of_its_task_instance() -> None:
    first, second = object(), object()
    texts_of(first)["key"] = "fingerprint"
    assert texts_of(first) == {"key": "fingerprint"}
    assert texts_of(second) == {}
    assert texts_of(first) == {}


def test_outside_of_a_task_each_outbox_has_texts_of_its_own() -> None:
    texts_of(None)["key"] = "fingerprint"
    assert texts_of(None) == {}
