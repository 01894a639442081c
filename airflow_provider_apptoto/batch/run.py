"""One try of a batch: plan, send, report, and the end that is right for what became of it."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import logging
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_apptoto.batch.plan import Plan, Planner, place
from airflow_provider_apptoto.batch.report import DONE, Tally
from airflow_provider_apptoto.batch.sending import Sender
from airflow_provider_apptoto.batch.suppression import Suppression
from airflow_provider_apptoto.client.errors import (
    ApptotoConfigurationError,
    ApptotoNotSentError,
    ApptotoUnknownOutcomeError,
)
from airflow_provider_apptoto.client.transport import MOST_CONNECTIONS
from airflow_provider_apptoto.delivery import ASSUMED_SENT, OnUnknown, Scope, key_of, patiently, show_unresolved
from airflow_provider_apptoto.privacy import remove_frames
from airflow_provider_apptoto.state.store import LedgerStoreError, State
from airflow_provider_apptoto.state.task_state import show

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airflow_provider_apptoto.batch.fields import RenderedBatch
    from airflow_provider_apptoto.hooks.apptoto import ApptotoHook

log = logging.getLogger(__name__)

MOST_LISTED = 50
"""Rows that an error or a log line lists."""
_PROGRESS = "apptoto-batch"
"""Name of the counts in the task's state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the user said of a batch; the operator's docstring has the meaning of each.

    :raises ApptotoConfigurationError: names what is allowed.
    """

    key_field: str | None
    reference_field: str | None
    on_invalid: str
    max_messages: int | None
    max_rejected: Any
    stop_after_unknown: int
    concurrency: int
    max_segments: int | None
    redact: bool

    def __post_init__(self) -> None:
        """Check it."""
        if self.on_invalid not in {"fail", "skip"}:
            raise ApptotoConfigurationError("on_invalid", f"{self.on_invalid!r} is not one of fail, skip")
        if self.max_messages is not None:
            _check_count("max_messages", self.max_messages, 1)
        _check_count("stop_after_unknown", self.stop_after_unknown, 1)
        _check_count("concurrency", self.concurrency, 1, MOST_CONNECTIONS)
        if not isinstance(self.max_rejected, float):
            _check_count("max_rejected", self.max_rejected, 0, hint=", or a fraction from 0.0 to 1.0")
        elif not 0 <= self.max_rejected <= 1:
            msg = f"{self.max_rejected!r} is no fraction from 0.0 to 1.0, nor a count, which is an integer"
            raise ApptotoConfigurationError("max_rejected", msg)

    def most_rejected(self, messages: int) -> float:
        """Return how many of these may be rejected."""
        return self.max_rejected * messages if isinstance(self.max_rejected, float) else self.max_rejected


def _check_count(name: str, value: Any, least: int, most: int | None = None, hint: str = "") -> None:
    if isinstance(value, int) and not isinstance(value, bool) and least <= value and (most is None or value <= most):
        return
    to = f"from {least} to {most}" if most is not None else f"of at least {least}"
    raise ApptotoConfigurationError(name, f"{value!r} is not an integer {to}{hint}")


def run(
    batch: RenderedBatch, settings: Settings, hook: ApptotoHook, scope: Scope, context: Mapping[str, Any]
) -> dict[str, Any]:
    """Send what is missing of a batch, and return the report.

    The report is there, as the XCom ``report``, before anything is raised that has to do with messages.

    :raises ApptotoNotSentError: something is left; another try goes on.
    :raises ApptotoUnknownOutcomeError: some may have been sent, and ``on_unknown`` is ``resend``.
    :raises AirflowFailException: rows are invalid, or too many were refused, or some may have been sent; or the run is
        too old for what an earlier try left.
    :raises AirflowSkipException: the run is too old for what is left.
    """
    try:
        plan = _plan(batch, settings, hook, scope)
    except LedgerStoreError as error:
        remove_frames(error)
        raise ApptotoNotSentError(f"Nothing was sent: {error}", reason=str(error)) from None
    except BaseException as error:
        # the frames below hold rows
        remove_frames(error)
        raise
    tally = Tally(plan, has_ledger=scope.store is not None)
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
    if plan.invalid:
        invalid = f"{plan.invalid} of {plan.rows} rows"
        listed = _listed(tally.invalid(), plan.invalid)
        if settings.on_invalid == "fail" or not (plan.messages or plan.suppressed):
            _push(context, tally)
            raise AirflowFailException(
                f"{invalid} can't be sent, so nothing was sent:{listed}\n"
                'Correct the rows and clear the task. To send the other rows all the same, set on_invalid="skip".'
            )
        log.warning("%s are invalid and were left out:%s", invalid, listed)
    sender = Sender(
        plan.messages,
        hook.get_conn(),
        # a batch that began in time is sent to its end
        dataclasses.replace(scope, why_too_old=functools.partial(str, scope.why_too_old())),
        tally,
        concurrency=settings.concurrency,
        stop_after_unknown=settings.stop_after_unknown,
    )

    def progress() -> None:
        log.info("%s", tally.progress())
        show(context, _PROGRESS, tally.counts())

    try:
        sender.send(progress)
    except BaseException as error:
        # the frames below hold requests
        remove_frames(error)
        raise
    finally:
        progress()
        log.info("Rows by outcome:\n%s", tally.table())
        if tally[State.UNKNOWN] or tally[ASSUMED_SENT]:
            show_unresolved(scope)
        _push(context, tally)
    _end(tally, sender, settings, scope)
    return tally.report()


def _plan(batch: RenderedBatch, settings: Settings, hook: ApptotoHook, scope: Scope) -> Plan:
    rows = batch.rows()
    client = hook.get_conn()
    hash_key = secrets.token_bytes(16) if scope.store is None else patiently(scope, scope.store.hash_keys)[0]
    planner = Planner(
        renderer=batch.row_renderer(),
        build=functools.partial(hook.build_message, max_segments=settings.max_segments, redact=settings.redact),
        key_of=lambda message, item: key_of(message, client, dataclasses.replace(scope, item=item), hash_key),
        suppression=Suppression(batch.suppressed(), hook.default_region),
        key_field=settings.key_field,
        reference_field=settings.reference_field,
        max_messages=settings.max_messages,
    )
    return planner.plan(rows)


def _push(context: Mapping[str, Any], tally: Tally) -> None:
    """Give the report to other tasks; that it can't be given is no reason to lose what became of the batch."""
    try:
        context["ti"].xcom_push(key="report", value=tally.report())
    except Exception:
        log.exception("The report could not be stored as an XCom")


