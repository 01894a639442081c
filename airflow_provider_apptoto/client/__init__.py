"""Apptoto over HTTP, for any Python program: nothing in this package imports Airflow.

``requests`` and the libraries that check recipients load when they are first used.
"""

from __future__ import annotations

from airflow_provider_apptoto.client.client import ApptotoClient, SendResult
from airflow_provider_apptoto.client.errors import (
    ApptotoAuthError,
    ApptotoConfigurationError,
    ApptotoError,
    ApptotoNotSentError,
    ApptotoRejectedError,
    ApptotoUnknownOutcomeError,
    ApptotoValidationError,
)
from airflow_provider_apptoto.client.messages import Message
from airflow_provider_apptoto.client.pacing import Clock, InProcessPacer, Pacer
from airflow_provider_apptoto.client.retry import RetryPolicy
from airflow_provider_apptoto.client.routing import DeliveryMode, Routing

__all__ = [
    "ApptotoAuthError",
    "ApptotoClient",
    "ApptotoConfigurationError",
    "ApptotoError",
    "ApptotoNotSentError",
    "ApptotoRejectedError",
    "ApptotoUnknownOutcomeError",
    "ApptotoValidationError",
    "Clock",
    "DeliveryMode",
    "InProcessPacer",
    "Message",
    "Pacer",
    "RetryPolicy",
    "Routing",
    "SendResult",
]
