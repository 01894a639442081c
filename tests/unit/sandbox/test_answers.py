"""People at appointments get messages with their fields filled, and answer: by call, by API and by magic numbers."""

from __future__ import annotations

import concurrent.futures
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.sandbox_caller import SMS, Caller, wait_until

if TYPE_CHECKING:
    import requests

    from airflow_provider_apptoto.sandbox import Sandbox
    from airflow_provider_apptoto.sandbox.appointments.store import Appointment


def said(sandbox: Sandbox, visit: Appointment) -> list[tuple[str, str]]:
    return [(each["event_type"], each["content"]) for each in sandbox.appointments.conversation(visit)]


def state(sandbox: Sandbox, visit: Appointment) -> str:
    return str(sandbox.appointments.participant(visit)["state"])


def send(caller: Caller, visit: Appointment, type: str = "sms", **fields: object) -> requests.Response:
    return caller.send({"type": type, "event_id": visit.event_id, "message": "Hi", **fields})


def answered(caller: Caller, visit: Appointment, **fields: object) -> requests.Response:
    return caller.call("POST", f"/sandbox/participants/{visit.participant_id}/answer", json=fields, auth=("", ""))


def test_a_message_to_an_event_reaches_each_participant_with_the_fields_filled(
    sandbox: Sandbox, caller: Caller
) -> None:
    people = [
        {"name": "Ana", "phone": "650-555-0141"},
        {"name": "Ben", "email": "ben@example.com"},
        {"name": "Chloe", "phone": "+16505550143", "email": "chloe@example.com"},
    ]
    visit = sandbox.appointments.add(
        participants=people, start_time="2026-12-01T09:00:00-08:00", custom_data={"service": "exam"}
    )
    text = "Hi {{ name }}, your {{ event.custom.service }} is at {{ event.start_time | time }}."

    assert send(caller, visit, message=text).json() == {"success": True}
    assert send(caller, visit, "email", message="{{ name }}", subject="For {{ name }}").json() == {"success": True}
    got = [(entry["to"], entry["subject"], entry["message"], entry["delivered"]) for entry in sandbox.messages()]
    assert got == [
        ("+16505550141", None, "Hi Ana, your exam is at 9:00 AM.", True),
        ("+16505550143", None, "Hi Chloe, your exam is at 9:00 AM.", True),
        ("ben@example.com", "For Ben", "Ben", True),
        ("chloe@example.com", "For Chloe", "Chloe", True),
    ]
    first = sandbox.messages()[0]
    ids = {"event_id": visit.event_id, "participant_id": visit.participant_ids[0]}
    assert {**first, **ids, "recipient_name": "Ana", "unfilled": text} == first
    assert said(sandbox, visit) == [("sent", "Hi Ana, your exam is at 9:00 AM.")]


def test_a_message_to_a_participant_reaches_nobody_else(sandbox: Sandbox, caller: Caller) -> None:
    visit = sandbox.appointments.add(participants=[{"phone": "650-555-0141"}, {"name": "Zoe", "phone": "650-555-0142"}])

    assert caller.send({"type": "call", "participant_id": str(visit.participant_ids[1]), "message": "Hi"}).ok
    assert [entry["to"] for entry in sandbox.messages()] == ["+16505550142"]
    assert len(sandbox.messages(text="zoe")) == 1


def test_unknown_events_and_participants_are_refused_once_there_are_appointments(
    sandbox: Sandbox, caller: Caller
) -> None:
    assert caller.send({"type": "sms", "event_id": 7, "message": "Hi {{ name }}"}).status_code == 200
    assert sandbox.messages()[0]["message"] == "Hi {{ name }}"
    visit = sandbox.appointments.add("Ana", "650-555-0141")

    for target in ({"event_id": 7}, {"participant_id": visit.event_id}, {"event_id": visit.participant_id}):
        answer = caller.send({"type": "sms", "message": "Hi", **target})
        assert answer.status_code == 404
        assert str(next(iter(target.values()))) in answer.json()["error"]
    assert len(sandbox.messages()) == 1


