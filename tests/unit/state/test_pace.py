"""One pace for all processes that send for an account, on a clock of the tests' own."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg2
import pytest
from sqlalchemy import literal_column, select
from sqlalchemy.engine import URL

from airflow_provider_apptoto.client import ApptotoNotSentError
from airflow_provider_apptoto.state.database import StateDatabase, pace, spare_database, state_database
from airflow_provider_apptoto.state.pace import ASK_AGAIN_AFTER, SqlPacer, shared_pacer
from tests.support import postgres
from tests.support.clock import Clock
from tests.support.faults import not_listening
from tests.support.sender import ACCOUNT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OTHER_ACCOUNT = "https://clinic.example/v1", "jo@clinic.example"
APART = 2.04
"""Seconds between departures at 30 a minute: 2, and a little more for those that come late."""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Give all state databases a clock of the test's own."""
    clock = Clock()
    monkeypatch.setattr(StateDatabase, "clock", lambda _: literal_column(repr(clock.now)))
    return clock


@contextlib.contextmanager
def elsewhere(database: StateDatabase) -> Iterator[StateDatabase]:
    """Give the same database as another process sees it: by connections of its own."""
    other = StateDatabase(database._url)
    yield other
    other._engine.dispose()


def departures(pacer: SqlPacer, clock: Clock, count: int) -> list[float]:
    return [clock.now + pacer.reserve() for _ in range(count)]


def test_departures_are_evenly_spaced(database: StateDatabase, clock: Clock) -> None:
    pacer = SqlPacer(database, ACCOUNT, 30, clock)
    assert departures(pacer, clock, 4) == pytest.approx([1000 + place * APART for place in range(4)])


def test_all_who_share_the_database_take_turns(database: StateDatabase, clock: Clock) -> None:
    with elsewhere(database) as other:
        pacers = [SqlPacer(each, ACCOUNT, 30, clock) for each in (database, other, database)]
        times = [clock.now + pacer.reserve() for pacer in pacers * 2]
    assert times == pytest.approx([1000 + place * APART for place in range(6)])


def test_time_that_passes_counts_towards_the_next_departure(database: StateDatabase, clock: Clock) -> None:
    pacer = SqlPacer(database, ACCOUNT, 30, clock)
    assert pacer.reserve() == 0
    clock.now += 0.5
    assert pacer.reserve() == pytest.approx(APART - 0.5)


def test_an_idle_time_is_not_saved_up_for_a_burst(database: StateDatabase, clock: Clock) -> None:
    pacer = SqlPacer(database, ACCOUNT, 30, clock)
    pacer.reserve()
    clock.now += 3600
    assert departures(pacer, clock, 3) == pytest.approx([4600, 4600 + APART, 4600 + 2 * APART])


def test_what_is_beyond_the_patience_is_not_reserved(database: StateDatabase, clock: Clock) -> None:
    pacer = SqlPacer(database, ACCOUNT, 30, clock)
    departures(pacer, clock, 3)
    assert [pacer.reserve(6), pacer.reserve(0)] == pytest.approx([3 * APART, 3 * APART])
    assert [pacer.reserve(6.2), pacer.reserve(0)] == pytest.approx([3 * APART, 4 * APART])


def test_a_rest_holds_everybody_back(database: StateDatabase, clock: Clock) -> None:
    with elsewhere(database) as other:
        mine, theirs = SqlPacer(database, ACCOUNT, 30, clock), SqlPacer(other, ACCOUNT, 30, clock)
        mine.push_back(45)  # before anybody has departed
        assert departures(theirs, clock, 2) == pytest.approx([1045, 1045 + APART])
        theirs.push_back(100)
        assert departures(mine, clock, 2) == pytest.approx([1100, 1100 + APART])


def test_a_shorter_rest_never_cuts_a_longer_one(database: StateDatabase, clock: Clock) -> None:
    pacer = SqlPacer(database, ACCOUNT, 30, clock)
    for seconds in (45, 5, 0):
        pacer.push_back(seconds)
    assert departures(pacer, clock, 1) == pytest.approx([1045])


