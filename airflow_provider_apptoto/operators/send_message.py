"""A task that sends one message."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_apptoto._airflow import HAS_RETRY_POLICY, RetryPolicy
from airflow_provider_apptoto.operators._base import ApptotoRetryPolicy, SendingOperator

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import jinja2
    from airflow.providers.common.compat.sdk import Context


class ApptotoSendMessageOperator(SendingOperator):
    """Send one SMS, e-mail or voice call through Apptoto (apidocs.apptoto.com/reference/v1send_message).

    A failure after which the message was certainly not sent may be retried by Airflow. A message that was refused, or
    of which it is not known whether it was sent, fails the task at once.

    .. seealso:: :ref:`howto/operator:ApptotoSendMessageOperator`

    Returns (XCom): ``outcome`` (``sent``; ``deduplicated``: an earlier try, or another task with its
    ``idempotency_key``, had sent it; ``assumed_sent``, ``redirected``, ``dry_run``), ``type``, ``target`` (masked; ids
    in clear), ``reference``, ``key`` (in the ledger), ``http_status``, ``sent_at`` (ISO 8601, UTC), ``try_number`` (the
    try that sent it), ``response`` (``success``, the message's id).

    :param type: ``sms``, ``call`` or ``email``. (templated)
    :param to: phone number (``sms``, ``call``) or e-mail address (``email``). Exactly one of this, ``event_id`` and
        ``participant_id`` is needed. (templated)
    :param event_id: every participant of this event gets a copy; a positive integer, or its digits. (templated)
    :param participant_id: this participant of an event; a positive integer, or its digits. (templated)
    :param message: the text; required unless ``template_id`` is given. (templated)
    :param subject: one line, for ``email`` only. (templated)
    :param template_id: a template stored in Apptoto; a positive integer, or its digits. (templated)
    :param apptoto_conn_id: id of the connection. (templated)
    :param idempotency_key: your own name for the occasion, e.g. ``reminder-{{ params.appointment }}``: whatever task,
        DAG or run comes with it, the message is sent once to the same recipient. Needs the state database
        (``state_conn_id`` of the connection). By default the occasion is this task in this run. (templated)
    :param reference: your own id of the thing (an appointment's, say), kept and shown in clear. (templated)
    :param on_unknown: what to do where nobody can tell whether the message was sent: ``fail`` (no retry, a person
        resolves it), ``resend`` (may be retried: some get it twice) or ``assume_sent`` (succeeds with a warning: some
        get nothing).
    :param max_age: skip the task where its run is older than this (catch-up, a late backfill); ``None``: never. The
        age counts from the end of the data interval or the logical date, whichever is later, else from ``run_after``.
        Where an earlier try began, the task fails: it had something to send.
    :param max_segments: refuse an SMS whose text is estimated to take more segments than this, at least 1; ``None``: no
        limit. Texts with dynamic fields are not limited, since only Apptoto knows their length.
    :param dynamic_fields: names, besides ``name``, ``event``, ``participant`` and ``contact``, that Apptoto's dynamic
        fields begin with.
    :param redact: hide recipient and text in rendered fields, logs and XCom; ``False`` shows them, never the key.
    :param delivery_mode: ``redirect`` or ``dry_run`` for this task; the connection's and the deployment's can only be
        made stricter.
    :param retry_policy: on Airflow 3.3+, by default the next try waits as long as Apptoto asked for; ignored before.
    :raises ApptotoNotSentError: certainly not sent: unreachable, too many requests, the ledger can't be written.
    :raises ApptotoUnknownOutcomeError: it may have been sent, and ``on_unknown`` is ``resend``.
    :raises AirflowFailException: refused, not a message that Apptoto takes, or it may have been sent; or the run is
        older than ``max_age`` by now, and an earlier try began.
    :raises AirflowSkipException: the run is older than ``max_age``.
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
        "idempotency_key",
        "reference",
    )

    _is_rendered = False

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
        idempotency_key: str | None = None,
        reference: str | None = None,
        on_unknown: str = "fail",
        max_age: timedelta | None = timedelta(hours=24),
        max_segments: int | None = 3,
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
        self.idempotency_key = idempotency_key
        self.reference = reference
        self.on_unknown = on_unknown
        self.max_age = max_age
        self.max_segments = max_segments
        self.delivery_mode = delivery_mode
        self.dynamic_fields = dynamic_fields
        self.redact = redact

    def execute(self, context: Context) -> dict[str, Any]:
        """Send the message, unless it was sent."""
        from airflow_provider_apptoto.delivery import deliver
        from airflow_provider_apptoto.hooks.apptoto import ApptotoHook

        if not self._is_rendered:  # called by hand, in a callback for example
            self.render_template_fields(context)
        hook = ApptotoHook(self.apptoto_conn_id, delivery_mode=self.delivery_mode)
        scope = self._scope(hook, context, reference=None if self.reference is None else str(self.reference))
        fields = {
            "type": self.type,
            "to": self.to,
            "event_id": self.event_id,
            "participant_id": self.participant_id,
            "message": self.message,
            "subject": self.subject,
            "template_id": self.template_id,
            "redact": self.redact,
            "max_segments": self.max_segments,
        }
        delivery = deliver(fields, hook, scope)
        return {
            "outcome": delivery.outcome,
            "type": delivery.type,
            "target": delivery.target,
            "reference": self.reference,
            "key": delivery.key,
            "http_status": delivery.http_status,
            "sent_at": delivery.sent_at,
            "try_number": delivery.origin.try_number,
            "response": dict(delivery.response),
        }

    def _render_fields(self, context: Context, jinja_env: jinja2.Environment, seen_oids: set[int]) -> None:
        from airflow_provider_apptoto.templating.fields import render_fields

        render_fields(self, context, jinja_env, seen_oids)
        self._is_rendered = True
