"""The operator for many messages."""

from __future__ import annotations

import dataclasses
import functools
import logging
from typing import TYPE_CHECKING, Any

from airflow_provider_apptoto.batch.options import BatchOptions
from airflow_provider_apptoto.client.errors import ApptotoConfigurationError
from airflow_provider_apptoto.operators._base import SendingOperator, final_settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import jinja2
    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_apptoto.batch.fields import RenderedBatch
    from airflow_provider_apptoto.batch.options import OnInvalidName


class ApptotoSendMessageBatchOperator(SendingOperator):
    """Send many messages in one task, each at most once, and report the outcome of every row.

    All rows are validated before the first message is sent. Each message has its own ledger entry, so the next try
    (after a failure, a kill or a clear) sends only the missing messages. A rejected message does not stop the others.

    .. seealso:: :ref:`howto/operator:ApptotoSendMessageBatchOperator`

    A row is a mapping of columns. Columns named like the fields of a message (``type``, ``to``, ``event_id``,
    ``participant_id``, ``message``, ``subject``, ``template_id``) are its fields; others are for texts, ids, references
    and labels. A column counts as not given if it is missing, ``None``, or blank in a CSV file.

    Returns (XCom ``return_value``, and ``report``, which is also stored if the task fails) a dictionary with ``total``
    (rows), the number of rows per outcome (``sent``, ``deduplicated``, ``not_sent``, ``invalid``, ...), ``failures``
    (each with ``index``, ``line`` of the file, ``reference``, ``key``, ``outcome``, ``http_status``, ``code``,
    ``column``, ``reason``) up to 62 kB, and ``failures_left_out``; ``suppressed_rows`` and ``duplicate_rows`` (each
    with ``index``, ``line``, ``reference``) as far as they fit.

    :param messages: rows: a list of mappings, or the output of a task that returns one. Exactly one of this and
        ``messages_path`` is required. (templated in the DAG file, not from other tasks)
    :param messages_path: absolute path or URI (Airflow's object storage) of a file with rows: CSV in UTF-8 with a
        header line (``.csv``), or JSON Lines (``.jsonl``, ``.ndjson``). (templated)
    :param defaults: fields of all messages. Templates may use the columns of the row: ``{{ row.first_name }}``. A row
        that sets one of these fields too is invalid. (templated for each row)
    :param suppression: phone numbers and e-mail addresses that must not be contacted: a list, or the output of a task.
        (templated as ``messages``)
    :param id_column: the column that identifies a message, such as an appointment id, up to 200 characters. By default
        channel and recipient identify it, so no recipient can get two messages of one batch.
    :param reference_column: the column with your own id, stored and shown in clear, up to 200 characters.
    :param label_columns: at most four columns for grouping in reports, stored in clear: clinic, campaign.
    :param on_invalid: what to do if rows are invalid: ``fail`` (nothing is sent) or ``send_others`` (the other rows are
        sent, unless more than ``max_failed`` are invalid).
    :param max_messages: send nothing if there are more messages than this, at least 1; ``None``: no limit.
    :param max_failed: maximum number of rejected rows (with ``send_others``, of invalid rows too) for the task to
        succeed: a count from 0, or a percentage such as ``"5%"`` of all rows that make a message or are invalid.
    :param max_consecutive_failures: stop after this many messages in a row that were not sent or may have been sent, at
        least 1. Requests in flight are awaited.
    :param concurrency: messages in flight at once, 1 to 32. The rate limit of the account always applies.
    :param apptoto_conn_id: id of the connection. (templated)
    :param idempotency_key: your name for the occasion, as with
        :class:`~airflow_provider_apptoto.operators.apptoto.ApptotoSendMessageOperator`. (templated)
    :param on_unknown: what to do if a message may have been sent: ``fail``, ``resend`` or ``assume_sent``.
    :param max_age: skip the task if its run is older than this and no try started; ``None``: no limit. A batch that
        started in time is completed.
    :param max_segments: maximum estimated segments of an SMS; a row with a longer SMS is invalid. See
        :class:`~airflow_provider_apptoto.operators.apptoto.ApptotoSendMessageOperator`.
    :param send_window: when messages may be sent, in the recipient's time zone, such as ``Mon-Fri 09:00-18:00, Sat
        10:00-14:00``. ``None``: the connection's; ``off``: at any time.
    :param when_closed: outside the window, ``hold`` (send the others, then wait for the opening without a worker; the
        age counts from the first opening after the run) or ``skip``.
    :param at_most: limit on the messages to one recipient over all DAGs, such as ``2/day``, ``1/hour`` or ``5/7d``; the
        connection's applies too. Needs the state database.
    :param optout_lists: lists of people who opted out to obey, in addition to ``all``.
    :param only_if_state: send only if the participant of the appointment is in one of these states, read at
        most 60 s before; ``True``: ``initial``, ``accepted`` or ``reminded``. Rows need ``event_id``; a
        ``participant_id`` names who gets the message. If rows have ``start_time`` (ISO 8601) and are sorted by it, as
        those of :class:`~airflow_provider_apptoto.operators.apptoto.ApptotoListEventsOperator` are, up to a hundred
        events are read at once.
    :param timezone_column: the column with the recipient's time zone.
    :param not_after_column: the column with the latest time to send the message.
    :param dynamic_fields: additional first names of Apptoto's dynamic fields.
    :param redact: mask rows in rendered fields, logs and XCom. ``False`` shows them, but never the API key.
    :param delivery_mode: ``live``, ``redirect`` or ``dry_run`` for this task.
    :param retry_policy: on Airflow 3.3+, by default delays the next try by Apptoto's ``Retry-After``; ignored on older
        versions.
    :raises ApptotoConfigurationError: a parameter is invalid, or there are too many messages; nothing was sent.
    :raises ApptotoNotSentError: some messages were not sent (no answer, rejected credentials, no credit, the task was
        stopped); the next try sends them.
    :raises ApptotoUnknownOutcomeError: some messages may have been sent, and ``on_unknown`` is ``resend``.
    :raises AirflowFailException: rows are invalid, too many failed, or some messages may have been sent; or an earlier
        try started, and the run is now older than ``max_age``.
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
        id_column: str | None = None,
        reference_column: str | None = None,
        label_columns: Sequence[str] = (),
        timezone_column: str | None = None,
        not_after_column: str | None = None,
        on_invalid: OnInvalidName = "fail",
        max_messages: int | None = 1000,
        max_failed: int | str = 0,
        max_consecutive_failures: int = 5,
        concurrency: int = 8,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.messages = messages
        self.messages_path = messages_path
        self.defaults = defaults
        self.id_column = id_column
        self.reference_column = reference_column
        self.label_columns = label_columns
        self.timezone_column = timezone_column
        self.not_after_column = not_after_column
        self.on_invalid = on_invalid
        self.max_messages = max_messages
        self.max_failed = max_failed
        self.max_consecutive_failures = max_consecutive_failures
        self.concurrency = concurrency
        with final_settings():
            self._options()
            self._check_source()

    def _check_source(self) -> None:
        """Check where the rows come from.

        :raises ApptotoConfigurationError: there is no source, or more than one.
        """
        if (self.messages is None) == (self.messages_path is None):
            raise ApptotoConfigurationError("messages", "exactly one of messages and messages_path is required")

    def _options(self) -> BatchOptions:
        return BatchOptions(**{field.name: getattr(self, field.name) for field in dataclasses.fields(BatchOptions)})

    def _send(self, context: Context) -> dict[str, Any]:
        from airflow_provider_apptoto.batch.run import HeldError, run

        rendered: RenderedBatch = self._rendered
        outbox = self._outbox(context, log_level=logging.DEBUG)
        build = functools.partial(self.hook.build_message, max_segments=self.max_segments, redact=self.redact)
        try:
            return run(rendered, self._options(), outbox, build, context, default_region=self.hook.default_region)
        except HeldError as held:
            self._hold(context, held.until)

    def _render_own_fields(self, context: Context, jinja_env: jinja2.Environment, seen_oids: set[int]) -> None:
        from airflow_provider_apptoto.batch.fields import render_batch_fields

        self._rendered = render_batch_fields(self, context, jinja_env, seen_oids)