def test_a_rest_that_is_over_holds_nothing_back(database: StateDatabase, clock: Clock) -> None:
    pacer = SqlPacer(database, ACCOUNT, 30, clock)
    pacer.push_back(45)
    clock.now += 50
    assert departures(pacer, clock, 2) == pytest.approx([1050, 1050 + APART])


def test_accounts_do_not_wait_for_one_another(database: StateDatabase, clock: Clock) -> None:
    departures(SqlPacer(database, ACCOUNT, 30, clock), clock, 5)
    SqlPacer(database, ACCOUNT, 30, clock).push_back(300)
    for other in (OTHER_ACCOUNT, ("https://other.example/v1", ACCOUNT[1])):
        assert SqlPacer(database, other, 30, clock).reserve() == 0


@pytest.mark.usefixtures("clock")
def test_the_login_is_not_in_the_database(database: StateDatabase) -> None:
    SqlPacer(database, ACCOUNT, 30).reserve()
    with database.transaction() as connection:
        [row] = connection.execute(select(pace)).all()
    kept = str(row).encode()
    if database.dialect == "sqlite":
        path = Path(database._url.database or "")
        kept += b"".join(each.read_bytes() for each in path.parent.glob(f"{path.name}*"))
    assert not [word for word in (b"mary", b"clinic") if word in kept]


def test_all_clients_of_an_account_share_one_pacer_in_a_process(tmp_path: Path) -> None:
    url = URL.create("sqlite", database=str(tmp_path / "state.db"))
    mine = shared_pacer(state_database(url), ACCOUNT, 90)
    assert shared_pacer(state_database(url), ACCOUNT, 90) is mine
    assert shared_pacer(state_database(url), OTHER_ACCOUNT, 90) is not mine


# --- at once


def test_threads_that_ask_at_once_never_get_the_same_departure(database: StateDatabase, clock: Clock) -> None:
    together = threading.Barrier(6)

    def depart(pacer: SqlPacer) -> list[float]:
        together.wait()
        return departures(pacer, clock, 10)

    with elsewhere(database) as other, ThreadPoolExecutor(6) as pool:
        pacers = [SqlPacer(each, ACCOUNT, 30, clock) for each in (database, other)] * 3
        times = sorted(itertools.chain.from_iterable(pool.map(depart, pacers)))
    assert times == pytest.approx([1000 + APART * place for place in range(60)])


# --- a database that can't be used


@dataclass
class Store:
    """A database that can be taken away, and given back."""

    database: StateDatabase
    give_back: Callable[[], None]
    spare: StateDatabase

    def pacer(self, clock: Clock) -> SqlPacer:
        """Return the pacer of one process."""
        return SqlPacer(self.database, ACCOUNT, 30, clock, lambda: self.spare)


def administrate(port: int, *statements: str) -> None:
    with contextlib.closing(
        psycopg2.connect(host="127.0.0.1", port=port, user=postgres.USER, dbname=postgres.USER)
    ) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)


