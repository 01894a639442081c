"""Ledgers that fail once, in one of their steps."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar, cast

from airflow_provider_apptoto.outbox.entry import State
from airflow_provider_apptoto.outbox.stores.base import LedgerAwayError, LedgerStore
from airflow_provider_apptoto.outbox.stores.task_state import TaskStateLedgerStore
from tests.chaos.draws import LedgerFault, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from airflow_provider_apptoto.outbox.entry import Entry

T = TypeVar("T")

STALL = 0.4
"""Seconds that a ledger stalls: longer than the margin of a lease, shorter than the lease."""
LATE = 1.3
"""Seconds by which an answer of the ledger is late: longer than a lease."""


class _Once:
    """Fails once, in one step.

    :param error: raised if the ledger can't be reached.
    """

    def __init__(self, fault: LedgerFault, step: Step, error: type[Exception]) -> None:
        self._fault: LedgerFault | None = fault
        self._step = step
        self._error = error

    def call(self, step: Step, call: Callable[[], T]) -> T:
        if self._fault is None or step is not self._step:
            return call()
        fault, self._fault = self._fault, None
        if fault is LedgerFault.AWAY:
            raise self._error("away")
        if fault is LedgerFault.STALLS:
            time.sleep(STALL)
        result = call()
        if fault is LedgerFault.ANSWERS_LATE:
            time.sleep(LATE)
        if fault is LedgerFault.ANSWER_LOST:
            raise self._error("answer lost")
        return result


class _FaultyStore:
    """A state database."""

    def __init__(self, store: LedgerStore, once: _Once) -> None:
        self._store = store
        self._once = once

    def find(self, keys: Collection[str]) -> dict[str, Entry]:
        return self._once.call(Step.LOOK_UP, lambda: self._store.find(keys))

    def compare_and_swap(self, old: Entry | None, new: Entry) -> bool:
        return self._once.call(_step(new.state), lambda: self._store.compare_and_swap(old, new))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class _FaultyTaskState:
    """What a task's context holds as ``task_state_store``."""

    def __init__(self, task_state: Any, once: _Once) -> None:
        self._task_state = task_state
        self._once = once

    def get(self, key: str) -> Any:
        return self._once.call(Step.LOOK_UP, lambda: self._task_state.get(key))

    def set(self, key: str, value: Any, *, retention: Any) -> None:
        step = _step(value["state"]) if "state" in value else Step.LOOK_UP
        self._once.call(step, lambda: self._task_state.set(key, value, retention=retention))


def faulty(store: LedgerStore, fault: LedgerFault, step: Step) -> LedgerStore:
    """Return a store that fails once. Task state fails where Airflow would: below the store."""
    if isinstance(store, TaskStateLedgerStore):
        store.task_state = _FaultyTaskState(store.task_state, _Once(fault, step, ConnectionError))
        return store
    return cast("LedgerStore", _FaultyStore(store, _Once(fault, step, LedgerAwayError)))


def _step(state: str) -> Step:
    return Step.SENDING if state == State.SENDING else Step.OUTCOME
