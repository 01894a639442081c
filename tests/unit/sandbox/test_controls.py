"""Messages can be searched, awaited, followed and deleted over HTTP, and no waiting client holds up the others."""

from __future__ import annotations

import json
import select
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, Self

import pytest

from airflow_provider_apptoto.client.settings import SENDER_HEADER
from airflow_provider_apptoto.sandbox import Sandbox, controls, feed
from tests.support.sandbox_caller import SMS, Caller, connect, is_closed, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

MESSAGES = "/sandbox/messages"


def send(caller: Caller, *, dag_id: str | None = None, **fields: object) -> None:
    headers = {} if dag_id is None else {SENDER_HEADER: json.dumps({"dag_id": dag_id})}
    assert caller.send({**SMS, **fields}, headers=headers).status_code == 200


def texts(caller: Caller, **search: object) -> list[str]:
    answer = caller.call("GET", MESSAGES, params=search)
    assert answer.status_code == 200, answer.text
    return [entry["message"] for entry in answer.json()]


class Stream:
    """A reader of the server-sent events of a sandbox."""

    def __init__(self, sandbox: Sandbox, headers: str = "") -> None:
        self.connection = connect(sandbox)
        request = f"GET /sandbox/stream HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}\r\n"
        self.connection.sendall(request.encode())
        self._received = b""
        self.head = self.read_until(b"retry: 1000\n\n").decode()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def read_until(self, end: bytes) -> bytes:
        while end not in self._received:
            chunk = self.connection.recv(65536)
            assert chunk, "the stream ended"
            self._received += chunk
        found, _, self._received = self._received.partition(end)
        return found + end

    def event(self, name: str) -> dict[str, Any]:
        """Return the data of the next event, which must have this name."""
        self.read_until(b"event: ")
        assert self.read_until(b"\n") == f"{name}\n".encode()
        data: dict[str, Any] = json.loads(self.read_until(b"\n\n").decode().removeprefix("data: "))
        return data

    def is_quiet(self, seconds: float = 0.2) -> bool:
        return not self._received.strip(b"\r\n0") and not select.select([self.connection], [], [], seconds)[0]


# --- search


def test_a_search_by_url_finds_what_meets_all_conditions(sandbox: Sandbox, caller: Caller) -> None:
    send(caller, message="one", dag_id="remind")
    send(caller, message="two", dag_id="results", type="call")
    send(caller, message="three", to="ana@example.com", type="email")
    caller.send({**SMS, "type": "fax", "message": "four"})
    sandbox.fault(status=503, accepted=True)
    caller.send({**SMS, "message": "five"})
    sandbox.fault(status=503)
    caller.send({**SMS, "message": "six"})

    assert texts(caller) == ["one", "two", "three", "five"]
    assert texts(caller, outcome="any") == ["one", "two", "three", "four", "five", "six"]
    assert texts(caller, outcome="accepted") == ["one", "two", "three"]
    assert texts(caller, outcome="refused") == ["four"]
    assert texts(caller, outcome="fault") == ["five", "six"]
    assert texts(caller, dag_id="remind") == ["one"]
    assert texts(caller, type="call") == ["two"]
    assert texts(caller, to="ana@example.com") == ["three"]
    assert texts(caller, text="THR") == ["three"]
    assert texts(caller, text="503", outcome="any") == ["five", "six"]
    assert texts(caller, type="sms", to="+16505550101", outcome="any", text="O") == ["one"]


def test_a_phone_number_is_found_though_the_plus_was_not_escaped(caller: Caller) -> None:
    send(caller)

    assert len(caller.call("GET", f"{MESSAGES}?to=+16505550101").json()) == 1
    assert len(caller.call("GET", f"{MESSAGES}?to=%2B16505550101").json()) == 1


