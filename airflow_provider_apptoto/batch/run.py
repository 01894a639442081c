"""Run one try of a batch: plan, send, report, and end the task."""

from __future__ import annotations

import functools
import itertools
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

from airflow_provider_apptoto.batch.ending import End, Ending, Facts, ending
from airflow_provider_apptoto.batch.plan import Plan, Planner, place
from airflow_provider_apptoto.batch.progress import show_progress
from airflow_provider_apptoto.batch.rehearsal import Rehearsal
from airflow_provider_apptoto.batch.results import FAILED, BatchResults
from airflow_provider_apptoto.batch.sending import Sender
from airflow_provider_apptoto.client.errors import ApptotoNotSentError, ApptotoUnknownOutcomeError
from airflow_provider_apptoto.client.outcomes import Outcome
from airflow_provider_apptoto.client.routing import DeliveryMode
from airflow_provider_apptoto.outbox.errors import FinalConfigurationError
from airflow_provider_apptoto.outbox.instructions import how_to_resolve
from airflow_provider_apptoto.outbox.origin import NO_ORIGIN
from airflow_provider_apptoto.outbox.stores.base import LedgerStoreError
from airflow_provider_apptoto.outbox.suppression import Suppression
from airflow_provider_apptoto.privacy import remove_frames

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

    from airflow_provider_apptoto.batch.fields import RenderedBatch
    from airflow_provider_apptoto.batch.options import BatchOptions
    from airflow_provider_apptoto.client import Message
    from airflow_provider_apptoto.outbox.outbox import Outbox

log = logging.getLogger(__name__)

MAX_LISTED = 50
"""Maximum number of rows that an error or a log line lists."""


class HeldError(Exception):
    """Messages are held: the task must wait, without a worker, and then run again.

    :param until: when the first of them may be sent.
    """

    def __init__(self, until: datetime, text: str) -> None:
        super().__init__(text)
        self.until = until


def run(
    batch: RenderedBatch,
    options: BatchOptions,
    outbox: Outbox,
    build: Callable[..., Message],
    context: Mapping[str, Any],
    *,
    default_region: str | None,
) -> dict[str, Any]:
    """Send the messages of a batch that were not sent yet, and return the report.

    The report is stored as the XCom ``report`` before an error about messages is raised.

    :param build: builds a checked message from its fields.
    :param default_region: region of suppressed numbers without ``+``.
    :raises ApptotoNotSentError: some messages were not sent; the next try sends them.
    :raises ApptotoUnknownOutcomeError: some may have been sent, and ``on_unknown`` is ``resend``.
    :raises AirflowFailException: rows are invalid, too many messages failed, or some may have been sent; or the run is
        too old for the messages that an earlier try did not send.
    :raises AirflowSkipException: the run is too old for the remaining messages.
    :raises HeldError: all open messages were handled, and others are held.
    """
    if outbox.store is None and outbox.guards.window is not None and outbox.guards.may_hold:
        msg = (
            "is 'hold', but there is no ledger, so the task could not tell after the wait which messages were sent. "
            "Set state_conn_id on the Apptoto connection, or set when_closed to 'skip'"
        )
        raise FinalConfigurationError("when_closed", msg, code="state_database_needed")
    try:
        plan = _plan(batch, options, outbox, build, default_region)
    except LedgerStoreError as error:
        remove_frames(error)
        raise ApptotoNotSentError(f"Nothing was sent: {error}", reason=str(error), code="ledger_unusable") from None
    except BaseException as error:
        # the frames of the traceback hold rows
        remove_frames(error)
        raise
    rehearsal = Rehearsal(options.label_columns) if outbox.client.mode is DeliveryMode.DRY_RUN else None
    results = BatchResults(plan, has_ledger=outbox.store is not None, rehearsal=rehearsal)
    _log_plan(plan)
    if plan.invalid:
        _check_invalid(plan, results, options, context)
    sender = Sender(plan.messages, outbox, results, options)
    try:
        sender.send(functools.partial(show_progress, results, context))
    except BaseException as error:
        # the frames of the traceback hold requests
        remove_frames(error)
        raise
    finally:
        show_progress(results, context)
        log.info("Rows by outcome:\n%s", results.table())
        if rehearsal is not None:
            log.info("Rehearsal of a live run; nothing was sent:\n%s", rehearsal.table())
        if results[Outcome.UNKNOWN] or results[Outcome.ASSUMED_SENT]:
            outbox.show_unresolved()
        _push(context, results)
    facts = Facts(
        counts={outcome: results[outcome] for outcome in Outcome},
        messages=len(plan.messages),
        on_unknown=outbox.policy.on_unknown,
        has_ledger=outbox.store is not None,
        was_begun=sender.was_begun,
        too_old=sender.too_old,
        stopped=sender.stopped,
    )
    _end(ending(facts, options), results, sender, outbox)
    return results.report()


