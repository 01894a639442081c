"""Every difference between Airflow versions, and nothing else.

``airflow.providers.common.compat.sdk`` covers the rest.
"""

from __future__ import annotations

import contextlib
import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.sdk import RetryDecision, RetryPolicy

    HAS_RETRY_POLICY = True
else:
    try:
        from airflow.sdk import RetryDecision, RetryPolicy

        HAS_RETRY_POLICY = True
    except ImportError:  # Airflow < 3.3
        RetryDecision = None
        RetryPolicy = object
        HAS_RETRY_POLICY = False


def has_provider_cli() -> bool:
    """Whether ``airflow`` takes commands of providers: from 3.2 on."""
    from airflow import __version__

    major, minor = map(int, __version__.split(".")[:2])
    return (major, minor) >= (3, 2)


def mask_secret(secret: str) -> None:
    """Have Airflow hide a secret in all its logs."""
    homes = ("airflow.sdk.log", "airflow.sdk.execution_time.secrets_masker", "airflow.utils.log.secrets_masker")
    for home in homes:  # of Airflow 3.1 and newer, 3.0, 2
        with contextlib.suppress(ImportError):
            if mask := getattr(importlib.import_module(home), "mask_secret", None):
                mask(secret)
                return
    raise ImportError(f"this Airflow has its mask_secret in none of {', '.join(homes)}")


class Variables:
    """Airflow's Variables.

    :param module: has the class; by default the one for tasks. A command uses ``airflow.models.variable``.
    """

    def __init__(self, module: str = "airflow.providers.common.compat.sdk") -> None:
        self._variable: Any = importlib.import_module(module).Variable

    def get(self, name: str) -> str | None:
        """Return a Variable, or ``None``."""
        value: str | None = self._variable.get(name, None)  # by position: Airflow 2 has another name for the default
        return value

    def set(self, name: str, value: str) -> None:
        """Set a Variable."""
        description = "Made by the Apptoto provider, which tells by it that a state database lost its memory"
        self._variable.set(name, value, description=description)


__all__ = ["HAS_RETRY_POLICY", "RetryDecision", "RetryPolicy", "Variables", "has_provider_cli", "mask_secret"]