def test_who_has_no_number_gets_nothing(sandbox: Sandbox, caller: Caller) -> None:
    visit = sandbox.appointments.add("Ana", email="ana@example.com")

    assert send(caller, visit).status_code == 200
    assert sandbox.messages() == []
    [entry] = sandbox.messages(outcome="any")
    assert (entry["outcome"], entry["error"]) == ("accepted", "Not delivered: the recipient has no phone number.")


def test_a_fault_decides_whether_the_copies_arrive(sandbox: Sandbox, caller: Caller) -> None:
    visit = sandbox.appointments.add("Ana", "650-555-0141")
    sandbox.fault(status=503)
    sandbox.fault(status=500, accepted=True)

    assert [send(caller, visit, message="Hi {{ name }}").status_code for _ in range(2)] == [503, 500]
    assert [entry["message"] for entry in sandbox.messages()] == ["Hi Ana"]
    assert said(sandbox, visit) == [("sent", "Hi Ana")]


def test_a_message_is_timed_between_request_and_answer(sandbox: Sandbox, caller: Caller) -> None:
    visit = sandbox.appointments.add("Ana", "650-555-0141")
    before = datetime.now(UTC).timestamp()
    send(caller, visit)
    after = datetime.now(UTC).timestamp()

    [message] = sandbox.appointments.conversation(visit)
    at = datetime.fromisoformat(message["at"]).timestamp()
    assert before - 0.001 <= at <= after
    del message["id"], message["at"]
    assert message == {
        "event_type": "sent",
        "content": "Hi",
        "delivery_state": "delivered",
        "delivery_error": None,
        "delivery_failed": False,
        "send_failed": False,
    }


@pytest.mark.parametrize(
    ("action", "new_state", "reply"),
    [
        ("confirm", "confirmed", "YES"),
        ("cancel", "not_coming", "NO"),
        ("reschedule", "not_coming_needs_reschedule", "RESCHEDULE"),
        ("accept", "accepted", None),
        ("decline", "declined", None),
        ("stop", "initial", "STOP"),
    ],
)
def test_a_client_answers_by_api(
    sandbox: Sandbox, caller: Caller, action: str, new_state: str, reply: str | None
) -> None:
    visit = sandbox.appointments.add("Ana", "650-555-0141")
    send(caller, visit)
    entry = answered(caller, visit, answer=action).json()

    assert entry["state"] == state(sandbox, visit) == new_state
    assert said(sandbox, visit) == [("sent", "Hi"), *([("replied", reply)] if reply else [])]
    [listed] = caller.call("GET", "/v1/events").json()["events"]
    assert listed["participants"][0]["state"] == new_state


def test_a_reply_changes_no_state_and_comes_on_the_channel_of_the_message(sandbox: Sandbox, caller: Caller) -> None:
    visit = sandbox.appointments.add("Ana", "650-555-0141", "ana@example.com")
    send(caller, visit, "email")
    sandbox.appointments.reply(visit, "yes")
    sandbox.appointments.reply(visit, "by text", channel="sms")
    sandbox.appointments.confirm(visit, text="")

    assert said(sandbox, visit) == [("sent", "Hi"), ("replied", "yes"), ("replied", "by text")]
    conversations = sandbox.appointments.participant(visit)["conversations"]
    assert [[message["content"] for message in each["messages"]] for each in conversations] == [
        ["Hi", "yes"],
        ["by text"],
    ]
    assert state(sandbox, visit) == "confirmed"


def test_a_failure_is_reported_later(sandbox: Sandbox, caller: Caller) -> None:
    visit = sandbox.appointments.add("Ana", "650-555-0141")
    with pytest.raises(ValueError, match="none was sent"):
        sandbox.appointments.fail(visit)
    send(caller, visit)
    sandbox.appointments.fail(visit, after=0.2)
    assert sandbox.appointments.conversation(visit)[0]["delivery_failed"] is False

    wait_until(lambda: sandbox.appointments.conversation(visit)[0]["delivery_failed"] is True)
    [message] = sandbox.appointments.conversation(visit)
    assert (message["delivery_state"], message["send_failed"]) == ("failed", False)
    assert message["delivery_error"]


