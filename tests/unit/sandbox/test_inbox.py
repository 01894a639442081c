"""The inbox keeps every request with its outcome and sender, only the newest ones, and reads older files."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_apptoto.client.settings import SENDER_HEADER
from airflow_provider_apptoto.sandbox import Sandbox
from airflow_provider_apptoto.sandbox.inbox import Inbox
from tests.support.sandbox_caller import SMS, Caller, connect, raw_send, rest_of

if TYPE_CHECKING:
    from pathlib import Path

SENDER = {
    "origin": "task",
    "dag_id": "remind",
    "run_id": "manual__2026-11-29T08:00:00+00:00",
    "task_id": "text_everybody",
    "map_index": 3,
    "try_number": 2,
}
HANGS = "no answer for 0.1 s, then the connection is closed"
OLD_SCHEMA = """
CREATE TABLE inbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    received_at, type, "to", event_id, participant_id, message, subject, template_id
);
INSERT INTO inbox (received_at, type, "to", message)
VALUES ('2026-11-01T08:00:00.000+00:00', 'sms', '+16505550101', 'from long ago');
"""


def outcomes(sandbox: Sandbox) -> list[tuple[object, ...]]:
    names = ("outcome", "delivered", "status", "error")
    return [tuple(entry[name] for name in names) for entry in sandbox.messages(outcome="any")]


def test_an_accepted_message_is_listed_as_such(sandbox: Sandbox, caller: Caller) -> None:
    caller.send()

    assert outcomes(sandbox) == [("accepted", True, 200, None)]


def test_a_refused_request_is_listed_with_its_status_and_error_and_what_could_be_read(
    sandbox: Sandbox, caller: Caller
) -> None:
    answers = [
        caller.send({**SMS, "type": "fax", "event_id": "x"}),
        caller.send(SMS, auth=("nobody", "x")),
        caller.send([]),
        caller.call("POST", "/v1/send_message", data=b"{"),
        caller.call("POST", "/v1/send_message", data=b" " * 2_000_000),
    ]

    expected = [("refused", False, answer.status_code, answer.json()["error"]) for answer in answers]
    assert outcomes(sandbox) == expected
    assert [answer.status_code for answer in answers] == [400, 401, 400, 400, 413]
    fields = ("type", "to", "event_id", "message")
    assert [[entry[field] for field in fields] for entry in sandbox.messages(outcome="refused")] == [
        ["fax", "+16505550101", None, "Hi there!"],
        ["sms", "+16505550101", None, "Hi there!"],
        *[[None] * 4] * 3,
    ]
    assert sandbox.messages() == []


@pytest.mark.parametrize(
    ("fault", "status", "error"),
    [
        ({"status": 503}, 503, "Simulated fault: status 503."),
        ({"kind": "reset"}, None, "Simulated fault: the connection is reset, no answer."),
        ({"kind": "close"}, None, "Simulated fault: the connection is closed, no answer."),
        (
            {"kind": "hang", "seconds": 0.1},
            None,
            f"Simulated fault: {HANGS}.",
        ),
        ({"kind": "cut"}, 200, "Simulated fault: the connection is closed in the middle of the answer."),
        ({"kind": "html"}, 200, "Simulated fault: status 200 with an HTML page."),
    ],
    ids=lambda value: value.get("kind", "status") if isinstance(value, dict) else "",
)
@pytest.mark.parametrize("accepted", [False, True])
def test_a_fault_is_listed_whether_or_not_the_message_got_through(
    sandbox: Sandbox, fault: dict[str, Any], status: int | None, error: str, accepted: bool
) -> None:
    sandbox.fault(**fault, accepted=accepted)
    with connect(sandbox) as connection:
        connection.sendall(raw_send(sandbox, headers="Connection: close\r\n"))
        try:
            rest_of(connection)
        except ConnectionResetError:
            assert fault["kind"] == "reset"

    assert outcomes(sandbox) == [("fault", accepted, status, error)]
    assert len(sandbox.messages()) == accepted
    assert sandbox.messages(outcome="accepted") == []


def test_an_invalid_request_that_gets_a_fault_reaches_nobody(sandbox: Sandbox, caller: Caller) -> None:
    sandbox.fault(status=503, accepted=True)
    caller.send({"type": "sms", "message": "Hi"})

    assert outcomes(sandbox) == [("fault", False, 503, "Simulated fault: status 503.")]


def test_the_sender_is_kept_for_every_outcome(sandbox: Sandbox, caller: Caller) -> None:
    headers = {SENDER_HEADER: json.dumps(SENDER)}
    caller.send(headers=headers)
    caller.send({}, headers=headers)
    sandbox.fault(status=500)
    caller.send(headers=headers)
    caller.send()

    found = [{name: entry[name] for name in SENDER} for entry in sandbox.messages(outcome="any")]
    assert found == [SENDER, SENDER, SENDER, dict.fromkeys(SENDER)]


@pytest.mark.parametrize(
    ("header", "kept"),
    [
        ("", {}),
        ("{", {}),
        ("[1]", {}),
        ("[" * 20_000, {}),
        ('{"dag_id": 1, "task_id": ["a"], "try_number": "2", "map_index": true, "name": "Ana"}', {}),
        ('{"dag_id": "\\ud83d", "try_number": 1e3, "map_index": 99999999999}', {}),
        ('{"message": "other", "outcome": "refused", "dag_id": "remind"}', {"dag_id": "remind"}),
        ('{"dag_id": "caf\\u00e9", "try_number": 2}', {"dag_id": "café", "try_number": 2}),
    ],
)
def test_a_sender_that_can_not_be_read_does_no_harm(
    sandbox: Sandbox, caller: Caller, header: str, kept: dict[str, Any]
) -> None:
    assert caller.send(headers={SENDER_HEADER: header}).status_code == 200

    [entry] = sandbox.messages()
    assert {name: entry[name] for name in SENDER if entry[name] is not None} == kept
    assert "name" not in entry
    assert (entry["message"], entry["outcome"]) == (SMS["message"], "accepted")


def test_only_the_newest_are_kept_whatever_their_outcome() -> None:
    with Sandbox(keep=3) as sandbox, Caller(sandbox) as caller:
        for number in range(3):
            caller.send({**SMS, "message": str(number)})
        caller.send([])
        caller.send({**SMS, "message": "last"})
        kept = sandbox.messages(outcome="any")

    assert [entry["message"] for entry in kept] == ["2", None, "last"]


def test_what_was_deleted_makes_room(tmp_path: Path) -> None:
    with closing(Inbox(tmp_path / "inbox.sqlite", keep=2)) as inbox:
        for number in range(3):
            inbox.add({**SMS, "message": str(number)})
        assert inbox.clear() == 2
        for number in range(3, 5):
            inbox.add({**SMS, "message": str(number)})
        assert [entry["message"] for entry in inbox.entries()] == ["3", "4"]


def test_five_thousand_are_kept_by_default(tmp_path: Path) -> None:
    database = tmp_path / "inbox.sqlite"
    with closing(Inbox(database, keep=10_000)) as inbox:
        for number in range(5_003):
            inbox.add({**SMS, "message": str(number)})
    with closing(Inbox(database)) as inbox:
        inbox.add({**SMS, "message": "new"})
        kept = inbox.entries()

    assert (len(kept), kept[0]["message"], kept[-1]["message"]) == (5_000, "4", "new")


@pytest.mark.parametrize("keep", [0, -1])
def test_nothing_can_not_be_kept(keep: int) -> None:
    with pytest.raises(ValueError, match="keep must be at least 1"):
        Sandbox(keep=keep)


def test_a_file_of_the_first_version_is_taken_over(tmp_path: Path) -> None:
    database = tmp_path / "inbox.sqlite"
    with closing(sqlite3.connect(database)) as old:
        old.executescript(OLD_SCHEMA)
    for _ in range(2):
        with Sandbox(database=database) as sandbox, Caller(sandbox) as caller:
            caller.send(headers={SENDER_HEADER: json.dumps(SENDER)})
    with Sandbox(database=database) as sandbox:
        kept = sandbox.messages()

    assert [(entry["id"], entry["outcome"], entry["delivered"], entry["dag_id"]) for entry in kept] == [
        (1, "accepted", True, None),
        (2, "accepted", True, "remind"),
        (3, "accepted", True, "remind"),
    ]
    assert (kept[0]["message"], kept[0]["status"]) == ("from long ago", 200)


def test_a_search_by_recipient_or_dag_uses_an_index(tmp_path: Path) -> None:
    database = tmp_path / "inbox.sqlite"
    Inbox(database).close()
    with closing(sqlite3.connect(database)) as connection:
        for condition in ("dag_id = ?", '"to" = ?'):
            statement = f"EXPLAIN QUERY PLAN SELECT * FROM inbox WHERE {condition}"  # noqa: S608  the two above
            plan = connection.execute(statement, ["x"]).fetchall()
            assert "USING INDEX" in plan[0][3]


SEARCHED: list[dict[str, Any]] = [
    {"type": "sms", "to": "+16505550101", "message": "Grüße, Ana"},
    {"type": "email", "to": "ben@example.com", "subject": "Your 100% visit", "message": "Hi_"},
    {"type": "call", "participant_id": 4711, "template_id": "t-9"},
]


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ({}, [0, 1, 2]),
        ({"type": "email"}, [1]),
        ({"dag_id": "remind"}, [1]),
        ({"dag_id": "Remind"}, []),
        ({"to": "+16505550101"}, [0]),
        ({"to": "+1650555010"}, []),
        ({"text": "GRÜSSE"}, [0]),
        ({"text": "GRÜẞE"}, [0]),
        ({"text": "100%"}, [1]),
        ({"text": "%"}, [1]),
        ({"text": "_"}, [1]),
        ({"text": "471"}, [2]),
        ({"text": "T-9"}, [2]),
        ({"text": "text_everybody"}, [1]),
        ({"text": "'; DROP TABLE inbox; --"}, []),
        ({"type": "sms", "text": "ben"}, []),
        ({"type": None, "since_id": None}, [0, 1, 2]),
    ],
)
def test_a_search_finds_what_meets_all_its_conditions(search: dict[str, Any], found: list[int]) -> None:
    with Sandbox() as sandbox, Caller(sandbox) as caller:
        for number, message in enumerate(SEARCHED):
            headers = {SENDER_HEADER: json.dumps(SENDER)} if number == 1 else {}
            assert caller.send(message, headers=headers).status_code == 200
        ids = [int(str(entry["id"])) - 1 for entry in sandbox.messages(**search)]

    assert ids == found


@pytest.mark.parametrize(
    ("search", "problem"),
    [
        ({"channel": "sms"}, "Unknown parameters: 'channel'"),
        ({"outcome": "sent"}, "outcome must be one of accepted, refused, fault, any"),
        ({"since_id": -1}, "since_id must be a whole number"),
        ({"since_id": "two"}, "since_id must be a whole number"),
        ({"before_id": True}, "before_id must be a whole number"),
        ({"before_id": 2**63}, "before_id must be a whole number"),
        ({"before_id": "9" * 5000}, "before_id must be a whole number"),
        ({"to": 16505550101}, "to must be a string"),
        ({"dag_id": ""}, "dag_id must be a string that is not blank"),
        ({"text": " "}, "text must be a string that is not blank"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(sandbox: Sandbox, search: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        sandbox.messages(**search)
