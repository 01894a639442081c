"""The notifier, for callbacks, deadlines and requests for an answer."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseNotifier

from airflow_provider_apptoto import metrics
from airflow_provider_apptoto.client.errors import ApptotoConfigurationError, ApptotoError
from airflow_provider_apptoto.client.messages import MESSAGE_TYPES
from airflow_provider_apptoto.outbox.policy import OFF, check_choice

if TYPE_CHECKING:
    import jinja2
    from airflow.providers.common.compat.sdk import Context

log = logging.getLogger(__name__)


class ApptotoNotifier(BaseNotifier):
    """Notify a person by SMS, e-mail or voice call.

    Use it for the callbacks of tasks and DAGs, for ``DeadlineAlert`` with ``AsyncCallback``, and for the ``notifiers``
    of HITL operators. Airflow may call a callback twice; with a state database (``state_conn_id`` of the connection),
    the person gets one message. Without one, they may get two.

    A notification that fails does not hide the error of the task: it logs an ERROR and counts the metric
    ``apptoto.notifications.failed``, and raises nothing. It ignores the connection's sending window.

    .. seealso:: :ref:`howto/notifier:ApptotoNotifier`

    :param type: ``sms``, ``call`` or ``email``.
    :param to: phone number (``sms``, ``call``) or e-mail address (``email``). (templated)
    :param message: the text; by default it says what happened, where, and why. Braces are separated by a space,
        control characters removed, and an SMS is cut to three segments. ``exception`` in it is masked and cut. If it
        can't be rendered, the default text is sent. (templated)
    :param subject: subject of an e-mail; by default the first line of the default text.
    :param apptoto_conn_id: id of the connection.
    :param storm_limit: most notifications to one recipient, such as ``5/hour``; the next one says how many were held
        back. Needs the state database. ``None`` or ``off``: no limit.
    :param delivery_mode: ``live``, ``redirect`` or ``dry_run``. A stricter mode of the connection or the deployment
        takes precedence.
    :raises ApptotoConfigurationError: a parameter is invalid, when the DAG is parsed.
    """

    # Airflow's rendering is lenient, and its errors would hide the task's
    template_fields = ()

    def __init__(
        self,
        *,
        type: str,
        to: str,
        message: str | None = None,
        subject: str | None = None,
        apptoto_conn_id: str = "apptoto_default",
        storm_limit: str | None = "5/hour",
        delivery_mode: str | None = None,
        **kwargs: Any,
    ) -> None:
        context = kwargs.pop("context", None)
        try:
            super().__init__(context=context, **kwargs)
        except TypeError:  # Airflow before 3.1 takes no arguments
            super().__init__(**kwargs)
        check_choice("type", type, MESSAGE_TYPES)
        if not str(to or "").strip():
            raise ApptotoConfigurationError("to", "must be a phone number or an e-mail address")
        if storm_limit is not None and storm_limit != OFF:
            from airflow_provider_apptoto.outbox.limit import Limit

            Limit.parse(storm_limit, "storm_limit")
        self.type = type
        self.to = to
        self.message = message
        self.subject = subject
        self.apptoto_conn_id = apptoto_conn_id
        self.storm_limit = storm_limit
        self.delivery_mode = delivery_mode

    def render_template_fields(self, context: Context, jinja_env: jinja2.Environment | None = None) -> None:
        """Do nothing: :meth:`notify` renders. Airflow calls this first, and an error here would lose the message."""

    def notify(self, context: Context) -> None:
        """Send the notification; log an error if that fails."""
        try:
            from airflow_provider_apptoto.notifications._sending import send

            send(self, context)
        except Exception as error:  # noqa: BLE001  it must not hide the task's own error
            # the text of other errors may hold the message or the recipient
            what = error if isinstance(error, ApptotoError) else type(error).__name__
            log.error(  # noqa: TRY400  a traceback may show the message
                "Notification failed: the %s was not confirmed as sent. %s\nCheck the connection %r and Airflow's log; "
                "the result of the task is not affected",
                *(self.type, what, self.apptoto_conn_id),
            )
            metrics.notification_failed(self.type, self.apptoto_conn_id)

    async def async_notify(self, context: Context) -> None:
        """Send the notification from the triggerer, without blocking its event loop."""
        # unlike asyncio.to_thread, it lets the thread read connections and Variables through Airflow's event loop
        from asgiref.sync import sync_to_async

        await sync_to_async(self.notify, thread_sensitive=False)(context)


send_apptoto_notification = ApptotoNotifier

__all__ = ["ApptotoNotifier", "send_apptoto_notification"]
