"""A message about an appointment is sent only in the allowed states, read shortly before, many in one request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_apptoto.client import (
    ApptotoAuthError,
    ApptotoNotSentError,
    ApptotoValidationError,
    Message,
)
from airflow_provider_apptoto.client.appointments import read_time
from airflow_provider_apptoto.outbox import states as states_module
from airflow_provider_apptoto.outbox.draft import Draft, take_event
from airflow_provider_apptoto.outbox.policy import OPEN_STATES, SendPolicy
from airflow_provider_apptoto.outbox.states import EventStates, StateOutdatedError, StateUnreadError
from tests.support.appointments import Clinic, row
from tests.support.clock import Clock
from tests.support.faults import FaultServer, answering, resetting
from tests.support.outboxes import client_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.faults import Script


@pytest.fixture
def clinic() -> Clinic:
    return Clinic.of(250)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(states_module, "time", clock)
    return clock


@pytest.fixture
def states(clinic: Clinic, clock: Clock) -> Iterator[EventStates]:
    with FaultServer([clinic]) as server, client_of(server, clock) as client:
        yield EventStates(client=client, allowed=OPEN_STATES)


def draft(number: int, *, person: int | None = None, timed: bool = False, event: bool = False) -> Draft:
    """Return a message to the participant of an appointment, or to all of them."""
    target: dict[str, Any] = {"event_id": number} if event else {"participant_id": person or number + 1000}
    start = read_time(row(number)["start_time"]) if timed else None
    message = Message(type="sms", message="See you", **target)
    given = {} if event else {"event_id": number}
    return Draft(message=message, item=None, reference=None, labels=None, start_time=start, **given)  # type: ignore[arg-type]


def why_not(states: EventStates, checked: Draft, *, is_departure: bool = True) -> str:
    return states.why_not(checked, is_departure=is_departure)


@pytest.mark.parametrize("state", ["initial", "accepted", "reminded"])
def test_an_open_appointment_gets_its_message(states: EventStates, clinic: Clinic, state: str) -> None:
    clinic.person(1)["state"] = state
    assert why_not(states, draft(1)) == ""
    assert clinic.reads == ["/v1/event?id=1"]


@pytest.mark.parametrize("state", ["confirmed", "declined", "not_coming", "not_coming_needs_reschedule", "new", ""])
def test_any_other_state_withholds_it(states: EventStates, clinic: Clinic, state: str) -> None:
    clinic.person(1)["state"] = state
    assert why_not(states, draft(1)) == f"participant 1001 is {state or 'in no state'}"


def test_an_appointment_that_is_gone_withholds_it(states: EventStates, clinic: Clinic) -> None:
    clinic.events[2]["is_deleted"] = True
    assert why_not(states, draft(999)) == "event 999 was not found in Apptoto"
    assert why_not(states, draft(2)) == "event 2 was deleted in Apptoto"
    assert why_not(states, draft(1, person=5)) == "participant 5 was not found in event 1"


def test_a_message_to_all_participants_needs_all_of_them_in_an_allowed_state(
    states: EventStates, clinic: Clinic
) -> None:
    assert why_not(states, draft(1, event=True)) == ""
    clinic.events[2]["participants"].append({"id": 5, "state": "not_coming"})
    assert why_not(states, draft(2, event=True)) == "of event 2, participant 5 is not_coming"
    assert why_not(states, draft(2)) == ""


@pytest.mark.parametrize(
    "people", [None, {}, ["Ann"], [{"id": None, "state": "not_coming"}, {"id": 1001, "state": "initial"}]]
)
def test_a_message_to_participants_who_can_not_be_read_is_not_sent(
    states: EventStates, clinic: Clinic, people: Any
) -> None:
    clinic.events[1]["participants"] = people
    clinic._shown = lambda event, **_: event  # type: ignore[method-assign]
    for checked in (draft(1, event=True), draft(1, person=5)):
        with pytest.raises(StateUnreadError, match="the participants of event 1 could not be read"):
            why_not(states, checked)


def test_a_message_to_an_event_without_participants_is_withheld(states: EventStates, clinic: Clinic) -> None:
    clinic.events[1]["participants"] = []
    assert why_not(states, draft(1, event=True)) == "event 1 has no participants"


def test_a_message_about_no_event_is_invalid(states: EventStates, clinic: Clinic) -> None:
    for target in ({"to": "+16505550199"}, {"participant_id": 1001}):
        message = Message(type="sms", message="See you", **target)
        with pytest.raises(ApptotoValidationError) as raised:
            why_not(states, Draft(message=message, item=None, reference=None, labels=None))
        assert (raised.value.field, raised.value.code) == ("event_id", "event_missing")
    assert clinic.reads == []


# --- how often it reads


def test_a_state_is_read_again_after_a_minute_and_a_cancellation_since_is_seen(
    states: EventStates, clinic: Clinic, clock: Clock
) -> None:
    assert why_not(states, draft(1)) == ""
    clinic.person(1)["state"] = "not_coming"
    clock.sleep(59)
    assert why_not(states, draft(1)) == ""
    clock.sleep(2)
    assert why_not(states, draft(1)) == "participant 1001 is not_coming"
    assert len(clinic.reads) == 2


def test_what_is_checked_before_the_wait_for_a_slot_is_fresh_enough_for_the_departure(
    states: EventStates, clinic: Clinic, clock: Clock
) -> None:
    why_not(states, draft(1), is_departure=False)
    clock.sleep(39)
    why_not(states, draft(1), is_departure=False)
    assert len(clinic.reads) == 1
    clock.sleep(2)
    why_not(states, draft(1), is_departure=False)
    assert len(clinic.reads) == 2


def test_a_batch_in_the_order_of_start_times_reads_a_page_at_a_time(states: EventStates, clinic: Clinic) -> None:
    for number in range(1, 251):
        assert why_not(states, draft(number, timed=True), is_departure=False) == ""
    assert len(clinic.reads) == 3
    assert all(path.startswith("/v1/events?page=1&page_size=100&begin=2026-12-01T") for path in clinic.reads)


def test_without_time_to_read_only_a_fresh_state_counts(states: EventStates, clinic: Clinic, clock: Clock) -> None:
    def check() -> str:
        return states.why_not(draft(1), is_departure=True, may_read=False)

    with pytest.raises(StateOutdatedError):
        check()
    why_not(states, draft(1))
    clock.sleep(59)
    assert check() == ""
    clinic.person(1)["state"] = "not_coming"
    why_not(states, draft(1, timed=True), is_departure=False)
    assert check() == "participant 1001 is not_coming"
    clock.sleep(60)
    with pytest.raises(StateOutdatedError):
        check()
    assert len(clinic.reads) == 2


def test_another_page_does_not_replace_what_is_fresh(states: EventStates, clinic: Clinic) -> None:
    why_not(states, draft(1, timed=True))
    why_not(states, draft(150, timed=True))
    why_not(states, draft(1, timed=True))
    assert len(clinic.reads) == 2


def test_pages_that_do_not_hold_what_is_asked_for_are_given_up(states: EventStates, clinic: Clinic) -> None:
    """That events are listed by their start is not documented."""
    clinic.cap = 1
    clinic.events = {number: {**each, "start_time": row(250)["start_time"]} for number, each in clinic.events.items()}
    for number in range(2, 12):
        assert why_not(states, draft(number, timed=True)) == ""
    assert [path.partition("?")[0] for path in clinic.reads] == [*("/v1/events", "/v1/event") * 3, *["/v1/event"] * 7]


# --- when it can't read


@pytest.mark.parametrize("fault", [answering(502), answering(429), resetting(accepted=False), answering(200, b"<p>")])
@pytest.mark.parametrize("timed", [True, False])
def test_a_failed_read_is_a_message_that_was_not_sent(
    states: EventStates, clinic: Clinic, fault: Script, *, timed: bool
) -> None:
    clinic.faults = [fault]
    with pytest.raises(StateUnreadError, match="was not sent: the state of event 1 could not be read") as raised:
        why_not(states, draft(1, timed=timed))
    assert raised.value.code == "state_unread"
    assert why_not(states, draft(1, timed=timed)) == ""


def test_a_wait_that_the_server_asks_for_is_kept(states: EventStates, clinic: Clinic) -> None:
    clinic.faults = [answering(503, Retry_After="77")]
    with pytest.raises(ApptotoNotSentError) as raised:
        why_not(states, draft(1))
    assert raised.value.retry_after == 77


def test_a_refused_account_is_told_as_such(states: EventStates, clinic: Clinic) -> None:
    clinic.faults = [answering(401)]
    with pytest.raises(ApptotoAuthError):
        why_not(states, draft(1))


# --- parameters


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"event_id": 1, "participant_id": 2}, ({"event_id": None, "participant_id": 2}, 1)),
        ({"event_id": " 1 ", "participant_id": "2"}, ({"event_id": None, "participant_id": "2"}, 1)),
        ({"event_id": 1, "participant_id": None}, ({"event_id": 1, "participant_id": None}, None)),
        ({"event_id": 1, "to": "x"}, ({"event_id": 1, "to": "x"}, None)),
        ({"participant_id": 2}, ({"participant_id": 2}, None)),
    ],
)
def test_the_event_of_a_participant_is_no_second_recipient(
    fields: dict[str, Any], expected: tuple[dict[str, Any], int | None]
) -> None:
    assert take_event(fields) == expected


def test_an_invalid_event_of_a_participant_is_refused() -> None:
    with pytest.raises(ApptotoValidationError, match="event_id"):
        take_event({"event_id": "visit", "participant_id": 2})


@pytest.mark.parametrize("value", [None, True, ("initial",), ["confirmed", "accepted"], {"reminded"}])
def test_states_are_none_the_open_ones_or_a_list(value: Any) -> None:
    assert SendPolicy(only_if_state=value).only_if_state == value