def test_pages_go_back_from_the_newest_and_forward_from_an_id(caller: Caller) -> None:
    for number in range(5):
        send(caller, message=str(number))
    first = caller.call("GET", MESSAGES).json()[0]["id"]

    assert texts(caller, limit=2) == ["3", "4"]
    assert texts(caller, limit=2, before_id=first + 3) == ["1", "2"]
    assert texts(caller, limit=2, since_id=first) == ["1", "2"]
    assert texts(caller, since_id=first + 3) == ["4"]
    assert texts(caller, since_id=first + 4) == []
    for page in ({"before_id": first + 1}, {"since_id": first + 3}):
        answer = caller.call("GET", MESSAGES, params={"limit": 1, **page})
        assert answer.headers["X-Total-Count"] == "5"


def test_one_message_is_shown_with_its_segments(caller: Caller) -> None:
    send(caller, message="x" * 161)
    send(caller, message="Hi 👋 “a")
    send(caller, message="hello", type="call")
    caller.send({"type": "sms", "to": "+16505550101", "template_id": "t"})
    entries = caller.call("GET", MESSAGES).json()

    shown = [caller.call("GET", f"{MESSAGES}/{entry['id']}").json() for entry in entries]
    assert [entry.pop("segments") for entry in shown] == [
        {"encoding": "GSM-7", "units": 161, "parts": 2, "texts": ["x" * 153, "x" * 8], "not_gsm_7": ""},
        {"encoding": "UCS-2", "units": 8, "parts": 1, "texts": ["Hi 👋 “a"], "not_gsm_7": "“👋"},
        None,
        None,
    ]
    assert shown == entries


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("number", ["0", "-1", "x", "9" * 19, "9" * 5000])
def test_a_message_that_can_not_be_is_not_found(caller: Caller, method: str, number: str) -> None:
    assert caller.call(method, f"{MESSAGES}/{number}").status_code == 404


WRONG = [
    ("channel=sms", "Unknown parameters: 'channel'"),
    ("outcome=sent", "outcome must be one of"),
    ("dag_id=", "dag_id must be a string that is not blank"),
    ("dag_id=a&dag_id=b", "Each parameter can be given only once"),
    ("since_id=-1", "since_id must be a whole number"),
    ("since_id=" + "9" * 4000, "since_id must be a whole number"),
]


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        *WRONG,
        ("limit=0", "limit must be a whole number from 1 to 10000"),
        ("limit=10001", "limit must be a whole number"),
        ("wait=31", "wait must be from 0 to 30 seconds"),
        ("wait=-1", "wait must be"),
        ("wait=nan", "wait must be"),
        ("wait=soon", "wait must be"),
    ],
)
def test_a_wrong_search_is_refused(caller: Caller, query: str, problem: str) -> None:
    answer = caller.call("GET", f"{MESSAGES}?{query}")

    assert answer.status_code == 400
    assert problem in answer.json()["error"]


# --- delete


def test_what_a_search_finds_can_be_deleted(caller: Caller) -> None:
    send(caller, message="one", dag_id="remind")
    send(caller, message="two", dag_id="results")
    send(caller, message="three", type="call")
    caller.send({**SMS, "type": "fax", "message": "four"})

    assert caller.call("DELETE", MESSAGES, params={"dag_id": "remind"}).json() == {"deleted": 1}
    assert texts(caller, outcome="any") == ["two", "three", "four"]
    assert caller.call("DELETE", MESSAGES, params={"text": "o", "type": "fax"}).json() == {"deleted": 1}
    assert caller.call("DELETE", MESSAGES, params={"outcome": "refused"}).json() == {"deleted": 0}
    assert texts(caller, outcome="any") == ["two", "three"]
    assert caller.call("DELETE", MESSAGES).json() == {"deleted": 2}
    assert texts(caller, outcome="any") == []


def test_one_message_can_be_deleted(caller: Caller) -> None:
    send(caller, message="one")
    send(caller, message="two")
    path = f"{MESSAGES}/{caller.call('GET', MESSAGES).json()[0]['id']}"

    assert caller.call("DELETE", path).json() == {"deleted": 1}
    assert caller.call("DELETE", path).json() == {"deleted": 0}
    assert caller.call("GET", path).status_code == 404
    assert texts(caller) == ["two"]


