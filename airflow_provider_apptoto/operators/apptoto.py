"""Tasks that send messages through Apptoto."""

from __future__ import annotations

import logging
from abc import abstractmethod
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_apptoto._compat import HAS_RETRY_POLICY, RetryDecision, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    import jinja2
    from airflow.providers.common.compat.sdk import Context, XComArg

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


class _SendingOperator(BaseOperator):
    """What both operators do alike."""

    idempotency_key: str | None
    on_unknown: str
    max_age: timedelta | None

    _is_stopping = False

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

    def _do_render_template_fields(
        self,
        parent: Any,
        template_fields: Iterable[str],
        context: Context,
        jinja_env: jinja2.Environment,
        seen_oids: set[int],
    ) -> None:
        """Render by the rules of this package; the one method that Airflow calls for plain and for mapped tasks."""
        if parent is self:
            try:
                self._render_fields(context, jinja_env, seen_oids)
            except BaseException as error:
                from airflow_provider_apptoto.privacy import remove_frames

                # the frames below hold fields
                remove_frames(error)
                raise
        else:
            super()._do_render_template_fields(parent, template_fields, context, jinja_env, seen_oids)

    @abstractmethod
    def _render_fields(self, context: Context, jinja_env: jinja2.Environment, seen_oids: set[int]) -> None:
        """Render the fields in place, and hide what is nobody's business."""


class ApptotoSendMessageOperator(_SendingOperator):
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
        from airflow_provider_apptoto.templating import render_fields

        render_fields(self, context, jinja_env, seen_oids)
        self._is_rendered = True


