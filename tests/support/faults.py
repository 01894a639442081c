"""A server with a real socket that fails on purpose, and records what it received."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import ssl

Script = Callable[["Exchange"], None]
"""How to handle one request after it was read."""


@dataclass
class Request:
    """One request as received."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.body)
        return parsed


@dataclass
class Exchange:
    """One request and the socket for the answer."""

    server: FaultServer
    socket: socket.socket
    request: Request
    keep_open: bool = False

    def accept(self) -> None:
        """Accept the message, as if it were sent to the person."""
        self.server.accepted.append(self.request)

    def raw(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self, status: int, body: bytes | dict[str, Any] = b"", **headers: str) -> None:
        """Send a complete answer, and keep the connection open."""
        if isinstance(body, dict):
            body = json.dumps(body).encode()
        lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.raw("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        self.keep_open = True

    def reset(self) -> None:
        """Close with RST instead of FIN."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@dataclass
class FaultServer:
    """Runs one script per request, and repeats the last one.

    :param scripts: what to do with each request; none: the message is accepted.
    :param tls: the server side of TLS, or none.
    :param idle: seconds after which a connection without a request is closed; by default never.
    """

    scripts: list[Script] = field(default_factory=list)
    tls: ssl.SSLContext | None = None
    idle: float | None = None
    requests: list[Request] = field(default_factory=list)
    accepted: list[Request] = field(default_factory=list)
    connections: int = 0
    closed: int = 0
    bytes_seen: int = 0

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.released = threading.Event()
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._listen)]
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        # wakes accept(), which close() alone does not
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        self._converse(connection)
        self.closed += 1

    def _converse(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(self.idle)
            stream = self.tls.wrap_socket(connection, server_side=True) if self.tls else connection
            with stream:
                while (request := self._read(stream)) is not None:
                    self.requests.append(request)
                    exchange = Exchange(self, stream, request)
                    self._script()(exchange)
                    if not exchange.keep_open:
                        return

    def _script(self) -> Script:
        if not self.scripts:
            return accepting
        return self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]

    def _read(self, stream: socket.socket) -> Request | None:
        data = b""
        while b"\r\n\r\n" not in data:
            chunk = stream.recv(65536)
            if not chunk:
                return None
            self.bytes_seen += len(chunk)
            data += chunk
            if data.startswith(b"\x16\x03"):  # the client speaks TLS, and this server doesn't
                stream.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                return None
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, path, _ = first.split(" ")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        while len(body) < int(headers.get("content-length", 0)):
            chunk = stream.recv(65536)
            if not chunk:
                return None
            body += chunk
        return Request(method, path, headers, body)


def accepting(exchange: Exchange) -> None:
    """Answer as Apptoto documents."""
    exchange.accept()
    exchange.answer(200, {"success": True})


def answering(status: int, body: bytes | dict[str, Any] = b"", *, accepted: bool = False, **headers: str) -> Script:
    """Send a complete answer with a status, whether or not the message was accepted."""

    def script(exchange: Exchange) -> None:
        if accepted:
            exchange.accept()
        exchange.answer(status, body, **headers)

    return script


def sending_raw(data: bytes, *, accepted: bool = True) -> Script:
    """Send these bytes and close the connection."""

    def script(exchange: Exchange) -> None:
        if accepted:
            exchange.accept()
        exchange.raw(data)

    return script


def resetting(*, accepted: bool) -> Script:
    """Reset the connection instead of answering."""

    def script(exchange: Exchange) -> None:
        if accepted:
            exchange.accept()
        exchange.reset()

    return script


def hanging(exchange: Exchange) -> None:
    """Accept the message and never answer."""
    exchange.accept()
    exchange.server.released.wait()


def closing_after_the_answer(exchange: Exchange) -> None:
    """Accept the message, and close the idle connection without announcing it."""
    accepting(exchange)
    exchange.keep_open = False


@contextlib.contextmanager
def not_listening() -> Iterator[int]:
    """Yield a loopback port on which nothing listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@contextlib.contextmanager
def never_accepting() -> Iterator[int]:
    """Yield a port that accepts no connections, because its backlog is full."""
    with socket.socket() as listener, contextlib.ExitStack() as queue:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port: int = listener.getsockname()[1]
        for _ in range(8):
            waiting = queue.enter_context(socket.socket())
            waiting.setblocking(False)  # noqa: FBT003  the library's
            waiting.connect_ex(("127.0.0.1", port))
        yield port
