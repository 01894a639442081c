"""What triggers use of Airflow, by version. DAG files do not import this module: Airflow's base class loads slowly."""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.sdk.execution_time.context import AssetStateStoreAccessor
    from airflow.triggers.base import BaseEventTrigger as EventTrigger
    from airflow.triggers.base import TriggerEvent
else:
    # Checked on 2.11.2 (no BaseEventTrigger), 3.0.6, 3.1.8, 3.2.2, 3.3.2.
    _base = importlib.import_module("airflow.triggers.base")
    EventTrigger = getattr(_base, "BaseEventTrigger", _base.BaseTrigger)
    TriggerEvent = _base.TriggerEvent


def has_shared_streams() -> bool:
    """Return whether triggers can share a stream, and whether assets have a state (Airflow 3.3 and newer)."""
    return importlib.util.find_spec("airflow.triggers.shared_stream") is not None


def asset_states(trigger: EventTrigger) -> list[AssetStateStoreAccessor]:
    """Return the states of the assets that a trigger watches; none if a task waits for it."""
    # Checked on 3.3.2: assets whose watchers have the same trigger with the same arguments share it, and then the
    # public `aget` and `aset` raise, because they need exactly one asset.
    store: Any = trigger.asset_state_store
    return [] if store is None else [*store._by_name.values(), *store._by_uri.values()]  # noqa: SLF001  see above


__all__ = ["EventTrigger", "TriggerEvent", "asset_states", "has_shared_streams"]