@pytest.mark.parametrize(
    ("query", "problem"), [*WRONG, ("limit=1", "Unknown parameters: 'limit'"), ("wait=1", "Unknown parameters: 'wait'")]
)
def test_a_wrong_search_deletes_nothing(caller: Caller, query: str, problem: str) -> None:
    send(caller)
    answer = caller.call("DELETE", f"{MESSAGES}?{query}")

    assert answer.status_code == 400
    assert problem in answer.json()["error"]
    assert len(texts(caller)) == 1


@pytest.mark.parametrize("path", [MESSAGES, f"{MESSAGES}/1"])
def test_another_sites_page_deletes_nothing(caller: Caller, path: str) -> None:
    send(caller)
    headers = {"Origin": "http://apptoto.example"}

    assert caller.call("DELETE", path, headers=headers).status_code == 403
    assert len(texts(caller)) == 1


# --- wait


def later(action: Callable[[], object]) -> threading.Timer:
    timer = threading.Timer(0.3, action)
    timer.start()
    return timer


@pytest.fixture
def long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow waits that outlast the patience of the test's own requests."""
    monkeypatch.setattr(controls, "_MAX_WAIT", 3600)


@pytest.mark.usefixtures("long_waits")
def test_a_wait_ends_with_the_first_message_that_matches(sandbox: Sandbox, caller: Caller) -> None:
    send(caller, message="earlier", type="call")

    def send_both() -> None:
        with Caller(sandbox) as other:
            send(other, message="other", dag_id="results")
            send(other, message="awaited", dag_id="remind")

    timer = later(send_both)
    assert texts(caller, dag_id="remind", wait=3600) == ["awaited"]
    timer.join()


@pytest.mark.usefixtures("long_waits")
def test_a_wait_returns_at_once_what_is_there_and_nothing_when_the_time_is_over(caller: Caller) -> None:
    send(caller, message="there")
    assert texts(caller, wait=3600) == ["there"]

    start = time.monotonic()
    assert texts(caller, type="call", wait="0.4") == []
    assert time.monotonic() - start >= 0.4


def test_a_wait_ends_with_a_message_that_was_refused_or_got_a_fault(sandbox: Sandbox, caller: Caller) -> None:
    def send_all() -> None:
        with Caller(sandbox) as other:
            other.send({**SMS, "type": "fax"})
            sandbox.fault(status=503)
            other.send()

    timer = later(send_all)
    assert len(texts(caller, outcome="fault", wait=30)) == 1
    assert texts(caller, outcome="refused", wait=30) == [SMS["message"]]
    timer.join()


