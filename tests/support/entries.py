"""Ledger entries for tests."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from airflow_provider_apptoto.state.sql_ledger import SqlLedgerStore
from airflow_provider_apptoto.state.store import Entry, Origin, State

if TYPE_CHECKING:
    from airflow_provider_apptoto.state.database import StateDatabase

FIRST = Origin(dag_id="clinic", task_id="remind", run_id="monday", map_index=-1, try_number=1)
SECOND = dataclasses.replace(FIRST, try_number=2)


def entry(origin: Origin = FIRST, key: str = "k1", text: str = "f1") -> Entry:
    """Return a claimed entry.

    :param text: its fingerprint.
    """
    return Entry(key=key, state=State.CLAIMED, fingerprint=text, type="sms", origin=origin, lease=60, reference="4711")


def filled(database: StateDatabase) -> SqlLedgerStore:
    """Return a ledger that holds one entry of each state; only the claimed one still has its lease.

    Their keys are 00..., claimed; 11..., sending; 22..., sent; 33..., not_sent; 44..., rejected; 55..., unknown.
    """
    store = SqlLedgerStore(database, "")
    for number, state in enumerate(State):
        assert store.swap(None, entry(key=str(number) * 32).changed(state, lease=60.0 if state == "claimed" else 0.0))
    return store