class ApptotoSendMessageBatchOperator(_SendingOperator):
    """Send many messages in one task, each once, and report what became of every one.

    All rows are checked before the first message leaves. Each message has its own entry in the ledger: a further try,
    after a failure, a kill or a clear, sends what is missing. One that is refused doesn't stop the others.

    .. seealso:: :ref:`howto/operator:ApptotoSendMessageBatchOperator`

    A row is a mapping of columns. Those with the names of a message's fields (``type``, ``to``, ``event_id``,
    ``participant_id``, ``message``, ``subject``, ``template_id``) are its fields; others are for texts, keys and
    references. A column that is missing, ``None``, or blank in a CSV file is not given.

    Returns (XCom ``return_value``, and ``report``, which is there also where the task fails): a dictionary with
    ``total`` (rows), how many of them were ``sent``, ``redirected``, ``dry_run``, ``deduplicated``, ``assumed_sent``,
    ``unknown``, ``rejected``, ``not_sent``, ``invalid``, ``suppressed`` and ``duplicate``; ``failures`` (each with
    ``index``, ``line`` of the file, ``reference``, ``key``, ``outcome``, ``http_status``, ``reason``), as many as go
    into 62 kB, and ``failures_left_out``; ``suppressed_rows`` and ``duplicate_rows`` (each with ``index``, ``line``,
    ``reference``), as many as there is room for.

    :param messages: rows: a list of mappings, or the output of a task that is one. Exactly one of this and
        ``messages_path`` is needed. What stands in the DAG file is templated; what other tasks give is not.
    :param messages_path: absolute path or URI (Airflow's object storage) of a file of rows: CSV in UTF-8 with a line of
        names (``.csv``), or JSON Lines (``.jsonl``, ``.ndjson``). (templated)
    :param defaults: fields of messages whose rows don't give them. Templates in it may name the row's columns:
        ``{{ row.first_name }}``. (templated for each row)
    :param suppression: phone numbers and e-mail addresses that get nothing: a list, or the output of a task. (templated
        as ``messages``)
    :param key_field: the column whose value tells messages apart (an appointment's id, say), up to 200 characters. By
        default channel and recipient do, so that nobody can get two of one batch.
    :param reference_field: the column with your own id of the thing, kept and shown in clear, up to 200 characters.
    :param on_invalid: what to do where rows can't be sent: ``fail`` (nothing is sent) or ``skip`` (the others are).
    :param max_messages: send nothing if there are more messages than this, at least 1; ``None``: no limit.
    :param max_rejected: succeed though so many messages were refused: a count (an integer), or a fraction of all
        messages (a float from 0.0 to 1.0).
    :param stop_after_unknown: stop once so many messages in a row could not be sent, or got no answer that tells what
        became of them, at least 1. Those under way still end.
    :param concurrency: messages under way at once, 1 to 32; the account's pace holds whatever it is.
    :param apptoto_conn_id: id of the connection. (templated)
    :param idempotency_key: your own name for the occasion, as with
        :class:`~airflow_provider_apptoto.operators.apptoto.ApptotoSendMessageOperator`. (templated)
    :param on_unknown: what to do where nobody can tell whether a message was sent: ``fail``, ``resend`` or
        ``assume_sent``.
    :param max_age: skip the task where its run is older than this, and no try began; ``None``: never. A batch that
        began in time is sent to its end.
    :param max_segments: treat a row as invalid whose SMS is estimated to take more segments than this, as with
        :class:`~airflow_provider_apptoto.operators.apptoto.ApptotoSendMessageOperator`.
    :param dynamic_fields: further names that Apptoto's dynamic fields begin with.
    :param redact: hide rows in rendered fields, logs and XCom; ``False`` shows them, never the key.
    :param delivery_mode: ``redirect`` or ``dry_run`` for this task.
    :param retry_policy: on Airflow 3.3+, by default the next try waits as long as Apptoto asked for; ignored before.
    :raises ApptotoConfigurationError: a setting is wrong, or there are too many messages; nothing was sent.
    :raises ApptotoNotSentError: some are left (no answer, refused credentials or credit, the task was told to end); the
        next try goes on.
    :raises ApptotoUnknownOutcomeError: some may have been sent, and ``on_unknown`` is ``resend``.
    :raises AirflowFailException: rows are invalid, too many messages were refused, or some may have been sent; or the
        run is older than ``max_age`` by now, and an earlier try began.
    :raises AirflowSkipException: the run is older than ``max_age``.
    """

    template_fields: Sequence[str] = (
        "messages",
        "messages_path",
        "defaults",
        "suppression",
        "apptoto_conn_id",
        "idempotency_key",
    )

    _rendered: Any = None

    def __init__(
        self,
        *,
        messages: Iterable[Mapping[str, Any]] | XComArg | None = None,
        messages_path: str | XComArg | None = None,
        defaults: Mapping[str, Any] | None = None,
        suppression: Iterable[str | None] | XComArg | None = None,
        key_field: str | None = None,
        reference_field: str | None = None,
        on_invalid: str = "fail",
        max_messages: int | None = 1000,
        max_rejected: float = 0,
        stop_after_unknown: int = 5,
        concurrency: int = 8,
        apptoto_conn_id: str = "apptoto_default",
        idempotency_key: str | None = None,
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
        self.messages = messages
        self.messages_path = messages_path
        self.defaults = defaults
        self.suppression = suppression
        self.key_field = key_field
        self.reference_field = reference_field
        self.on_invalid = on_invalid
        self.max_messages = max_messages
        self.max_rejected = max_rejected
        self.stop_after_unknown = stop_after_unknown
        self.concurrency = concurrency
        self.apptoto_conn_id = apptoto_conn_id
        self.idempotency_key = idempotency_key
        self.on_unknown = on_unknown
        self.max_age = max_age
        self.max_segments = max_segments
        self.delivery_mode = delivery_mode
        self.dynamic_fields = dynamic_fields
        self.redact = redact

    def execute(self, context: Context) -> dict[str, Any]:
        """Send what is missing."""
        from airflow_provider_apptoto.batch.run import Rows, Settings, run
        from airflow_provider_apptoto.hooks.apptoto import ApptotoHook

        if self._rendered is None:
            self.render_template_fields(context)
        renderer, resolve, given = self._rendered
        settings = Settings(
            key_field=self.key_field,
            reference_field=self.reference_field,
            on_invalid=self.on_invalid,
            max_messages=self.max_messages,
            max_rejected=self.max_rejected,
            stop_after_unknown=self.stop_after_unknown,
            concurrency=self.concurrency,
            max_segments=self.max_segments,
            redact=self.redact,
        )
        hook = ApptotoHook(self.apptoto_conn_id, delivery_mode=self.delivery_mode)
        scope = self._scope(hook, context, log_level=logging.DEBUG)
        rows = Rows(path=self.messages_path, renderer=renderer, resolve=resolve, **given)
        return run(rows, settings, hook, scope, context)

    def _render_fields(self, context: Context, jinja_env: jinja2.Environment, seen_oids: set[int]) -> None:
        from airflow_provider_apptoto.templating import render_batch_fields

        if self._rendered is None:
            rows = ("messages", "defaults", "suppression")
            self._rendered = render_batch_fields(self, context, jinja_env, seen_oids, rows)