@pytest.mark.parametrize(("channel", "word"), [("sms", " Stop "), ("sms", "UNSUBSCRIBE"), ("call", "9")])
def test_a_stop_word_opts_out_of_its_channel(sandbox: Sandbox, caller: Caller, channel: str, word: str) -> None:
    visit = sandbox.appointments.add("Ana", "650-555-0141", "ana@example.com")
    sandbox.appointments.reply(visit, word, channel=channel)

    assert sandbox.appointments.opt_outs() == [{"channel": channel, "address": "+16505550141"}]
    assert send(caller, visit, channel).status_code == 200
    assert caller.send({**SMS, "type": channel, "to": "(650) 555-0141"}).status_code == 200
    assert sandbox.messages() == []
    refused = sandbox.appointments.conversation(visit)[-1]
    assert (refused["send_failed"], refused["delivery_error"]) == (True, "The recipient has opted out.")
    assert send(caller, visit, "email").status_code == 200
    assert len(sandbox.messages()) == 1
    caller.call("DELETE", "/sandbox/opt-outs")
    send(caller, visit, channel)
    assert len(sandbox.messages()) == 2


@pytest.mark.parametrize(
    ("number", "new_state", "reply"),
    [
        ("0100", "confirmed", "YES"),
        ("0110", "not_coming", "NO"),
        ("0120", "not_coming_needs_reschedule", "RESCHEDULE"),
        ("0130", "initial", "Can I come an hour later?"),
        ("0140", "initial", "STOP"),
        ("0150", "initial", None),
        ("0155", "initial", None),
        ("0199", "initial", None),
    ],
)
def test_the_owner_of_a_magic_number_answers_once(
    sandbox: Sandbox, caller: Caller, number: str, new_state: str, reply: str | None
) -> None:
    visit = sandbox.appointments.add("Ana", f"202-555-{number}")
    send(caller, visit)
    send(caller, visit)

    replies = [content for kind, content in said(sandbox, visit) if kind == "replied"]
    assert replies == ([reply] if reply else [])
    assert state(sandbox, visit) == new_state


def test_a_magic_answer_comes_after_its_seconds_and_not_after_another_answer(sandbox: Sandbox, caller: Caller) -> None:
    slow, other = (sandbox.appointments.add("Ana", f"202-555-{number}") for number in ("0101", "0101"))
    for visit in (slow, other):
        send(caller, visit)
    sandbox.appointments.cancel(other)
    assert state(sandbox, slow) == "initial"

    wait_until(lambda: state(sandbox, slow) == "confirmed")
    sent, replied = (datetime.fromisoformat(each["at"]) for each in sandbox.appointments.conversation(slow))
    assert (replied - sent).total_seconds() == pytest.approx(1, abs=0.002)
    assert said(sandbox, other) == [("sent", "Hi"), ("replied", "NO")]


def test_some_answer_only_a_call(sandbox: Sandbox, caller: Caller) -> None:
    visit = sandbox.appointments.add("Ana", "202-555-0151")
    send(caller, visit)
    send(caller, visit, "call")

    wait_until(lambda: state(sandbox, visit) == "confirmed")
    assert said(sandbox, visit)[-1] == ("replied", "1")


