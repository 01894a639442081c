"""Connections of urllib3 that report the first byte of a request, and bound the time until its answer is complete."""

from __future__ import annotations

import contextvars
import http.client
import io
import math
import sys
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

import urllib3
import urllib3.connection
import urllib3.connectionpool
from requests.adapters import HTTPAdapter

from airflow_provider_apptoto.client.outcomes import is_final

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable


class WriteRefusedError(Exception):
    """``before_write`` raised. No ``urllib3`` or ``requests`` code takes this class for an error of its own."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__()
        self.cause = cause


@dataclass(slots=True)
class WriteTracker:
    """Tracks one exchange: whether a byte was written, and when the answer has to be complete.

    :param before_write: called before the first byte; what it raises keeps the byte back.
    :param total_timeout: seconds from the first byte of the request to the last one of the answer.
    """

    before_write: Callable[[], None] | None
    total_timeout: float
    written: bool = False
    deadline: float = math.inf
    """Seconds of ``time.monotonic``."""

    def about_to_write(self) -> None:
        """Note that a byte is about to be written.

        :raises WriteRefusedError: ``before_write`` raised, so the byte may not be written.
        :raises TimeoutError: the exchange ran out of time before its request was complete. Its process may have been
            frozen, and the message may have been sent by another one.
        """
        if self.written:
            if time.monotonic() >= self.deadline:
                msg = f"the request was not complete after {self.total_timeout:g} s"
                raise TimeoutError(msg)
            return
        if self.before_write is not None:
            try:
                self.before_write()
            except BaseException as error:  # noqa: BLE001
                raise WriteRefusedError(error) from None
        self.written = True
        self.deadline = time.monotonic() + self.total_timeout


current_tracker: contextvars.ContextVar[WriteTracker] = contextvars.ContextVar("apptoto_exchange")
"""The tracker of the exchange that this thread makes."""


class _TimedStream(io.RawIOBase):
    """Reads from a socket until the exchange's deadline: a socket's own timeout starts again with each byte."""

    def __init__(self, sock: socket.socket, tracker: WriteTracker) -> None:
        self._sock = sock
        self._stream = sock.makefile("rb", buffering=0)
        silence = sock.gettimeout()
        self._silence = math.inf if silence is None else silence
        self._tracker = tracker

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._tracker.deadline - time.monotonic()
        try:
            self._sock.settimeout(max(min(left, self._silence), sys.float_info.min))  # 0 would mean: do not wait
            return self._stream.readinto(buffer)
        except TimeoutError:
            if self._silence < left:
                raise
        msg = f"the answer was not complete after {self._tracker.total_timeout:g} s"
        raise TimeoutError(msg)

    def close(self) -> None:
        self._stream.close()
        super().close()


class _Lines(io.BufferedReader):
    """Remembers the last line read, which tells whether a header block ended or was cut."""

    line = b""

    def readline(self, size: int | None = -1, /) -> bytes:
        self.line = super().readline(size)
        return self.line


class _OwnAnswer(http.client.HTTPResponse):
    """The whole answer to one request, and to no other.

    ``http.client`` skips only the interim answer 100, and takes any other for the final one: the final one would then
    be read as the answer to the next request (RFC 9110, 15.2: any number of interim answers may come first). It also
    takes the end of the stream for the end of the headers, so an answer that was cut there would count.
    """

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        self.fp = _Lines(_TimedStream(sock, current_tracker.get()))

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]  # typeshed leaves it out
            if status >= HTTPStatus.OK:
                return version, status, reason
            http.client.parse_headers(self.fp)

    def begin(self) -> None:
        super().begin()
        if cast("_Lines", self.fp).line not in {b"\r\n", b"\n"}:
            self.close()
            msg = "the answer was cut in its headers"
            raise http.client.HTTPException(msg)
        # If a proxy gave up on the request, the server's own answer may still follow.
        if not is_final(self.status):
            self.will_close = True


class _TrackedConnection(urllib3.connection.HTTPConnection):
    """Reports the first byte of a request before it is written."""

    response_class = _OwnAnswer
    _connecting = False

    def connect(self) -> None:
        self._connecting = True
        try:
            super().connect()
        finally:
            self._connecting = False

    def send(self, data: Any) -> None:
        if not self._connecting:  # CONNECT to a proxy is no part of the request
            if self.sock is None:
                self.connect()
            current_tracker.get().about_to_write()
        super().send(data)


class _TrackedTLSConnection(_TrackedConnection, urllib3.connection.HTTPSConnection):
    """The same over TLS."""


class _TrackedPool(urllib3.connectionpool.HTTPConnectionPool):
    ConnectionCls = _TrackedConnection


class _TrackedTLSPool(urllib3.connectionpool.HTTPSConnectionPool):
    ConnectionCls = _TrackedTLSConnection


class TrackedAdapter(HTTPAdapter):
    """Makes every connection, direct or through a proxy, a tracked one."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Create the pools of direct connections."""
        super().init_poolmanager(*args, **kwargs)
        _track(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> urllib3.ProxyManager:
        """Return the pools of connections through a proxy."""
        manager: urllib3.ProxyManager = super().proxy_manager_for(*args, **kwargs)
        _track(manager)
        return manager


def _track(manager: urllib3.PoolManager) -> None:
    manager.pool_classes_by_scheme = {"http": _TrackedPool, "https": _TrackedTLSPool}
