"""A task that sends many messages."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_apptoto._airflow import HAS_RETRY_POLICY, RetryPolicy
from airflow_provider_apptoto.operators._base import ApptotoRetryPolicy, SendingOperator

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    import jinja2
    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_apptoto.batch.fields import RenderedBatch


class ApptotoSendMessageBatchOperator(SendingOperator):
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
        from airflow_provider_apptoto.batch.run import Settings, run
        from airflow_provider_apptoto.hooks.apptoto import ApptotoHook

        if self._rendered is None:
            self.render_template_fields(context)
        rendered: RenderedBatch = self._rendered
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
        return run(rendered, settings, hook, scope, context)

    def _render_fields(self, context: Context, jinja_env: jinja2.Environment, seen_oids: set[int]) -> None:
        from airflow_provider_apptoto.batch.fields import render_batch_fields

        if self._rendered is None:
            self._rendered = render_batch_fields(self, context, jinja_env, seen_oids)
