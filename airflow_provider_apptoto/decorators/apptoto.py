"""``@task.apptoto_message`` and ``@task.apptoto_message_batch``: a Python function makes the text, or the rows."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import inspect
import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import jinja2
from airflow.providers.common.compat.sdk import DecoratedOperator, task_decorator_factory

from airflow_provider_apptoto._airflow import determine_kwargs, is_argument_from_task
from airflow_provider_apptoto.client.errors import ApptotoConfigurationError, ApptotoValidationError
from airflow_provider_apptoto.client.messages import MESSAGE_FIELDS, TEXT_FIELDS
from airflow_provider_apptoto.client.routing import DeliveryMode
from airflow_provider_apptoto.operators._base import SendingOperator, final_settings
from airflow_provider_apptoto.operators.send_message import ApptotoSendMessageOperator
from airflow_provider_apptoto.operators.send_message_batch import ApptotoSendMessageBatchOperator
from airflow_provider_apptoto.privacy import Redacted, remove_frames, unwrap

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow.providers.common.compat.sdk import Context, TaskDecorator

    from airflow_provider_apptoto.templating.provenance import FieldSource

log = logging.getLogger(__name__)

_ARGUMENTS = ("op_args", "op_kwargs")
_RETURNED = (*MESSAGE_FIELDS, "reference", "labels", "idempotency_key", "recipient_timezone", "not_after")


class _FunctionOperator(DecoratedOperator):
    """Base class of both operators: hides and renders the arguments of the function, and calls it."""

    redact: bool

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

    def _render_own_fields(self, context: Context, jinja_env: jinja2.Environment, seen_oids: set[int]) -> None:
        args, kwargs = self.op_args, self.op_kwargs
        for name in _ARGUMENTS:  # hidden values are not rendered with the other fields
            setattr(self, name, Redacted(getattr(self, name)))
        super()._render_own_fields(context, jinja_env, seen_oids)  # type: ignore[misc]  # the operator's

        def rendered(name: str, value: object) -> Any:
            try:
                # what stands in the DAG file is rendered, whatever Airflow resolved it from
                return self.render_template(value, context, jinja_env, seen_oids - {id(value)})
            except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
                problem = f"rendering failed ({type(error).__name__})"  # the text of the error may contain values
            raise ApptotoValidationError(
                f"{_name(self.python_callable)}, argument {name}", problem, code="template_failed"
            )

        args = [rendered(str(index), value) for index, value in enumerate(args)]
        kwargs = {
            name: value if is_argument_from_task(self, name, value, context) else rendered(name, value)
            for name, value in kwargs.items()
        }
        for name, value in zip(_ARGUMENTS, (args, kwargs), strict=True):
            setattr(self, name, Redacted(value) if self.redact else value)

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
        from airflow_provider_apptoto.outbox.errors import final

        try:
            self._withhold_early(context)
            self._take(context)
        except (ApptotoConfigurationError, ApptotoValidationError) as error:
            raise final(error) from None
        return super()._send(context)

    def _withhold_early(self, context: Context) -> None:
        """End a first try, or let it wait, if that is right whatever the function returns.

        Later tries may have sent the message, and so may others with the same key: only the ledger knows.

        :raises ApptotoError: the time zone or ``not_after`` is invalid.
        """
        from airflow_provider_apptoto.outbox.guards import WithheldError, moment_of, zone_or_none

        outbox = self._outbox(context)
        may_be_sent = self._is_resumed or self.idempotency_key is not None or context["ti"].try_number > 1
        if may_be_sent or outbox.client.mode is DeliveryMode.DRY_RUN:
            return
        try:
            outbox.guards.plan_early(zone_or_none(self.recipient_timezone), moment_of(self.not_after, "not_after"))
        except WithheldError as why:
            log.info("%s; the function was not called: %s", why.outcome, why.reason)
            if why.until is not None:
                self._hold(context, why.until)
            self._skip(why, context)

    def _take(self, context: Context) -> None:
        """Call the function, and set the fields that it returns. They are data, and are not rendered.

        :raises ApptotoConfigurationError: the function returned something else.
        :raises ApptotoValidationError: a text has braces, which Apptoto might fill.
        """
        from airflow_provider_apptoto.templating.fields import renderer_of

        for name, template in (self._templates or {}).items():
            if name in _RETURNED and template is None:
                setattr(self, name, None)  # a call before a wait may have set it, if Airflow resumes in one process
        try:
            fields = self._fields_of(self._call(context))
            renderer = renderer_of(context, self.get_template_env(), self.dynamic_fields)
            values = {name: getattr(self, name) for name in ("event_id", "participant_id")} | fields
            to_appointment = values["event_id"] is not None or values["participant_id"] is not None
            for name, value in fields.items():
                if name in TEXT_FIELDS and isinstance(value, str):
                    renderer.check_text(name, value, to_appointment=to_appointment)
                setattr(self, name, Redacted(value) if self.redact and name in MESSAGE_FIELDS else value)
        except BaseException as error:
            # the frame holds what the function returned
            remove_frames(error)
            raise

    def _fields_of(self, returned: object) -> dict[str, Any]:
        function = _name(self.python_callable)
        is_empty = returned is None or (isinstance(returned, Mapping) and not returned)
        if is_empty or not isinstance(returned, str | Mapping):
            kind = "nothing" if is_empty else type(returned).__name__
            problem = f"returned {kind}; return the text, or a mapping of {', '.join(_RETURNED)}"
            raise ApptotoConfigurationError(function, problem)
        fields: dict[str, Any] = {"message": returned} if isinstance(returned, str) else dict(returned)
        for name, value in fields.items():
            if name not in _RETURNED:
                near = difflib.get_close_matches(str(name), _RETURNED, 1)  # the name itself may be personal
                hint = f"; did you mean {near[0]}?" if near else ""
                problem = f"returned a mapping with a key that is not one of {', '.join(_RETURNED)}{hint}"
                raise ApptotoConfigurationError(function, problem, code="setting_unknown")
            if value is None:
                raise ApptotoConfigurationError(function, f"returned None for {name}; leave it out, or return a value")
            if getattr(self, name) is not None:
                problem = f"returned {name}, which the decorator sets too. Remove one of them"
                raise ApptotoConfigurationError(function, problem, code="given_twice")
        return fields


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
        try:
            self._rendered = dataclasses.replace(self._rendered, messages=self._rows(context))
            return super()._send(context)
        finally:
            self._close()

    def _rows(self, context: Context) -> FieldSource:
        """Call the function, and return its rows. They are data, and are not rendered."""
        from airflow_provider_apptoto.templating.provenance import FieldSource, SourceKind

        rows = FieldSource(self._call(context), SourceKind.VALUE)
        if isinstance(rows.value, str | bytes | Mapping) or not isinstance(rows.value, Iterable):
            kind = "nothing" if rows.value is None else type(rows.value).__name__
            with final_settings():
                problem = f"returned {kind}; yield rows, or return a list of them"
                raise ApptotoConfigurationError(_name(self.python_callable), problem)
        return rows

    def _close(self) -> None:
        """Close the generator, which ends its transaction if planning stopped early."""
        if inspect.isgenerator(self._rendered.messages.value):
            try:
                self._rendered.messages.value.close()
            except Exception as error:  # noqa: BLE001  the messages were handled; its text may contain a row
                log.warning("%s could not be closed: %s", _name(self.python_callable), type(error).__name__)


def _name(function: Callable[..., Any]) -> str:
    """Return how errors call a function."""
    return f"{getattr(function, '__name__', type(function).__name__)}()"


def apptoto_message_task(python_callable: Callable[..., Any] | None = None, **kwargs: Any) -> TaskDecorator:
    """Turn a function that makes one message into a task that sends it: ``@task.apptoto_message``.

    .. seealso:: :ref:`howto/taskflow`

    The function returns the text, or a mapping of the fields of the message (``type``, ``to``, ``event_id``,
    ``participant_id``, ``message``, ``subject``, ``template_id``) and of ``reference``, ``labels``,
    ``idempotency_key``, ``recipient_timezone`` and ``not_after``. What it returns is data: it is not rendered, and a
    text must not contain ``{{``, ``{%`` or ``{#``. A field that the decorator sets can't be returned too.

    In its first try, the task does not call the function if the run is older than ``max_age``, or if the sending window
    is closed in the ``recipient_timezone`` of the decorator. After a wait for the window and in each retry, it calls
    the function again.

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
