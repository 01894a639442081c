"""The operator that lists appointments."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_apptoto.client.appointments import read_id
from airflow_provider_apptoto.client.errors import (
    ApptotoConfigurationError,
    ApptotoRejectedError,
    ApptotoValidationError,
)
from airflow_provider_apptoto.operators._base import final_settings
from airflow_provider_apptoto.outbox.policy import check_states

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_apptoto.client import Event

log = logging.getLogger(__name__)


class ApptotoListEventsOperator(BaseOperator):
    """List the participants of events, as rows without name, number, address or text.

    The rows can be the ``messages`` of
    :class:`~airflow_provider_apptoto.operators.apptoto.ApptotoSendMessageBatchOperator` (each message goes to a
    ``participant_id``, and Apptoto fills in name and time), and the ``appointments`` of
    :class:`~airflow_provider_apptoto.sensors.apptoto.ApptotoAnswerSensor`.

    .. seealso:: :ref:`howto/operator:ApptotoListEventsOperator`

    Returns (XCom) a list of rows, one per participant, by start time: ``event_id``, ``participant_id``, ``start_time``
    (ISO 8601 with the event's own offset), ``state``, ``calendar_id``, ``external_id``, and ``channels``: those of
    ``sms``, ``call`` and ``email`` for which the event has a number or an address. Deleted events are left out.

    :param begin: earliest start of an event: ISO 8601 with a zone, or an aware ``datetime``. (templated)
    :param end: latest start of an event, included. (templated)
    :param calendar: name or id of the only calendar to list; ``None``: all. (templated)
    :param states: list only participants in these states, such as ``("initial", "accepted", "reminded")``; ``None``:
        all.
    :param apptoto_conn_id: id of the connection. (templated)
    :raises ApptotoNotSentError: Apptoto could not be read; the next try may succeed.
    """

    template_fields: Sequence[str] = ("begin", "end", "calendar", "apptoto_conn_id")

    def __init__(
        self,
        *,
        begin: datetime | str,
        end: datetime | str,
        calendar: int | str | None = None,
        states: Collection[str] | None = None,
        apptoto_conn_id: str = "apptoto_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.begin = begin
        self.end = end
        self.calendar = calendar
        self.states = states
        self.apptoto_conn_id = apptoto_conn_id
        with final_settings():
            check_states("states", states)

    def execute(self, context: Context) -> list[dict[str, Any]]:  # noqa: ARG002  Airflow's
        """Read the events and return the rows."""
        from airflow_provider_apptoto.hooks.apptoto import ApptotoHook
        from airflow_provider_apptoto.outbox.errors import final

        try:
            for name in ("begin", "end", "calendar"):
                # a template or a skipped task can leave nothing, and then all appointments would be listed
                is_optional = name == "calendar" and self.calendar is None
                if not is_optional and not str(getattr(self, name) or "").strip():
                    raise ApptotoValidationError(name, "is blank", code="field_empty")
            client = ApptotoHook(self.apptoto_conn_id).get_conn()
            rows = self._rows(client.iter_events(self.begin, self.end))
        except (ApptotoConfigurationError, ApptotoRejectedError) as error:
            raise final(error) from None
        return sorted(rows, key=_by_start)

    def _rows(self, events: Iterable[Event]) -> list[dict[str, Any]]:
        rows: dict[tuple[Any, Any], dict[str, Any]] = {}
        read = others = named = incomplete = 0
        for event in events:
            if event.is_deleted:
                continue
            read += 1
            named += bool(event.calendar_name)
            if not self._is_wanted(event):
                others += 1
                continue
            incomplete += not event.is_complete
            for person in event.participants:
                if self.states is None or person.state in self.states:
                    rows[event.id, person.id] = {
                        "event_id": event.id,
                        "participant_id": person.id,
                        "start_time": None if event.start_time is None else event.start_time.isoformat(),
                        "state": person.state or None,
                        "calendar_id": event.calendar_id,
                        "external_id": event.external_id,
                        "channels": list(person.channels),
                    }
        if others and not named and not isinstance(read_id(str(self.calendar)), int):
            problem = "is a name, but Apptoto returned no names of calendars, which it does not document; use the id"
            raise ApptotoConfigurationError("calendar", problem)
        log.info("%d events, %d of them in other calendars; %d rows", read, others, len(rows))
        if read and others == read:
            log.warning("No event is in the calendar that was asked for. Check the parameter calendar")
        if incomplete:
            log.warning("Left out participants without an id. Events with such participants: %d", incomplete)
        return list(rows.values())

    def _is_wanted(self, event: Event) -> bool:
        if self.calendar is None:
            return True
        asked = str(self.calendar).strip()
        return event.calendar_name.strip() == asked or (
            event.calendar_id is not None and event.calendar_id == read_id(asked)
        )


_LAST = datetime.max.replace(tzinfo=UTC)


def _by_start(row: dict[str, Any]) -> tuple[datetime, str, str]:
    """Return the sort key of a row; without a start time, it comes last."""
    start = _LAST if row["start_time"] is None else datetime.fromisoformat(row["start_time"])
    return start, str(row["event_id"]), str(row["participant_id"])
