"""The base class of the operators."""

from __future__ import annotations

import dataclasses
import inspect
import logging
from abc import abstractmethod
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_apptoto._airflow import (
    HAS_RETRY_POLICY,
    OwnRendering,
    RetryDecision,
    RetryPolicy,
    deferral_until,
)
from airflow_provider_apptoto.client.errors import ApptotoConfigurationError, ApptotoNotSentError
from airflow_provider_apptoto.client.routing import DeliveryMode
from airflow_provider_apptoto.links.apptoto import ApptotoOutboxLink
from airflow_provider_apptoto.outbox.policy import MAX_AGE, SendPolicy, check_choice, check_count

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    import jinja2
    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_apptoto.hooks.apptoto import ApptotoHook
    from airflow_provider_apptoto.outbox.cancellation import Cancellation
    from airflow_provider_apptoto.outbox.outbox import Outbox
    from airflow_provider_apptoto.outbox.policy import OnUnknownName, WhenClosedName

log = logging.getLogger(__name__)

DeliveryModeName = Literal["live", "redirect", "dry_run"]


class ApptotoRetryPolicy(RetryPolicy):
    """Delays the next try by Apptoto's ``Retry-After``, if there is one (Airflow 3.3+); else Airflow's rules apply."""

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,  # noqa: ARG002  the interface's
        max_tries: int,  # noqa: ARG002  the interface's
        context: Context | None = None,  # noqa: ARG002  the interface's
    ) -> RetryDecision:
        """Return the delay that Apptoto asked for, or Airflow's default."""
        if isinstance(exception, ApptotoNotSentError) and exception.retry_after is not None:
            delay = timedelta(seconds=exception.retry_after)
            return RetryDecision.retry(delay, reason=f"Apptoto sent Retry-After: {exception.retry_after:.0f} s")
        return RetryDecision.default()