def test_a_client_that_gives_up_waiting_is_let_go(
    sandbox: Sandbox, caller: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    with connect(sandbox) as waiting:
        waiting.sendall(b"GET /sandbox/messages?wait=30 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        send(caller, type="call")
    send(caller)
    assert caplog.messages == []


def test_stopping_does_not_wait_for_those_who_wait() -> None:
    with Sandbox() as sandbox, Caller(sandbox) as caller:
        waiting = connect(sandbox)
        waiting.sendall(b"GET /sandbox/messages?wait=30 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        stream = Stream(sandbox)
        assert caller.call("GET", "/readyz").status_code == 200
    with waiting, stream:
        assert is_closed(waiting)  # without the answer that the end of its wait would have brought
        assert stream.connection.recv(65536) == b""


# --- ready


def test_ready_is_told_as_soon_as_messages_are_taken(caller: Caller) -> None:
    caller.session.auth = None
    answer = caller.call("GET", "/readyz")

    assert (answer.status_code, answer.json()) == (200, {"ready": True})


def test_the_summary_names_dags_and_faults(sandbox: Sandbox, caller: Caller) -> None:
    send(caller, dag_id="results")
    send(caller, dag_id="Remind")
    send(caller)
    sandbox.fault(status=503, probability=0.25, seed=9)
    sandbox.fault(status=429, times=2)

    summary = caller.call("GET", "/sandbox/summary").json()
    assert (summary["total"], summary["dags"]) == (3, ["Remind", "results"])
    assert [fault["description"] for fault in summary["faults"]] == [
        "For 25 % of all requests (seed 9): status 503. The message is not stored.",
        "For the next 2 requests: status 429. The message is not stored.",
    ]


# --- stream


def test_a_stream_tells_each_new_request_once(sandbox: Sandbox, caller: Caller) -> None:
    send(caller)
    with Stream(sandbox) as stream:
        assert "content-type: text/event-stream\r\n" in stream.head
        assert stream.head.startswith("HTTP/1.1 200 ")
        send(caller)
        first = stream.event("messages")["ids"]
        caller.send([])
        second = stream.event("messages")["ids"]
        assert stream.is_quiet()

    listed = [entry["id"] for entry in sandbox.messages(outcome="any")]
    assert first + second == listed[1:]


def test_a_stream_tells_of_deletions_and_faults(sandbox: Sandbox, caller: Caller) -> None:
    send(caller)
    with Stream(sandbox) as stream:
        caller.call("DELETE", MESSAGES)
        assert stream.event("deleted") == {}
        sandbox.fault(status=503)
        assert stream.event("faults") == {}
        sandbox.clear()
        names = {stream.read_until(b"\n\n").decode().split("event: ")[1].split("\n")[0] for _ in range(3)}
        assert names == {"deleted", "faults", "appointments"}


def test_a_client_that_reconnects_gets_what_it_missed(sandbox: Sandbox, caller: Caller) -> None:
    send(caller)
    with Stream(sandbox) as stream:
        send(caller)
        stream.read_until(b"id: ")
        last = int(stream.read_until(b"\n"))
    for _ in range(2):
        send(caller)

    with Stream(sandbox, f"Last-Event-ID: {last}\r\n") as stream:
        assert stream.event("messages")["ids"] == [last + 1, last + 2]


@pytest.mark.parametrize("last", ["1000000", "9" * 19, "x", "-1"])
def test_a_client_from_before_a_restart_gets_what_is_new_to_it(last: str) -> None:
    with Sandbox() as sandbox, Caller(sandbox) as caller:
        send(caller)
        with Stream(sandbox, f"Last-Event-ID: {last}\r\n") as stream:
            if last == "1000000":
                assert stream.event("messages")["ids"] == [1]
            send(caller)
            assert stream.event("messages")["ids"] == [2]


def test_a_quiet_stream_shows_that_it_is_alive(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "HEARTBEAT", 0.05)
    with Stream(sandbox) as stream:
        for _ in range(3):
            stream.read_until(b": still here\n\n")


def test_a_reader_that_is_slow_holds_nobody_up_and_misses_nothing() -> None:
    with Sandbox() as sandbox, Caller(sandbox) as caller:
        slow = Stream(sandbox)
        slow.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        with Stream(sandbox) as quick:
            for _ in range(300):
                send(caller)
            told: list[int] = []
            while len(told) < 300:
                told += quick.event("messages")["ids"]
        assert told == list(range(1, 301))
        with slow:
            told = []
            while len(told) < 300:
                told += slow.event("messages")["ids"]
        assert told == list(range(1, 301))


def test_a_reader_that_never_reads_keeps_no_memory_and_stops_with_the_sandbox() -> None:
    with Sandbox() as sandbox, Caller(sandbox) as caller:
        stuck = connect(sandbox)
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        stuck.sendall(b"GET /sandbox/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        for _ in range(200):
            send(caller)
    stuck.close()


def test_readers_that_left_are_forgotten(
    sandbox: Sandbox, caller: Caller, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "HEARTBEAT", 3600)  # which would notice it too
    readers = sandbox._running.feed._readers
    for _ in range(3):
        Stream(sandbox).connection.close()
    wait_until(lambda: not readers)
    send(caller)

    assert caplog.messages == []
