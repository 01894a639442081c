"""The sandbox accepts what Apptoto documents, and refuses everything else as assumed."""

from __future__ import annotations

import concurrent.futures
import json
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_apptoto.sandbox import Sandbox
from tests.support.sandbox_caller import SMS, Caller, connect, raw_send, rest_of

if TYPE_CHECKING:
    from pathlib import Path

JSON_TYPE = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    "message",
    [
        {"to": "+16505551212", "type": "sms", "message": "Hi there!"},
        {"participant_id": "123456", "type": "sms", "message": "Hi {{ name }}! {{ event.start_time }}"},
        {"participant_id": 123456, "type": "call", "message": "Hi"},
        {"event_id": 77, "type": "call", "template_id": "4711"},
        {"to": "ana@example.com", "type": "email", "subject": "Your visit", "message": "Grüße 👋"},
        {"to": "+16505550101", "event_id": 77, "type": "sms", "message": "Hi", "template_id": "4711"},
        {"to": "+16505550101", "event_id": None, "subject": "", "type": "sms", "message": "Hi"},
        {"to": "+16505550101", "type": "sms", "message": "Hi", "something_else": [1]},
    ],
)
def test_a_documented_message_is_taken_and_kept_as_it_came(
    sandbox: Sandbox, caller: Caller, message: dict[str, Any]
) -> None:
    answer = caller.send(message)

    assert (answer.status_code, answer.json()) == (200, {"success": True})
    (kept,) = sandbox.messages()
    fields = ("type", "to", "event_id", "participant_id", "message", "subject", "template_id")
    assert {field: kept[field] for field in fields} == {field: message.get(field) or None for field in fields}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"type": None}, "type"),
        ({"type": "fax"}, "type"),
        ({"type": "SMS"}, "type"),
        ({"type": ["sms"]}, "type"),
        ({"type": 1}, "type"),
        ({"to": None}, "to, event_id, participant_id"),
        ({"to": " "}, "to, event_id, participant_id"),
        ({"to": 16505550101}, "to must be a string"),
        ({"to": ["+16505550101"]}, "to must be a string"),
        ({"to": None, "event_id": ""}, "to, event_id, participant_id"),
        ({"event_id": "seven"}, "event_id"),
        ({"event_id": "\u0667"}, "event_id"),
        ({"event_id": "7\n"}, "event_id"),
        ({"event_id": True}, "event_id"),
        ({"event_id": 7.0}, "event_id"),
        ({"participant_id": -7}, "participant_id"),
        ({"participant_id": 10**18}, "participant_id"),
        ({"participant_id": {"id": 7}}, "participant_id"),
        ({"message": None}, "message is required unless template_id is given"),
        ({"message": "\n "}, "message is required unless template_id is given"),
        ({"message": 7}, "message must be a string"),
        ({"message": "half a pair: \ud83d"}, "message must be a string"),
        ({"subject": {}}, "subject must be a string"),
        ({"template_id": 4711}, "template_id must be a string"),
    ],
)
def test_what_the_documentation_rules_out_is_refused_by_name_and_not_kept(
    sandbox: Sandbox, caller: Caller, changes: dict[str, object], named: str
) -> None:
    answer = caller.send({**SMS, **changes})

    assert answer.status_code == 400
    assert answer.json()["success"] is False
    assert named in answer.json()["error"]
    assert sandbox.messages() == []


def test_a_message_without_a_target_is_refused_and_not_kept(sandbox: Sandbox, caller: Caller) -> None:
    answer = caller.send({"type": "sms", "message": "Hi"})

    assert answer.status_code == 400
    assert answer.json() == {
        "success": False,
        "error": "One of to, event_id, participant_id is required.",
    }
    assert sandbox.messages() == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"type=sms",
        b"[]",
        b'"sms"',
        b"null",
        b"\xff\xfe",
        json.dumps(SMS).encode("utf-16"),
        b"[" * 200_000,
        b'{"event_id": ' + b"9" * 5_000 + b"}",
        b'{"type": "sms", "to": "+16505550101", "message": NaN}',
    ],
    ids=[
        "nothing",
        "half",
        "form",
        "array",
        "string",
        "null",
        "not UTF-8",
        "UTF-16",
        "too deep",
        "number too long",
        "not a number",
    ],
)
def test_a_body_that_is_not_a_json_object_is_refused(sandbox: Sandbox, caller: Caller, body: bytes) -> None:
    answer = caller.call("POST", "/v1/send_message", data=body, headers=JSON_TYPE)

    assert answer.status_code == 400
    assert answer.json()["success"] is False
    assert sandbox.messages() == []