def test_some_numbers_can_not_be_reached(sandbox: Sandbox, caller: Caller) -> None:
    late, never, out, refused = (
        sandbox.appointments.add("Ana", f"202-555-{number}") for number in ("0160", "0170", "0180", "0181")
    )

    assert [send(caller, visit).status_code for visit in (late, never, out, refused)] == [200, 200, 200, 422]
    flags = [
        [(message["send_failed"], message["delivery_failed"]) for message in sandbox.appointments.conversation(visit)]
        for visit in (late, never, out, refused)
    ]
    assert flags == [[(False, True)], [(True, False)], [(True, False)], []]
    assert [entry["event_id"] for entry in sandbox.messages()] == [late.event_id]
    # The same numbers without an appointment.
    statuses = [caller.send({**SMS, "to": f"+1202555{number}"}).status_code for number in ("0170", "0180", "0181")]
    assert statuses == [200, 200, 422]
    assert len(sandbox.messages()) == 1


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"answer": "maybe"}, 400),
        ({}, 400),
        ({"answer": "reply"}, 400),
        ({"answer": "reply", "text": " "}, 400),
        ({"answer": "confirm", "channel": "fax"}, 400),
        ({"answer": "confirm", "after": -1}, 400),
        ({"answer": "confirm", "after": "1"}, 400),
        ({"answer": "confirm", "at": 1}, 400),
        ({"answer": "fail"}, 400),
    ],
)
def test_an_answer_that_is_not_possible_is_refused(
    sandbox: Sandbox, caller: Caller, fields: dict[str, Any], status: int
) -> None:
    visit = sandbox.appointments.add("Ana", "650-555-0141")
    answer = answered(caller, visit, **fields)

    assert (answer.status_code, answer.json()["success"]) == (status, False)
    assert said(sandbox, visit) == []
    for path in ("7", "x"):
        url = f"/sandbox/participants/{path}"
        assert caller.call("POST", f"{url}/answer", json={"answer": "confirm"}).status_code == 404
        assert caller.call("GET", url).status_code == 404
    assert caller.call("POST", f"/sandbox/participants/{visit.participant_id}/answer", data="{").status_code == 400
    with pytest.raises(ValueError, match="no participant 7"):
        sandbox.appointments.confirm(7)
    with pytest.raises(ValueError, match="no event 7"):
        sandbox.appointments.event(7)
    with pytest.raises(ValueError, match="no participant 7"):
        sandbox.appointments.participant(7)


def test_nobody_answers_for_a_deleted_appointment(sandbox: Sandbox, caller: Caller) -> None:
    visit = sandbox.appointments.add("Ana", "202-555-0101")
    send(caller, visit)
    sandbox.appointments.delete(visit)
    time.sleep(1.3)
    assert said(sandbox, visit) == [("sent", "Hi")]


def test_nobody_answers_who_was_taken_off_the_appointment(sandbox: Sandbox, caller: Caller) -> None:
    visit = sandbox.appointments.add("Ana", "650-555-0141")
    sandbox.appointments.confirm(visit, after=0.2)
    caller.call("PUT", "/v1/events", json={"events": [{"id": visit.event_id, "participants": []}]})
    time.sleep(0.5)
    assert sandbox.appointments.people() == []


def test_people_reschedule_and_opt_out(sandbox: Sandbox, caller: Caller) -> None:
    visit = sandbox.appointments.add("Ana", "650-555-0141")
    send(caller, visit)
    sandbox.appointments.reschedule(visit)
    assert state(sandbox, visit) == "not_coming_needs_reschedule"
    sandbox.appointments.stop(visit)
    assert said(sandbox, visit) == [("sent", "Hi"), ("replied", "RESCHEDULE"), ("replied", "STOP")]
    assert caller.call("GET", "/sandbox/opt-outs").json() == sandbox.appointments.opt_outs()
    assert sandbox.appointments.opt_outs() == [{"channel": "sms", "address": "+16505550141"}]


def test_the_list_for_the_page_finds_people_and_states(sandbox: Sandbox, caller: Caller) -> None:
    ana = sandbox.appointments.add("Ana Lopez", "650-555-0141", start_time="2026-12-01T10:00:00-08:00")
    ben = sandbox.appointments.add("Ben", "650-555-0142", start_time="2026-12-01T09:00:00-08:00", external_id="v-2")
    sandbox.appointments.confirm(ana)

    def found(**parameters: object) -> list[int]:
        answer = caller.call("GET", "/sandbox/appointments", params=parameters)
        assert answer.status_code == 200, answer.text
        return [entry["participant_id"] for entry in answer.json()]

    assert found() == [ben.participant_id, ana.participant_id]
    assert found(limit=1) == [ben.participant_id]
    assert found(state="confirmed") == found(text="LOPEZ") == [ana.participant_id]
    assert found(text="V-2") == found(text="+16505550142") == found(text=str(ben.event_id)) == [ben.participant_id]
    assert caller.call("GET", "/sandbox/appointments", params={"limit": 1}).headers["X-Total-Count"] == "2"
    for wrong in ({"states": "x"}, {"limit": 0}):
        assert caller.call("GET", "/sandbox/appointments", params=wrong).status_code == 400
    assert caller.call("DELETE", "/sandbox/appointments").json() == {"deleted": 2}
    assert found() == []


