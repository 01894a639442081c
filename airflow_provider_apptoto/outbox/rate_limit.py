"""The rate limit of an account across processes, and across hosts that share a state database."""

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
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import bindparam, literal_column, select, update
from sqlalchemy.dialects import postgresql, sqlite

from airflow_provider_apptoto.client.errors import ApptotoNotSentError
from airflow_provider_apptoto.client.rate_limit import interval_of
from airflow_provider_apptoto.outbox.database import StateDatabase, spare_database
from airflow_provider_apptoto.outbox.schema import pace
from airflow_provider_apptoto.outbox.stores.base import LedgerAwayError, LedgerStoreError, RateLimitAwayError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import Connection
    from sqlalchemy.sql import Select

    from airflow_provider_apptoto.client.rate_limit import Clock

log = logging.getLogger(__name__)

T = TypeVar("T")
E = TypeVar("E", bound=ApptotoNotSentError)

FALLBACK_SHARE = 0.25
"""Share of the rate for the processes of one host while the shared database can't be used."""
RECHECK_INTERVAL = 60.0
"""Seconds until an unusable database is tried again."""
_MICROSECONDS = 1_000_000
_ACCOUNT, _NEXT = "of_account", "next_slot"
_INSERT = {
    "sqlite": sqlite.insert(pace).on_conflict_do_nothing(),
    "postgresql": postgresql.insert(pace).on_conflict_do_nothing(),
}
_LOCK = update(pace).where(pace.c.account == bindparam(_ACCOUNT)).values(departs_at=pace.c.departs_at)
_SET = update(pace).where(pace.c.account == bindparam(_ACCOUNT)).values(departs_at=bindparam(_NEXT))


class SqlRateLimiter:
    """Evenly spaced slots for all processes that share a database.

    If the database can't be used, the processes of this host fall back to a local database and a quarter of the rate.
    If that can't be used either, nothing is sent. While the database is only unreachable, there is no fallback: other
    hosts may still reach it, and the total would exceed the limit.

    :param account: base URL and login.
    :param requests_per_minute: slots per minute, more than 0.
    :param clock: source of time; by default the module ``time``.
    :param spare: returns the fallback database of this host; ``None`` if there is none. By default a temporary file.
    """

    def __init__(
        self,
        database: StateDatabase,
        account: tuple[str, str],
        requests_per_minute: float,
        clock: Clock = time,
        spare: Callable[[], StateDatabase | None] = spare_database,
    ) -> None:
        self._account = account
        self._usual = interval_of(requests_per_minute)
        self._slow = interval_of(requests_per_minute * FALLBACK_SHARE)
        self._shared = _Row(database, account, self._usual)
        self._spare = spare
        self._clock = clock
        self._broken_until = -math.inf
        self._lock = threading.Lock()

    @property
    def interval(self) -> float:
        """Seconds between two slots."""
        return self._slow if self._is_broken else self._usual

    def reserve(self, max_wait: float = math.inf, lead: float = 0.0) -> float:
        """Reserve the next slot and return the seconds until then; reserve nothing beyond ``max_wait``.

        :raises ApptotoNotSentError: no database can be used.
        :raises RateLimitAwayError: the database is temporarily unreachable.
        """
        return self._in_turn(lambda row: row.reserve(max_wait, lead))

    def back_off(self, seconds: float) -> None:
        """Assign no slot for this many seconds."""
        with contextlib.suppress(ApptotoNotSentError):  # then nothing is sent anyway
            self._in_turn(lambda row: row.back_off(seconds))

    @property
    def _is_broken(self) -> bool:
        return self._clock.monotonic() < self._broken_until

    def _in_turn(self, call: Callable[[_Row], T]) -> T:
        if not self._is_broken:
            try:
                return call(self._shared)
            except LedgerAwayError as error:
                away = _unusable(RateLimitAwayError, str(error))
                away.waited = error.waited
                raise away from None
            except LedgerStoreError as error:
                self._note(error)
        spare = self._spare()
        try:
            if spare is not None:
                return call(_Row(spare, self._account, self._slow))
            problem = "there is no temporary directory that only this user can access"
        except LedgerStoreError as error:
            problem = str(error)
        raise _unusable(ApptotoNotSentError, problem)

    def _note(self, error: LedgerStoreError) -> None:
        with self._lock:
            if self._is_broken:  # another thread was first
                return
            self._broken_until = self._clock.monotonic() + RECHECK_INTERVAL
        log.warning(
            "Rate limit not shared: %s. This host sends at a quarter of the rate for %.0f s",
            error,
            RECHECK_INTERVAL,
        )


def _unusable(kind: type[E], problem: str) -> E:
    reason = f"the rate limit can't be enforced: {problem}"
    return kind(f"The message was not sent: {reason}", reason=reason, code="rate_limit_unusable")


@dataclass(frozen=True, slots=True)
class _Row:
    """The row of an account, which holds its next slot (GCRA).

    A slot is reserved in one transaction, which locks the row before it reads the clock, because locking may take time.

    :param apart: seconds between slots.
    """

    database: StateDatabase
    account: tuple[str, str]
    apart: float

    def reserve(self, max_wait: float, lead: float) -> float:
        with self.database.transaction() as connection:
            now, following = self._locked(connection)
            slot = max(now + int(lead * _MICROSECONDS), following)
            wait = (slot - now) / _MICROSECONDS
            if wait <= max_wait:
                connection.execute(_SET, {_ACCOUNT: self._name, _NEXT: slot + int(self.apart * _MICROSECONDS)})
        return wait

    def back_off(self, seconds: float) -> None:
        with self.database.transaction() as connection:
            now, following = self._locked(connection)
            rested = now + int(seconds * _MICROSECONDS)
            if rested > following:
                connection.execute(_SET, {_ACCOUNT: self._name, _NEXT: rested})

    def _locked(self, connection: Connection) -> tuple[int, int]:
        """Lock the row, and return the current time and the next slot (microseconds since 1970)."""
        if not connection.execute(_LOCK, {_ACCOUNT: self._name}).rowcount:
            first = {"account": self._name, "departs_at": 0}
            connection.execute(_INSERT[self.database.dialect], first)
            connection.execute(_LOCK, {_ACCOUNT: self._name})
        following, now = connection.execute(_read(self.database.clock), {_ACCOUNT: self._name}).one()
        # a SQLite file serves one host, which has one clock
        return int((time.time() if now is None else now) * _MICROSECONDS), following

    @property
    def _name(self) -> str:
        # hashed, because the login is an e-mail address
        return hmac.new(self.database.salt(), repr(self.account).encode(), hashlib.sha256).hexdigest()[:32]


@functools.cache
def _read(clock: str) -> Select[Any]:
    return select(pace.c.departs_at, literal_column(clock)).where(pace.c.account == bindparam(_ACCOUNT))


_limiters: dict[tuple[StateDatabase, tuple[str, str], float], SqlRateLimiter] = {}
_limiters_lock = threading.Lock()


def shared_rate_limiter(
    database: StateDatabase, account: tuple[str, str], requests_per_minute: float
) -> SqlRateLimiter:
    """Return the limiter that all clients of an account share in this process."""
    with _limiters_lock:
        key = database, account, requests_per_minute
        return _limiters.setdefault(key, SqlRateLimiter(*key))
