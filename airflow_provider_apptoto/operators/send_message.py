"""A task that sends one message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_provider_apptoto.client.errors import ApptotoUnknownOutcomeError
from airflow_provider_apptoto.client.outcomes import Outcome
from airflow_provider_apptoto.operators._base import SendingOperator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import jinja2
    from airflow.providers.common.compat.sdk import Context


class ApptotoSendMessageOperator(SendingOperator):
    """Send one SMS, e-mail or voice call through Apptoto (apidocs.apptoto.com/reference/v1send_message).

    If the message was not sent, Airflow may retry the task. If it was rejected, or may have been sent, the task fails
    at once.

    .. seealso:: :ref:`howto/operator:ApptotoSendMessageOperator`

    Returns (XCom), the same for the try that sent the message and for a later one that finds it sent, but for
    ``outcome``: ``outcome`` (``sent``; ``deduplicated``: an earlier try, or another task with the same
    ``idempotency_key``, had sent it; ``assumed_sent``, ``redirected``, ``dry_run``; ``too_old`` if it was skipped),
    ``type``, ``target`` (masked; ids in clear), ``reference``, ``key`` (in the ledger), ``http_status``, ``sent_at``
    (ISO 8601, UTC, milliseconds), ``try_number`` (the try that sent it), ``response`` (``success``, and the message's
    ``id`` as a string, if the answer had one), ``segments`` (estimated, of an SMS).

    :param type: ``sms``, ``call`` or ``email``. (templated)
    :param to: phone number (``sms``, ``call``) or e-mail address (``email``). Exactly one of this, ``event_id`` and
        ``participant_id`` is needed. (templated)
    :param event_id: every participant of this event gets a copy; a positive integer, or its digits. (templated)
    :param participant_id: this participant of an event; a positive integer, or its digits. (templated)
    :param message: the text; required unless ``template_id`` is given. (templated)
    :param subject: one line, for ``email`` only. (templated)
    :param template_id: a template stored in Apptoto; a positive integer, or its digits. (templated)
    :param reference: your own id of the thing (an appointment's, say), kept and shown in clear; one line of up to 200
        characters. (templated)
    :param labels: at most four names and values that reports group by, kept in clear: ``{"clinic": "north"}``.
        (templated)
    :param apptoto_conn_id: id of the connection. (templated)
    :param idempotency_key: your own name for the occasion, e.g. ``reminder-{{ params.appointment }}``: whatever task,
        DAG or run comes with it, the message is sent once to the same recipient. Needs the state database
        (``state_conn_id`` of the connection). By default the occasion is this task in this run. (templated)
    :param on_unknown: what to do if it is not known whether the message was sent: ``fail`` (no retry, a person resolves
        it), ``resend`` (may be retried: some get it twice) or ``assume_sent`` (succeeds with a warning: some get
        nothing).
    :param max_age: skip the task if its run is older than this (catch-up, a late backfill), more than 0; ``None``:
        never. The age counts from the end of the data interval or the logical date, whichever is later, else from
        ``run_after``. If an earlier try began, the task fails: it had something to send.
    :param max_segments: reject an SMS whose text is estimated to take more segments than this, at least 1; ``None``: no
        limit. Texts with dynamic fields are not limited, since only Apptoto knows their length.
    :param dynamic_fields: names, besides ``name``, ``event``, ``participant`` and ``contact``, that Apptoto's dynamic
        fields begin with.
    :param redact: hide recipient and text in rendered fields, logs and XCom; ``False`` shows them, never the key.
    :param delivery_mode: ``live``, ``redirect`` or ``dry_run`` for this task; it can only make the connection's and the
        deployment's stricter.
    :param retry_policy: on Airflow 3.3+, by default the next try waits as long as Apptoto asked for; ignored before.
    :raises ApptotoNotSentError: it was not sent: unreachable, too many requests, the ledger can't be written.
    :raises ApptotoUnknownOutcomeError: it may have been sent. Airflow does not retry, unless ``on_unknown`` is
        ``resend``.
    :raises ApptotoRejectedError: it was rejected by Apptoto, or is not a message that Apptoto accepts. Airflow does not
        retry.
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
        "labels",
    )

    _rendered_for: object = None

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
        reference: str | None = None,
        labels: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.type = type
        self.to = to
        self.event_id = event_id
        self.participant_id = participant_id
        self.message = message
        self.subject = subject
        self.template_id = template_id
        self.reference = reference
        self.labels = labels

    def execute(self, context: Context) -> dict[str, Any]:
        """Send the message, unless it was sent."""
        from airflow_provider_apptoto.client.messages import MESSAGE_FIELDS
        from airflow_provider_apptoto.hooks.apptoto import ApptotoHook

        if self._rendered_for is None:  # called by hand, in a callback for example
            self.render_template_fields(context)
        outbox = self._outbox(ApptotoHook(self.apptoto_conn_id, delivery_mode=self.delivery_mode), context)
        fields = {name: getattr(self, name) for name in (*MESSAGE_FIELDS, "redact", "max_segments")}
        try:
            delivery = outbox.send(**fields, reference=self.reference, labels=self.labels)
        except ApptotoUnknownOutcomeError:
            outbox.show_unresolved()
            raise
        if delivery.outcome is Outcome.ASSUMED_SENT:
            outbox.show_unresolved()
        if delivery.outcome.is_withheld:
            context["ti"].xcom_push(key="return_value", value=delivery.to_xcom())
            raise AirflowSkipException(f"Skipped, the message is not sent: {delivery.reason}")
        return delivery.to_xcom()

    def _render_fields(self, context: Context, jinja_env: jinja2.Environment, seen_oids: set[int]) -> None:
        from airflow_provider_apptoto.templating.fields import render_fields

        ti = context.get("ti", "a context without one")
        if self._rendered_for is ti:  # rendered once more, a value out of an XCom would be taken for a template
            return
        render_fields(self, context, jinja_env, seen_oids)
        self._rendered_for = ti
