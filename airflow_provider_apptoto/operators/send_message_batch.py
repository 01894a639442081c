"""A task that sends many messages."""

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

    All rows are checked before the first message is sent. Each message has its own ledger entry, so the next try, after
    a failure, a kill or a clear, sends what is missing. A message that is rejected does not stop the others.

    .. seealso:: :ref:`howto/operator:ApptotoSendMessageBatchOperator`

    A row is a mapping of columns. Columns with the names of a message's fields (``type``, ``to``, ``event_id``,
    ``participant_id``, ``message``, ``subject``, ``template_id``) are its fields; others are for texts, ids, references
    and labels. A column that is missing, ``None``, or blank in a CSV file is not given.

    Returns (XCom ``return_value``, and ``report``, which is there also if the task fails): a dictionary with ``total``
    (rows), the number of rows of each outcome (``sent``, ``deduplicated``, ``not_sent``, ``invalid``, ...);
    ``failures`` (each with ``index``, ``line`` of the file, ``reference``, ``key``, ``outcome``, ``http_status``,
    ``code``, ``column``, ``reason``), as many as fit into 62 kB, and ``failures_left_out``; ``suppressed_rows`` and
    ``duplicate_rows`` (each with ``index``, ``line``, ``reference``), as many as there is room for.

    :param messages: rows: a list of mappings, or the output of a task that is one. Exactly one of this and
        ``messages_path`` is needed. What stands in the DAG file is templated; what other tasks give is not.
    :param messages_path: absolute path or URI (Airflow's object storage) of a file of rows: CSV in UTF-8 with a line of
        names (``.csv``), or JSON Lines (``.jsonl``, ``.ndjson``). (templated)
    :param defaults: fields of all messages. Templates in it may name the row's columns: ``{{ row.first_name }}``. A row
        that gives one of these fields too is invalid. (templated for each row)
    :param suppression: phone numbers and e-mail addresses that get nothing: a list, or the output of a task. (templated
        as ``messages``)
    :param id_column: the column whose value tells messages apart (an appointment's id, say), up to 200 characters. By
        default channel and recipient do, so nobody can get two messages of one batch.
    :param reference_column: the column with your own id of the thing, kept and shown in clear, up to 200 characters.
    :param label_columns: at most four columns that reports group by, kept in clear: clinic, campaign.
    :param on_invalid: what to do if rows are invalid: ``fail`` (nothing is sent) or ``send_others`` (the other rows
        are, unless more than ``max_failed`` are invalid).
    :param max_messages: send nothing if there are more messages than this, at least 1; ``None``: no limit.
    :param max_failed: succeed although so many rows were rejected, or were invalid with ``send_others``: a count from
        0, or a percentage such as ``"5%"`` of all rows that make a message or are invalid.
    :param max_consecutive_failures: stop after so many messages in a row that could not be sent, or may have been sent,
        at least 1. Requests in flight are awaited.
    :param concurrency: messages in flight at once, 1 to 32; the account's rate limit applies in any case.
    :param apptoto_conn_id: id of the connection. (templated)
    :param idempotency_key: your own name for the occasion, as with
        :class:`~airflow_provider_apptoto.operators.apptoto.ApptotoSendMessageOperator`. (templated)
    :param on_unknown: what to do if it is not known whether a message was sent: ``fail``, ``resend`` or
        ``assume_sent``.
    :param max_age: skip the task if its run is older than this, and no try began; ``None``: never. A batch that began
        in time is sent to its end.
    :param max_segments: treat a row as invalid if its SMS is estimated to take more segments than this, as with
        :class:`~airflow_provider_apptoto.operators.apptoto.ApptotoSendMessageOperator`.
    :param dynamic_fields: further names that Apptoto's dynamic fields begin with.
    :param redact: hide rows in rendered fields, logs and XCom; ``False`` shows them, never the key.
    :param delivery_mode: ``live``, ``redirect`` or ``dry_run`` for this task.
    :param retry_policy: on Airflow 3.3+, by default the next try waits as long as Apptoto asked for; ignored before.
    :raises ApptotoConfigurationError: a parameter is wrong, or there are too many messages; nothing was sent.
    :raises ApptotoNotSentError: some messages are left (no answer, refused credentials or credit, the task was told to
        end); the next try sends them.
    :raises ApptotoUnknownOutcomeError: some may have been sent, and ``on_unknown`` is ``resend``.
    :raises AirflowFailException: rows are invalid, too many failed, or some may have been sent; or the run is older
        than ``max_age`` by now, and an earlier try began.
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
        id_column: str | None = None,
        reference_column: str | None = None,
        label_columns: Sequence[str] = (),
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
        self.suppression = suppression
        self.id_column = id_column
        self.reference_column = reference_column
        self.label_columns = label_columns
        self.on_invalid = on_invalid
        self.max_messages = max_messages
        self.max_failed = max_failed
        self.max_consecutive_failures = max_consecutive_failures
        self.concurrency = concurrency
        with final_settings():
            self._options()
            if (messages is None) == (messages_path is None):
                raise ApptotoConfigurationError("messages", "exactly one of messages and messages_path is needed")

    def _options(self) -> BatchOptions:
        return BatchOptions(**{field.name: getattr(self, field.name) for field in dataclasses.fields(BatchOptions)})

    def execute(self, context: Context) -> dict[str, Any]:
        """Send what is missing."""
        from airflow_provider_apptoto.batch.run import run
        from airflow_provider_apptoto.hooks.apptoto import ApptotoHook

        if self._rendered is None:
            self.render_template_fields(context)
        rendered: RenderedBatch = self._rendered
        hook = ApptotoHook(self.apptoto_conn_id, delivery_mode=self.delivery_mode)
        outbox = self._outbox(hook, context, log_level=logging.DEBUG)
        build = functools.partial(hook.build_message, max_segments=self.max_segments, redact=self.redact)
        return run(rendered, self._options(), outbox, build, context, default_region=hook.default_region)

    def _render_fields(self, context: Context, jinja_env: jinja2.Environment, seen_oids: set[int]) -> None:
        from airflow_provider_apptoto.batch.fields import render_batch_fields

        if self._rendered is None:
            self._rendered = render_batch_fields(self, context, jinja_env, seen_oids)
