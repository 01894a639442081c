"""A message counts as sent only if its own text is in the conversation of everybody it was for, soon after."""

from __future__ import annotations

import argparse
import datetime as dt
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_apptoto._cli_reconcile import found_in_apptoto
from airflow_provider_apptoto.client import Event, Message, Participant
from airflow_provider_apptoto.outbox.admin import Record
from airflow_provider_apptoto.outbox.draft import Draft
from airflow_provider_apptoto.outbox.entry import Entry, State
from airflow_provider_apptoto.outbox.ledger import fingerprint_of_text
from airflow_provider_apptoto.outbox.settling import Settler, addressed, got_it, matcher_of, was_sent
from airflow_provider_apptoto.outbox.stores.base import LedgerAwayError
from airflow_provider_apptoto.outbox.stores.sql import SqlLedgerStore
from airflow_provider_apptoto.outbox.stores.task_state import TaskStateLedgerStore
from airflow_provider_apptoto.privacy import mask_recipient
from tests.support.appointments import Clinic
from tests.support.clock import Clock
from tests.support.entries import entry
from tests.support.faults import FaultServer
from tests.support.memory_store import KEYS, MemoryStore
from tests.support.outboxes import client_of

if TYPE_CHECKING:
    from airflow_provider_apptoto.client import ApptotoClient
    from airflow_provider_apptoto.outbox.database import StateDatabase
    from airflow_provider_apptoto.outbox.stores.base import LedgerStore
    from tests.support.task_state import FakeTaskState

SINCE = dt.datetime(2026, 11, 30, 12, tzinfo=dt.UTC)
TEXT = "Hi {{ name }}, see you {{ event.start_time | date_and_time_phrase }}."


def person(*messages: dict[str, Any]) -> Participant:
    made = [
        {"at": SINCE.isoformat(), "event_type": "sent", "content": "Your scan is ready", **each} for each in messages
    ]
    found = Participant.read({"id": 7, "state": "initial", "conversations": [{"messages": made}]})
    assert found is not None
    return found


def at(seconds: float) -> dict[str, Any]:
    return {"at": (SINCE + dt.timedelta(seconds=seconds)).isoformat()}


@pytest.mark.parametrize(
    ("text", "found", "expected"),
    [
        (TEXT, "Hi Mary, see you Tuesday at 9.", True),
        (TEXT, "Hi Mary,  see you\nTuesday at 9.", True),
        (TEXT, "Clinic: Hi Mary, see you Tuesday at 9.", False),
        (TEXT, "Hi Mary, see you Tuesday at 9. Reply STOP to end", False),
        (TEXT, "Hi Mary, see you Tuesday at 9. And please pay for your last visit" + "s" * 200 + ".", False),
        ("See you at {{ event.time }} at {{ event.time }} at", "See you at at", False),
        (TEXT, "Hi Mary, we will see you", False),
        (TEXT, "Hello Mary, see you Tuesday.", False),
        (TEXT, "", False),
        (TEXT, TEXT, True),
        ("Your scan is ready", "Your scan is ready", True),
        ("Your scan is ready", " Your  scan is ready\n", True),
        ("Your scan is ready", "Your scan is ready!", False),
        ("Your scan is ready", "Is it true? Your scan is ready", False),
        ("Scan (1.5 h)", "Scan (1.5 h)", True),
        ("Scan (1.5 h)", "Scan (125 h)", False),
        ("{% if event.custom.a %}Bring your card{% endif %} on Tuesday", "Bring your card on Tuesday", True),
        ("{% if event.custom.a %}Bring your card{% endif %} on Tuesday", "on Tuesday", False),
    ],
)
def test_a_text_is_recognized_with_its_fields_filled_in(text: str, found: str, *, expected: bool) -> None:
    matches = matcher_of(text)
    assert matches is not None
    assert matches(found) is expected


def test_a_long_text_does_not_hold_a_worker_up() -> None:
    matches = matcher_of("Hello {{ a }} {{ b }} {{ c }} {{ d }}, see you {{ e }} there")
    assert matches is not None
    assert not matches("Hello " + "see " * 5_000)  # a regular expression would need minutes


@pytest.mark.parametrize("text", [None, "", "{{ event.custom.text }}", "Hi {{ name }}!", "{% if a %}{% endif %}"])
def test_a_text_that_could_be_any_is_no_evidence(text: str | None) -> None:
    assert matcher_of(text) is None


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({}, True),
        (at(3600), True),
        (at(3601), False),  # another run sends the same text
        (at(-59), True),  # Apptoto's clock may be behind
        (at(-61), False),
        ({"at": None}, False),
        ({"at": "soon"}, False),
        ({"event_type": "replied"}, False),
        ({"event_type": "scheduled"}, False),
        ({"content": "Another text"}, False),
        ({"delivery_failed": True}, True),  # Apptoto had sent it
        ({"send_failed": True}, False),
    ],
)
def test_only_what_was_sent_since_counts(message: dict[str, Any], expected: bool) -> None:
    is_text = matcher_of("Your scan is ready")
    assert is_text is not None
    assert got_it([person(message)], SINCE.timestamp(), is_text) is expected


def test_everybody_must_have_got_it() -> None:
    is_text = matcher_of("Your scan is ready")
    assert is_text is not None
    got, other = person({}), person({"content": "Another text"})
    for people, expected in (
        ([got, got], True),
        ([got, other], False),
        ([other], False),
        ([], False),
        ([person()], False),
    ):
        assert got_it(people, SINCE.timestamp(), is_text) is expected


