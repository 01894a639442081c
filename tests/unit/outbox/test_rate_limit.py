"""All processes that send for an account share one rate limit, on a clock that the test controls."""

from __future__ import annotations

import contextlib
import functools
import itertools
import shutil
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg2
import pytest
from sqlalchemy import select
from sqlalchemy.engine import URL

from airflow_provider_apptoto.client import ApptotoNotSentError
from airflow_provider_apptoto.outbox import engine, rate_limit
from airflow_provider_apptoto.outbox.database import StateDatabase, spare_database, state_database
from airflow_provider_apptoto.outbox.rate_limit import RECHECK_INTERVAL, SqlRateLimiter, shared_rate_limiter
from airflow_provider_apptoto.outbox.schema import pace
from airflow_provider_apptoto.outbox.stores.base import RateLimitAwayError
from tests.support import postgres
from tests.support.clock import Clock, slots
from tests.support.sender import ACCOUNT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OTHER_ACCOUNT = "https://clinic.example/v1", "jo@clinic.example"
INTERVAL = 2.04
"""Seconds between slots at 30 a minute: 2, and a little more, since some are used late."""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Set a clock that only the test advances on all state databases."""
    clock = Clock()
    monkeypatch.setattr(StateDatabase, "clock", property(lambda _: repr(clock.now)))
    return clock


@contextlib.contextmanager
def elsewhere(database: StateDatabase) -> Iterator[StateDatabase]:
    """Provide the same database as another process sees it, with separate connections."""
    other = StateDatabase(database._url)
    yield other
    other._engine.dispose()


def test_slots_are_evenly_spaced(database: StateDatabase, clock: Clock) -> None:
    limiter = SqlRateLimiter(database, ACCOUNT, 30, clock)
    assert slots(limiter, clock, 4) == pytest.approx([1000 + place * INTERVAL for place in range(4)])


def test_limiters_that_share_the_database_take_turns(database: StateDatabase, clock: Clock) -> None:
    with elsewhere(database) as other:
        limiters = [SqlRateLimiter(each, ACCOUNT, 30, clock) for each in (database, other, database)]
        times = [clock.now + limiter.reserve() for limiter in limiters * 2]
    assert times == pytest.approx([1000 + place * INTERVAL for place in range(6)])


def test_time_that_passes_counts_towards_the_next_slot(database: StateDatabase, clock: Clock) -> None:
    limiter = SqlRateLimiter(database, ACCOUNT, 30, clock)
    assert limiter.reserve() == 0
    clock.now += 0.5
    assert limiter.reserve() == pytest.approx(INTERVAL - 0.5)


def test_an_idle_time_is_not_saved_up_for_a_burst(database: StateDatabase, clock: Clock) -> None:
    limiter = SqlRateLimiter(database, ACCOUNT, 30, clock)
    limiter.reserve()
    clock.now += 3600
    assert slots(limiter, clock, 3) == pytest.approx([4600, 4600 + INTERVAL, 4600 + 2 * INTERVAL])


def test_a_slot_beyond_the_longest_wait_is_not_reserved(database: StateDatabase, clock: Clock) -> None:
    limiter = SqlRateLimiter(database, ACCOUNT, 30, clock)
    slots(limiter, clock, 3)
    assert [limiter.reserve(6), limiter.reserve(0)] == pytest.approx([3 * INTERVAL, 3 * INTERVAL])
    assert [limiter.reserve(6.2), limiter.reserve(0)] == pytest.approx([3 * INTERVAL, 4 * INTERVAL])


def test_a_slot_is_no_earlier_than_its_lead(database: StateDatabase, clock: Clock) -> None:
    limiter = SqlRateLimiter(database, ACCOUNT, 30, clock)
    assert limiter.reserve(lead=5) == 5
    assert limiter.reserve(lead=5) == pytest.approx(5 + INTERVAL)  # later ones wait behind it
    assert limiter.reserve(max_wait=8, lead=9) == pytest.approx(5 + 2 * INTERVAL)


def test_a_back_off_holds_everybody_back(database: StateDatabase, clock: Clock) -> None:
    with elsewhere(database) as other:
        mine, theirs = SqlRateLimiter(database, ACCOUNT, 30, clock), SqlRateLimiter(other, ACCOUNT, 30, clock)
        mine.back_off(45)  # before anybody has reserved
        assert slots(theirs, clock, 2) == pytest.approx([1045, 1045 + INTERVAL])
        theirs.back_off(100)
        assert slots(mine, clock, 2) == pytest.approx([1100, 1100 + INTERVAL])


def test_a_shorter_back_off_never_cuts_a_longer_one(database: StateDatabase, clock: Clock) -> None:
    limiter = SqlRateLimiter(database, ACCOUNT, 30, clock)
    for seconds in (45, 5, 0):
        limiter.back_off(seconds)
    assert slots(limiter, clock, 1) == pytest.approx([1045])


def test_a_back_off_that_is_over_holds_nothing_back(database: StateDatabase, clock: Clock) -> None:
    limiter = SqlRateLimiter(database, ACCOUNT, 30, clock)
    limiter.back_off(45)
    clock.now += 50
    assert slots(limiter, clock, 2) == pytest.approx([1050, 1050 + INTERVAL])


def test_accounts_do_not_wait_for_one_another(database: StateDatabase, clock: Clock) -> None:
    slots(SqlRateLimiter(database, ACCOUNT, 30, clock), clock, 5)
    SqlRateLimiter(database, ACCOUNT, 30, clock).back_off(300)
    for other in (OTHER_ACCOUNT, ("https://other.example/v1", ACCOUNT[1])):
        assert SqlRateLimiter(database, other, 30, clock).reserve() == 0


def test_a_file_of_sqlite_goes_by_the_clock_of_its_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = StateDatabase(URL.create("sqlite", database=str(tmp_path / "state.db")))
    clock = Clock()
    monkeypatch.setattr(rate_limit, "time", clock)
    limiter = SqlRateLimiter(database, ACCOUNT, 30, clock)
    assert slots(limiter, clock, 2) == pytest.approx([1000, 1000 + INTERVAL])
    clock.now += 1
    assert slots(limiter, clock, 1) == pytest.approx([1000 + 2 * INTERVAL])
    database._engine.dispose()


@pytest.mark.usefixtures("clock")
def test_the_login_is_not_in_the_database(database: StateDatabase) -> None:
    SqlRateLimiter(database, ACCOUNT, 30).reserve()
    with database.transaction() as connection:
        [row] = connection.execute(select(pace)).all()
    kept = str(row).encode()
    if database.dialect == "sqlite":
        path = Path(database._url.database or "")
        kept += b"".join(each.read_bytes() for each in path.parent.glob(f"{path.name}*"))
    assert not [word for word in (b"mary", b"clinic") if word in kept]


def test_the_clients_of_an_account_share_one_limiter_in_a_process(tmp_path: Path) -> None:
    url = URL.create("sqlite", database=str(tmp_path / "state.db"))
    mine = shared_rate_limiter(state_database(url), ACCOUNT, 90)
    assert shared_rate_limiter(state_database(url), ACCOUNT, 90) is mine
    assert shared_rate_limiter(state_database(url), OTHER_ACCOUNT, 90) is not mine


# --- at once


def test_threads_that_ask_at_once_never_get_the_same_slot(database: StateDatabase, clock: Clock) -> None:
    together = threading.Barrier(6)

    def reserve(limiter: SqlRateLimiter) -> list[float]:
        together.wait()
        return slots(limiter, clock, 10)

    with elsewhere(database) as other, ThreadPoolExecutor(6) as pool:
        limiters = [SqlRateLimiter(each, ACCOUNT, 30, clock) for each in (database, other)] * 3
        times = sorted(itertools.chain.from_iterable(pool.map(reserve, limiters)))
    assert times == pytest.approx([1000 + INTERVAL * place for place in range(60)])


# --- a database that can't be used


@dataclass
class Store:
    """A database that can't be used until it is restored."""

    database: StateDatabase
    give_back: Callable[[], None]
    spare: StateDatabase

    def limiter(self, clock: Clock) -> SqlRateLimiter:
        """Return the limiter of one process, at 30 a minute."""
        return SqlRateLimiter(self.database, ACCOUNT, 30, clock, lambda: self.spare)


