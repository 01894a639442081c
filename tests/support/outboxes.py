"""Outboxes for a real server that never really wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_apptoto.client import ApptotoClient, InProcessRateLimiter, Message, RetryPolicy, Routing
from airflow_provider_apptoto.outbox.ledger import LedgerTiming
from airflow_provider_apptoto.outbox.policy import SendPolicy
from tests.support.entries import FIRST

if TYPE_CHECKING:
    from airflow_provider_apptoto.client.rate_limit import Clock, RateLimiter
    from airflow_provider_apptoto.outbox import Outbox
    from airflow_provider_apptoto.outbox.cancellation import Cancellation
    from airflow_provider_apptoto.outbox.origin import Origin
    from airflow_provider_apptoto.outbox.stores.base import LedgerStore
    from tests.support.faults import FaultServer

NUMBER, OTHER_NUMBER = "+16505550199", "+16505550198"
TEXT = "Gwendolyn, your scan was fine"
TIMING = LedgerTiming(margin=30.0, poll=1.0, patience=30.0, record_retries=(1.0, 3.0))


def client_of(
    server: FaultServer,
    clock: Clock,
    *,
    limiter: RateLimiter | None = None,
    routing: Routing | None = None,
    max_attempts: int = 1,
    window: float = 60.0,
) -> ApptotoClient:
    return ApptotoClient(
        login="clinic@clinic.example",
        api_key="sekret-api-key",
        base_url=server.url,
        timeout=120.0,
        rate_limiter=limiter or InProcessRateLimiter(1e9, clock),
        routing=routing,
        retry_policy=RetryPolicy(max_attempts=max_attempts, window=window),
        clock=clock,
    )


def outbox_of(
    server: FaultServer,
    store: LedgerStore | None,
    clock: Clock,
    *,
    origin: Origin | None = FIRST,
    on_unknown: Any = "fail",
    idempotency_key: str | None = None,
    limiter: RateLimiter | None = None,
    routing: Routing | None = None,
    max_attempts: int = 1,
    window: float = 60.0,
    cancellation: Cancellation | None = None,
    timing: LedgerTiming = TIMING,
    **others: Any,
) -> Outbox:
    """Return the outbox of a try.

    :param max_attempts: of the client.
    :param window: seconds that the client waits for a slot.
    :param others: further parameters of :class:`~airflow_provider_apptoto.outbox.Outbox`.
    """
    from airflow_provider_apptoto.outbox import Outbox  # imports Airflow, which tests of clients run without

    if cancellation is not None:
        others["cancellation"] = cancellation
    return Outbox(
        client=client_of(server, clock, limiter=limiter, routing=routing, max_attempts=max_attempts, window=window),
        build=Message,
        policy=SendPolicy(on_unknown=on_unknown, idempotency_key=idempotency_key),
        origin=origin,
        store=store,
        timing=timing,
        **others,
    )