@pytest.fixture(
    params=["no folder", *(pytest.param(name, marks=pytest.mark.postgresql) for name in ("shut", "shut in use"))]
)
def broken(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Give a database that can't be used: its folder can't be made, or the server lets nobody in (any more)."""
    if request.param == "no folder":
        folder = tmp_path / "home"
        folder.touch()
        database = StateDatabase(URL.create("sqlite", database=str(folder / "state.db")), start_attempts=2)

        def give_back() -> None:
            folder.unlink()
            folder.mkdir()
    else:
        port = request.getfixturevalue("postgres_port")
        name = postgres.new_database(port)
        database = StateDatabase(
            URL.create("postgresql+psycopg2", username=postgres.USER, host="127.0.0.1", port=port, database=name)
        )
        if request.param == "shut in use":
            # at least the connection that is kept was good
            SqlPacer(database, OTHER_ACCOUNT, 60).reserve()
        administrate(
            port,
            f"ALTER DATABASE {name} ALLOW_CONNECTIONS false",
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'",  # noqa: S608  our name
        )

        def give_back() -> None:
            administrate(port, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")

    spare = StateDatabase(URL.create("sqlite", database=str(tmp_path / "spare.db")))
    yield Store(database, give_back, spare)
    database._engine.dispose()
    spare._engine.dispose()


def test_the_processes_of_a_host_that_cannot_ask_share_a_quarter_of_the_pace_and_each_says_so_once(
    broken: Store, clock: Clock, provider_log: list[str]
) -> None:
    others = [broken.pacer(clock) for _ in range(2)]
    assert [departures(each, clock, 1)[0] for each in others] == pytest.approx([1000, 1000 + 4 * APART])
    provider_log.clear()
    pacer = broken.pacer(clock)
    assert departures(pacer, clock, 1) == pytest.approx([1000 + 8 * APART])
    pacer.push_back(50)
    assert departures(pacer, clock, 1) == pytest.approx([1050])
    assert pacer.reserve(patience=0) == pytest.approx(50 + 4 * APART)
    [line] = provider_log
    assert line.startswith("The pace can't be shared: the state database can't be used: ")
    assert line.endswith("For 60 s the processes of this host go on at a quarter of the pace")
    assert "clinic" not in line


def test_threads_that_find_out_together_say_so_once(broken: Store, clock: Clock, provider_log: list[str]) -> None:
    pacer = broken.pacer(clock)
    together = threading.Barrier(3)

    def depart(_: int) -> float:
        together.wait()
        return clock.now + pacer.reserve()

    with ThreadPoolExecutor(3) as pool:
        times = sorted(pool.map(depart, range(3)))
    assert times == pytest.approx([1000, 1000 + 4 * APART, 1000 + 8 * APART])
    assert len(provider_log) == 1


def test_who_went_on_alone_comes_back_when_the_database_does(
    broken: Store, clock: Clock, provider_log: list[str]
) -> None:
    pacer = broken.pacer(clock)
    pacer.push_back(1)
    clock.now += ASK_AGAIN_AFTER  # in vain
    departures(pacer, clock, 1)
    assert len(provider_log) == 2
    broken.give_back()
    clock.now += ASK_AGAIN_AFTER - 1
    departures(pacer, clock, 1)
    with elsewhere(broken.database) as other:
        theirs = SqlPacer(other, ACCOUNT, 30, clock)
        assert departures(theirs, clock, 1) == [clock.now]  # nobody shares it yet
        clock.now += 1
        assert departures(pacer, clock, 1) == pytest.approx([clock.now - 1 + APART])
        assert departures(theirs, clock, 1) == pytest.approx([clock.now - 1 + 2 * APART])
    assert len(provider_log) == 2


def test_a_server_that_is_gone_stops_nobody(tmp_path: Path, clock: Clock, provider_log: list[str]) -> None:
    spare = StateDatabase(URL.create("sqlite", database=str(tmp_path / "spare.db")))
    with not_listening() as port:
        url = URL.create("postgresql+psycopg2", username="mary", host="127.0.0.1", port=port, database="state")
        pacer = SqlPacer(StateDatabase(url), ACCOUNT, 30, clock, lambda: spare)
        assert departures(pacer, clock, 2) == pytest.approx([1000, 1000 + 4 * APART])
    spare._engine.dispose()
    assert len(provider_log) == 1


@pytest.mark.parametrize("has_spare", [True, False])
def test_nothing_departs_where_the_pace_can_be_kept_nowhere(tmp_path: Path, clock: Clock, has_spare: bool) -> None:
    (tmp_path / "file").touch()
    url = URL.create("sqlite", database=str(tmp_path / "file" / "state.db"))
    nowhere = StateDatabase(url, start_attempts=1)
    pacer = SqlPacer(nowhere, ACCOUNT, 30, clock, lambda: nowhere if has_spare else None)
    with pytest.raises(ApptotoNotSentError, match="the pace can't be kept"):
        pacer.reserve()
    pacer.push_back(1)


def test_the_spare_is_this_users_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    spare = spare_database()
    assert spare is not None
    spare.init()
    [folder] = tmp_path.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "pace.db").stat().st_size > 0
    folder.chmod(0o777)  # somebody else may have made it
    assert spare_database() is None
    shutil.rmtree(folder)
    folder.symlink_to(tmp_path)
    assert spare_database() is None
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    assert spare_database() is None
