"""urllib3 connections that report the first byte of a request and limit the time until its answer is complete."""

from __future__ import annotations

import contextvars
import http.client
import io
import math
import select
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
    """``before_write`` raised. ``urllib3`` and ``requests`` never catch or convert this class."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__()
        self.cause = cause


@dataclass(slots=True)
class WriteTracker:
    """Tracks one exchange: whether a byte was written, and when the answer must be complete.

    :param before_write: called before the first byte; if it raises, no byte is written.
    :param total_timeout: seconds from the first byte of the request to the last byte of the answer.
    """

    before_write: Callable[[], None] | None
    total_timeout: float
    written: bool = False
    deadline: float = math.inf
    """Time of ``time.monotonic``, in seconds."""

    def about_to_write(self, sock: socket.socket) -> None:
        """Note that a byte is about to be written.

        :raises WriteRefusedError: ``before_write`` raised, so the byte must not be written.
        :raises ConnectionResetError: the server closed the connection before the first byte.
        :raises TimeoutError: the deadline passed before the request was complete. The process may have been suspended,
            and another process may have sent the message.
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
        if _was_closed(sock):  # while before_write waited
            raise ConnectionResetError("the server closed the connection before the request")
        self.written = True
        self.deadline = time.monotonic() + self.total_timeout


def _was_closed(sock: socket.socket) -> bool:
    """Return whether the server has closed the connection; after a TLS handshake, data may wait there unread."""
    if not hasattr(select, "POLLRDHUP"):  # Linux only
        return False
    poller = select.poll()
    poller.register(sock, select.POLLRDHUP)
    return bool(poller.poll(0))


current_tracker: contextvars.ContextVar[WriteTracker] = contextvars.ContextVar("apptoto_exchange")
"""The tracker of this thread's current exchange."""


class _TimedStream(io.RawIOBase):
    """Reads from a socket until the deadline of the exchange; a socket timeout alone restarts with each byte."""

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
            self._sock.settimeout(max(min(left, self._silence), sys.float_info.min))  # 0 means non-blocking
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
    """Remembers the last line read, which shows whether a header block is complete."""

    line = b""

    def readline(self, size: int | None = -1, /) -> bytes:
        self.line = super().readline(size)
        return self.line


class _OwnAnswer(http.client.HTTPResponse):
    """The complete, final answer to one request.

    ``http.client`` skips only the interim answer 100 and treats any other as final, so the real answer would be read as
    the answer to the next request (RFC 9110, 15.2, allows any number of interim answers). It also accepts the end of
    the stream as the end of the headers, so a truncated answer would look complete.
    """

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        self.fp = _Lines(_TimedStream(sock, current_tracker.get()))

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]  # missing in typeshed
            if status >= HTTPStatus.OK:
                return version, status, reason
            http.client.parse_headers(self.fp)

    def begin(self) -> None:
        super().begin()
        if cast("_Lines", self.fp).line not in {b"\r\n", b"\n"}:
            self.close()
            msg = "the answer was truncated in its headers"
            raise http.client.HTTPException(msg)
        # After a proxy gives up on a request, the answer of the server itself may still follow.
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
        if not self._connecting:  # CONNECT to a proxy is not part of the request
            if self.sock is None:
                self.connect()
            current_tracker.get().about_to_write(self.sock)
        super().send(data)


class _TrackedTLSConnection(_TrackedConnection, urllib3.connection.HTTPSConnection):
    """The same over TLS."""


class _TrackedPool(urllib3.connectionpool.HTTPConnectionPool):
    ConnectionCls = _TrackedConnection


class _TrackedTLSPool(urllib3.connectionpool.HTTPSConnectionPool):
    ConnectionCls = _TrackedTLSConnection


class TrackedAdapter(HTTPAdapter):
    """Tracks every connection, direct or through a proxy."""

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