@pytest.mark.parametrize("media_type", ["", "text/plain", "application/x-www-form-urlencoded"])
def test_a_body_that_is_not_labelled_as_json_is_refused(sandbox: Sandbox, caller: Caller, media_type: str) -> None:
    answer = caller.call("POST", "/v1/send_message", data=json.dumps(SMS), headers={"Content-Type": media_type})

    assert answer.status_code == 400
    assert "application/json" in answer.json()["error"]
    assert sandbox.messages() == []


def test_a_charset_in_the_content_type_does_no_harm(caller: Caller) -> None:
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}

    assert caller.call("POST", "/v1/send_message", data=json.dumps(SMS), headers=headers).status_code == 200


def test_a_body_of_a_mebibyte_is_read_and_a_larger_one_refused(sandbox: Sandbox, caller: Caller) -> None:
    just_fits = json.dumps(SMS).encode().ljust(1024 * 1024)

    assert (
        caller.call("POST", "/v1/send_message", data=just_fits, headers=JSON_TYPE).status_code,
        caller.call("POST", "/v1/send_message", data=just_fits + b" ", headers=JSON_TYPE).status_code,
        caller.call("POST", "/v1/send_message", data=just_fits * 4, headers=JSON_TYPE).status_code,
        caller.call("POST", "/v1/send_message", data=iter([just_fits, just_fits]), headers=JSON_TYPE).status_code,
        caller.call("POST", "/sandbox/faults", data=just_fits + b" ").status_code,
    ) == (200, 413, 413, 413, 413)
    assert len(sandbox.messages()) == 1


@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/send_message"), ("GET", "/v1/events")])
@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Basic",
        "Basic !",
        "Basic ä",
        "Basic c2FuZGJveEBleGFtcGxlLmNvbQ==",
        "Basic c2FuZGJveEBleGFtcGxlLmNvbTp3cm9uZw==",
        "Bearer c2FuZGJveEBleGFtcGxlLmNvbTpzYW5kYm94LWFwaS1rZXk=",
    ],
)
def test_only_the_account_gets_in(
    sandbox: Sandbox, caller: Caller, method: str, path: str, authorization: str | None
) -> None:
    caller.session.auth = None
    headers = {} if authorization is None else {"Authorization": authorization.encode()}
    answer = caller.call(method, path, json=SMS, headers=headers)

    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Basic ")
    assert answer.json()["success"] is False
    assert sandbox.messages() == []


def test_the_name_of_the_scheme_may_be_in_any_case(caller: Caller) -> None:
    caller.session.auth = None
    headers = {"Authorization": "basic c2FuZGJveEBleGFtcGxlLmNvbTpzYW5kYm94LWFwaS1rZXk="}

    assert caller.send(headers=headers).status_code == 200


def test_the_account_can_be_chosen() -> None:
    with Sandbox(login="clinic@example.com", api_key="a:key") as sandbox, Caller(sandbox) as caller:
        assert caller.send().status_code == 200
        caller.session.auth = ("sandbox@example.com", "sandbox-api-key")
        assert caller.send().status_code == 401


def test_there_are_no_events(caller: Caller) -> None:
    answer = caller.call("GET", "/v1/events", params={"page_size": 1})

    assert (answer.status_code, answer.json()) == (200, {"events": []})


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/send_message", 405),
        ("POST", "/v1/send_message/", 404),
        ("POST", "/send_message", 404),
        ("GET", "/v1/calendars", 404),
        ("PUT", "/sandbox/messages", 405),
    ],
)
def test_a_wrong_path_or_method_is_told_in_json(caller: Caller, method: str, path: str, status: int) -> None:
    answer = caller.call(method, path, json=SMS)

    assert answer.status_code == status
    assert answer.json()["success"] is False


