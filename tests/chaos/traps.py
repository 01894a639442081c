"""Kill or freeze the process of a try at a given point."""

from __future__ import annotations

import http.client
import itertools
import select
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_apptoto.client import InProcessRateLimiter
from airflow_provider_apptoto.outbox.entry import State
from tests.chaos.draws import Halt, Point

if TYPE_CHECKING:
    from collections.abc import Collection

    from airflow_provider_apptoto.outbox.entry import Entry
    from airflow_provider_apptoto.outbox.stores.base import LedgerStore


class Trap:
    """Kills or freezes this process once, at a point; for any number of threads.

    :param halt: how; ``None``: never.
    """

    def __init__(self, halt: Halt | None) -> None:
        self._halt = halt
        self._passings = itertools.count(1)

    def at(self, point: Point) -> None:
        """Reach a point."""
        if self.is_due(point):
            self.spring()

    def is_at(self, point: Point) -> bool:
        """Return whether it waits at a point."""
        return self._halt is not None and self._halt.point is point

    def is_due(self, point: Point) -> bool:
        """Reach a point, and return whether the trap springs now."""
        if self._halt is None or self._halt.point is not point:
            return False
        return next(self._passings) == self._halt.passing

    def spring(self) -> None:
        """Kill or freeze this process."""
        is_kill = self._halt is not None and self._halt.wake is None
        # a signal to the process may reach another thread first, while this one continues
        signal.pthread_kill(threading.get_ident(), signal.SIGKILL if is_kill else signal.SIGSTOP)


def watch_the_wire(trap: Trap, *, part: int, timeout: float) -> None:
    """Reach the points within the sending of a request.

    :param part: 0: a request is cut in its headers; 1: in its body.
    :param timeout: seconds that an answer may take.
    """
    send, getresponse = http.client.HTTPConnection.send, http.client.HTTPConnection.getresponse

    def watched_send(connection: http.client.HTTPConnection, data: bytes) -> None:
        if connection.sock is None:
            connection.connect()
        is_head = data.startswith(b"POST ")
        if is_head:
            trap.at(Point.BEFORE_FIRST_BYTE)
        if part == int(not is_head) and trap.is_due(Point.MID_REQUEST):
            connection.sock.sendall(data[: len(data) // 2])
            trap.spring()
        send(connection, data)
        if is_head:
            trap.at(Point.AFTER_HEADERS)

    def watched_getresponse(connection: http.client.HTTPConnection) -> http.client.HTTPResponse:
        if trap.is_at(Point.AFTER_ACCEPTANCE):
            select.select([connection.sock], [], [], timeout)
            trap.at(Point.AFTER_ACCEPTANCE)
        return getresponse(connection)

    http.client.HTTPConnection.send = watched_send  # type: ignore[method-assign,assignment]
    http.client.HTTPConnection.getresponse = watched_getresponse  # type: ignore[method-assign,assignment]


class TrappedStore:
    """A ledger at whose steps the process may be killed or frozen.

    :param marker: a file that is made before the first write.
    """

    def __init__(self, store: LedgerStore, trap: Trap, marker: Path) -> None:
        self._store = store
        self._trap = trap
        self._marker = marker

    def find(self, keys: Collection[str]) -> dict[str, Entry]:
        self._trap.at(Point.BEFORE_LOOK_UP)
        found = self._store.find(keys)
        self._trap.at(Point.AFTER_LOOK_UP)
        return found

    def compare_and_swap(self, old: Entry | None, new: Entry) -> bool:
        is_outcome = new.state is not State.SENDING
        self._trap.at(Point.AFTER_ANSWER if is_outcome else Point.BEFORE_SENDING)
        self._marker.touch()
        swapped = self._store.compare_and_swap(old, new)
        if is_outcome:
            self._trap.at(Point.AFTER_RECORDING)
        elif swapped:
            self._trap.at(Point.AFTER_SENDING)
        return swapped

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class TrappedRateLimiter(InProcessRateLimiter):
    """Slots after which the process may be killed or frozen."""

    def __init__(self, requests_per_minute: float, trap: Trap) -> None:
        super().__init__(requests_per_minute)
        self._trap = trap

    def reserve(self, *arguments: Any, **named: Any) -> float:
        wait = super().reserve(*arguments, **named)
        self._trap.at(Point.AFTER_SLOT)
        return wait
