"""Send each message at most once. Create an outbox with ``ApptotoHook.outbox``.

Modules are loaded on first use, because operators import from this package each time a DAG is parsed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_apptoto.outbox.delivery import Delivery
    from airflow_provider_apptoto.outbox.outbox import Outbox
    from airflow_provider_apptoto.outbox.policy import SendPolicy

__all__ = ["Delivery", "Outbox", "SendPolicy"]

_MODULES = {"Delivery": "delivery", "Outbox": "outbox", "SendPolicy": "policy"}


def __getattr__(name: str) -> object:
    if name not in __all__:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    found: object = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__
