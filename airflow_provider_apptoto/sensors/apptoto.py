"""The sensor that waits for answers."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    BaseSensorOperator,
    TaskDeferred,
    conf,
)

from airflow_provider_apptoto.answers.predicate import ANSWERED, NOT_FOUND, Rules
from airflow_provider_apptoto.client.errors import ApptotoConfigurationError, ApptotoError, ApptotoRejectedError
from airflow_provider_apptoto.operators._base import final_settings
from airflow_provider_apptoto.outbox.policy import check_choice, check_count

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_apptoto.answers.reading import ReadFailure, Snapshot
    from airflow_provider_apptoto.answers.wait import Progress, Wait

log = logging.getLogger(__name__)

_MAX_PAUSE_IN_POKE = 60.0
"""Seconds between reads of one poke; the task keeps its worker slot meanwhile."""
_MAX_LOOK_UPS = 100
"""Appointments that are looked up one by one at the end of a wait, because the window lacks them."""


class ApptotoAnswerSensor(BaseSensorOperator):
    r"""Wait until the participants of appointments have answered: one or thousands in one task.

    A participant has answered with a state (by link, call, reply or the front desk) or with a reply that matches a
    pattern. The wait ends when everybody has answered, or the message to them was not delivered, and at the latest
    after ``timeout`` or at ``deadline``. Every cycle reads the events between the first and the last start time, page
    by page, whatever the number of appointments.

    .. seealso:: :ref:`howto/sensor:ApptotoAnswerSensor`

    Returns (XCom) a dictionary: ``counts`` (``total``, each answer, ``undelivered``, ``no_answer``, ``not_found``),
    ``appointments`` (``event_id``, ``participant_id``, ``reference``, ``answer``, ``at`` each), and ``unanswered``: the
    rows of those with ``no_answer`` or ``undelivered``. The XCom ``unanswered`` has these too, for the ``messages`` of
    the next batch: ``answers.output["unanswered"]``. Texts of replies are never stored.

    :param appointments: rows with ``event_id``, and perhaps ``participant_id``, ``start_time``, ``reference`` and
        ``sent_at``: the output of :class:`~airflow_provider_apptoto.operators.apptoto.ApptotoListEventsOperator`, or a
        list. Without ``participant_id``, the first participant who answers counts. At most 20 events may lack
        ``start_time``. (templated)
    :param answered: states that count as answers. A state has no time: one that was reached before the message counts.
    :param replies: regular expressions by the name of the answer; case does not matter: ``{"yes": r"^\s*(y|yes)\b"}``.
        The latest matching reply counts more than the state.
    :param on_timeout: if some have not answered in time, ``return`` the result, or ``fail`` or ``skip`` the task, which
        then has the result as its XCom too. ``soft_fail`` and ``never_fail`` turn ``fail`` into ``skip``.
    :param since: replies before this do not count: ISO 8601 with a zone, or an aware ``datetime``. ``None``: the time
        of the run, which is wrong if another run sent the messages. A row's ``sent_at`` replaces it. (templated)
    :param deadline: end of the wait, as ``since``; ``timeout`` (seconds from the start of this task) applies too.
        (templated)
    :param max_errors: errors in a row that fail the task, at least 1. In ``reschedule`` mode, the task keeps its worker
        slot while reads fail, and reads at least once a minute.
    :param deferrable: wait in the triggerer. Default: ``[operators] default_deferrable``.
    :param apptoto_conn_id: id of the connection. (templated)
    """

    template_fields: Sequence[str] = ("appointments", "since", "deadline", "apptoto_conn_id")

    def __init__(
        self,
        *,
        appointments: Iterable[Mapping[str, Any]] | XComArg,
        answered: Collection[str] = ANSWERED,
        replies: Mapping[str, str] | None = None,
        on_timeout: str = "return",
        since: datetime | str | None = None,
        deadline: datetime | str | None = None,
        max_errors: int = 10,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        apptoto_conn_id: str = "apptoto_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.appointments = appointments
        self.answered = answered
        self.replies = replies
        self.on_timeout = on_timeout
        self.since = since
        self.deadline = deadline
        self.max_errors = max_errors
        self.deferrable = deferrable
        self.apptoto_conn_id = apptoto_conn_id
        with final_settings():
            Rules(answered, replies)
            check_choice("on_timeout", on_timeout, ("return", "fail", "skip"))
            check_count("max_errors", max_errors, 1)

    def _do_render_template_fields(self, parent: Any, *args: Any, **kwargs: Any) -> None:
        """Render the fields, and keep no column that could be personal: Airflow stores and shows them."""
        from airflow_provider_apptoto.answers.appointment import without_personal

        # Checked on 2.11.2, 3.0.6, 3.1.8, 3.2.2, 3.3.2: see OwnRendering.
        super()._do_render_template_fields(parent, *args, **kwargs)
        if parent is self:
            self.appointments = without_personal(self.appointments)

    _wait: Wait
    _deadline: float | None
    _last: Progress | ReadFailure | None = None
    """What the last cycle showed."""
    _errors = 0

    def execute(self, context: Context) -> Any:
        """Wait, and return the result."""
        self._prepare(context)
        if not self._wait.appointments:
            log.info("There are no appointments to wait for")
            return self._stored(self._wait.progress({}), context)
        with self._soft():
            if self.deferrable:
                return self._defer(context)
            with contextlib.suppress(AirflowSensorTimeout):
                super().execute(context)
            return self._end(context)

    def poke(self, context: Context) -> bool:  # noqa: ARG002  Airflow's
        """Read once; return whether the wait is over."""
        from airflow_provider_apptoto.answers.reading import ReadFailure

        while True:
            # of two reads, only one that begins after the deadline shows all answers that came before it
            is_over = self._deadline is not None and time.time() >= self._deadline
            progress = self._look()
            if progress is not None and progress.is_complete:
                return True
            if is_over or not (self.reschedule and isinstance(self._last, ReadFailure) and self._last.counts):
                break
            # each poke is a new process, which would count from 0
            time.sleep(min(self.poke_interval, _MAX_PAUSE_IN_POKE))
        return is_over

    def execute_complete(self, context: Context, event: Mapping[str, Any] | None = None) -> Any:
        """Return the result of the wait in the triggerer."""
        self._prepare(context)
        with self._soft():
            if event is None or event.get("status") != "done":
                told = event or {"error": "the triggerer returned no event"}
                self._fail(told["error"], is_final=bool(told.get("is_final")))
            self._last = self._wait.unpack(event["answers"])
            return self._end(context)

    @contextlib.contextmanager
    def _soft(self) -> Iterator[None]:
        """Skip the task instead of failing it, in every mode, if ``soft_fail`` or ``never_fail`` says so."""
        soft_fail = self.soft_fail
        self.soft_fail = False  # Airflow would skip at the timeout, before on_timeout decides
        try:
            yield
        except (ApptotoError, AirflowFailException, AirflowSensorTimeout, AirflowTaskTimeout) as error:
            is_final = isinstance(error, AirflowFailException | AirflowSensorTimeout | AirflowTaskTimeout)
            if not (self.never_fail or (soft_fail and is_final)):
                raise
            flag = "soft_fail" if soft_fail else "never_fail"
            raise AirflowSkipException(f"Skipped ({flag}=True): {error}") from None
        finally:
            self.soft_fail = soft_fail

    def _prepare(self, context: Context) -> None:
        """Read the parameters, which may be rendered.

        :raises ApptotoError: one is invalid; Airflow does not retry.
        """
        from airflow_provider_apptoto.answers.appointment import appointments_of
        from airflow_provider_apptoto.answers.wait import Wait
        from airflow_provider_apptoto.outbox.errors import final
        from airflow_provider_apptoto.outbox.guards import moment_of
        from airflow_provider_apptoto.outbox.policy import time_of

        try:
            # a run may be for a time in the future; then its messages are sent before that time
            times = (time_of(context), getattr(context.get("dag_run"), "run_after", None))
            run_time = min((each for each in times if each is not None), default=datetime.now(UTC))
            since = moment_of(self.since, "since") or run_time
            self._wait = Wait(appointments_of(self.appointments, since), Rules(self.answered, self.replies))
            deadline = moment_of(self.deadline, "deadline")
        except (ApptotoConfigurationError, ApptotoRejectedError) as error:
            raise final(error) from None
        self._deadline = None if deadline is None else deadline.timestamp()

    def _look(self) -> Progress | None:
        """Read once; return ``None`` if that failed and may be repeated."""
        from airflow_provider_apptoto.answers.appointment import events_without_start, window_of
        from airflow_provider_apptoto.answers.reading import AnswerReader, ReadFailure

        appointments = self._wait.appointments
        window = window_of(appointments, whole_days=False)
        reader = AnswerReader(self.apptoto_conn_id, window, events_without_start(appointments))
        try:
            found = reader.read()
        finally:
            reader.close()
        if isinstance(found, ReadFailure):
            self._last = found
            self._errors += found.counts
            if found.is_final or self._errors >= self.max_errors:
                self._fail(found.text, is_final=found.is_final)
            log.warning("%s (%d errors in a row, at most %d)", found.text, self._errors, self.max_errors)
            return None
        self._errors = 0
        self._last = self._wait.progress(found)
        log.info("%s", self._last)
        return self._last

    def _defer(self, context: Context) -> dict[str, Any]:
        """Read once, and let the triggerer go on."""
        from airflow_provider_apptoto._airflow_triggers import has_shared_streams
        from airflow_provider_apptoto.answers.appointment import events_without_start, window_of
        from airflow_provider_apptoto.triggers.apptoto import ApptotoAnswerTrigger

        now = time.time()
        progress = self._look()
        if progress is not None and progress.is_complete:
            return self._stored(progress, context)
        deadline = min(now + self.timeout, self._deadline or float("inf"))
        if deadline <= now:
            return self._end(context)
        appointments = self._wait.appointments
        alone = events_without_start(appointments)
        window = window_of(appointments, whole_days=has_shared_streams() and not alone)
        raise TaskDeferred(
            trigger=ApptotoAnswerTrigger(
                apptoto_conn_id=self.apptoto_conn_id,
                appointments=[[each.event_id, each.participant_id, each.since] for each in appointments],
                answered=list(self.answered),
                replies=None if self.replies is None else dict(self.replies),
                deadline=deadline,
                poke_interval=self.poke_interval,
                window=None if window is None else [window.begin, window.end],
                event_ids=alone,
                max_errors=self.max_errors,
            ),
            method_name="execute_complete",
        )

    def _end(self, context: Context) -> dict[str, Any]:
        """End a wait; if some did not answer, as ``on_timeout`` says.

        :raises AirflowSensorTimeout: ``on_timeout`` is ``fail``.
        :raises AirflowSkipException: ``on_timeout`` is ``skip``.
        """
        progress = self._known()
        if progress.is_complete:
            return self._stored(progress, context)
        progress = self._found_elsewhere(progress)
        result = self._stored(progress, context)
        log.info("The wait ended: %s", progress)
        if progress.is_complete or self.on_timeout == "return":
            return result
        context["ti"].xcom_push(key="return_value", value=result)
        text = f"{progress.missing} of {len(self._wait.appointments)} appointments were not answered in time"
        if self.on_timeout == "skip":
            raise AirflowSkipException(f"Skipped: {text}")
        raise AirflowSensorTimeout(f"{text}. The XCom has the result")

    def _known(self) -> Progress:
        """Return what the last read showed.

        :raises ApptotoError: it failed.
        """
        from airflow_provider_apptoto.answers.reading import ReadFailure

        if self._last is None or isinstance(self._last, ReadFailure):
            text = "Apptoto was not read" if self._last is None else self._last.text
            self._fail(f"the last read failed: {text}")
        return self._last

    def _stored(self, progress: Progress, context: Context) -> dict[str, Any]:
        """Return the result, and store the rows for the next batch as an XCom of their own."""
        result = progress.result()
        context["ti"].xcom_push(key="unanswered", value=result["unanswered"])
        return result

    def _found_elsewhere(self, progress: Progress) -> Progress:
        """Look up the events that the window lacks, because they may have been moved; at most ``_MAX_LOOK_UPS``."""
        from airflow_provider_apptoto.answers.reading import AnswerReader, ReadFailure
        from airflow_provider_apptoto.answers.wait import Progress, Wait

        lost = [
            each
            for each in self._wait.appointments
            if (found := progress.found.get((each.event_id, each.participant_id))) and found.name == NOT_FOUND
        ]
        if not lost:
            return progress
        event_ids = list(dict.fromkeys(each.event_id for each in lost))
        if len(event_ids) > _MAX_LOOK_UPS:
            text = "%d events are not in the window. Only %d of them are looked up, to see whether they were moved"
            log.warning(text, len(event_ids), _MAX_LOOK_UPS)
        snapshot: Snapshot = {}
        reader = AnswerReader(self.apptoto_conn_id, None)
        try:
            for reader.event_ids in ([each] for each in event_ids[:_MAX_LOOK_UPS]):
                one = reader.read()
                if not isinstance(one, ReadFailure):
                    snapshot |= one
                    continue
                # how Apptoto answers for a deleted event is not documented
                log.warning(
                    "Event %s is not in the window, and could not be looked up: %s", *reader.event_ids, one.text
                )
                if not one.counts:
                    break
        finally:
            reader.close()
        again = Wait([each for each in lost if each.event_id in snapshot], self._wait.rules).progress(snapshot)
        looked_up = {(each.event_id, each.participant_id) for each in again.wait.appointments}
        others = {key: answer for key, answer in progress.found.items() if key not in looked_up}
        return Progress(self._wait, others | dict(again.found))

    def _fail(self, text: str, *, is_final: bool = False) -> NoReturn:
        """Fail the task; Airflow retries it, unless another read would fail too."""
        from airflow_provider_apptoto.outbox.errors import FinalRejectedError

        message = f"The answers could not be read: {text}"
        if is_final:
            raise FinalRejectedError(message, code="answers_unread")
        raise ApptotoError(message, code="answers_unread")


__all__ = ["ApptotoAnswerSensor"]
