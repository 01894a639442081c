"""Build the HTTP client of a connection."""

from __future__ import annotations

import base64
import logging
from typing import TYPE_CHECKING

from airflow import __version__ as airflow_version

from airflow_provider_apptoto import __version__
from airflow_provider_apptoto._airflow import mask_secret
from airflow_provider_apptoto.client import ApptotoClient, DeliveryMode, Routing
from airflow_provider_apptoto.hooks._state import tell_once

if TYPE_CHECKING:
    from airflow_provider_apptoto.client import RateLimiter, RetryPolicy
    from airflow_provider_apptoto.connection import ConnectionSettings


def build_client(
    settings: ConnectionSettings,
    *,
    task_mode: str | None,
    rate_limiter: RateLimiter,
    total_timeout: float | None,
    retry_policy: RetryPolicy | None,
) -> ApptotoClient:
    """Return the client of a connection, and mask its API key in Airflow's logs.

    :param task_mode: delivery mode that the task sets; the strictest of all modes applies.
    """
    # Airflow masks the password itself, but not its Basic authentication form
    mask_secret(settings.api_key)
    mask_secret(base64.b64encode(f"{settings.login}:{settings.api_key}".encode()).decode())
    modes: dict[str, str | None] = {**settings.delivery_modes, "the task": task_mode}
    mode = DeliveryMode.strictest(*modes.values())
    setters = [source for source, each in modes.items() if each is not None and DeliveryMode(each.strip()) is mode]
    tell_once(logging.INFO, f"Delivery mode: {mode} ({f'set by {setters[0]}' if setters else 'default'})")
    return ApptotoClient(
        login=settings.login,
        api_key=settings.api_key,
        base_url=settings.base_url,
        timeout=settings.timeout,
        connect_timeout=settings.connect_timeout,
        total_timeout=total_timeout,
        max_retry_after=settings.max_retry_after,
        rate_limiter=rate_limiter,
        routing=Routing(mode, settings.redirect_phone_to, settings.redirect_email_to),
        ca_bundle=settings.ca_bundle,
        user_agent=f"airflow-provider-apptoto/{__version__} apache-airflow/{airflow_version}",
        retry_policy=retry_policy,
    )
