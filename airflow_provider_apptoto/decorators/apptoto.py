"""``@task.apptoto_message`` and ``@task.apptoto_message_batch``: a Python function makes the text, or the rows."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import inspect
import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowSkipException, DecoratedOperator, task_decorator_factory

from airflow_provider_apptoto._airflow import deferral_until, determine_kwargs, is_argument_from_task
from airflow_provider_apptoto.client.errors import ApptotoConfigurationError, ApptotoError, ApptotoValidationError
from airflow_provider_apptoto.client.messages import MESSAGE_FIELDS, TEXT_FIELDS
from airflow_provider_apptoto.client.routing import DeliveryMode
from airflow_provider_apptoto.operators._base import SendingOperator, final_settings
from airflow_provider_apptoto.operators.send_message import ApptotoSendMessageOperator
from airflow_provider_apptoto.operators.send_message_batch import ApptotoSendMessageBatchOperator
from airflow_provider_apptoto.privacy import Redacted, remove_frames, unwrap

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import jinja2
    from airflow.providers.common.compat.sdk import Context, TaskDecorator

    from airflow_provider_apptoto.outbox.guards import WithheldError
    from airflow_provider_apptoto.outbox.outbox import Outbox

log = logging.getLogger(__name__)

_ARGUMENTS = ("op_args", "op_kwargs")
_RETURNED = (*MESSAGE_FIELDS, "reference", "labels", "idempotency_key", "recipient_timezone", "not_after")


class _FunctionOperator(DecoratedOperator):
    """Base class of both operators: hides and renders the arguments of the function, and calls it."""

    redact: bool
    _has_rendered_arguments = False

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        multiple_outputs: bool = False,  # noqa: ARG002  the decorator's; the XCom is one dictionary
        **kwargs: Any,
    ) -> None:
        with final_settings():
            if inspect.iscoroutinefunction(python_callable) or inspect.isasyncgenfunction(python_callable):
                raise ApptotoConfigurationError(_name(python_callable), "is async; use a plain function")
        super().__init__(python_callable=python_callable, **kwargs)

    def execute(self, context: Context) -> Any:
        """Call the function, and send what was not sent yet."""
        return SendingOperator.execute(self, context)  # type: ignore[arg-type]  # each subclass is one

    def _render_fields(self, context: Context, jinja_env: jinja2.Environment, seen_oids: set[int]) -> None:
        if self._has_rendered_arguments:
            return
        args, kwargs = self.op_args, self.op_kwargs
        for name in _ARGUMENTS:  # hidden values are not rendered with the other fields
            setattr(self, name, Redacted(getattr(self, name)))
        super()._render_fields(context, jinja_env, seen_oids)  # type: ignore[misc]  # the operator's
        args = self.render_template(args, context, jinja_env, seen_oids)
        kwargs = {
            name: value
            if is_argument_from_task(self, name, context)
            else self.render_template(value, context, jinja_env, seen_oids)
            for name, value in kwargs.items()
        }
        for name, value in zip(_ARGUMENTS, (args, kwargs), strict=True):
            setattr(self, name, Redacted(value) if self.redact else value)
        self._has_rendered_arguments = True

    def _call(self, context: Context) -> Any:
        """Call the function with its arguments and the variables of the context that it asks for."""
        args = unwrap(self.op_args)
        known = copy.copy(context)  # the context itself reaches callbacks, which must not see the arguments
        known.update(unwrap(self.op_kwargs))
        try:
            return self.python_callable(*args, **determine_kwargs(self.python_callable, args, known))
        except BaseException as error:
            # the frames hold the arguments
            remove_frames(error)
            raise

    def _withheld_early(self, outbox: Outbox) -> WithheldError | None:
        """Return why no message can be sent now, if that is known without calling the function.

        A try that continues after a wait, or that follows another, may have sent the message: only the ledger knows.
        """
        from airflow_provider_apptoto.outbox.errors import final
        from airflow_provider_apptoto.outbox.guards import WithheldError, moment_of, zone_or_none

        if outbox.is_retry or outbox.is_resumed or outbox.client.mode is DeliveryMode.DRY_RUN:
            return None
        given = {name: unwrap(getattr(self, name, None)) for name in ("to", "recipient_timezone", "not_after")}
        try:
            not_after = moment_of(given["not_after"], "not_after")
            outbox.guards.plan_early(given["to"], zone_or_none(given["recipient_timezone"]), not_after)
        except WithheldError as why:
            log.info("%s; the function was not called: %s", why.outcome, why.reason)
            if why.until is not None:
                raise deferral_until(why.until, "execute_held") from None
            return why
        except ApptotoError as error:
            raise final(error) from None
        return None


class ApptotoMessageDecoratedOperator(_FunctionOperator, ApptotoSendMessageOperator):
    """Send the message that a function returns. See :func:`apptoto_message_task`."""

    template_fields: Sequence[str] = (*_ARGUMENTS, *ApptotoSendMessageOperator.template_fields)
    custom_operator_name = "@task.apptoto_message"

    def __init__(self, *, python_callable: Callable[..., Any], type: str | None = None, **kwargs: Any) -> None:
        with final_settings():
            if inspect.isgeneratorfunction(python_callable):
                problem = "yields; return one message, or use @task.apptoto_message_batch for many"
                raise ApptotoConfigurationError(_name(python_callable), problem)
        super().__init__(python_callable=python_callable, type=type, **kwargs)

    def _send(self, context: Context) -> dict[str, Any]:
        if self._rendered_for is None:
            self.render_template_fields(context)
        if why := self._withheld_early(self._outbox(context)):
            self._skip(why, context)
        from airflow_provider_apptoto.outbox.errors import final

        try:
            self._take(self._call(context), context)
        except (ApptotoConfigurationError, ApptotoValidationError) as error:
            raise final(error) from None
        return super()._send(context)

    def _take(self, returned: object, context: Context) -> None:
        """Set the fields that the function returned. They are data, and are not rendered.

        :raises ApptotoConfigurationError: the function returned something else.
        :raises ApptotoValidationError: a text has braces, which Apptoto might fill.
        """
        from airflow_provider_apptoto.templating.fields import renderer_of

        fields = returned if isinstance(returned, Mapping) else {"message": returned}
        if not isinstance(returned, str | Mapping) or not fields:
            problem = f"returned {_kind(returned)}; return the text, or a mapping of {', '.join(_RETURNED)}"
            raise ApptotoConfigurationError(_name(self.python_callable), problem)
        for name, value in fields.items():
            self._check_field(name, value)
        renderer = renderer_of(context, self.get_template_env(), self.dynamic_fields)
        values = {name: getattr(self, name) for name in ("event_id", "participant_id")} | dict(fields)
        to_appointment = values["event_id"] is not None or values["participant_id"] is not None
        for name, value in fields.items():
            if name in TEXT_FIELDS and isinstance(value, str):
                renderer.check_text(name, value, to_appointment=to_appointment)
            setattr(self, name, Redacted(value) if self.redact and name in MESSAGE_FIELDS else value)

    def _check_field(self, name: object, value: object) -> None:
        function = _name(self.python_callable)
        if name not in _RETURNED:
            near = difflib.get_close_matches(str(name), _RETURNED, 1)  # the name itself may be personal
            hint = f"; did you mean {near[0]}?" if near else ""
            problem = f"returned a mapping with a key that is not one of {', '.join(_RETURNED)}{hint}"
            raise ApptotoConfigurationError(function, problem, code="setting_unknown")
        if value is None:
            raise ApptotoConfigurationError(function, f"returned None for {name}; leave it out, or return a value")
        if getattr(self, str(name)) is not None:
            problem = f"returned {name}, which the decorator sets too. Remove one of them"
            raise ApptotoConfigurationError(function, problem, code="given_twice")


class ApptotoMessageBatchDecoratedOperator(_FunctionOperator, ApptotoSendMessageBatchOperator):
    """Send the messages whose rows a function yields. See :func:`apptoto_message_batch_task`."""

    template_fields: Sequence[str] = (*_ARGUMENTS, *ApptotoSendMessageBatchOperator.template_fields)
    custom_operator_name = "@task.apptoto_message_batch"

    def _check_source(self) -> None:
        for name in ("messages", "messages_path"):
            if getattr(self, name) is not None:
                raise ApptotoConfigurationError(
                    name, "is not a parameter of the decorator: the function makes the rows"
                )

    def _send(self, context: Context) -> dict[str, Any]:
        from airflow_provider_apptoto.templating.provenance import FieldSource, SourceKind

        if self._rendered is None:
            self.render_template_fields(context)
        outbox = self._outbox(context)
        # without a ledger, a batch can't wait, and says so
        if outbox.store is not None and (why := self._withheld_early(outbox)):
            raise AirflowSkipException(f"Skipped: {why.reason}")
        rows = self._call(context)
        if isinstance(rows, str | bytes | Mapping) or not isinstance(rows, Iterable):
            with final_settings():
                problem = f"returned {_kind(rows)}; yield rows, or return a list of them"
                raise ApptotoConfigurationError(_name(self.python_callable), problem)
        try:
            self._rendered = dataclasses.replace(self._rendered, messages=FieldSource(rows, SourceKind.VALUE))
            return super()._send(context)
        finally:
            if inspect.isgenerator(rows):
                rows.close()  # ends its transaction, if planning stopped early


def _name(function: Callable[..., Any]) -> str:
    """Return how errors call a function."""
    return f"{getattr(function, '__name__', type(function).__name__)}()"


def _kind(returned: object) -> str:
    return "nothing" if returned is None or returned == {} else type(returned).__name__


def apptoto_message_task(python_callable: Callable[..., Any] | None = None, **kwargs: Any) -> TaskDecorator:
    """Turn a function that makes one message into a task that sends it: ``@task.apptoto_message``.

    .. seealso:: :ref:`howto/taskflow`

    The function returns the text, or a mapping of the fields of the message (``type``, ``to``, ``event_id``,
    ``participant_id``, ``message``, ``subject``, ``template_id``) and of ``reference``, ``labels``,
    ``idempotency_key``, ``recipient_timezone`` and ``not_after``. What it returns is data: it is not rendered, and a
    text must not contain ``{{``, ``{%`` or ``{#``. A field that the decorator sets can't be returned too.

    The function is not called if the run is older than ``max_age``, or if the sending window is closed and the time
    zone is known without the message. After a wait for the window and in each retry, it is called again.

    :param python_callable: the function; not async. Its arguments are hidden in rendered fields. (templated)
    :param kwargs: the parameters of :class:`~airflow_provider_apptoto.operators.apptoto.ApptotoSendMessageOperator`;
        ``type`` may be left out if the function returns it.
    :raises ApptotoConfigurationError: a parameter is invalid.
    """
    return task_decorator_factory(
        python_callable=python_callable,
        multiple_outputs=False,
        decorated_operator_class=ApptotoMessageDecoratedOperator,
        **kwargs,
    )


def apptoto_message_batch_task(python_callable: Callable[..., Any] | None = None, **kwargs: Any) -> TaskDecorator:
    """Turn a function that yields rows into a task that sends a message for each: ``@task.apptoto_message_batch``.

    .. seealso:: :ref:`howto/taskflow`

    The function yields rows, or returns any iterable of rows, in the process that sends the messages: no row is stored
    in a file, an XCom or a table. All rows are read and validated before the first message is sent. After a wait for
    the sending window and in each retry, the function is called again, and the ledger knows which messages were sent.

    :param python_callable: the function; not async. Its arguments are hidden in rendered fields. (templated)
    :param kwargs: the parameters of
        :class:`~airflow_provider_apptoto.operators.apptoto.ApptotoSendMessageBatchOperator` except ``messages`` and
        ``messages_path``.
    :raises ApptotoConfigurationError: a parameter is invalid.
    """
    return task_decorator_factory(
        python_callable=python_callable,
        multiple_outputs=False,
        decorated_operator_class=ApptotoMessageBatchDecoratedOperator,
        **kwargs,
    )
