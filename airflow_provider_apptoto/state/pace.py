"""The pace of an account over processes, and over hosts that share a state database."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import hmac
import logging
import math
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import and_, insert, select, update
from sqlalchemy.exc import IntegrityError

from airflow_provider_apptoto.client.errors import ApptotoNotSentError
from airflow_provider_apptoto.client.pacing import interval
from airflow_provider_apptoto.state.database import StateDatabase, pace, spare_database
from airflow_provider_apptoto.state.store import LedgerStoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_apptoto.client.pacing import Clock

log = logging.getLogger(__name__)

T = TypeVar("T")

SPARE_SHARE = 0.25
"""Of the pace: what a host keeps to while the store that all share can't be used."""
ASK_AGAIN_AFTER = 60.0
"""Seconds until a database that could not be used is tried again."""
_MICROSECONDS = 1_000_000


def _nowhere() -> None:
    pass


class SqlPacer:
    """Evenly spaced departures over all that share a database.

    Where it can't be used, the processes of this host go on at a quarter of the pace, by a spare database. Where that
    can't be used either, nothing departs.

    :param account: base URL and login.
    :param requests_per_minute: departures a minute, more than 0.
    :param clock: tells when the database is to be tried again; by default the module ``time``.
    :param spare: gives the database that the processes of this host fall back to; ``None`` where there is none.
    """

    def __init__(
        self,
        database: StateDatabase,
        account: tuple[str, str],
        requests_per_minute: float,
        clock: Clock = time,
        spare: Callable[[], StateDatabase | None] = _nowhere,
    ) -> None:
        self._shared = _Row(database, account, interval(requests_per_minute))
        self._spare = spare
        self._spare_row = functools.partial(_Row, account=account, apart=interval(requests_per_minute * SPARE_SHARE))
        self._clock = clock
        self._broken_until = -math.inf
        self._lock = threading.Lock()

    def reserve(self, patience: float = math.inf) -> float:
        """Reserve the next departure, and return the seconds to wait until then; nothing beyond ``patience``.

        :raises ApptotoNotSentError: there is nowhere to keep the pace.
        """
        return self._in_turn(lambda row: row.reserve(patience))

    def push_back(self, seconds: float) -> None:
        """Let nothing depart for this many seconds."""
        with contextlib.suppress(ApptotoNotSentError):  # nothing will
            self._in_turn(lambda row: row.push_back(seconds))

    def _in_turn(self, call: Callable[[_Row], T]) -> T:
        if self._clock.monotonic() >= self._broken_until:
            try:
                return call(self._shared)
            except LedgerStoreError as error:
                self._note(error)
        spare = self._spare()
        try:
            if spare is not None:
                return call(self._spare_row(spare))
            problem = "there is no folder for temporary files that is this user's alone"
        except LedgerStoreError as error:
            problem = str(error)
        msg = f"the message was not sent: the pace can't be kept: {problem}"
        raise ApptotoNotSentError(msg, reason=msg)

    def _note(self, error: LedgerStoreError) -> None:
        with self._lock:
            if self._clock.monotonic() < self._broken_until:  # another thread found out before
                return
            self._broken_until = self._clock.monotonic() + ASK_AGAIN_AFTER
        log.warning(
            "The pace can't be shared: %s. For %.0f s the processes of this host go on at a quarter of the pace",
            error,
            ASK_AGAIN_AFTER,
        )


@dataclass(frozen=True, slots=True)
class _Row:
    """The row of an account that holds its next departure (GCRA).

    Departures are given out by a compare-and-set, so that a process that is killed costs the one that it held.

    :param apart: seconds between departures.
    """

    database: StateDatabase
    account: tuple[str, str]
    apart: float

    def reserve(self, patience: float) -> float:
        while True:
            now, departs_at = self._look()
            departure = max(now, departs_at or now)
            wait = (departure - now) / _MICROSECONDS
            if wait > patience or self._set(departs_at, departure + int(self.apart * _MICROSECONDS)):
                return wait

    def push_back(self, seconds: float) -> None:
        while True:
            now, departs_at = self._look()
            rested = now + int(seconds * _MICROSECONDS)
            if rested <= (departs_at or 0) or self._set(departs_at, rested):
                return

    def _look(self) -> tuple[int, int | None]:
        """Return the time, and when the next request may depart (microseconds since 1970; ``None``: no row yet)."""
        row = select(pace.c.departs_at).where(pace.c.account == self._name).scalar_subquery()
        with self.database.transaction() as connection:
            now, departs_at = connection.execute(select(self.database.clock(), row)).one()
        return int(now * _MICROSECONDS), departs_at

    def _set(self, old: int | None, new: int) -> bool:
        try:
            with self.database.transaction() as connection:
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
        return hmac.new(self.database.salt(), repr(self.account).encode(), hashlib.sha256).hexdigest()[:32]


_pacers: dict[tuple[StateDatabase, tuple[str, str], float], SqlPacer] = {}
_pacers_lock = threading.Lock()


def shared_pacer(database: StateDatabase, account: tuple[str, str], requests_per_minute: float) -> SqlPacer:
    """Return the one pacer that all clients of an account share in this process."""
    with _pacers_lock:
        key = database, account, requests_per_minute
        return _pacers.setdefault(key, SqlPacer(*key, spare=spare_database))
