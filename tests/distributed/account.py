"""The server: it accepts as many requests as were agreed, refuses the rest, and notes who sent what and when."""

from __future__ import annotations

import bisect
import math
import os
import threading
import time
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

import psutil

from airflow_provider_apptoto.client.rate_limit import DEFAULT_REQUESTS_PER_MINUTE, interval_of
from tests.support.faults import Exchange, FaultServer
from tests.support.people import person_of
from tests.support.standalone import sender

if TYPE_CHECKING:
    import socket

LATENCY = 0.2
"""Seconds until it answers."""
AGREED: Mapping[float, int] = {
    # slots are evenly spaced, and each may be used up to one interval late
    1.0: math.ceil(1 / interval_of(DEFAULT_REQUESTS_PER_MINUTE)) + 1,
    60.0: int(DEFAULT_REQUESTS_PER_MINUTE),
}
"""By the seconds of a rolling window: the requests that it may hold."""


class Account(FaultServer):
    """An account with a server of its own."""

    def __init__(self) -> None:
        super().__init__([self._handle])
        self.arrivals: list[float] = []
        self.refused = 0
        self.by_session: Counter[int] = Counter()
        """Accepted messages, by the session of the process that sent each; 0: it was gone."""
        self.held: list[tuple[int, int]] = []
        """Requests that were held: process and session of the sender."""
        self._killed = 0
        self._free = threading.Event()
        self._free.set()
        self._granted: list[float] = []
        self._lock = threading.Lock()
        self._senders: dict[socket.socket, tuple[int, int]] = {}

    def __exit__(self, *_: object) -> None:
        self._free.set()
        super().__exit__(*_)

    @property
    def copies(self) -> Counter[int]:
        """How many copies each person got."""
        return Counter(person_of(request.json["to"]) for request in self.accepted)

    def most(self, seconds: float) -> int:
        """Return how many requests came in the busiest window of this length."""
        arrivals = sorted(self.arrivals)
        return max((bisect.bisect_left(arrivals, start + seconds) - at for at, start in enumerate(arrivals)), default=0)

    def hold(self) -> None:
        """Answer nobody for now, and accept the messages of every second person only."""
        self._free.clear()

    def release(self, killed: int) -> None:
        """Accept and answer all that was held, but for what a session sent that was killed."""
        self._killed = killed
        self._free.set()

    def _handle(self, exchange: Exchange) -> None:
        wait = self._seconds_until_free()
        if wait > 0:
            exchange.answer(429, Retry_After=str(math.ceil(wait)))
            return
        is_held = not self._free.is_set()
        pid, session = self._sender(exchange)
        is_accepted = not is_held or person_of(exchange.request.json["to"]) % 2 == 0
        if is_accepted:
            self._accept(exchange, session)
        if is_held:
            with self._lock:
                self.held.append((pid, session))
            self._free.wait()
            if session == self._killed:
                return
        if not is_accepted:
            self._accept(exchange, session)
        time.sleep(LATENCY)
        exchange.answer(200, {"success": True})

    def _accept(self, exchange: Exchange, session: int) -> None:
        with self._lock:
            exchange.accept()
            self.by_session[session] += 1

    def _seconds_until_free(self) -> float:
        """Grant a request and return 0, or return the seconds until its windows have room."""
        with self._lock:
            now = time.monotonic()
            self.arrivals.append(now)
            wait = max(
                self._granted[-most] + seconds - now if len(self._granted) >= most else 0.0
                for seconds, most in AGREED.items()
            )
            if wait <= 0:
                self._granted.append(now)
            else:
                self.refused += 1
            return wait

    def _sender(self, exchange: Exchange) -> tuple[int, int]:
        """Return process and session of whoever sent a request; zeros if it is gone."""
        if exchange.socket not in self._senders:
            try:
                pid = sender(exchange).pid
                self._senders[exchange.socket] = pid, os.getsid(pid)
            except (OSError, ValueError, psutil.Error):
                return 0, 0
        return self._senders[exchange.socket]
