"""What the operators share."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_apptoto._airflow import OwnRendering, RetryDecision, RetryPolicy

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_apptoto.delivery import Scope
    from airflow_provider_apptoto.hooks.apptoto import ApptotoHook


class ApptotoRetryPolicy(RetryPolicy):
    """Lets the next try wait as long as Apptoto asked for (Airflow 3.3+); else Airflow's own rules hold."""

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,  # noqa: ARG002  the interface's
        max_tries: int,  # noqa: ARG002  the interface's
        context: Context | None = None,  # noqa: ARG002  the interface's
    ) -> RetryDecision:
        """Return the delay that a refused send carries."""
        from airflow_provider_apptoto.client import ApptotoNotSentError

        if isinstance(exception, ApptotoNotSentError) and exception.retry_after is not None:
            delay = timedelta(seconds=exception.retry_after)
            return RetryDecision.retry(delay, reason=f"Apptoto asked to wait {exception.retry_after:.0f} s")
        return RetryDecision.default()


class SendingOperator(OwnRendering, BaseOperator):
    """Base of the operators that send messages."""

    idempotency_key: str | None
    on_unknown: str
    max_age: timedelta | None

    _is_stopping = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    def on_kill(self) -> None:
        """Let no further byte leave; what is on its way is waited for, as long as Airflow lets it."""
        self._is_stopping = True

    def _scope(self, hook: ApptotoHook, context: Context, **own: Any) -> Scope:
        """Return on whose behalf it sends; a subclass adds what is its own."""
        from airflow_provider_apptoto.delivery import Scope
        from airflow_provider_apptoto.runs import is_retry, origin, too_old
        from airflow_provider_apptoto.state.ledger import LedgerTiming

        return Scope(
            origin=origin(context),
            store=hook.ledger_store(context),
            idempotency_key=None if self.idempotency_key is None else str(self.idempotency_key),
            on_unknown=self.on_unknown,
            why_too_old=lambda: too_old(context, self.max_age),
            is_retry=is_retry(context),
            why_stop=lambda: "the task was told to end" if self._is_stopping else "",
            timing=hook.ledger_timing or LedgerTiming(),
            **own,
        )
