"""Tasks that send messages through Apptoto."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_apptoto._compat import HAS_RETRY_POLICY, RetryDecision, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    import jinja2
    from airflow.providers.common.compat.sdk import Context


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


class ApptotoSendMessageOperator(BaseOperator):
    """Send one SMS, e-mail or voice call through Apptoto (apidocs.apptoto.com/reference/v1send_message).

    A failure after which the message was certainly not sent may be retried by Airflow. A message that was refused, or
    of which it is not known whether it was sent, fails the task at once.

    .. seealso:: :ref:`howto/operator:ApptotoSendMessageOperator`

    Returns (XCom): ``outcome`` (``sent``, ``redirected``, ``dry_run``), ``type``, ``target`` (masked; ids in clear),
    ``reference``, ``key``, ``http_status``, ``sent_at`` (ISO 8601, UTC), ``try_number``, ``response`` (``success``,
    ids).

    :param type: ``sms``, ``call`` or ``email``. (templated)
    :param to: phone number (``sms``, ``call``) or e-mail address (``email``). Exactly one of this, ``event_id`` and
        ``participant_id`` is needed. (templated)
    :param event_id: every participant of this event gets a copy; a positive integer, or its digits. (templated)
    :param participant_id: this participant of an event; a positive integer, or its digits. (templated)
    :param message: the text; required unless ``template_id`` is given. (templated)
    :param subject: one line, for ``email`` only. (templated)
    :param template_id: a template stored in Apptoto; a positive integer, or its digits. (templated)
    :param apptoto_conn_id: id of the connection. (templated)
    :param reference: your own id of the thing (an appointment's, say), kept and shown in clear. (templated)
    :param dynamic_fields: names, besides ``name``, ``event``, ``participant`` and ``contact``, that Apptoto's dynamic
        fields begin with.
    :param redact: hide recipient and text in rendered fields, logs and XCom; ``False`` shows them, never the key.
    :param delivery_mode: ``redirect`` or ``dry_run`` for this task; the connection's and the deployment's can only be
        made stricter.
    :param retry_policy: on Airflow 3.3+, by default the next try waits as long as Apptoto asked for; ignored before.
    :raises ApptotoNotSentError: certainly not sent: unreachable, too many requests.
    :raises AirflowFailException: refused, not a message that Apptoto takes, or it may have been sent.
    """

    template_fields: Sequence[str] = (
        "type",
        "to",
        "event_id",
        "participant_id",
        "message",
        "subject",
        "template_id",
        "apptoto_conn_id",
        "reference",
    )

    def __init__(
        self,
        *,
        type: str,
        to: str | None = None,
        event_id: int | str | None = None,
        participant_id: int | str | None = None,
        message: str | None = None,
        subject: str | None = None,
        template_id: int | str | None = None,
        apptoto_conn_id: str = "apptoto_default",
        reference: str | None = None,
        delivery_mode: str | None = None,
        dynamic_fields: Collection[str] = (),
        redact: bool = True,
        retry_policy: RetryPolicy | None = ApptotoRetryPolicy(),  # noqa: B008  without state; mapped tasks read it here
        **kwargs: Any,
    ) -> None:
        if HAS_RETRY_POLICY:
            kwargs["retry_policy"] = retry_policy
        super().__init__(**kwargs)
        self.type = type
        self.to = to
        self.event_id = event_id
        self.participant_id = participant_id
        self.message = message
        self.subject = subject
        self.template_id = template_id
        self.apptoto_conn_id = apptoto_conn_id
        self.reference = reference
        self.delivery_mode = delivery_mode
        self.dynamic_fields = dynamic_fields
        self.redact = redact

    def execute(self, context: Context) -> dict[str, Any]:
        """Send the message."""
        from airflow_provider_apptoto.delivery import deliver
        from airflow_provider_apptoto.hooks.apptoto import ApptotoHook

        result = deliver(
            {
                "type": self.type,
                "to": self.to,
                "event_id": self.event_id,
                "participant_id": self.participant_id,
                "message": self.message,
                "subject": self.subject,
                "template_id": self.template_id,
                "redact": self.redact,
            },
            ApptotoHook(self.apptoto_conn_id, delivery_mode=self.delivery_mode),
        )
        return {
            "outcome": result.outcome,
            "type": result.type,
            "target": result.target,
            "reference": self.reference,
            "key": None,
            "http_status": result.http_status,
            "sent_at": None if result.sent_at is None else result.sent_at.to_iso8601_string(),
            "try_number": context["ti"].try_number,
            "response": dict(result.response),
        }

    def _do_render_template_fields(
        self,
        parent: Any,
        template_fields: Iterable[str],
        context: Context,
        jinja_env: jinja2.Environment,
        seen_oids: set[int],
    ) -> None:
        """Render by the rules of this package; the one method that Airflow calls for plain and for mapped tasks."""
        from airflow_provider_apptoto.templating import render_fields

        if parent is self:
            render_fields(self, context, jinja_env, seen_oids)
        else:
            super()._do_render_template_fields(parent, template_fields, context, jinja_env, seen_oids)