def administrate(port: int, *statements: str) -> None:
    with contextlib.closing(
        psycopg2.connect(host="127.0.0.1", port=port, user=postgres.USER, dbname=postgres.USER)
    ) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)


@contextlib.contextmanager
def store_of(database: StateDatabase, give_back: Callable[[], None], folder: Path) -> Iterator[Store]:
    """Provide a store with a fallback in a folder."""
    spare = StateDatabase(URL.create("sqlite", database=str(folder / "spare.db")))
    yield Store(database, give_back, spare)
    database._engine.dispose()
    spare._engine.dispose()


@pytest.fixture
def broken(tmp_path: Path) -> Iterator[Store]:
    """Provide a database that can't be used, because its folder can't be created."""
    folder = tmp_path / "home"
    folder.touch()
    database = StateDatabase(URL.create("sqlite", database=str(folder / "state.db")))

    def give_back() -> None:
        folder.unlink()
        folder.mkdir()

    with store_of(database, give_back, tmp_path) as store:
        yield store


@pytest.fixture(
    params=["locked", *(pytest.param(name, marks=pytest.mark.postgresql) for name in ("shut", "shut in use"))]
)
def away(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """Provide an unavailable database: another process has locked it, or the server accepts no connections."""
    if request.param == "locked":
        monkeypatch.setattr(engine, "_SQLITE_LOCK_TIMEOUT", 0.1)
        database = StateDatabase(URL.create("sqlite", database=str(tmp_path / "state.db")))
        SqlRateLimiter(database, OTHER_ACCOUNT, 60).reserve()
        holder = sqlite3.connect(tmp_path / "state.db", isolation_level=None)
        holder.execute("BEGIN EXCLUSIVE")
        give_back: Callable[[], None] = holder.close
    else:
        port = request.getfixturevalue("postgres_port")
        name = postgres.new_database(port)
        database = StateDatabase(
            URL.create("postgresql+psycopg2", username=postgres.USER, host="127.0.0.1", port=port, database=name)
        )
        if request.param == "shut in use":
            # at least the connection that is kept was good
            SqlRateLimiter(database, OTHER_ACCOUNT, 60).reserve()
        administrate(
            port,
            f"ALTER DATABASE {name} ALLOW_CONNECTIONS false",
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'",  # noqa: S608  our name
        )
        give_back = functools.partial(administrate, port, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    with store_of(database, give_back, tmp_path) as store:
        yield store
        give_back()


def test_without_the_database_the_processes_of_a_host_share_a_quarter_of_the_rate_and_each_logs_it_once(
    broken: Store, clock: Clock, provider_log: list[str]
) -> None:
    others = [broken.limiter(clock) for _ in range(2)]
    assert [slots(each, clock, 1)[0] for each in others] == pytest.approx([1000, 1000 + 4 * INTERVAL])
    provider_log.clear()
    limiter = broken.limiter(clock)
    assert slots(limiter, clock, 1) == pytest.approx([1000 + 8 * INTERVAL])
    assert limiter.interval == 4 * INTERVAL
    limiter.back_off(50)
    assert slots(limiter, clock, 1) == pytest.approx([1050])
    assert limiter.reserve(max_wait=0) == pytest.approx(50 + 4 * INTERVAL)
    [line] = provider_log
    assert line.startswith("Rate limit not shared: the state database can't be used: ")
    assert line.endswith("This host sends at a quarter of the rate for 60 s")
    assert "clinic" not in line


def test_on_the_spare_each_account_has_slots_of_its_own(broken: Store, clock: Clock) -> None:
    slots(broken.limiter(clock), clock, 2)
    other = SqlRateLimiter(broken.database, OTHER_ACCOUNT, 30, clock, lambda: broken.spare)
    assert other.reserve() == 0


def test_threads_that_lose_the_database_together_log_it_once(
    broken: Store, clock: Clock, provider_log: list[str]
) -> None:
    limiter = broken.limiter(clock)
    together = threading.Barrier(3)

    def reserve(_: int) -> float:
        together.wait()
        return clock.now + limiter.reserve()

    with ThreadPoolExecutor(3) as pool:
        times = sorted(pool.map(reserve, range(3)))
    assert times == pytest.approx([1000, 1000 + 4 * INTERVAL, 1000 + 8 * INTERVAL])
    assert len(provider_log) == 1


def test_the_database_is_used_again_once_it_is_back(broken: Store, clock: Clock, provider_log: list[str]) -> None:
    limiter = broken.limiter(clock)
    limiter.back_off(1)
    clock.now += RECHECK_INTERVAL  # in vain
    slots(limiter, clock, 1)
    assert len(provider_log) == 2
    broken.give_back()
    clock.now += RECHECK_INTERVAL - 1
    slots(limiter, clock, 1)
    with elsewhere(broken.database) as other:
        theirs = SqlRateLimiter(other, ACCOUNT, 30, clock)
        assert slots(theirs, clock, 1) == [clock.now]  # nobody shares it yet
        clock.now += 1
        assert slots(limiter, clock, 1) == pytest.approx([clock.now - 1 + INTERVAL])
        assert slots(theirs, clock, 1) == pytest.approx([clock.now - 1 + 2 * INTERVAL])
    assert len(provider_log) == 2


def test_while_the_database_is_away_there_are_no_slots_so_that_nobody_adds_to_those_who_still_get_some(
    away: Store, clock: Clock, provider_log: list[str]
) -> None:
    limiter = away.limiter(clock)
    for _ in range(2):
        with pytest.raises(RateLimitAwayError, match="the rate limit can't be enforced: the state database") as found:
            limiter.reserve()
        assert isinstance(found.value, ApptotoNotSentError)
        assert found.value.waited > 0
    limiter.back_off(1)
    assert limiter.interval == pytest.approx(INTERVAL)
    assert provider_log == []
    away.give_back()
    assert slots(limiter, clock, 2) == pytest.approx([1000, 1000 + INTERVAL])  # at once, and as fast as before


@pytest.mark.parametrize("has_spare", [True, False])
def test_without_any_database_there_are_no_slots(tmp_path: Path, clock: Clock, has_spare: bool) -> None:
    (tmp_path / "file").touch()
    url = URL.create("sqlite", database=str(tmp_path / "file" / "state.db"))
    nowhere = StateDatabase(url)
    limiter = SqlRateLimiter(nowhere, ACCOUNT, 30, clock, lambda: nowhere if has_spare else None)
    with pytest.raises(ApptotoNotSentError, match="the rate limit can't be enforced") as raised:
        limiter.reserve()
    assert raised.value.code == "rate_limit_unusable"
    assert raised.value.reason is not None
    assert raised.value.reason in str(raised.value)
    assert ("unable to open database file" if has_spare else "no temporary directory") in raised.value.reason
    limiter.back_off(1)


def test_the_spare_is_this_users_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    spare = spare_database()
    assert spare is not None
    spare.init()
    again = spare_database()
    assert again is spare
    [folder] = tmp_path.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "pace.db").stat().st_size > 0
    folder.chmod(0o777)  # another test may have created it
    assert spare_database() is None
    shutil.rmtree(folder)
    folder.symlink_to(tmp_path)
    assert spare_database() is None
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    assert spare_database() is None


def test_all_clients_of_an_account_in_a_process_share_a_limiter_that_knows_the_spare(tmp_path: Path) -> None:
    database = StateDatabase(URL.create("sqlite", database=str(tmp_path / "state.db")))
    limiter = shared_rate_limiter(database, ACCOUNT, 30)
    assert shared_rate_limiter(database, ACCOUNT, 30) is limiter
    assert shared_rate_limiter(database, ACCOUNT, 60) is not limiter
    assert limiter._spare is spare_database
