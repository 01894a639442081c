"""The operator for a single message."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_provider_apptoto.client.errors import ApptotoError, ApptotoUnknownOutcomeError, ApptotoValidationError
from airflow_provider_apptoto.client.outcomes import Outcome
from airflow_provider_apptoto.client.routing import DeliveryMode
from airflow_provider_apptoto.operators._base import SendingOperator
from airflow_provider_apptoto.privacy import mask_recipient, unwrap

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from typing import NoReturn

    import jinja2
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_apptoto.outbox.delivery import Delivery
    from airflow_provider_apptoto.outbox.guards import WithheldError
    from airflow_provider_apptoto.outbox.outbox import Outbox


class ApptotoSendMessageOperator(SendingOperator):
    """Send one SMS, e-mail or voice call through Apptoto (apidocs.apptoto.com/reference/v1send_message).

    If the message was not sent, Airflow may retry the task. If it was rejected, or may have been sent, the task fails
    without a retry.

    .. seealso:: :ref:`howto/operator:ApptotoSendMessageOperator`

    Returns (XCom) a dictionary. Except for ``outcome``, it is the same for the try that sent the message and for a
    later one: ``outcome`` (``sent``; ``deduplicated``: an earlier try, or another task with the same
    ``idempotency_key``, sent it; ``assumed_sent``, ``redirected``, ``dry_run``; if it was skipped, why), ``type``,
    ``target`` (masked; ids in clear), ``reference``, ``key`` (of the ledger entry), ``http_status``, ``sent_at``
    (ISO 8601, UTC, milliseconds), ``try_number`` (of the try that sent it), ``response`` (``success``, and the
    message's ``id`` as a string, if the answer had one), ``segments`` (estimated, for an SMS).

    :param type: ``sms``, ``call`` or ``email``. (templated)
    :param to: phone number (``sms``, ``call``) or e-mail address (``email``). Exactly one of this, ``event_id`` and
        ``participant_id`` is required. (templated)
    :param event_id: id of an event, for a copy to every participant; a positive integer, or a string of digits.
        (templated)
    :param participant_id: id of one participant of an event; a positive integer, or a string of digits. (templated)
    :param message: the text; required unless ``template_id`` is given. (templated)
    :param subject: one line, for ``email`` only. (templated)
    :param template_id: id of a template stored in Apptoto; a positive integer, or a string of digits. (templated)
    :param reference: your own id, such as an appointment id, stored and shown in clear; one line of up to 200
        characters. (templated)
    :param labels: at most four names and values for grouping in reports, stored in clear: ``{"clinic": "north"}``.
        (templated)
    :param apptoto_conn_id: id of the connection. (templated)
    :param idempotency_key: your name for the occasion, e.g. ``reminder-{{ params.appointment }}``. Tasks, DAGs and runs
        that use the same key send the message only once to the same recipient. Needs the state database
        (``state_conn_id`` of the connection). Default: this task in this run. (templated)
    :param suppression: phone numbers and e-mail addresses that must not be contacted: a list, or the output of a task.
        If ``to`` is one of them, the task is skipped. (templated in the DAG file, not from other tasks)
    :param on_unknown: what to do if the message may have been sent: ``fail`` (no retry, a person resolves it),
        ``resend`` (may be retried: recipients may get it twice) or ``assume_sent`` (succeeds with a warning: recipients
        may get nothing).
    :param max_age: skip the task if its run is older than this (catch-up, a late backfill), more than 0; ``None``: no
        limit. The age counts from the end of the data interval or the logical date, whichever is later, else from
        ``run_after``. If an earlier try started, the task fails instead, so that an unsent message is noticed.
    :param max_segments: maximum estimated segments of an SMS, at least 1; ``None``: no limit. A longer SMS is rejected.
        Texts with dynamic fields are not limited, because their length is unknown.
    :param send_window: when messages may be sent, in the recipient's time zone, such as ``Mon-Fri 09:00-18:00, Sat
        10:00-14:00``. ``None``: the connection's; ``off``: at any time.
    :param when_closed: outside the window, ``hold`` (wait for the opening without a worker; the age counts from the
        first opening after the run) or ``skip``.
    :param at_most: limit on the messages to one recipient over all DAGs, such as ``2/day``, ``1/hour`` or ``5/7d``; the
        connection's applies too. Needs the state database.
    :param optout_lists: lists of people who opted out to obey, in addition to ``all``.
    :param only_if_state: send only if the participant of the appointment is in one of these states, read at
        most 60 s before; ``True``: ``initial``, ``accepted`` or ``reminded``. It needs ``event_id``, to which
        ``participant_id`` may be added: the message then goes to the participant alone. Of an event, all participants
        must be in these states.
    :param recipient_timezone: time zone of the recipient, such as ``America/Chicago``; by default the connection's
        ``timezone``, else that of the phone number if it has only one. (templated)
    :param not_after: latest time to send the message: ISO 8601 with a zone, or an aware ``datetime``. (templated)
    :param dynamic_fields: first names of Apptoto's dynamic fields, in addition to ``name``, ``event``, ``participant``
        and ``contact``.
    :param redact: mask recipient and text in rendered fields, logs and XCom. ``False`` shows them, but never the API
        key.
    :param delivery_mode: ``live``, ``redirect`` or ``dry_run`` for this task. A stricter mode of the connection or the
        deployment takes precedence.
    :param retry_policy: on Airflow 3.3+, by default delays the next try by Apptoto's ``Retry-After``; ignored on older
        versions.
    :raises ApptotoNotSentError: the message was not sent: Apptoto is unreachable, the rate limit is reached, the ledger
        can't be written, or the task was stopped.
    :raises ApptotoUnknownOutcomeError: the message may have been sent. Airflow does not retry, unless ``on_unknown`` is
        ``resend``.
    :raises ApptotoRejectedError: the message was rejected, by Apptoto or by validation. Airflow does not retry.
    :raises AirflowSkipException: the message was withheld: its run is too old, the window is closed, the recipient
        opted out, the appointment is in another state, or the recipient got as many messages as ``at_most`` allows.
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
        "suppression",
        "reference",
        "labels",
        "recipient_timezone",
        "not_after",
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
        reference: str | None = None,
        labels: Mapping[str, str] | None = None,
        recipient_timezone: str | None = None,
        not_after: datetime | str | None = None,
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
        self.recipient_timezone = recipient_timezone
        self.not_after = not_after

    def _send(self, context: Context) -> dict[str, Any]:
        from airflow_provider_apptoto.client.messages import MESSAGE_FIELDS

        outbox = self._outbox(context)
        fields = {name: getattr(self, name) for name in (*MESSAGE_FIELDS, "redact", "max_segments")}
        self._obey_suppression(outbox, fields, context)
        try:
            delivery = outbox.send(
                **fields,
                reference=self.reference,
                labels=self.labels,
                recipient_timezone=self.recipient_timezone,
                not_after=self.not_after,
            )
        except ApptotoUnknownOutcomeError:
            outbox.show_unresolved()
            raise
        if delivery.outcome is Outcome.ASSUMED_SENT:
            outbox.show_unresolved()
        if delivery.held_until is not None and outbox.client.mode is not DeliveryMode.DRY_RUN:
            self._hold(context, delivery.held_until)
        if delivery.outcome.is_withheld:
            _end_withheld(delivery, context)
        return delivery.to_xcom()

    def _obey_suppression(self, outbox: Outbox, fields: Mapping[str, Any], context: Context) -> None:
        """Let the outbox withhold the message from a suppressed recipient; skip an invalid one here.

        :param fields: of the message.
        :raises ApptotoError: only Apptoto knows the recipient, or the list is invalid.
        """
        if self.suppression is None:
            return
        from airflow_provider_apptoto.outbox.draft import take_event
        from airflow_provider_apptoto.outbox.errors import final
        from airflow_provider_apptoto.outbox.guards import SUPPRESSED, WithheldError
        from airflow_provider_apptoto.outbox.suppression import Suppression

        try:
            suppression = Suppression(unwrap(self.suppression), self.hook.default_region)
            plain, _ = take_event({name: unwrap(value) for name, value in fields.items()})
            outbox.guards = dataclasses.replace(outbox.guards, suppression=suppression)
            try:
                suppression.holds(self.hook.build_message(**plain))
            except ApptotoValidationError:
                if not suppression.holds_written(unwrap(self.to)):
                    raise
                self._skip(WithheldError(Outcome.SUPPRESSED, SUPPRESSED), context)
        except ApptotoError as error:
            raise final(error) from None

    def _skip(self, why: WithheldError, context: Context) -> NoReturn:
        """End the task without a message, whose fields may be invalid."""
        from airflow_provider_apptoto import metrics
        from airflow_provider_apptoto.client.messages import MESSAGE_TYPES
        from airflow_provider_apptoto.outbox.delivery import Delivery
        from airflow_provider_apptoto.outbox.policy import checked_reference

        try:
            reference = checked_reference(self.reference)
        except ApptotoError:
            reference = None
        kind, to = unwrap(self.type), unwrap(self.to)
        delivery = Delivery(
            outcome=why.outcome,
            type=kind if kind in MESSAGE_TYPES else "unknown",
            target="unknown" if to is None else mask_recipient(str(to)) if self.redact else str(to),
            reference=reference,
            try_number=context["ti"].try_number,
            reason=why.reason,
        )
        metrics.message(delivery.type, why.outcome, self.apptoto_conn_id)
        _end_withheld(delivery, context)

    def _render_own_fields(self, context: Context, jinja_env: jinja2.Environment, seen_oids: set[int]) -> None:
        from airflow_provider_apptoto.templating.fields import render_fields

        render_fields(self, context, jinja_env, seen_oids)


def _end_withheld(delivery: Delivery, context: Context) -> NoReturn:
    """Store the delivery as the XCom, and skip the task."""
    context["ti"].xcom_push(key="return_value", value=delivery.to_xcom())
    raise AirflowSkipException(f"Skipped: {delivery.reason}")
