"""Every difference between Airflow versions, and nothing else.

``airflow.providers.common.compat.sdk`` covers the rest.
"""

from __future__ import annotations

import contextlib
import importlib
from typing import TYPE_CHECKING

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


__all__ = ["HAS_RETRY_POLICY", "RetryDecision", "RetryPolicy", "has_provider_cli", "mask_secret"]
