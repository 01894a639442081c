"""The sandbox lists, creates, changes and deletes events and contacts as Apptoto documents it, or was seen to do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_apptoto.sandbox import Sandbox
from tests.support.sandbox_caller import Caller, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    import requests

ANA = {"name": "Ana", "phone": "650-555-0141", "email": "ana@example.com"}
BEN = {"name": "Ben", "phone": "+16505550142"}
VISIT = {
    "calendar": "Front desk",
    "title": "Check-up",
    "start_time": "2026-12-01T09:00:00-08:00",
    "end_time": "2026-12-01T09:30:00-08:00",
    "participants": [ANA, BEN],
}


def post(caller: Caller, *events: object, **fields: object) -> requests.Response:
    return caller.call("POST", "/v1/events", json={"events": list(events), **fields})


def put(caller: Caller, *events: object) -> list[dict[str, Any]]:
    answer = caller.call("PUT", "/v1/events", json={"events": list(events)})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["events"]
    return found


def created(caller: Caller, **changes: object) -> dict[str, Any]:
    answer = post(caller, {**VISIT, **changes})
    assert answer.status_code == 200, answer.text
    [event] = answer.json()["events"]
    found: dict[str, Any] = event
    return found


def listed(caller: Caller, **parameters: object) -> list[dict[str, Any]]:
    answer = caller.call("GET", "/v1/events", params=parameters)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["events"]
    return found


def titles(caller: Caller, **parameters: object) -> list[str]:
    return [event["title"] for event in listed(caller, **parameters)]


def test_an_event_is_shown_with_the_documented_keys(caller: Caller) -> None:
    event = created(caller, external_id="v-1", location="Room 1", content="", custom_data={"service": "exam"})

    assert caller.call("GET", "/v1/event", params={"id": event["id"]}).json() == event
    assert caller.call("GET", "/v1/event", params={"external_id": "v-1"}).json() == event
    assert listed(caller, id=event["id"]) == listed(caller) == [event]
    assert isinstance(event.pop("id"), int)
    calendar_id, participants = event.pop("calendar_id"), event.pop("participants")
    assert calendar_id > 10**9
    assert event == {
        "calendar_name": "Front desk",
        "external_id": "v-1",
        "start_time": "2026-12-01T09:00:00-08:00",
        "end_time": "2026-12-01T09:30:00-08:00",
        "title": "Check-up",
        "location": "Room 1",
        "content": "",
        "is_deleted": False,
        "custom_data": {"service": "exam"},
    }
    assert participants[0] == {
        "id": participants[0]["id"],
        "name": "Ana",
        "email": "ana@example.com",
        "phone": "650-555-0141",
        "normalized_phone": "+16505550141",
        "state": "initial",
    }
    assert [person["name"] for person in participants] == ["Ana", "Ben"]


@pytest.mark.parametrize("given", [True, "true", "True", 1])
def test_conversations_come_when_asked_for(sandbox: Sandbox, caller: Caller, given: object) -> None:
    visit = sandbox.appointments.add("Ana", "650-555-0141")
    sandbox.appointments.reply(visit, "Where is it?")

    [event] = listed(caller, include_conversations=given)
    [person] = event["participants"]
    assert person["event_id"] == event["id"] == visit.event_id
    [conversation] = person["conversations"]
    [message] = conversation["messages"]
    assert (message["event_type"], message["content"]) == ("replied", "Where is it?")
    assert message["at"].endswith("Z")
    [plain] = listed(caller, include_conversations="False")
    assert "conversations" not in plain["participants"][0]


def test_a_page_has_thirty_events_and_the_earliest_come_first(caller: Caller) -> None:
    events = [{**VISIT, "title": f"{hour:02}", "start_time": f"2026-12-01T{hour:02}:00:00Z"} for hour in range(24)]
    post(caller, *reversed(events), *[{**VISIT, "title": "later", "start_time": "2026-12-02T10:00:00Z"}] * 11)

    assert titles(caller) == [event["title"] for event in events] + ["later"] * 6
    assert titles(caller, page=2) == ["later"] * 5
    assert titles(caller, page=3) == []
    assert titles(caller, page=2, page_size=3) == ["03", "04", "05"]


def test_times_are_compared_as_moments_and_both_ends_count(caller: Caller) -> None:
    created(caller, title="nine in Oregon")
    created(caller, title="noon in Oregon", start_time="2026-12-01T12:00:00-08:00")

    assert titles(caller, begin="2026-12-01T17:00:00Z") == ["nine in Oregon", "noon in Oregon"]
    assert titles(caller, begin="2026-12-01T17:00:01Z") == ["noon in Oregon"]
    assert titles(caller, end="2026-12-01T20:00:00+00:00") == ["nine in Oregon", "noon in Oregon"]
    assert titles(caller, end="2026-12-01T11:59:59-08:00") == ["nine in Oregon"]
    # Without an offset, a time is taken as UTC.
    assert titles(caller, begin="2026-12-01T18:00:00") == ["noon in Oregon"]


def test_a_filter_lists_an_event_once_for_each_participant_that_matches(caller: Caller) -> None:
    family = created(caller, title="family", participants=[ANA, {**ANA, "name": "Ana's son", "email": ""}, BEN])
    created(caller, title="alone", participants=[BEN])

    found = listed(caller, phone_number="(650) 555-0141")
    assert [event["id"] for event in found] == [family["id"]] * 2
    assert [[person["name"] for person in event["participants"]] for event in found] == [["Ana"], ["Ana's son"]]
    assert titles(caller, phone_number="+16505550142") == ["family", "alone"]
    assert titles(caller, email_address="ANA@example.com") == ["family"]
    assert titles(caller, email_address="ana@example.com", phone_number="+16505550142") == []
    assert titles(caller, phone_number="nobody") == []


def test_parameters_that_are_not_documented_are_ignored(caller: Caller) -> None:
    created(caller)
    assert titles(caller, start_date="2027-01-01", per_page=1, q="x", calendar_id=7) == ["Check-up"]


@pytest.mark.parametrize(
    "parameters",
    [
        {"page": "x"},
        {"page": 0},
        {"page": 10**18},
        {"page_size": -1},
        {"begin": "tomorrow"},
        {"begin": "0001-01-01T00:00:00+09:00"},
        {"include_conversations": "maybe"},
    ],
)
def test_parameters_that_can_not_be_read_are_refused(caller: Caller, parameters: dict[str, Any]) -> None:
    answer = caller.call("GET", "/v1/events", params=parameters)
    assert (answer.status_code, answer.json()["success"]) == (400, False)
    assert next(iter(parameters)) in answer.json()["error"]


def test_an_event_that_is_not_there_is_not_found(caller: Caller) -> None:
    created(caller)
    for parameters in ({"id": 7}, {"external_id": "nothing"}):
        assert caller.call("GET", "/v1/event", params=parameters).status_code == 404
        assert caller.call("DELETE", "/v1/events", params=parameters).status_code == 404
    assert caller.call("GET", "/v1/event").status_code == 400


def test_a_deleted_event_is_listed_only_on_request_and_may_be_deleted_again(caller: Caller) -> None:
    event = created(caller)
    for _ in range(2):
        answer = caller.call("DELETE", "/v1/events", params={"id": event["id"]})
        assert answer.json() == {"events": [{**event, "is_deleted": True}]}

    assert listed(caller) == []
    assert [found["is_deleted"] for found in listed(caller, include_deleted=True)] == [True]


def test_the_external_id_of_a_deleted_event_is_free(caller: Caller) -> None:
    old = created(caller, external_id="v-1")
    caller.call("DELETE", "/v1/events", params={"external_id": "v-1"})
    new = created(caller, external_id="v-1")
    newest = created(caller, external_id="v-2")
    caller.call("DELETE", "/v1/events", params={"external_id": "v-2"})

    assert new["id"] != old["id"]
    assert caller.call("GET", "/v1/event", params={"external_id": "v-1"}).json() == new
    assert caller.call("GET", "/v1/event", params={"external_id": "v-2"}).json() == {**newest, "is_deleted": True}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"title": None}, "events[1].title"),
        ({"start_time": None}, "events[1].start_time"),
        ({"start_time": "soon"}, "events[1].start_time"),
        ({"end_time": ""}, "events[1].end_time"),
        ({"calendar": None}, "events[1].calendar"),
        ({"calendar": None, "calendar_id": 7}, "events[1].calendar_id"),
        ({"participants": ["Ana"]}, "events[1].participants[0]"),
        ({"participants": {}}, "events[1].participants"),
        ({"custom_data": []}, "events[1].custom_data"),
        ({"title": ["a"]}, "events[1].title"),
        ({"external_id": "taken"}, "events[1].external_id"),
    ],
)
def test_an_invalid_event_is_named_and_none_of_the_request_is_stored(
    caller: Caller, changes: dict[str, Any], named: str
) -> None:
    created(caller, external_id="taken")
    answer = post(caller, {**VISIT, "calendar": "New"}, {**VISIT, **changes})

    assert answer.status_code == 400
    assert answer.json()["error"].startswith(named)
    assert len(listed(caller)) == 1
    assert post(caller, {**VISIT, "calendar": "New"}, prevent_calendar_creation=True).status_code == 400


@pytest.mark.parametrize("body", [b"{", b"[]", b"{}", b'{"events": 1}', b'{"events": [1]}'])
def test_a_body_that_is_no_list_of_events_is_refused(caller: Caller, body: bytes) -> None:
    assert caller.call("POST", "/v1/events", data=body).status_code == 400


def test_a_calendar_is_created_unless_that_is_prevented(caller: Caller) -> None:
    first = created(caller)
    assert (
        post(caller, VISIT, prevent_calendar_creation=True).json()["events"][0]["calendar_id"] == first["calendar_id"]
    )
    by_id = created(caller, calendar=None, calendar_id=str(first["calendar_id"]))
    assert by_id["calendar_name"] == "Front desk"


def test_put_changes_what_it_names_and_creates_what_it_does_not_find(caller: Caller) -> None:
    old = created(caller, external_id="v-1", location="Room 1", custom_data={"a": 1, "b": 2})

    [changed] = put(caller, {"external_id": "v-1", "title": "Vaccination", "custom_data": {"b": 3}})
    assert changed == {**old, "title": "Vaccination", "custom_data": {"b": 3}}
    [by_id] = put(caller, {"id": old["id"], "start_time": "2026-12-02T09:00:00-08:00"})
    assert by_id == {**changed, "start_time": "2026-12-02T09:00:00-08:00"}
    [new] = put(caller, {**VISIT, "external_id": "v-2"})
    assert new["id"] != old["id"]
    assert len(listed(caller)) == 2


def test_put_replaces_participants_but_keeps_who_already_got_a_message(sandbox: Sandbox, caller: Caller) -> None:
    ana, ben = (event := created(caller))["participants"]
    sandbox.appointments.confirm(ana["id"])
    caller.send({"type": "sms", "participant_id": ben["id"], "message": "Hi"})
    carl = {"name": "Carl", "phone": "+16505550143"}

    [changed] = put(caller, {"id": event["id"], "participants": [{**ANA, "name": "Ana B."}, carl]})
    names = {person["name"]: (person["id"], person["state"]) for person in changed["participants"]}
    assert names["Ana B."] == (ana["id"], "confirmed")
    assert names["Ben"] == (ben["id"], "initial")
    [changed] = put(caller, {"id": event["id"], "participants": [ANA]})
    assert [person["name"] for person in changed["participants"]] == ["Ana", "Ben"]


@pytest.mark.parametrize("path", ["/v1/events", "/v1/event?id=1", "/v1/contacts", "/v1/contact", "/v1/address_books"])
def test_no_endpoint_answers_without_the_account(caller: Caller, path: str) -> None:
    assert caller.call("GET", path, auth=("nobody", "x")).status_code == 401


def test_contacts_are_created_changed_found_and_deleted(caller: Caller) -> None:
    contact = {"address_book": "Clients", "first_name": "Ana", "last_name": "Lopez", "phone": "650-555-0141"}
    answer = caller.call("POST", "/v1/contacts", json={"contacts": [{**contact, "external_id": "c-1"}]})
    [ana] = answer.json()["contacts"]
    assert ana["name"] == "Ana Lopez"
    assert [(phone["number"], phone["normalized"]) for phone in ana["phone_numbers"]] == [
        ("650-555-0141", "+16505550141")
    ]
    caller.call("PUT", "/v1/contacts", json={"contacts": [{"external_id": "c-1", "add_email": "ana@example.com"}]})
    found = caller.call("GET", "/v1/contact", params={"external_id": "c-1"}).json()
    assert found == {**ana, "email_addresses": [{"address": "ana@example.com", "is_primary": False}]}

    [book] = caller.call("GET", "/v1/address_books").json()["address_books"]
    assert book == {"id": ana["address_book_id"], "name": "Clients"}
    # The filter by address book was seen to have no effect.
    for parameters in ({}, {"address_book_id": 7}):
        assert caller.call("GET", "/v1/contacts", params=parameters).json() == {"contacts": [found]}
    assert caller.call("GET", "/v1/contacts", params={"page": 2}).json() == {"contacts": []}

    event = created(caller, participants=[{"contact_external_id": "c-1"}])
    assert [(person["name"], person["phone"]) for person in event["participants"]] == [("Ana Lopez", "650-555-0141")]

    assert caller.call("DELETE", "/v1/contacts", json={"id": ana["id"]}).status_code == 200
    assert caller.call("GET", "/v1/contact", params={"external_id": "c-1"}).status_code == 404


def test_a_contact_has_numbers_and_addresses_and_the_primary_ones_count(caller: Caller) -> None:
    def saved(method: str, **changes: object) -> Any:
        contact = {"external_id": "c-1", **changes}
        answer = caller.call(method, "/v1/contacts", json={"contacts": [contact]})
        assert answer.status_code == 200, answer.text
        return answer.json()["contacts"][0]

    caller.call("POST", "/v1/contacts", json={"contacts": [{"address_book": "Clients", "name": "Ben"}]})
    [book] = caller.call("GET", "/v1/address_books").json()["address_books"]
    numbers = [{"number": "911"}, {"number": "650-555-0142", "is_primary": True, "is_mobile": "true"}]
    ana = saved("POST", name="Ana", address_book_id=book["id"], phone_numbers=numbers, email="ana@example.com")
    assert [(phone["normalized"], phone["is_mobile"]) for phone in ana["phone_numbers"]] == [
        (None, False),
        ("+16505550142", True),
    ]
    assert ana["address_book_id"] == book["id"]
    [person] = created(caller, participants=[{"contact_id": ana["id"]}])["participants"]
    assert (person["phone"], person["email"]) == ("650-555-0142", "ana@example.com")

    changed = saved("PUT", add_phone="650-555-0143", email_addresses=[{"address": "lopez@example.com"}])
    assert [phone["number"] for phone in changed["phone_numbers"]] == ["911", "650-555-0142", "650-555-0143"]
    assert changed["email_addresses"] == [{"address": "lopez@example.com", "is_primary": False}]
    again = caller.call("POST", "/v1/contacts", json={"contacts": [{"external_id": "c-1", "name": "Ana"}]})
    assert (again.status_code, f"contact {ana['id']}" in again.text) == (400, True)


@pytest.mark.parametrize(
    "contact",
    [
        {"name": "Ana"},
        {"address_book": "Clients"},
        {"address_book_id": 7, "name": "Ana"},
        {"address_book": "Clients", "name": "Ana", "phone_numbers": [{"type": "work"}]},
        {"address_book": "Clients", "name": "Ana", "email_addresses": [{}]},
    ],
)
def test_an_incomplete_contact_is_refused(caller: Caller, contact: dict[str, Any]) -> None:
    assert caller.call("POST", "/v1/contacts", json={"contacts": [contact]}).status_code == 400
    assert caller.call("POST", "/v1/contacts", json=contact).status_code == 400
    assert caller.call("GET", "/v1/contacts").json() == {"contacts": []}


def test_events_and_what_was_said_outlive_a_restart(tmp_path: Path) -> None:
    database = tmp_path / "inbox.sqlite"
    with Sandbox(database=database) as sandbox:
        visit = sandbox.appointments.add("Ana", "650-555-0141")
        sandbox.appointments.confirm(visit)
        sandbox.appointments.reply(visit, "later", after=0.3)
    with Sandbox(database=database) as sandbox, Caller(sandbox) as caller:
        assert [event["id"] for event in listed(caller)] == [visit.event_id]
        wait_until(lambda: len(sandbox.appointments.conversation(visit)) == 2)
        assert sandbox.appointments.participant(visit)["state"] == "confirmed"
        assert sandbox.appointments.add("Ben").event_id == visit.event_id + 1


def test_the_requests_of_a_client_that_others_wrote_for_apptoto_are_understood(
    sandbox: Sandbox, caller: Caller
) -> None:
    """The shapes of its requests: nulls, a JSON type on every call, Python's booleans, an id as a body of DELETE."""
    caller.session.headers["Content-Type"] = "application/json"
    contact = {"name": "AB", "address_book": "Study", "external_id": "TAG1", "phone": "(650) 555-0142"}
    assert caller.call("POST", "/v1/contacts", data=json.dumps({"contacts": [contact]})).status_code == 200
    found = caller.call("GET", "/v1/contact", params={"external_id": "TAG1"}).json()
    person = {"name": "AB", "phone": "(650) 555-0142", "email": None, "contact_id": found["id"]}
    times = dict.fromkeys(("start_time", "end_time"), "2026-12-01T09:00:00-08:00")
    event = {"calendar": "Diary", "title": "Survey", "content": "How are you?", "external_id": None, **times}
    sandbox.appointments.add(calendar="Diary")
    body = {"events": [{**event, "participants": [person]}] * 15, "prevent_calendar_creation": True}
    posted = caller.call("POST", "/v1/events", data=json.dumps(body)).json()["events"]
    assert len({each["id"] for each in posted}) == 15
    sandbox.appointments.reply(posted[0]["participants"][0]["id"], "Fine")

    number = found["phone_numbers"][0]["normalized"]
    search = {"begin": "2021-04-01T00:00:00", "phone_number": number, "include_conversations": True, "page_size": 200}
    events = listed(caller, page=1, **search)
    assert listed(caller, page=2, **search) == []
    messages = [
        (person["event_id"], message["event_type"], message["content"])
        for each in events
        for person in each["participants"]
        for conversation in person["conversations"]
        for message in conversation["messages"]
    ]
    assert messages == [(posted[0]["id"], "replied", "Fine")]
    one = caller.call("GET", "/v1/event", params={"id": posted[0]["id"], "include_conversations": False})
    assert one.json() == posted[0]
    put(caller, {**posted[1], "calendar": "Diary", "title": "Changed"})
    assert caller.call("DELETE", "/v1/events", params={"id": posted[2]["id"]}).status_code == 200
    assert caller.call("DELETE", "/v1/contacts", data=json.dumps({"id": found["id"]})).status_code == 200
