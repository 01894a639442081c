"""Call a sandbox over real sockets."""

from __future__ import annotations

import base64
import json
import socket
import time
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import requests

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_apptoto.sandbox import Sandbox

SMS = {"type": "sms", "to": "+16505550101", "message": "Hi there!"}
# Long enough for any machine: it only ends tests that would never end.
PATIENCE = 60


class Caller:
    """A client of one sandbox, with its credentials."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.auth = (sandbox.login, sandbox.api_key)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.session.close()

    def call(self, method: str, path: str, **options: Any) -> requests.Response:
        options = {"allow_redirects": False, **options}
        return self.session.request(method, self.sandbox.url + path, timeout=PATIENCE, **options)

    def send(self, message: object = None, **options: Any) -> requests.Response:
        return self.call("POST", "/v1/send_message", json=SMS if message is None else message, **options)

    def faults(self) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = self.call("GET", "/sandbox/faults").json()
        return listed


def connect(sandbox: Sandbox) -> socket.socket:
    port = urlsplit(sandbox.url).port
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)


def raw_send(sandbox: Sandbox, message: object = None, *, headers: str = "") -> bytes:
    """Return the raw request that sends a message."""
    body = json.dumps(SMS if message is None else message).encode()
    account = base64.b64encode(f"{sandbox.login}:{sandbox.api_key}".encode()).decode()
    head = (
        "POST /v1/send_message HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Authorization: Basic {account}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    )
    return head.encode() + body


def rest_of(connection: socket.socket) -> bytes:
    """Read until the other end closes."""
    received = b""
    while chunk := connection.recv(4096):
        received += chunk
    return received


def is_closed(connection: socket.socket) -> bool:
    """Wait until the other end closes the connection without an answer."""
    try:
        return rest_of(connection) == b""
    except ConnectionResetError:
        return True


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "the condition never came true"
        time.sleep(0.005)