class SendingOperator(OwnRendering, BaseOperator):
    """Base class of the operators: their common parameters, validated when the DAG is parsed.

    Templated parameters, and all parameters of a mapped task, are validated when the task runs. An invalid one fails
    the task without a retry.
    """

    operator_extra_links = (ApptotoOutboxLink(),)

    def __init__(
        self,
        *,
        apptoto_conn_id: str = "apptoto_default",
        idempotency_key: str | None = None,
        suppression: Iterable[str | None] | XComArg | None = None,
        on_unknown: OnUnknownName = "fail",
        max_age: timedelta | None = MAX_AGE,
        max_segments: int | None = 3,
        send_window: str | None = None,
        when_closed: WhenClosedName = "hold",
        at_most: str | None = None,
        optout_lists: Collection[str] = (),
        only_if_state: Collection[str] | bool | None = None,
        delivery_mode: DeliveryModeName | None = None,
        dynamic_fields: Collection[str] = (),
        redact: bool = True,
        retry_policy: RetryPolicy | None = ApptotoRetryPolicy(),  # noqa: B008  stateless; mapped tasks read it here
        **kwargs: Any,
    ) -> None:
        if HAS_RETRY_POLICY:
            kwargs["retry_policy"] = retry_policy
        super().__init__(**kwargs)
        self.apptoto_conn_id = apptoto_conn_id
        self.idempotency_key = idempotency_key
        self.suppression = suppression
        self.on_unknown = on_unknown
        self.max_age = max_age
        self.max_segments = max_segments
        self.send_window = send_window
        self.when_closed = when_closed
        self.at_most = at_most
        self.optout_lists = optout_lists
        self.only_if_state = only_if_state
        self.delivery_mode = delivery_mode
        self.dynamic_fields = dynamic_fields
        self.redact = redact
        with final_settings():
            SendPolicy(**self._policy())
            if max_segments is not None:
                check_count("max_segments", max_segments, 1, hint="; None means no limit")
            if delivery_mode is not None:
                check_choice("delivery_mode", delivery_mode, DeliveryMode)
            check_names("dynamic_fields", dynamic_fields)
            if not isinstance(redact, bool):
                raise ApptotoConfigurationError("redact", f"must be True or False, not {redact!r}")

    _rendered_for: object = None
    """The task instance for which the fields were rendered."""
    _templates: dict[str, Any] | None = None
    """The template fields before they were rendered."""
    _cancellation: Cancellation | None = None
    _is_killed = False
    _is_resumed = False

    def execute(self, context: Context) -> dict[str, Any]:
        """Send what was not sent yet."""
        if self._rendered_for is not context.get("ti", _NO_TI):  # called directly, for example in a callback
            self.render_template_fields(context)
        return self._send(context)

    def execute_held(self, context: Context, event: Any = None) -> Any:  # noqa: ARG002  the trigger's
        """Continue when the sending window opens."""
        self._is_resumed = True
        # a subclass may have its own `execute`; Airflow wraps it to warn of calls that are not from its task runner
        return inspect.unwrap(type(self).execute)(self, context)

    def _hold(self, context: Context, until: datetime) -> NoReturn:
        """Wait for the sending window without a worker; in a test whose sandbox ends holds, continue at once.

        :param until: when the window opens.
        """
        from airflow_provider_apptoto.sandbox_account import SANDBOX_HOLDS, holds_end_at_once, record_hold

        if holds_end_at_once():
            record_hold(context["ti"], until)
            shown = until.isoformat(timespec="minutes")
            log.warning("Held until %s. %s is set, so the task continues at once", shown, SANDBOX_HOLDS)
            until = datetime.now(UTC)
        raise deferral_until(until, "execute_held") from None

    @abstractmethod
    def _send(self, context: Context) -> dict[str, Any]:
        """Send what was not sent yet, and return the value of the XCom."""

    def on_kill(self) -> None:
        """Stop sending. Requests in flight are awaited until Airflow kills the process."""
        self._is_killed = True
        if self._cancellation is not None:
            self._cancellation.cancel(_KILLED)

    def _render_fields(self, context: Context, jinja_env: jinja2.Environment, seen_oids: set[int]) -> None:
        ti = context.get("ti", _NO_TI)
        if self._rendered_for is ti:  # rendering again would treat a value from an XCom as a template
            return
        if self._templates is None:
            self._templates = {name: getattr(self, name) for name in self.template_fields}
        for name, template in self._templates.items():  # one operator may run in several callbacks
            setattr(self, name, template)
        self.__dict__.pop("hook", None)
        self._render_own_fields(context, jinja_env, seen_oids)
        self._rendered_for = ti

    @abstractmethod
    def _render_own_fields(self, context: Context, jinja_env: jinja2.Environment, seen_oids: set[int]) -> None:
        """Render the template fields in place, for a task instance for which they were not rendered yet."""

    def _policy(self) -> dict[str, Any]:
        """Return the parameters of the policy that are not templated."""
        return {
            "on_unknown": self.on_unknown,
            "max_age": self.max_age,
            "send_window": self.send_window,
            "when_closed": self.when_closed,
            "at_most": self.at_most,
            "optout_lists": self.optout_lists,
            "only_if_state": self.only_if_state,
        }

    @cached_property
    def hook(self) -> ApptotoHook:
        """The hook of this task; its fields must be rendered."""
        from airflow_provider_apptoto.hooks.apptoto import ApptotoHook

        return ApptotoHook(self.apptoto_conn_id, delivery_mode=self.delivery_mode)

    def _outbox(self, context: Context, **own: Any) -> Outbox:
        """Return the outbox of this task.

        :param own: additional arguments of :meth:`~airflow_provider_apptoto.hooks.apptoto.ApptotoHook.outbox`.
        """
        from airflow_provider_apptoto.outbox.cancellation import Cancellation
        from airflow_provider_apptoto.sandbox_account import holds_end_at_once

        self._cancellation = Cancellation()
        if self._is_killed:
            self._cancellation.cancel(_KILLED)
        policy = {**self._policy(), "idempotency_key": self.idempotency_key}
        with final_settings():
            SendPolicy(**policy)
        outbox = self.hook.outbox(
            context,
            **policy,
            can_wait=True,
            is_resumed=self._is_resumed,
            cancellation=self._cancellation,
            **own,
        )
        if self._is_resumed and holds_end_at_once():
            outbox.guards = dataclasses.replace(outbox.guards, ends_holds=True)
        return outbox


_NO_TI = "no task instance"
_KILLED = "the task was stopped"


@contextmanager
def final_settings() -> Iterator[None]:
    """Make configuration errors final for Airflow: a mapped task is validated when it runs, and must not be retried."""
    try:
        yield
    except ApptotoConfigurationError as error:
        from airflow_provider_apptoto.outbox.errors import FinalConfigurationError

        raise FinalConfigurationError(error.field, error.problem, code=error.code) from None


def check_names(name: str, value: object) -> None:
    """Check that a setting is a collection of names.

    :raises ApptotoConfigurationError: it is not.
    """
    if isinstance(value, str) or not isinstance(value, list | tuple | set | frozenset):
        raise ApptotoConfigurationError(name, f"must be a list of names, not {type(value).__name__}")
    if not all(isinstance(each, str) and each for each in value):
        raise ApptotoConfigurationError(name, "must contain only non-empty strings")
