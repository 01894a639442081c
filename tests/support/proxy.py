"""A proxy between client and server that breaks the connection on demand."""

from __future__ import annotations

import contextlib
import math
import socket
import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

_BYTES = 65_536


class Proxy:
    """Forwards connections to a port of this host.

    :param port: of the server.
    """

    def __init__(self, port: int) -> None:
        self._server = port
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.refusals = 0.0
        """How many connections are still to be closed as soon as they are made."""
        self.loses_answer_to: Callable[[bytes], bool] = lambda _: False
        """Told what a client has sent: the answer to it gets lost, and so does its connection."""

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        self._thread.join()

    def cut(self) -> None:
        """Break all connections."""
        with self._lock:
            for each in self._open:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def go_down(self, refusals: float = math.inf) -> None:
        """Break all connections and refuse the next ones, like a restarting server.

        :param refusals: how many.
        """
        self.refusals = refusals
        self.cut()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            with self._lock:
                if self.refusals > 0:
                    self.refusals -= 1
                    return
            with socket.create_connection(("127.0.0.1", self._server)) as server:
                with self._lock:
                    self._open |= {client, server}
                lost = threading.Event()
                back = threading.Thread(target=self._forward, args=(server, client, lost), daemon=True)
                back.start()
                self._forward(client, server, lost)
                back.join()
                with self._lock:
                    self._open -= {client, server}

    def _forward(self, source: socket.socket, target: socket.socket, lost: threading.Event) -> None:
        is_client = target.getpeername()[1] == self._server
        with contextlib.suppress(OSError):
            while data := source.recv(_BYTES):
                if is_client and self.loses_answer_to(data):
                    lost.set()
                if not is_client and lost.is_set():
                    break
                target.sendall(data)
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
