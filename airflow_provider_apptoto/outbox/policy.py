"""The sending policy of a task, validated when the DAG is parsed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_apptoto.client.errors import ApptotoConfigurationError
from airflow_provider_apptoto.privacy import MAX_LINE, is_one_line

if TYPE_CHECKING:
    from airflow_provider_apptoto.outbox.limit import Limit
    from airflow_provider_apptoto.outbox.window import SendWindow

OnUnknownName = Literal["fail", "resend", "assume_sent"]
WhenClosedName = Literal["hold", "skip"]
OFF = "off"
"""Turns a setting of the connection off."""
MAX_AGE = timedelta(hours=24)
"""Default of ``max_age``."""
MAX_LABELS = 4
OPEN_STATES = ("initial", "accepted", "reminded")
"""States of participants who neither confirmed nor cancelled an appointment."""
_MAX_LABEL_NAME = 64


class OnUnknown(StrEnum):
    """What to do if a message may have been sent."""

    FAIL = "fail"
    RESEND = "resend"
    ASSUME_SENT = "assume_sent"


@dataclass(frozen=True, slots=True, kw_only=True)
class SendPolicy:
    """How messages of one task are sent.

    :param on_unknown: what to do if a message may have been sent: ``fail``, ``resend`` or ``assume_sent``.
    :param max_age: withhold messages of runs older than this, more than 0; ``None``: no limit.
    :param idempotency_key: the user's name for the occasion; one line.
    :param send_window: when messages may be sent; ``None``: the connection's; ``off``: at any time.
    :param when_closed: what to do outside the window: ``hold`` or ``skip``.
    :param at_most: limit on the messages to one recipient, in addition to the connection's.
    :param optout_lists: lists of people who opted out, in addition to ``all``.
    :param only_if_state: states of the participant in which the message is sent; ``True``: the open ones.
    :raises ApptotoConfigurationError: a parameter is invalid.
    """

    on_unknown: OnUnknownName | OnUnknown = OnUnknown.FAIL
    max_age: timedelta | None = MAX_AGE
    idempotency_key: str | None = None
    send_window: str | None = None
    when_closed: WhenClosedName = "skip"
    at_most: str | None = None
    optout_lists: Collection[str] = ()
    only_if_state: Collection[str] | bool | None = None

    def __post_init__(self) -> None:
        """Check every value."""
        check_choice("on_unknown", self.on_unknown, OnUnknown)
        _check_max_age(self.max_age)
        if self.idempotency_key is not None and not str(self.idempotency_key).strip():
            raise ApptotoConfigurationError("idempotency_key", "must not be blank; name the occasion, or omit it")
        check_choice("when_closed", self.when_closed, ("hold", "skip"))
        window_of(self.send_window)
        limits_of(self.at_most)
        if self.optout_lists:
            from airflow_provider_apptoto.outbox.optout_lists import check_lists

            check_lists(self.optout_lists)
        allowed_states(self.only_if_state)

    def why_too_old(self, context: Mapping[str, Any]) -> str:
        """Return a text if the run is older than ``max_age``, else an empty string."""
        if self.max_age is None or (time := time_of(context)) is None:
            return ""
        import pendulum

        moment = pendulum.instance(time)
        age = pendulum.now("UTC") - moment
        if age <= self.max_age:
            return ""
        shown = moment.in_timezone("UTC").format("YYYY-MM-DD[T]HH:mm[Z]")
        hours, limit = (each.total_seconds() / 3600 for each in (age, self.max_age))
        return f"the run is {hours:.0f} h old ({shown}), more than max_age={limit:g} h"


def window_of(text: object) -> SendWindow | None:
    """Return the sending window that a setting describes; ``None`` if it is not set, or ``off``.

    :raises ApptotoConfigurationError: it describes no window.
    """
    if text is None or text == OFF:
        return None
    from airflow_provider_apptoto.outbox.window import SendWindow

    if not isinstance(text, str):
        raise ApptotoConfigurationError("send_window", f"must be a string, not {type(text).__name__}")
    return SendWindow.parse(text)


def limits_of(text: object) -> tuple[Limit, ...]:
    """Return the limits that ``at_most`` describes, separated by commas; none if it is not set, or ``off``.

    :raises ApptotoConfigurationError: it describes no limits.
    """
    if text is None or text == OFF:
        return ()
    from airflow_provider_apptoto.outbox.limit import Limit

    return tuple(Limit.parse(each, "at_most") for each in (text.split(",") if isinstance(text, str) else [text]))


def _check_max_age(value: object) -> None:
    if value is not None and not (isinstance(value, timedelta) and value > timedelta(0)):
        raise ApptotoConfigurationError("max_age", f"{value!r} is not a positive timedelta; None means no limit")


def time_of(context: Mapping[str, Any]) -> datetime | None:
    """Return the time from which the age of a run counts; ``None`` if the context has no run.

    For a run triggered between two scheduled intervals, that is the time it was triggered for, not the end of the last
    interval, which may be a week ago.
    """
    known: list[datetime] = [
        time for time in (context.get("data_interval_end"), context.get("logical_date")) if time is not None
    ]
    if known:
        return max(known)
    return getattr(context.get("dag_run"), "run_after", None)


def check_choice(name: str, value: object, choices: type[StrEnum] | tuple[str, ...]) -> None:
    """Check that a setting is one of several choices.

    :raises ApptotoConfigurationError: it is not.
    """
    allowed = [str(choice) for choice in choices]
    if not isinstance(value, str) or value not in allowed:
        raise ApptotoConfigurationError(name, f"{value!r} is not one of {', '.join(allowed)}")


def allowed_states(value: object) -> tuple[str, ...]:
    """Return the states that ``only_if_state`` allows; none if it is not set.

    :raises ApptotoConfigurationError: it is neither ``None``, ``True`` nor a list of states.
    """
    if value is None or value is True:
        return () if value is None else OPEN_STATES
    check_states("only_if_state", value)
    if not isinstance(value, Collection) or not value:
        raise ApptotoConfigurationError("only_if_state", "must not be empty; None means any state")
    return tuple(value)


def check_states(name: str, value: object) -> None:
    """Check that a setting is ``None`` or a list of states of participants.

    :raises ApptotoConfigurationError: it is not.
    """
    if value is None:
        return
    from airflow_provider_apptoto.client.appointments import STATES

    if isinstance(value, str) or not isinstance(value, Collection):
        raise ApptotoConfigurationError(name, f'must be a list of states, such as ("initial",), not {value!r}')
    for state in value:
        check_choice(name, state, STATES)


def check_count(name: str, value: object, least: int, most: int | None = None, hint: str = "") -> None:
    """Check that a setting is an integer within bounds.

    :param hint: appended to the error.
    :raises ApptotoConfigurationError: it is not.
    """
    if isinstance(value, int) and not isinstance(value, bool) and least <= value and (most is None or value <= most):
        return
    bounds = f"from {least} to {most}" if most is not None else f"of at least {least}"
    raise ApptotoConfigurationError(name, f"{value!r} is not an integer {bounds}{hint}")


def checked_reference(reference: object) -> str | None:
    """Return a reference as a string.

    :raises ApptotoConfigurationError: it is not one printable line.
    """
    if reference is None:
        return None
    if not is_one_line(text := str(reference)):
        msg = f"must be one line of 1 to {MAX_LINE} characters"
        raise ApptotoConfigurationError("reference", msg)
    return text


def checked_labels(labels: object) -> dict[str, str] | None:
    """Return labels with their values as strings.

    :raises ApptotoConfigurationError: it is not a mapping of at most four names to printable lines.
    """
    if not labels:
        return None
    if not isinstance(labels, Mapping) or len(labels) > MAX_LABELS:
        raise ApptotoConfigurationError("labels", f"must be a mapping with at most {MAX_LABELS} entries")
    checked = {}
    for name, value in labels.items():
        if value is None:
            continue
        if not isinstance(name, str) or not name.isidentifier() or len(name) > _MAX_LABEL_NAME:
            msg = f"a name must be up to {_MAX_LABEL_NAME} letters, digits and _, such as clinic"
            raise ApptotoConfigurationError("labels", msg)
        if not is_one_line(str(value)):
            msg = f"the value of {name!r} must be one line of 1 to {MAX_LINE} characters"
            raise ApptotoConfigurationError("labels", msg)
        checked[name] = str(value)
    return checked or None


def plain_text(value: object) -> str:
    """Return a value as text; of an enumeration of texts, its value rather than its name."""
    return str.__str__(value) if isinstance(value, str) else str(value)
