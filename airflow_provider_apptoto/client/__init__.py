"""A client for Apptoto's HTTP API, for any Python program: nothing in this package imports Airflow.

Modules are loaded on first use, because operators import from this package each time a DAG is parsed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_apptoto.client.appointments import ConversationMessage, Event, Participant
    from airflow_provider_apptoto.client.client import ApptotoClient, SendResult
    from airflow_provider_apptoto.client.errors import (
        ApptotoAuthError,
        ApptotoConfigurationError,
        ApptotoError,
        ApptotoNotSentError,
        ApptotoRejectedError,
        ApptotoStoppedError,
        ApptotoThrottledError,
        ApptotoUnknownOutcomeError,
        ApptotoValidationError,
    )
    from airflow_provider_apptoto.client.messages import Message
    from airflow_provider_apptoto.client.outcomes import Outcome
    from airflow_provider_apptoto.client.rate_limit import Clock, InProcessRateLimiter, RateLimiter
    from airflow_provider_apptoto.client.retry import RetryPolicy
    from airflow_provider_apptoto.client.routing import DeliveryMode, Routing

__all__ = [
    "ApptotoAuthError",
    "ApptotoClient",
    "ApptotoConfigurationError",
    "ApptotoError",
    "ApptotoNotSentError",
    "ApptotoRejectedError",
    "ApptotoStoppedError",
    "ApptotoThrottledError",
    "ApptotoUnknownOutcomeError",
    "ApptotoValidationError",
    "Clock",
    "ConversationMessage",
    "DeliveryMode",
    "Event",
    "InProcessRateLimiter",
    "Message",
    "Outcome",
    "Participant",
    "RateLimiter",
    "RetryPolicy",
    "Routing",
    "SendResult",
]

_MODULES = {
    "ApptotoClient": "client",
    "Clock": "rate_limit",
    "ConversationMessage": "appointments",
    "DeliveryMode": "routing",
    "Event": "appointments",
    "InProcessRateLimiter": "rate_limit",
    "Message": "messages",
    "Outcome": "outcomes",
    "Participant": "appointments",
    "RateLimiter": "rate_limit",
    "RetryPolicy": "retry",
    "Routing": "routing",
    "SendResult": "client",
}
"""Module of each public name; names that end with ``Error`` are in ``errors``."""


def __getattr__(name: str) -> object:
    if name not in __all__:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    found: object = getattr(import_module(f"{__name__}.{_MODULES.get(name, 'errors')}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__
