"""Build the HTTP client of a connection, and say whether it works."""

from __future__ import annotations

import base64
import functools
import logging
from typing import TYPE_CHECKING

from airflow import __version__ as airflow_version

from airflow_provider_apptoto import __version__, metrics
from airflow_provider_apptoto._airflow import mask_secret
from airflow_provider_apptoto.client import (
    ApptotoAuthError,
    ApptotoClient,
    ApptotoError,
    ApptotoNotSentError,
    DeliveryMode,
    Routing,
)
from airflow_provider_apptoto.hooks._state import tell_once
from airflow_provider_apptoto.outbox.stores.base import LedgerStoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_apptoto.client import RateLimiter, RetryPolicy
    from airflow_provider_apptoto.connection import ConnectionSettings


def build_client(
    settings: ConnectionSettings,
    *,
    task_mode: str | None,
    rate_limiter: RateLimiter,
    total_timeout: float | None,
    retry_policy: RetryPolicy | None,
    conn_id: str,
) -> ApptotoClient:
    """Return the client of a connection, and mask its API key in Airflow's logs.

    :param task_mode: delivery mode that the task sets; the strictest of all modes applies.
    :param conn_id: the connection, for metrics.
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
        is_sandbox=settings.is_sandbox,
        on_read=functools.partial(metrics.read, conn_id=conn_id),
    )


def outcome_of_test(check: Callable[[], None], base_url: Callable[[], str]) -> tuple[bool, str]:
    """Return whether a check of a connection succeeds, and a sentence for the user.

    :param check: raises if the connection does not work.
    :param base_url: returns the URL that was checked; called only after the settings were read.
    """
    try:
        check()
    except (ApptotoAuthError, LedgerStoreError) as error:
        text = str(error)
        return False, text[:1].upper() + text[1:]
    except ApptotoNotSentError as error:
        if error.status is None:
            return False, f"{base_url()} can't be reached: {error.reason}"
        return False, f"{base_url()} is temporarily unavailable: {error}"
    except ApptotoError as error:
        return False, str(error)
    except Exception as error:  # noqa: BLE001  the form always needs a sentence
        return False, f"{type(error).__name__}: {error}"
    return True, f"Connected to Apptoto at {base_url()}. Login and API key are valid"