def test_a_clinics_day_is_the_same_each_time_and_added_once(sandbox: Sandbox, caller: Caller) -> None:
    added = caller.call("POST", "/sandbox/appointments/clinic-day", json={"day": "2026-12-01"}).json()["event_ids"]
    again = caller.call("POST", "/sandbox/appointments/clinic-day", json={"day": "2026-12-01"}).json()["event_ids"]
    first = [sandbox.appointments.event(event_id) for event_id in added]
    sandbox.clear()
    second = [
        sandbox.appointments.event(event_id)
        for event_id in sandbox.appointments.add_clinic_day(datetime(2026, 12, 1, tzinfo=UTC).date())
    ]

    assert (len(added), again) == (40, [])
    keys = ("external_id", "title", "start_time", "end_time")
    assert [[event[key] for key in keys] for event in first] == [[event[key] for key in keys] for event in second]
    people = [event["participants"][0] for event in first]
    assert len({person["name"] for person in people}) == 40
    assert all("55501" in person["normalized_phone"] for person in people)
    assert all(person["email"].endswith("@example.com") for person in people)
    assert first[0]["start_time"] == "2026-12-01T08:00:00-08:00"
    assert first[-1]["end_time"] == "2026-12-01T18:00:00-08:00"
    assert caller.call("POST", "/sandbox/appointments/clinic-day", json={"day": "soon"}).status_code == 400


def test_answers_from_many_threads_all_count(sandbox: Sandbox) -> None:
    visits = [sandbox.appointments.add(f"Client {number}", "650-555-0141") for number in range(40)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(sandbox.appointments.confirm, visits))

    assert {state(sandbox, visit) for visit in visits} == {"confirmed"}
    assert all(len(said(sandbox, visit)) == 1 for visit in visits)


@pytest.mark.parametrize(
    ("fault", "seen"), [({"status": 502}, 502), ({"status": 429, "retry_after": 1}, 429), ({"kind": "html"}, 200)]
)
def test_a_fault_can_replace_the_answer_to_a_read(
    sandbox: Sandbox, caller: Caller, fault: dict[str, Any], seen: int
) -> None:
    sandbox.fault(**fault, endpoint="reads")
    assert caller.send().status_code == 200

    answer = caller.call("GET", "/v1/events")
    assert answer.status_code == seen
    assert "events" not in answer.text
    assert caller.call("GET", "/v1/events").json() == {"events": []}
    with pytest.raises(ValueError, match="accepted is not allowed"):
        sandbox.fault(status=500, endpoint="reads", accepted=True)


def test_the_stream_tells_about_appointments(sandbox: Sandbox, caller: Caller) -> None:
    with caller.session.get(f"{sandbox.url}/sandbox/stream", stream=True, timeout=10) as stream:
        lines = stream.iter_lines(decode_unicode=True)
        next(lines)
        sandbox.appointments.add("Ana", "650-555-0141")
        assert next(line for line in lines if line.startswith("event")) == "event: appointments"


def test_the_stream_tells_about_an_answer_whose_time_has_come(sandbox: Sandbox, caller: Caller) -> None:
    visit = sandbox.appointments.add("Ana", "650-555-0141")
    sandbox.appointments.confirm(visit, after=0.5)
    with caller.session.get(f"{sandbox.url}/sandbox/stream", stream=True, timeout=10) as stream:
        lines = stream.iter_lines(decode_unicode=True)
        assert next(line for line in lines if line.startswith("event")) == "event: appointments"
    assert state(sandbox, visit) == "confirmed"


def test_a_number_that_can_not_be_reached_says_nothing_of_the_address(sandbox: Sandbox, caller: Caller) -> None:
    visit = sandbox.appointments.add("Ana", "202-555-0170", "ana@example.com")
    send(caller, visit, "email")
    assert [entry["to"] for entry in sandbox.messages()] == ["ana@example.com"]
