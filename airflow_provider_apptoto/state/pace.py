"""The pace of an account over processes, and over hosts that share a state database."""

from __future__ import annotations

import hashlib
import hmac
import logging
import math
import threading
import time
from typing import TYPE_CHECKING

from sqlalchemy import and_, insert, select, update
from sqlalchemy.exc import IntegrityError

from airflow_provider_apptoto.client.pacing import InProcessPacer, interval
from airflow_provider_apptoto.state.database import StateDatabase, pace
from airflow_provider_apptoto.state.store import LedgerStoreError

if TYPE_CHECKING:
    from airflow_provider_apptoto.client.pacing import Clock

log = logging.getLogger(__name__)

BROKEN_SHARE = 0.25
"""Of the pace: what a process takes for itself while it can't ask the others."""
ASK_AGAIN_AFTER = 60.0
"""Seconds until a database that could not be used is tried again."""
_MICROSECONDS = 1_000_000


class SqlPacer:
    """Evenly spaced departures over all that share a database (GCRA: one row holds the next departure).

    Departures are given out by a compare-and-set, so that a process that is killed costs the one that it held. Where
    the database can't be used, this process goes on alone, at a quarter of the pace.

    :param account: base URL and login.
    :param requests_per_minute: departures a minute, more than 0.
    :param clock: tells the time of this process, for what it does without the database; by default the module ``time``.
    """

    def __init__(
        self, database: StateDatabase, account: tuple[str, str], requests_per_minute: float, clock: Clock = time
    ) -> None:
        self._database = database
        self._account = account
        self._interval = int(interval(requests_per_minute) * _MICROSECONDS)
        self._alone = InProcessPacer(requests_per_minute * BROKEN_SHARE, clock)
        self._clock = clock
        self._broken_until = -math.inf
        self._lock = threading.Lock()

    def reserve(self, patience: float = math.inf) -> float:
        """Reserve the next departure, and return the seconds to wait until then; nothing beyond ``patience``."""
        if self._clock.monotonic() >= self._broken_until:
            try:
                return self._reserve(patience)
            except LedgerStoreError as error:
                self._go_alone(error)
        return self._alone.reserve(patience)

    def push_back(self, seconds: float) -> None:
        """Let nothing depart for this many seconds."""
        self._alone.push_back(seconds)
        if self._clock.monotonic() >= self._broken_until:
            try:
                self._push_back(seconds)
            except LedgerStoreError as error:
                self._go_alone(error)

    def _reserve(self, patience: float) -> float:
        while True:
            now, departs_at = self._look()
            departure = max(now, departs_at or now)
            wait = (departure - now) / _MICROSECONDS
            if wait > patience or self._set(departs_at, departure + self._interval):
                return wait

    def _push_back(self, seconds: float) -> None:
        while True:
            now, departs_at = self._look()
            rested = now + int(seconds * _MICROSECONDS)
            if rested <= (departs_at or 0) or self._set(departs_at, rested):
                return

    def _look(self) -> tuple[int, int | None]:
        """Return the time, and when the next request may depart (microseconds since 1970; ``None``: no row yet)."""
        row = select(pace.c.departs_at).where(pace.c.account == self._name).scalar_subquery()
        with self._database.transaction() as connection:
            now, departs_at = connection.execute(select(self._database.clock(), row)).one()
        return int(now * _MICROSECONDS), departs_at

    def _set(self, old: int | None, new: int) -> bool:
        try:
            with self._database.transaction() as connection:
                if old is None:
                    connection.execute(insert(pace).values(account=self._name, departs_at=new))
                    return True
                here = and_(pace.c.account == self._name, pace.c.departs_at == old)
                return bool(connection.execute(update(pace).where(here).values(departs_at=new)).rowcount)
        except IntegrityError:
            return False

    @property
    def _name(self) -> str:
        # the login is somebody's address
        return hmac.new(self._database.salt(), repr(self._account).encode(), hashlib.sha256).hexdigest()[:32]

    def _go_alone(self, error: LedgerStoreError) -> None:
        with self._lock:
            if self._clock.monotonic() < self._broken_until:  # another thread found out before
                return
            self._broken_until = self._clock.monotonic() + ASK_AGAIN_AFTER
        log.warning(
            "The pace can't be shared: %s. For %.0f s this process goes on alone, at a quarter of the pace",
            error,
            ASK_AGAIN_AFTER,
        )


_pacers: dict[tuple[StateDatabase, tuple[str, str], float], SqlPacer] = {}
_pacers_lock = threading.Lock()


def shared_pacer(database: StateDatabase, account: tuple[str, str], requests_per_minute: float) -> SqlPacer:
    """Return the one pacer that all clients of an account share in this process."""
    with _pacers_lock:
        key = database, account, requests_per_minute
        return _pacers.setdefault(key, SqlPacer(*key))
