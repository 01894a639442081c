"""The guards withhold or hold a message for the right reason, and say when and how it can be sent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast
from zoneinfo import ZoneInfo

import pendulum
import pytest

from airflow_provider_apptoto.client import ApptotoValidationError, Message, Outcome
from airflow_provider_apptoto.outbox import guards as guards_module
from airflow_provider_apptoto.outbox import instructions
from airflow_provider_apptoto.outbox.draft import Draft
from airflow_provider_apptoto.outbox.guards import Guards, WithheldError, moment_of, zone_or_none
from airflow_provider_apptoto.outbox.window import SendWindow
from tests.support.clock import Clock

if TYPE_CHECKING:
    from collections.abc import Collection

    from airflow_provider_apptoto.outbox.optouts import OptOuts

NUMBER = "+16505550199"
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
ALWAYS = SendWindow.parse("00:00-24:00")
UTC_ZONE = ZoneInfo("UTC")
OLD = "the run is 96 h old"
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def opening() -> datetime:
    """Return the next opening of :func:`closed`."""
    return (datetime.now(UTC) + 2 * DAY).replace(hour=0, minute=0, second=0, microsecond=0)


def closed() -> SendWindow:
    """Return a window that opens at midnight (UTC) in two days."""
    return SendWindow.parse(f"{DAYS[opening().weekday()]} 00:00-24:00")


def draft(to: str = NUMBER, **fields: Any) -> Draft:
    message = Message(type="email" if "@" in to else "sms", to=to, message="See you soon")
    return Draft(message=message, item=None, reference=None, labels=None, **fields)


def withheld(guards: Guards, **fields: Any) -> WithheldError:
    with pytest.raises(WithheldError) as raised:
        guards.plan(draft(**fields))
    return raised.value


def reasons(guards: Guards, checked: Draft) -> list[str]:
    """Return why a message is withheld at the plan and at the departure."""
    found = []
    for moment in (guards.plan, guards.depart):
        try:
            moment(checked)
        except WithheldError as why:
            found.append(why.reason)
    return found


def of_window(window: SendWindow, **others: Any) -> Guards:
    return Guards(window=window, timezone=UTC_ZONE, **others)


@pytest.mark.parametrize(
    "guards", [Guards(), Guards(window=ALWAYS, timezone=UTC_ZONE), Guards(max_age=HOUR)], ids=["none", "open", "age"]
)
def test_a_message_that_no_guard_concerns_passes_at_both_moments(guards: Guards) -> None:
    assert reasons(guards, draft()) == reasons(guards, draft(not_after=datetime.now(UTC) + HOUR)) == []


def test_a_message_of_an_old_run_is_too_old() -> None:
    why = withheld(Guards(why_too_old=OLD))
    assert (why.outcome, why.is_aged) == (Outcome.TOO_OLD, True)
    assert why.reason.startswith(f"{OLD}. To send it anyway, raise max_age")


@pytest.mark.parametrize("moment", ["plan", "depart"])
def test_a_message_past_its_not_after_is_too_old_at_both_moments(moment: str) -> None:
    with pytest.raises(WithheldError, match=r"^not_after was \d{4}-\d\d-\d\dT\d\d:\d\dZ\. To send it anyway") as raised:
        getattr(Guards(), moment)(draft(not_after=datetime.now(UTC) - HOUR))
    assert (raised.value.outcome, raised.value.is_aged) == (Outcome.TOO_OLD, False)


@pytest.mark.parametrize("moment", ["plan", "depart"])
def test_outside_the_window_a_message_is_held_until_the_opening_where_the_sender_can_wait(moment: str) -> None:
    with pytest.raises(WithheldError) as raised:
        getattr(of_window(closed(), may_hold=True), moment)(draft())
    assert (raised.value.outcome, raised.value.until) == (Outcome.HELD, opening())


def test_outside_the_window_a_message_is_withheld_where_the_sender_can_not_wait() -> None:
    why = withheld(of_window(closed()))
    assert (why.outcome, why.until) == (Outcome.OUTSIDE_WINDOW, None)
    assert opening().strftime("%Y-%m-%dT00:00Z") in why.reason


def test_a_message_whose_opening_comes_after_its_not_after_is_too_old_at_once() -> None:
    """A text such as "see you tomorrow", held over a weekend, must not be sent on Monday."""
    guards = of_window(closed(), may_hold=True)
    assert withheld(guards, not_after=opening() - HOUR).outcome is Outcome.TOO_OLD
    assert withheld(guards, not_after=opening()).outcome is Outcome.HELD


@pytest.mark.parametrize(
    ("run_ago", "max_age", "outcome"),
    [
        (HOUR, DAY, Outcome.HELD),  # due at the next opening, so that its age is 0 then
        (DAY, HOUR, Outcome.HELD),
        (8 * DAY, DAY, Outcome.TOO_OLD),  # due at last week's opening
        (8 * DAY, 8 * DAY, Outcome.HELD),
        (8 * DAY, None, Outcome.HELD),
    ],
)
def test_the_age_counts_from_the_first_opening_after_the_run(
    run_ago: timedelta, max_age: timedelta | None, outcome: Outcome
) -> None:
    guards = of_window(closed(), may_hold=True, run_time=datetime.now(UTC) - run_ago, max_age=max_age)
    assert withheld(guards).outcome is outcome


def test_a_window_that_is_open_sends_a_run_that_was_due_in_time_and_no_older_one() -> None:
    assert reasons(of_window(ALWAYS, run_time=datetime.now(UTC) - HOUR, max_age=DAY), draft()) == []
    why = withheld(of_window(ALWAYS, run_time=datetime.now(UTC) - 2 * DAY, max_age=DAY))
    assert (why.outcome, why.is_aged) == (Outcome.TOO_OLD, True)


@pytest.mark.parametrize(
    ("own", "connection", "to", "zone"),
    [
        ("Pacific/Honolulu", "America/New_York", NUMBER, "Pacific/Honolulu"),
        (None, "America/New_York", NUMBER, "America/New_York"),
        (None, None, "+16505550199", "America/Los_Angeles"),
        (None, None, "+18005550199", None),
        (None, None, "mary@clinic.example", None),
        (None, "America/New_York", "mary@clinic.example", "America/New_York"),
    ],
)
def test_the_zone_is_the_messages_own_then_the_connections_then_the_numbers(
    own: str | None, connection: str | None, to: str, zone: str | None
) -> None:
    guards = Guards(timezone=zone_or_none(connection))
    message = Message(type="email" if "@" in to else "call", to=to, message="Hi")
    if zone is None:
        with pytest.raises(ApptotoValidationError, match="recipient_timezone") as raised:
            guards.zone(message, None)
        assert raised.value.code == "timezone_unknown"
        assert to not in str(raised.value)
    else:
        assert guards.zone(message, zone_or_none(own)).key == zone


@pytest.mark.parametrize("name", ["", " ", "Mars/Olympus", "../../etc/passwd", 5, "+16505550199"])
def test_an_unknown_zone_is_a_validation_error(name: object) -> None:
    with pytest.raises(ApptotoValidationError) as raised:
        zone_or_none(name)
    assert raised.value.code == "timezone_unknown"


@pytest.mark.parametrize(
    "value",
    [
        "2026-03-02T18:00:00-05:00",
        "2026-03-02T23:00Z",
        " 2026-03-02T23:00+00:00 ",
        datetime(2026, 3, 2, 23, tzinfo=UTC),
    ],
)
def test_not_after_is_a_point_in_time(value: object) -> None:
    assert moment_of(value, "not_after") == datetime(2026, 3, 2, 23, tzinfo=UTC)


@pytest.mark.parametrize("value", ["", "tomorrow", "2026-03-02", "2026-03-02T18:00", datetime(2026, 3, 2), 5])  # noqa: DTZ001
def test_a_time_without_a_zone_is_an_error(value: object) -> None:
    with pytest.raises(ApptotoValidationError, match="must be a time with a zone") as raised:
        moment_of(value, "not_after")
    assert raised.value.code == "time_invalid"


def test_a_time_of_airflow_is_a_moment_like_any_other() -> None:
    """Airflow's times are pendulum's."""
    moment = datetime(2026, 3, 8, 9, 30, tzinfo=UTC)
    chicago, window = ZoneInfo("America/Chicago"), SendWindow.parse("09:00-18:00")
    assert window.next_opening(pendulum.instance(moment), chicago) == window.next_opening(moment, chicago)
    assert type(window.next_opening(pendulum.instance(moment), chicago)) is datetime


class Lists:
    """Lists of people who opted out, which note each lookup."""

    def __init__(self, *held: str) -> None:
        self.held = held
        self.asked: list[list[str]] = []

    def lists_holding(self, recipients: Collection[str], lists: Collection[str]) -> dict[str, str]:
        self.asked.append(list(recipients))
        return {each: next(iter(lists), "all") for each in recipients if each in self.held}


@pytest.fixture
def newer_airflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the advice name the commands of Airflow 3.2 and newer, without Airflow."""
    monkeypatch.setattr(instructions, "has_provider_cli", lambda: True)


