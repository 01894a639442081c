"""A sandbox starts and stops cleanly, and refuses invalid parameters."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import uvicorn

import airflow_provider_apptoto.sandbox
from airflow_provider_apptoto import __version__
from airflow_provider_apptoto.sandbox import Sandbox
from airflow_provider_apptoto.sandbox.server import _Server
from tests.support.sandbox_caller import SMS, Caller, connect, is_closed, raw_send

if TYPE_CHECKING:
    from pathlib import Path


def port_of(sandbox: Sandbox) -> int:
    port = urlsplit(sandbox.url).port
    assert port is not None
    return port


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("apptoto-sandbox-")]


def test_it_answers_as_soon_as_it_is_entered_and_on_loopback_only() -> None:
    with Sandbox() as sandbox, Caller(sandbox) as caller:
        assert sandbox.url == f"http://127.0.0.1:{port_of(sandbox)}"
        assert caller.send().json() == {"success": True}


def test_the_connection_is_what_airflow_reads_from_the_environment() -> None:
    with Sandbox(login="clinic@example.com", api_key="it's") as sandbox:
        assert json.loads(sandbox.connection()) == {
            "conn_type": "apptoto",
            "login": "clinic@example.com",
            "password": "it's",
            "host": sandbox.url,
        }


def test_leaving_closes_the_port_and_ends_the_thread() -> None:
    before = threads()
    with Sandbox() as sandbox:
        port = port_of(sandbox)
        assert len(threads()) == len(before) + 1

    assert threads() == before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_leaving_does_not_wait_for_clients_that_keep_their_connection() -> None:
    with Sandbox() as sandbox:
        silent, half, full = connect(sandbox), connect(sandbox), connect(sandbox)
        half.sendall(raw_send(sandbox)[:-5])
        full.sendall(raw_send(sandbox))
        assert full.recv(4096).startswith(b"HTTP/1.1 200 ")

    with silent, half, full:
        assert is_closed(silent)
        assert is_closed(half)


def test_leaving_does_not_wait_for_a_client_that_does_not_read() -> None:
    with Sandbox() as sandbox:
        with Caller(sandbox) as caller:
            for _ in range(16):
                caller.send({**SMS, "message": "x" * 1_000_000})
        stuck = connect(sandbox)
        stuck.sendall(b"GET /sandbox/messages HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert stuck.recv(1) == b"H"
    stuck.close()


def test_a_client_that_comes_while_it_stops_is_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    leave = _Server.leave
    turned_away: list[bool] = []

    def leave_late(server: _Server) -> None:
        with connect_to(port) as late:
            turned_away.append(is_closed(late))
        leave(server)

    def connect_to(port: int) -> socket.socket:
        return socket.create_connection(("127.0.0.1", port), timeout=60)

    monkeypatch.setattr(_Server, "leave", leave_late)
    with Sandbox() as sandbox:
        port = port_of(sandbox)
    assert turned_away == [True]


def test_stopping_twice_or_before_starting_does_nothing() -> None:
    before = threads()
    sandbox = Sandbox()
    sandbox.stop()
    sandbox.start()
    sandbox.stop()
    sandbox.stop()
    assert threads() == before


def test_it_can_be_started_again_on_the_same_port() -> None:
    with Sandbox() as sandbox:
        port = port_of(sandbox)
        with Caller(sandbox) as caller:
            caller.send()
    again = Sandbox(port=port)
    for _ in range(2):
        with again, Caller(again) as caller:
            assert port_of(again) == port
            assert again.messages() == []
            assert caller.send().status_code == 200


def test_starting_one_that_runs_is_an_error(sandbox: Sandbox) -> None:
    with pytest.raises(RuntimeError, match="already running"):
        sandbox.start()


def test_using_one_that_does_not_run_is_an_error() -> None:
    sandbox = Sandbox()
    for use in (lambda: sandbox.url, sandbox.connection, sandbox.messages, sandbox.clear, sandbox.fault):
        with pytest.raises(RuntimeError, match="not running"):
            use()


def test_a_busy_port_is_an_error_that_names_it(sandbox: Sandbox) -> None:
    port = port_of(sandbox)

    with pytest.raises(OSError, match=f"port {port}"):
        Sandbox(port=port).start()


def test_a_server_that_fails_to_start_is_an_error_and_leaves_nothing_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def startup(server: uvicorn.Server, *_: object, **__: object) -> None:
        server.should_exit = True

    before = threads()
    monkeypatch.setattr(uvicorn.Server, "startup", startup)
    with pytest.raises(RuntimeError, match="did not start"):
        Sandbox().start()
    assert threads() == before


@pytest.mark.parametrize(
    "options",
    [
        {"host": "0.0.0.0"},  # noqa: S104 - it is refused
        {"host": "192.0.2.1"},
        {"host": "::"},
        {"host": ""},
        {"port": -1},
        {"port": 65536},
        {"login": ""},
        {"login": "a:b"},
        {"login": "clinic@example.com\n"},
        {"api_key": ""},
        {"api_key": "two words"},
        {"api_key": "ключ"},
    ],
)
def test_what_it_can_not_be_is_refused_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"listens on 127\.0\.0\.1 only|from 0 to 65535|printable ASCII"):
        Sandbox(**options)


def test_a_database_keeps_messages_over_restarts(tmp_path: Path) -> None:
    database = tmp_path / "inbox.sqlite"
    with Sandbox(database=database) as sandbox, Caller(sandbox) as caller:
        caller.send()
    with Sandbox(database=str(database)) as sandbox, Caller(sandbox) as caller:
        caller.send({"type": "call", "participant_id": 7, "template_id": "4711"})
        kept = sandbox.messages()

    assert [(message["id"], message["to"], message["participant_id"]) for message in kept] == [
        (1, "+16505550101", None),
        (2, None, 7),
    ]


def test_a_database_that_can_not_be_used_is_an_error_that_names_it(tmp_path: Path) -> None:
    not_a_database = tmp_path / "notes.txt"
    not_a_database.write_text("something else, and long enough to be looked at " * 50)
    for database in (tmp_path / "missing" / "inbox.sqlite", not_a_database):
        with pytest.raises(OSError, match=database.name):
            Sandbox(database=database).start()


def test_clearing_forgets_messages_and_faults(sandbox: Sandbox, caller: Caller) -> None:
    caller.send()
    sandbox.fault(kind="reset", times=1000)
    sandbox.clear()

    assert sandbox.messages() == []
    assert caller.send().status_code == 200


def test_nothing_is_logged_about_what_was_sent(
    caller: Caller, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level("DEBUG"):
        caller.send()
        caller.send({"type": "sms", "message": "Hi"})

    assert [record.name for record in caplog.records if "uvicorn" in record.name] == []
    assert capfd.readouterr() == ("", "")


def test_it_names_itself_as_what_it_is(caller: Caller) -> None:
    server = caller.call("GET", "/v1/events").headers["Server"]

    assert server == f"airflow-provider-apptoto-sandbox/{__version__}"


def test_without_the_extra_only_its_use_fails_and_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "airflow_provider_apptoto.sandbox.server")
    monkeypatch.setitem(sys.modules, "uvicorn", None)

    with pytest.raises(ImportError, match=r"pip install 'airflow-provider-apptoto\[sandbox\]'"):
        _ = airflow_provider_apptoto.sandbox.Sandbox


def test_importing_the_package_loads_nothing_of_the_extra() -> None:
    code = (
        "import sys; import airflow_provider_apptoto.sandbox\n"
        "print([n for n in ('uvicorn', 'starlette', 'jinja2', 'airflow', 'requests') if n in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert run.stdout == "[]\n"


def test_the_package_has_nothing_else_to_offer() -> None:
    with pytest.raises(AttributeError, match="Sandpit"):
        _ = airflow_provider_apptoto.sandbox.Sandpit