def _plan(
    batch: RenderedBatch,
    options: BatchOptions,
    outbox: Outbox,
    build: Callable[..., Message],
    default_region: str | None,
) -> Plan:
    rows = batch.rows()
    planner = Planner(
        renderer=batch.row_renderer(),
        build=build,
        key_of=outbox.key_of,
        suppression=Suppression(batch.suppressed(), default_region),
        guards=outbox.guards,
        options=options,
    )
    plan = planner.plan(rows)
    older = outbox.keys_of_older_secrets((planned.message, planned.item) for planned in plan.messages)
    if older:
        plan.messages = [replace(each, key=older.get(each.key, each.key)) for each in plan.messages]
    return plan


def _log_plan(plan: Plan) -> None:
    log.info(
        "%d rows: %d messages to send, %d suppressed, %d duplicate, %d invalid",
        *(plan.rows, len(plan.messages), plan.suppressed, plan.duplicates, plan.invalid),
    )
    for reason, count, left_out in (
        ("suppressed", plan.suppressed, plan.suppressed_rows),
        ("duplicates", plan.duplicates, plan.duplicate_rows),
    ):
        if count:
            lines = (place(row.index, row.line, row.reference) for row in left_out)
            log.info("%d of %d rows are %s:%s", count, plan.rows, reason, _listed(lines, count))


def _check_invalid(plan: Plan, results: BatchResults, options: BatchOptions, context: Mapping[str, Any]) -> None:
    """Fail before anything is sent if too many rows are invalid.

    :raises AirflowFailException: too many rows are invalid.
    """
    invalid = f"{plan.invalid} of {plan.rows} rows are invalid"
    listed = _listed(results.invalid(), plan.invalid)
    advice = ""
    if options.on_invalid == "fail":
        advice = 'To send the other rows, set on_invalid="send_others", and set max_failed to how many rows may fail'
    elif plan.invalid > options.most_failed(len(plan.messages) + plan.invalid):
        advice = f"That exceeds max_failed={options.max_failed!r}: to send the other rows, raise it"
    elif not (plan.messages or plan.suppressed):
        advice = "There are no other rows to send"
    if advice:
        _push(context, results)
        msg = f"Nothing was sent: {invalid}:{listed}\nCorrect the rows and clear the task. {advice}."
        raise AirflowFailException(msg)
    log.warning("%s and are not sent:%s", invalid, listed)


def _push(context: Mapping[str, Any], results: BatchResults) -> None:
    """Store the report as an XCom. If that fails, log the error and continue: the outcome must not be lost."""
    try:
        context["ti"].xcom_push(key="report", value=results.report())
    except Exception:
        log.exception("The report could not be stored as an XCom")


def _listed(rows: Iterable[object], count: int) -> str:
    """Return the first rows, one per line, and how many of ``count`` are not listed."""
    lines = [f"\n  {row}" for row in itertools.islice(rows, MAX_LISTED)]
    if len(lines) < count:
        lines.append(f"\n  and {count - len(lines)} more; see the XCom report")
    return "".join(lines)


def _end(found: Ending, results: BatchResults, sender: Sender, outbox: Outbox) -> None:
    """Raise the exception that ends the task, or return if it succeeds."""
    failed = sum(results[outcome] for outcome in FAILED)
    text = found.text + (f":{_listed(results.failures(untried=False), failed)}" if failed else "")
    if found.end is End.SKIP:
        raise AirflowSkipException(f"Skipped: {text}")
    if found.end is End.HOLD and sender.held_until is not None and outbox.client.mode is not DeliveryMode.DRY_RUN:
        raise HeldError(sender.held_until, found.text)
    if found.end is End.RETRY:
        raise ApptotoNotSentError(text, reason=sender.stopped, retry_after=sender.retry_after)
    if found.end is End.RETRY_UNKNOWN:
        raise ApptotoUnknownOutcomeError(text)
    if found.end is End.FAIL:
        if results[Outcome.UNKNOWN] and outbox.store is not None:
            how = how_to_resolve(outbox.store.kind, outbox.conn_id, "KEY", outbox.origin or NO_ORIGIN)
            text += (
                "\nFor each message that may have been sent, check in Apptoto whether it was sent. Its KEY is in this "
                f"list and in the XCom report; {how}"
            )
        raise AirflowFailException(text)
    if text:
        log.warning("%s", text)
