"""Decide who may be messaged, and when: opt-outs, age, sending window, state of the appointment.

The guards run twice: on the plan, before a slot is taken, and at the departure, right before the first byte. The cap
(``at_most``) is checked by the ledger store, in the transaction that writes ``sending``.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_provider_apptoto._defaults import DEFAULT_CONN_ID
from airflow_provider_apptoto.client.errors import ApptotoConfigurationError, ApptotoValidationError
from airflow_provider_apptoto.client.outcomes import Outcome
from airflow_provider_apptoto.client.reads import moment
from airflow_provider_apptoto.outbox.instructions import optout_command
from airflow_provider_apptoto.outbox.window import zone_named, zone_of_number

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import timedelta
    from zoneinfo import ZoneInfo

    from airflow_provider_apptoto.client import Message
    from airflow_provider_apptoto.outbox.caps import Caps
    from airflow_provider_apptoto.outbox.draft import Draft
    from airflow_provider_apptoto.outbox.optouts import OptOuts
    from airflow_provider_apptoto.outbox.states import EventStates
    from airflow_provider_apptoto.outbox.stores.base import CapReachedError
    from airflow_provider_apptoto.outbox.suppression import Suppression
    from airflow_provider_apptoto.outbox.window import SendWindow

_FRESH = 1.0
"""Seconds after which the lists of people who opted out are read again at the departure."""
_NOT_AFTER_ADVICE = "To send it anyway, set a later not_after or None, and clear the task"
_AGE_ADVICE = "To send it anyway, raise max_age or set it to None, and clear the task"

SUPPRESSED = (
    "the recipient is in suppression. To send the message anyway, remove them from the list, and clear the task"
)
"""Why a recipient of the suppression list gets nothing."""


class WithheldError(Exception):
    """A message must not be sent, or not now. It is caught by the outbox, which returns a delivery.

    :param outcome: a withheld outcome, or ``held``.
    :param reason: why, and how to send the message anyway.
    :param until: when a held message may be sent.
    :param is_aged: whether the run, rather than the message, is too old.
    """

    def __init__(self, outcome: Outcome, reason: str, *, until: datetime | None = None, is_aged: bool = False) -> None:
        super().__init__(reason)
        self.outcome = outcome
        self.reason = reason
        self.until = until
        self.is_aged = is_aged


@dataclass(frozen=True, slots=True, kw_only=True)
class Guards:
    """The guards of an outbox.

    :param why_too_old: why the run is too old to send; empty if it is not, or if there is a sending window.
    :param run_time: the time from which the age of the run counts.
    :param max_age: maximum age at the first opening of the window.
    :param window: when messages may be sent; ``None``: at any time.
    :param may_hold: whether the sender can wait for the window; else a message outside it is withheld.
    :param ends_holds: whether a message that would be held is sent now, as if the window had opened.
    :param timezone: zone of recipients without a zone of their own.
    :param optouts: the lists of people who opted out; ``None`` without a state database.
    :param optout_lists: the named lists to obey, besides ``all``.
    :param suppression: recipients who must not get a message of this task.
    :param states: reads the states of appointments (``only_if_state``).
    :param caps: limits on the messages to one recipient.
    :param conn_id: the Apptoto connection, for commands in reasons.
    """

    why_too_old: str = ""
    run_time: datetime | None = None
    max_age: timedelta | None = None
    window: SendWindow | None = None
    may_hold: bool = False
    ends_holds: bool = False
    timezone: ZoneInfo | None = None
    optouts: OptOuts | None = None
    optout_lists: tuple[str, ...] = ()
    suppression: Suppression | None = None
    states: EventStates | None = None
    caps: Caps | None = None
    conn_id: str = DEFAULT_CONN_ID
    _looked_up: dict[str, float] = field(init=False, repr=False, default_factory=dict)
    """By recipient that is on no list: when the lists were last read (``time.monotonic``)."""

    def plan(self, draft: Draft) -> None:
        """Check a message before it waits for a slot.

        :raises WithheldError: it must not be sent, or not now.
        :raises ApptotoValidationError: the zone of the recipient is unknown, or only Apptoto knows the recipient, and
            there is a suppression list; or the state of the appointment is needed, and the event is not given.
        :raises ApptotoNotSentError: the state of the appointment could not be read.
        """
        if self.suppression is not None and self.suppression.holds(draft.message):
            raise WithheldError(Outcome.SUPPRESSED, SUPPRESSED)
        self._check_optouts(draft.message, max_age=math.inf)
        self._check_age()
        self._check_draft_time(draft)
        self.check_state(draft, is_departure=False)

    def depart(self, draft: Draft) -> None:
        """Check a message right before its first byte, because it may have waited. :meth:`check_state` comes before.

        :raises WithheldError: it must not be sent, or not now.
        """
        self._check_optouts(draft.message, max_age=_FRESH)
        self._check_draft_time(draft)

    def plan_early(self, timezone: ZoneInfo | None, not_after: datetime | None) -> None:
        """Check what is known before the message is: the age, and the window if the time zone is given.

        :param timezone: time zone of the recipient.
        :param not_after: latest time to send the message.
        :raises WithheldError: no message must be sent, or not now.
        """
        self._check_age()
        self._check_time(timezone, not_after)

    def opted_out(self, recipients: Collection[str]) -> Mapping[str, str]:
        """Return the recipients who opted out, each with a list that holds it. :meth:`plan` does not ask again."""
        if self.optouts is None or not recipients:
            return {}
        now = time.monotonic()
        found = self.optouts.lists_holding(recipients, self.optout_lists)
        self._looked_up.update(dict.fromkeys(set(recipients) - set(found), now))
        return found

    def zone(self, message: Message, own: ZoneInfo | None) -> ZoneInfo:
        """Return the zone of a recipient: its own, the connection's, or that of its number.

        :raises ApptotoValidationError: none of them is known.
        """
        if known := own or self.timezone:
            return known
        if message.to is not None and "@" not in message.to and (found := zone_of_number(message.to)):
            return found
        msg = (
            f"the time zone of {message.target} is unknown, and send_window needs it. Set recipient_timezone "
            "(in a batch, timezone_column), or timezone on the Apptoto connection"
        )
        raise ApptotoValidationError("send_window", msg, code="timezone_unknown")

    def _check_age(self) -> None:
        if self.why_too_old:
            raise WithheldError(Outcome.TOO_OLD, f"{self.why_too_old}. {_AGE_ADVICE}", is_aged=True)

    def _check_optouts(self, message: Message, *, max_age: float) -> None:
        """Check that the recipient did not opt out.

        :param max_age: seconds for which an earlier lookup counts.
        :raises WithheldError: the recipient did.
        """
        if message.to is None or time.monotonic() - self._looked_up.get(message.to, -math.inf) < max_age:
            return
        if listed := self.opted_out([message.to]).get(message.to):
            command = optout_command("remove", self.conn_id)
            reason = (
                f"the recipient opted out (list {listed}). If they agreed to be messaged again, run: {command} "
                f"--list {listed} RECIPIENT"
            )
            raise WithheldError(Outcome.SUPPRESSED, reason)

    def check_state(self, draft: Draft, *, is_departure: bool, may_read: bool = True) -> None:
        """Check that the appointment is still in one of the allowed states.

        :param is_departure: whether the message has waited for its slot.
        :param may_read: whether there is time to read the state, and to wait for the slots of the reads.
        :raises WithheldError: it is not.
        :raises StateOutdatedError: its state must be read again, and there is no time.
        """
        if self.states is None:
            return
        if why := self.states.why_not(draft, is_departure=is_departure, may_read=may_read):
            allowed = ", ".join(self.states.allowed)
            advice = "To send it anyway, set only_if_state to None, and clear the task"
            raise WithheldError(Outcome.WRONG_STATE, f"{why}, and only_if_state allows {allowed}. {advice}")

    def _check_draft_time(self, draft: Draft) -> None:
        self._check_time(self.zone(draft.message, draft.timezone) if self.window else None, draft.not_after)

    def _check_time(self, zone: ZoneInfo | None, not_after: datetime | None) -> None:
        """Check that it is not too late, and that the window is open, if the zone is known."""
        now = datetime.now(UTC)
        if not_after is not None and now > not_after:
            raise WithheldError(Outcome.TOO_OLD, f"not_after was {_shown(not_after)}. {_NOT_AFTER_ADVICE}")
        if self.window is None or zone is None:
            return
        opening = self.window.next_opening(now, zone)
        is_open = opening <= now
        start = now if is_open or not self.may_hold else opening
        self._check_age_at(start, zone)
        if is_open:
            return
        where = f"it is outside send_window={str(self.window)!r} in {zone.key}"
        if not self.may_hold:
            advice = 'To send it later, use an operator with when_closed="hold"; to send it now, set send_window="off"'
            raise WithheldError(Outcome.OUTSIDE_WINDOW, f"{where}, which opens at {_shown(opening)}. {advice}")
        if not_after is not None and opening > not_after:
            reason = f"{where}, which opens at {_shown(opening)}, after not_after={_shown(not_after)}"
            raise WithheldError(Outcome.TOO_OLD, f"{reason}. {_NOT_AFTER_ADVICE}")
        if self.ends_holds:
            return
        raise WithheldError(Outcome.HELD, f"{where}; held until {_shown(opening)}", until=opening)

    def _check_age_at(self, start: datetime, zone: ZoneInfo) -> None:
        """Check the age that a message has when it starts, counted from the first opening at or after the run's time.

        :raises WithheldError: it is too old.
        """
        if self.run_time is None or self.max_age is None or self.window is None:
            return
        due = self.window.next_opening(self.run_time, zone)
        if start - due > self.max_age:
            reason = (
                f"it was due at {_shown(due)} (the first opening of send_window after the run's time), and "
                f"{_shown(start)} is more than max_age={self.max_age.total_seconds() / 3600:g} h later"
            )
            raise WithheldError(Outcome.TOO_OLD, f"{reason}. {_AGE_ADVICE}", is_aged=True)


def capped(reached: CapReachedError) -> WithheldError:
    """Return the error for a recipient who got as many messages as a limit allows."""
    reason = (
        f"at_most={str(reached.limit)!r} is reached (messages to this recipient in that time: {reached.sent}). To send "
        "it anyway, raise at_most where it is set (task, connection, [apptoto]), and clear the task"
    )
    return WithheldError(Outcome.CAPPED, reason)


def zone_or_none(name: object, field_name: str = "recipient_timezone") -> ZoneInfo | None:
    """Return the time zone of a recipient.

    :param field_name: name of the setting or the column in the error.
    :raises ApptotoValidationError: there is no such zone.
    """
    if name is None:
        return None
    try:
        return zone_named(name, field_name)
    except ApptotoConfigurationError as error:
        raise ApptotoValidationError(error.field, error.problem, code="timezone_unknown") from None


def moment_of(value: object, field_name: str) -> datetime | None:
    """Return a point in time, in UTC, from a ``datetime`` or ISO 8601 text with a zone.

    :raises ApptotoValidationError: it is neither, or has no zone.
    """
    found = moment(field_name, value)
    return None if found is None else found.astimezone(UTC)


def _shown(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%MZ")