def of_lists(lists: Lists, **others: Any) -> Guards:
    return Guards(optouts=cast("OptOuts", lists), **others)


@pytest.mark.usefixtures("newer_airflow")
@pytest.mark.parametrize("moment", ["plan", "depart"])
def test_a_recipient_who_opted_out_gets_nothing_and_the_reason_says_how_to_undo_it(moment: str) -> None:
    guards = of_lists(Lists(NUMBER), optout_lists=("campaigns",), conn_id="clinic", why_too_old=OLD)
    with pytest.raises(WithheldError) as raised:
        getattr(guards, moment)(draft())
    assert raised.value.outcome is Outcome.SUPPRESSED
    assert "optout remove --conn-id clinic --list campaigns RECIPIENT" in raised.value.reason
    assert NUMBER not in raised.value.reason


def test_a_message_that_does_not_wait_costs_one_lookup() -> None:
    guards = of_lists(lists := Lists())
    assert reasons(guards, draft()) == []
    assert lists.asked == [[NUMBER]]


@pytest.mark.usefixtures("newer_airflow")
def test_a_message_that_waited_is_looked_up_again_at_its_departure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards_module, "time", clock := Clock())
    guards = of_lists(lists := Lists())
    guards.plan(draft())
    clock.now += 2
    lists.held = (NUMBER,)
    with pytest.raises(WithheldError):
        guards.depart(draft())
    assert len(lists.asked) == 2


def test_the_messages_of_a_batch_are_looked_up_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards_module, "time", clock := Clock())
    guards = of_lists(lists := Lists("+16505550198"))
    assert guards.opted_out([NUMBER, "+16505550198"]) == {"+16505550198": "all"}
    clock.now += 3600
    guards.plan(draft())
    assert len(lists.asked) == 1
    assert NUMBER not in repr(guards)
