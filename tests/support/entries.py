"""Ledger entries for tests."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from airflow_provider_apptoto.outbox.entry import Entry, State
from airflow_provider_apptoto.outbox.origin import Origin
from airflow_provider_apptoto.outbox.stores.sql import SqlLedgerStore

if TYPE_CHECKING:
    from airflow_provider_apptoto.outbox.database import StateDatabase

FIRST = Origin(dag_id="clinic", task_id="remind", run_id="monday", map_index=-1, try_number=1)
SECOND = dataclasses.replace(FIRST, try_number=2)


def entry(origin: Origin = FIRST, key: str = "k1", text: str = "f1", **fields: Any) -> Entry:
    """Return an entry of a message that is in flight.

    :param text: its fingerprint.
    :param fields: other fields of it.
    """
    given = {"state": State.SENDING, "lease": 60.0, "channel": "sms", "target": "+1•••0199", "reference": "4711"}
    return Entry(key=key, fingerprint=text, origin=origin, **{**given, **fields})


def add(database: StateDatabase, key: str, dag_id: str = "clinic", **fields: Any) -> None:
    """Add an entry of a message that is no longer in flight."""
    origin = dataclasses.replace(FIRST, dag_id=dag_id)
    assert SqlLedgerStore(database).compare_and_swap(None, entry(origin, key, **{"lease": 0.0, **fields}))


def filled(database: StateDatabase) -> None:
    """Fill a ledger with an entry of each state, and one that a killed task left behind.

    Their keys are 00..., sending; 11..., sent; 22..., redirected; 33..., not_sent; 44..., rejected; 55..., unknown;
    66..., left as sending by a killed task.
    """
    store = SqlLedgerStore(database)
    for number, state in enumerate([*State, State.SENDING]):
        lease = 60.0 if number == 0 else 0.0
        assert store.compare_and_swap(None, entry(key=str(number) * 32).changed(state, lease=lease))