def _listed(rows: Iterable[object], count: int) -> str:
    """Return the first rows, one a line, and how many of ``count`` are not listed."""
    lines = [f"\n  {row}" for row in itertools.islice(rows, MOST_LISTED)]
    if len(lines) < count:
        lines.append(f"\n  and {count - len(lines)} more, see the XCom report")
    return "".join(lines)


def _end(tally: Tally, sender: Sender, settings: Settings, scope: Scope) -> None:
    """Raise what the end of the batch asks for, if it does."""
    unsent, unknown, rejected = (tally[outcome] for outcome in (State.NOT_SENT, State.UNKNOWN, State.REJECTED))
    total = len(sender.messages)
    problems = f"Of {total} messages, {unsent} were not sent, {unknown} may have been sent, {rejected} were refused"
    failed = unsent + unknown + rejected
    listed = f":{_listed(tally.failures(untried=False), failed)}" if failed else ""
    final = rejected > settings.most_rejected(total) or (unknown and scope.on_unknown != OnUnknown.RESEND)
    if sender.too_old is not None and not final:
        raise sender.too_old.ending(f"{unsent} of {total} messages are", was_tried=sender.was_begun)
    if (unsent or (unknown and not final)) and sender.too_old is None:
        if scope.store is None and any(tally[outcome] for outcome in (*DONE, State.UNKNOWN)):
            raise AirflowFailException(
                f"{problems}. Without a ledger, a retry would send again what was delivered, so the task is not "
                f"retried. Set state_conn_id on the Apptoto connection to keep a ledger{listed}"
            )
        msg = f"{problems}: {sender.stopped or 'see the list'}. The next try sends the rest{listed}"
        if unsent:
            raise ApptotoNotSentError(msg, reason=sender.stopped, retry_after=sender.retry_after)
        raise ApptotoUnknownOutcomeError(msg)
    if final:
        if unknown and scope.store is not None:
            listed += (
                "\nCheck in Apptoto which of those that may have been sent it has. Each one's KEY is in this list and "
                f"in the XCom report; {scope.store.how_to_resolve('KEY')}"
            )
        raise AirflowFailException(f"{problems}{listed}")
    if listed:
        log.warning("%s%s", problems, listed)
