"""A server that stands in for Apptoto: a separate process that limits its rate, fails on demand, and counts copies.

Its list of accepted messages is the truth that every report is compared with.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import math
import multiprocessing
import re
import socket
import struct
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Self

import psutil

from benchmarks import events
from benchmarks.people import person_of
from benchmarks.settings import LATENCY, WINDOW
from tests.chaos.draws import Draws, Fault

if TYPE_CHECKING:
    from multiprocessing.connection import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """How the server behaves.

    :param latency: seconds before it answers.
    :param limit: requests that it accepts in a window; ``None``: no limit.
    :param faults: share of the requests that fail, 0 to 1, drawn for each person and each request within the limit.
    :param seed: of the faults.
    :param kill_at: number of the message at whose acceptance the server kills the sending process; ``None``: never.
    :param events: number of appointments that it lists, whatever the window, a minute apart from tomorrow on.
    """

    latency: float = LATENCY
    limit: int | None = None
    faults: float = 0.0
    seed: int = 0
    kill_at: int | None = None
    events: int = 0


@dataclass(slots=True)
class Seen:
    """What the server observed.

    :param copies: accepted messages, by person.
    :param refused: requests over the limit.
    :param killed: whether the server killed a sending process.
    :param arrivals: time of each request, in seconds of ``time.monotonic``.
    :param reads: requests that read.
    :param sent_bytes: of the answers to these.
    """

    copies: Counter[int] = field(default_factory=Counter)
    refused: int = 0
    killed: bool = False
    arrivals: list[float] = field(default_factory=list)
    reads: int = 0
    sent_bytes: int = 0


_SUCCESS = b'{"success": true}'
_ANSWERS: dict[Fault | None, tuple[int, str]] = {
    None: (200, ""),
    Fault.TOO_MANY: (429, ""),
    Fault.TOO_MANY_RETRY_AFTER: (429, "Retry-After: 1"),
    Fault.UNAVAILABLE_RETRY_AFTER: (503, "Retry-After: 1"),
    Fault.UNAVAILABLE_NOT_ACCEPTED: (503, ""),
    Fault.UNAVAILABLE_ACCEPTED: (503, ""),
    Fault.BROKEN_NOT_ACCEPTED: (500, ""),
    Fault.BROKEN_ACCEPTED: (500, ""),
    Fault.REFUSED: (422, ""),
    Fault.REDIRECT: (302, "Location: /v1/send_message"),
    Fault.INTERIM: (200, ""),
    Fault.INTERIM_REFUSED: (422, ""),
    Fault.LATE_ANSWER: (429, ""),
}
_ACCEPTED = {fault for fault in (None, *Fault) if fault is None or re.search(r"(?<!not )accepted$", fault)}
_INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n"
_PAUSE = 0.02
"""Seconds between two answers to the same request."""
_CUT: dict[Fault | None, bytes] = {
    Fault.CUT_IN_HEADERS: b"HTTP/1.1 200 OK\r\nContent-Ty",
    Fault.CUT_IN_BODY: b'HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n{"success":',
    Fault.CLOSED_ACCEPTED: b"",
}


class Responder:
    """Answers requests as the current conditions say, and records what it saw."""

    def __init__(self) -> None:
        self.reset(Conditions())

    def reset(self, conditions: Conditions) -> None:
        """Clear the record and apply new conditions."""
        self._conditions = conditions
        self._draws = Draws(seed=conditions.seed, faults=conditions.faults)
        self._window: collections.deque[float] = collections.deque()
        self._requests: Counter[int] = Counter()
        self.seen = Seen()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while await self._exchange(reader, writer):
                pass
        writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request, and return whether the connection stays open."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        length = re.search(r"(?im)^content-length: *(\d+)", head)
        body = await reader.readexactly(int(length[1]) if length else 0)
        if head.startswith("GET /v1/events"):
            await asyncio.sleep(self._conditions.latency)
            found = events.answer(head.split(" ", 2)[1], self._conditions.events)
            self.seen.reads += 1
            self.seen.sent_bytes += len(found)
            _answer(writer, 200, "Content-Type: application/json", found)
            return True
        if not head.startswith("POST "):  # a client that follows redirects
            _answer(writer, 200, "", b"<html>Hello</html>")
            return True
        now = time.monotonic()
        self.seen.arrivals.append(now)
        wait = self._seconds_until_free(now)
        if wait:
            self.seen.refused += 1
            await asyncio.sleep(self._conditions.latency)
            _answer(writer, 429, f"Retry-After: {wait}")
            return True
        person = person_of(json.loads(body)["to"])
        fault = self._draws.fault(person, self._requests[person])
        self._requests[person] += 1
        if fault in _ACCEPTED:
            self.seen.copies[person] += 1
            if self.seen.copies.total() == self._conditions.kill_at:
                _kill_sender(writer)
                self.seen.killed = True
        await asyncio.sleep(self._conditions.latency)
        return await _finish(fault, reader, writer)

    def _seconds_until_free(self, now: float) -> int:
        """Count a request in the window and return 0, or return the seconds until the window has room."""
        while self._window and self._window[0] <= now - WINDOW:
            self._window.popleft()
        if self._conditions.limit is None or len(self._window) < self._conditions.limit:
            self._window.append(now)
            return 0
        return math.ceil(self._window[0] + WINDOW - now)


async def _finish(fault: Fault | None, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    if fault in _ANSWERS:
        if fault in {Fault.INTERIM, Fault.INTERIM_REFUSED}:
            writer.write(_INTERIM)
            await asyncio.sleep(_PAUSE)
        status, header = _ANSWERS[fault]
        _answer(writer, status, header, _SUCCESS if status == HTTPStatus.OK else b"")
        if fault is Fault.LATE_ANSWER:  # it was meant for another request
            await asyncio.sleep(_PAUSE)
            _answer(writer, HTTPStatus.OK, "", _SUCCESS)
        return True
    if fault is Fault.HANGING:
        await reader.read(1)  # until the client disconnects
    elif fault in {Fault.RESET_ACCEPTED, Fault.RESET_NOT_ACCEPTED}:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    else:
        writer.write(_CUT[fault])
    return False


def _answer(writer: asyncio.StreamWriter, status: int, header: str, body: bytes = b"") -> None:
    lines = [f"HTTP/1.1 {status} Status", f"Content-Length: {len(body)}", *([header] if header else [])]
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)


def _kill_sender(writer: asyncio.StreamWriter) -> None:
    """Kill the process that owns the other end of the socket."""
    peer = writer.get_extra_info("peername")
    [pid] = {each.pid for each in psutil.net_connections(kind="tcp") if each.laddr == peer}
    psutil.Process(pid).kill()


def run(pipe: Connection) -> None:
    """Run the server: send its port, then answer new conditions or ``None`` with what was seen."""

    async def listen() -> None:
        responder = Responder()
        listener = await asyncio.start_server(responder.serve, "127.0.0.1", 0, backlog=1024)

        def command() -> None:
            try:
                conditions = pipe.recv()
            except EOFError:
                sys.exit()  # the benchmark ended
            if conditions is not None:
                responder.reset(conditions)
            pipe.send(responder.seen)

        asyncio.get_running_loop().add_reader(pipe.fileno(), command)
        pipe.send(listener.sockets[0].getsockname()[1])
        await listener.serve_forever()

    asyncio.run(listen())


class Server:
    """The server's process, as the benchmarks use it."""

    def __enter__(self) -> Self:
        """Start the process."""
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=run, args=(other,), daemon=True)
        self._process.start()
        self.port: int = self._pipe.recv()
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self._process.terminate()
        self._process.join()

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self.port}"

    def reset(self, conditions: Conditions) -> None:
        """Clear the record and apply new conditions."""
        self._pipe.send(conditions)
        self._pipe.recv()

    def seen(self) -> Seen:
        """Return what the server observed since the last reset."""
        self._pipe.send(None)
        seen: Seen = self._pipe.recv()
        return seen