def test_messages_are_listed_in_order_and_can_be_emptied(sandbox: Sandbox, caller: Caller) -> None:
    for number in range(3):
        caller.send({**SMS, "message": f"number {number}"})

    listed = caller.call("GET", "/sandbox/messages").json()
    assert [message["message"] for message in listed] == ["number 0", "number 1", "number 2"]
    assert listed == sandbox.messages()
    assert listed[0]["received_at"].endswith("+00:00")
    assert caller.call("DELETE", "/sandbox/messages").json() == {"deleted": 3}
    assert caller.call("GET", "/sandbox/messages").json() == []


def test_messages_of_many_clients_at_once_are_each_kept_once(sandbox: Sandbox) -> None:
    def send_some(client: int) -> list[int]:
        with Caller(sandbox) as caller:
            return [caller.send({**SMS, "message": f"{client}.{n}"}).status_code for n in range(20)]

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert [status for statuses in pool.map(send_some, range(8)) for status in statuses] == [200] * 160
    assert sorted(str(message["message"]) for message in sandbox.messages()) == sorted(
        f"{client}.{n}" for client in range(8) for n in range(20)
    )


@pytest.mark.parametrize("host", ["apptoto.example", "127.0.0.1.apptoto.example", "", "10.0.0.1:8025"])
def test_a_foreign_host_is_refused(sandbox: Sandbox, caller: Caller, host: str) -> None:
    assert caller.send(headers={"Host": host}).status_code == 400
    assert caller.call("GET", "/", headers={"Host": host}).status_code == 400
    assert sandbox.messages() == []


@pytest.mark.parametrize("host", ["127.0.0.1:8025", "localhost"])
def test_a_name_of_this_host_is_let_in(caller: Caller, host: str) -> None:
    assert caller.call("GET", "/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/send_message"),
        ("POST", "/sandbox/faults"),
        ("DELETE", "/sandbox/faults"),
        ("DELETE", "/sandbox/messages"),
    ],
)
@pytest.mark.parametrize("origin", ["http://apptoto.example", "null", "http://127.0.0.1:1"])
def test_another_sites_page_changes_nothing(
    sandbox: Sandbox, caller: Caller, method: str, path: str, origin: str
) -> None:
    caller.send()
    sandbox.fault(kind="html")

    assert caller.call(method, path, json=SMS, headers={"Origin": origin}).status_code == 403
    assert len(sandbox.messages()) == 1
    assert len(caller.faults()) == 1


def test_its_own_pages_and_readers_are_not_refused(sandbox: Sandbox, caller: Caller) -> None:
    assert caller.send(headers={"Origin": sandbox.url}).status_code == 200
    assert caller.call("GET", "/sandbox/messages", headers={"Origin": "null"}).status_code == 200


@pytest.mark.parametrize("path", ["/v1/send_message", "/sandbox/faults"])
def test_a_client_that_leaves_in_the_middle_of_its_request_leaves_nothing_behind(
    sandbox: Sandbox, caller: Caller, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    request = raw_send(sandbox).replace(b"/v1/send_message", path.encode())
    with connect(sandbox) as connection:
        connection.sendall(request[:-5])

    assert caller.send().status_code == 200
    assert len(sandbox.messages()) == 1
    assert caplog.messages == []


def test_what_is_not_http_is_refused(sandbox: Sandbox) -> None:
    with connect(sandbox) as connection:
        connection.sendall(b"hello\r\n\r\n")
        assert rest_of(connection).startswith(b"HTTP/1.1 400 ")


def test_a_database_that_breaks_is_told_and_not_taken_for_success(tmp_path: Path) -> None:
    database = tmp_path / "inbox.sqlite"
    with Sandbox(database=database) as sandbox, Caller(sandbox) as caller:
        other = sqlite3.connect(database, isolation_level=None)
        other.execute("DROP TABLE inbox")
        other.close()
        answer = caller.send()

    assert answer.status_code == 500
    assert answer.json()["success"] is False
    assert "database" in answer.json()["error"]