def test_participants_who_can_not_be_read_may_not_have_got_it() -> None:
    people = [{"id": 7, "state": "initial"}, {"id": None, "state": "initial"}]
    event = Event.read({"id": 1, "participants": people})
    assert event is not None
    assert addressed(event, None) == []
    assert [each.id for each in addressed(event, 7)] == [7]


# --- other messages like it


def message_to(target: str = "participant 7", key: str = "own", state: State = State.UNKNOWN, **fields: Any) -> Entry:
    """Return the entry of a message that is no longer in flight."""
    at = SINCE.timestamp()
    given = {"lease": 0.0, "created_at": at, "updated_at": at, "sent_at": at, **fields}
    return entry(key=key, target=target, state=state, **given)


def event_with(copies: int) -> Event:
    """Return an event whose participants 7 and 8 got as many copies of the text."""
    made = {"at": SINCE.isoformat(), "event_type": "sent", "content": "Your scan is ready"}
    people = [{"id": number, "conversations": [{"messages": [made] * copies}]} for number in (7, 8)]
    event = Event.read({"id": 1, "participants": people})
    assert event is not None
    return event


@pytest.mark.parametrize(
    ("other", "is_like"),
    [
        (message_to(key="other", channel="call", state=State.SENT), True),
        (message_to(key="other", state=State.UNKNOWN), True),
        (message_to(key="other", state=State.SENDING), True),
        (message_to("event 1", key="other"), True),
        (message_to(key="other", channel="email", text="with a subject"), True),
        (message_to(key="other", channel="call", text="another"), False),
        (message_to(key="other", state=State.REJECTED), False),
        (message_to("participant 8", key="other"), False),
        (message_to(key="other", sent_at=SINCE.timestamp() - 7200), False),
        (message_to(key="other", account="another"), False),
        (message_to(), False),
    ],
)
def test_one_copy_in_the_conversation_is_no_evidence_for_two_messages(other: Entry, *, is_like: bool) -> None:
    is_text = matcher_of("Your scan is ready")
    assert is_text is not None
    store = MemoryStore()
    store.entries[other.key] = other
    assert was_sent(event_with(copies=1), message_to(), is_text, store) is not is_like
    assert was_sent(event_with(copies=2), message_to(), is_text, store)


@pytest.mark.parametrize(
    "other",
    [message_to("event 2"), message_to("+1•••0199"), message_to(sent_at=None)],
    ids=["event", "number", "unsent"],
)
def test_an_event_says_nothing_of_messages_that_did_not_go_to_it(other: Entry) -> None:
    is_text = matcher_of("Your scan is ready")
    assert is_text is not None
    assert not was_sent(event_with(copies=1), other, is_text, MemoryStore())


def test_a_message_that_was_found_stays_unknown_while_that_can_not_be_recorded() -> None:
    message = Message(type="sms", message="Your scan is ready", participant_id=7)
    draft = Draft(message=message, item=None, reference=None, labels=None, event_id=1)
    store = MemoryStore()
    store.entries[message_to().key] = found = message_to()
    client = SimpleNamespace(get_event=lambda **_: event_with(copies=1))
    settler = Settler(client)  # type: ignore[arg-type]  # all that it asks for
    store.refusals = [LedgerAwayError("locked")]
    assert not settler.settle(store, draft, found, found)
    assert settler.settle(store, draft, found, found)
    assert store.only.state is State.SENT


def test_a_message_whose_text_was_changed_since_is_not_searched_for() -> None:
    settler = Settler(None)  # type: ignore[arg-type]  # nothing is read
    draft = Draft(message=Message(type="sms", message="New", event_id=1), item=None, reference=None, labels=None)
    assert not settler.settle(MemoryStore(), draft, message_to("event 1"), message_to("event 1", text="new"))


def test_both_ledgers_know_the_messages_to_an_appointment(database: StateDatabase, task_state: FakeTaskState) -> None:
    stores: tuple[LedgerStore, ...] = (SqlLedgerStore(database), TaskStateLedgerStore(task_state))
    for store in stores:
        for number, target in enumerate(("event 1", "participant 7", "participant 8", None)):
            assert store.compare_and_swap(None, message_to(key=f"{number}" * 32, target=target))  # type: ignore[arg-type]
        found = store.of_targets({"event 1", "participant 7"}, SINCE.timestamp())
        assert {each.target for each in found} == {"event 1", "participant 7"}
        assert store.of_targets({"event 1"}, SINCE.timestamp() + 1) == []


def found_by_command(client: ApptotoClient, *entries: Entry) -> list[str]:
    store = MemoryStore()
    store.entries = {each.key: each for each in entries}
    given = argparse.Namespace(begin=None, end=SINCE.timestamp() + 172_800, message=None)
    return [each.entry.key for each in found_in_apptoto(given, [Record(each) for each in entries], client, store)]


def test_the_command_finds_messages_of_its_own_account_once() -> None:
    clinic = Clinic.of(3)
    for number in (1, 2, 3):
        clinic.say(number, "Your scan is ready", at=SINCE, event_type="sent")
    text = fingerprint_of_text(KEYS[0], "Your scan is ready")
    with FaultServer([clinic]) as server, client_of(server, Clock()) as client:
        account = mask_recipient(client.account[1])
        first, again = (message_to("participant 1001", key, text=text, account=account) for key in ("first", "again"))
        second = message_to("participant 1002", "second", text=text, account=account)
        other = message_to("participant 1003", "other", text=text, account="n•••@other.example")
        assert found_by_command(client, first, second, other) == ["first", "second"]
        assert found_by_command(client, first, again, second, other) == ["second"]
        server.requests.clear()
        assert found_by_command(client, other) == []
        assert server.requests == []
