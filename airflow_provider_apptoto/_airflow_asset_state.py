"""What a trigger that watches assets uses of Airflow's asset state (Airflow 3.3 and newer)."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.sdk.execution_time.context import AssetStateStoreAccessor
    from airflow.triggers.base import BaseEventTrigger


def has_asset_state() -> bool:
    """Return whether assets have a state that triggers can use (Airflow 3.3 and newer)."""
    return importlib.util.find_spec("airflow.triggers.shared_stream") is not None


def asset_states(trigger: BaseEventTrigger) -> list[AssetStateStoreAccessor]:
    """Return the states of the assets that a trigger watches; none if a task waits for it."""
    # Checked on 3.3.2: assets whose watchers have the same trigger with the same arguments share it, and then the
    # public `aget` and `aset` raise, because they need exactly one asset.
    store: Any = trigger.asset_state_store
    return [] if store is None else [*store._by_name.values(), *store._by_uri.values()]  # noqa: SLF001  see above
