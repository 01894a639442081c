"""One pace for all who send for an account: logic on a clock of the tests' own, then a real minute, on the server's."""

from __future__ import annotations

import collections
import contextlib
import itertools
import json
import math
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest
from sqlalchemy import literal_column, select
from sqlalchemy.engine import URL

from airflow_provider_apptoto.client import ApptotoClient, InProcessPacer, Message
from airflow_provider_apptoto.state import pace as pace_module
from airflow_provider_apptoto.state.database import StateDatabase, pace, state_database
from airflow_provider_apptoto.state.pace import ASK_AGAIN_AFTER, SqlPacer, shared_pacer
from tests import postgres
from tests.client.clock import Clock
from tests.faults import Exchange, FaultServer, accepting, not_listening
from tests.state.sender import ACCOUNT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OTHER_ACCOUNT = "https://clinic.example/v1", "jo@clinic.example"
APART = 2.04
"""Seconds between departures at 30 a minute: 2, and a little more for those that come late."""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Give all state databases, and what a process does without them, a clock of the test's own."""
    clock = Clock()
    monkeypatch.setattr(StateDatabase, "clock", lambda _: literal_column(repr(clock.now)))
    monkeypatch.setattr(pace_module, "time", clock)
    monkeypatch.setattr("airflow_provider_apptoto.client.pacing.time", clock)
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
    pacer = SqlPacer(database, ACCOUNT, 30)
    assert departures(pacer, clock, 4) == pytest.approx([1000 + place * APART for place in range(4)])


def test_all_who_share_the_database_take_turns(database: StateDatabase, clock: Clock) -> None:
    with elsewhere(database) as other:
        pacers = [SqlPacer(each, ACCOUNT, 30) for each in (database, other, database)]
        times = [clock.now + pacer.reserve() for pacer in pacers * 2]
    assert times == pytest.approx([1000 + place * APART for place in range(6)])


def test_time_that_passes_counts_towards_the_next_departure(database: StateDatabase, clock: Clock) -> None:
    pacer = SqlPacer(database, ACCOUNT, 30)
    assert pacer.reserve() == 0
    clock.now += 0.5
    assert pacer.reserve() == pytest.approx(APART - 0.5)


def test_an_idle_time_is_not_saved_up_for_a_burst(database: StateDatabase, clock: Clock) -> None:
    pacer = SqlPacer(database, ACCOUNT, 30)
    pacer.reserve()
    clock.now += 3600
    assert departures(pacer, clock, 3) == pytest.approx([4600, 4600 + APART, 4600 + 2 * APART])


def test_what_is_beyond_the_patience_is_not_reserved(database: StateDatabase, clock: Clock) -> None:
    pacer = SqlPacer(database, ACCOUNT, 30)
    departures(pacer, clock, 3)
    assert [pacer.reserve(6), pacer.reserve(0)] == pytest.approx([3 * APART, 3 * APART])
    assert [pacer.reserve(6.2), pacer.reserve(0)] == pytest.approx([3 * APART, 4 * APART])


def test_a_rest_holds_everybody_back(database: StateDatabase, clock: Clock) -> None:
    with elsewhere(database) as other:
        mine, theirs = SqlPacer(database, ACCOUNT, 30), SqlPacer(other, ACCOUNT, 30)
        mine.push_back(45)  # before anybody has departed
        assert departures(theirs, clock, 2) == pytest.approx([1045, 1045 + APART])
        theirs.push_back(100)
        assert departures(mine, clock, 2) == pytest.approx([1100, 1100 + APART])


def test_a_shorter_rest_never_cuts_a_longer_one(database: StateDatabase, clock: Clock) -> None:
    pacer = SqlPacer(database, ACCOUNT, 30)
    for seconds in (45, 5, 0):
        pacer.push_back(seconds)
    assert departures(pacer, clock, 1) == pytest.approx([1045])


def test_a_rest_that_is_over_holds_nothing_back(database: StateDatabase, clock: Clock) -> None:
    pacer = SqlPacer(database, ACCOUNT, 30)
    pacer.push_back(45)
    clock.now += 50
    assert departures(pacer, clock, 2) == pytest.approx([1050, 1050 + APART])


def test_accounts_do_not_wait_for_one_another(database: StateDatabase, clock: Clock) -> None:
    departures(SqlPacer(database, ACCOUNT, 30), clock, 5)
    SqlPacer(database, ACCOUNT, 30).push_back(300)
    for other in (OTHER_ACCOUNT, ("https://other.example/v1", ACCOUNT[1])):
        assert SqlPacer(database, other, 30).reserve() == 0


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
        pacers = [SqlPacer(each, ACCOUNT, 30) for each in (database, other)] * 3
        times = sorted(itertools.chain.from_iterable(pool.map(depart, pacers)))
    assert times == pytest.approx([1000 + APART * place for place in range(60)])


def reserving(database: StateDatabase, a_minute: int, count: int) -> subprocess.Popen[str]:
    """Start a process that reserves departures."""
    url = database._url.render_as_string(hide_password=False)
    command = [sys.executable, "-m", "tests.state.sender", "reserve", url, str(a_minute), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_processes_that_ask_at_once_never_get_the_same_departure(database: StateDatabase) -> None:
    started = time.monotonic()
    processes = [reserving(database, 60, 25) for _ in range(3)]
    for process in processes:
        lines, _ = process.communicate()
        assert (process.returncode, len(lines.splitlines())) == (0, 25)
    wait = SqlPacer(database, ACCOUNT, 60).reserve(patience=0)
    assert time.monotonic() - started + wait >= 3 * 25 * 1.02


def test_a_process_that_is_killed_costs_the_departure_that_it_held_and_no_more(database: StateDatabase) -> None:
    pacer = SqlPacer(database, ACCOUNT, 1)
    pacer.reserve()
    started = time.monotonic()
    process = reserving(database, 1, 0)
    assert process.stdout is not None
    for _ in range(5):
        process.stdout.readline()
    process.kill()
    used = 1 + 5 + len(process.stdout.readlines())
    process.wait()
    process.stdout.close()
    wait = pacer.reserve(patience=0)
    # each departure is 61.2 s; the one it may have taken without coming to print it is the one that is lost
    assert math.ceil((wait + time.monotonic() - started) / 61.2 - 0.5) in {used, used + 1}


# --- a database that can't be used


@dataclass
class Store:
    """A database that can be taken away, and given back."""

    database: StateDatabase
    give_back: Callable[[], None]


def administrate(port: int, *statements: str) -> None:
    with contextlib.closing(
        psycopg2.connect(host="127.0.0.1", port=port, user=postgres.USER, dbname=postgres.USER)
    ) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)


@pytest.fixture(params=["no folder", "shut", "shut in use"])
def broken(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Give a database that can't be used: its folder can't be made, or the server lets nobody in (any more)."""
    if request.param == "no folder":
        folder = tmp_path / "home"
        folder.touch()
        database = StateDatabase(URL.create("sqlite", database=str(folder / "state.db")))

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

    yield Store(database, give_back)
    database._engine.dispose()


def test_a_process_that_cannot_ask_goes_on_at_a_quarter_of_the_pace_and_says_so_once(
    broken: Store, clock: Clock, provider_log: list[str]
) -> None:
    pacer = SqlPacer(broken.database, ACCOUNT, 30)
    assert departures(pacer, clock, 3) == pytest.approx([1000, 1000 + 4 * APART, 1000 + 8 * APART])
    pacer.push_back(50)
    assert departures(pacer, clock, 1) == pytest.approx([1050])
    assert pacer.reserve(patience=0) == pytest.approx(50 + 4 * APART)
    [line] = provider_log
    assert line.startswith("The pace can't be shared: the state database can't be used: ")
    assert line.endswith("For 60 s this process goes on alone, at a quarter of the pace")
    assert "clinic" not in line


def test_threads_that_find_out_together_say_so_once(broken: Store, clock: Clock, provider_log: list[str]) -> None:
    pacer = SqlPacer(broken.database, ACCOUNT, 30)
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
    pacer = SqlPacer(broken.database, ACCOUNT, 30)
    pacer.push_back(1)
    clock.now += ASK_AGAIN_AFTER  # in vain
    departures(pacer, clock, 1)
    assert len(provider_log) == 2
    broken.give_back()
    clock.now += ASK_AGAIN_AFTER - 1
    departures(pacer, clock, 1)
    with elsewhere(broken.database) as other:
        theirs = SqlPacer(other, ACCOUNT, 30)
        assert departures(theirs, clock, 1) == [clock.now]  # nobody shares it yet
        clock.now += 1
        assert departures(pacer, clock, 1) == pytest.approx([clock.now - 1 + APART])
        assert departures(theirs, clock, 1) == pytest.approx([clock.now - 1 + 2 * APART])
    assert len(provider_log) == 2


def test_a_server_that_is_gone_stops_nobody(clock: Clock, provider_log: list[str]) -> None:
    with not_listening() as port:
        url = URL.create("postgresql+psycopg2", username="mary", host="127.0.0.1", port=port, database="state")
        database = StateDatabase(url)
        assert departures(SqlPacer(database, ACCOUNT, 30), clock, 2) == pytest.approx([1000, 1000 + 4 * APART])
    database._engine.dispose()
    assert len(provider_log) == 1


# --- one real minute, counted by the server

SECONDS = 65.0
A_MINUTE = 600
LIMIT = 100
"""What the real service was seen to refuse: the 101st request of a minute."""
REST = 3


class Account(FaultServer):
    """An account with a server of its own, which notes when requests come in.

    :param limit: requests in any 60 seconds; more are refused with 429.
    :param refused: places of requests, from 0, that are refused all the same, and the seconds that ``Retry-After``
        says, if any.
    """

    def __init__(self, *, limit: float = math.inf, refused: dict[int, int | None] | None = None) -> None:
        super().__init__([self._note])
        self.arrivals: list[float] = []
        self.refusals: list[float] = []
        self._limit = limit
        self._refused = refused or {}
        self._granted: collections.deque[float] = collections.deque()
        self._lock = threading.Lock()

    def _note(self, exchange: Exchange) -> None:
        with self._lock:
            now = time.monotonic()
            place = len(self.arrivals)
            self.arrivals.append(now)
            while self._granted and self._granted[0] <= now - 60:
                self._granted.popleft()
            refuse = place in self._refused or len(self._granted) >= self._limit
            (self.refusals if refuse else self._granted).append(now)
        if refuse:
            seconds = self._refused.get(place)
            headers: dict[str, Any] = {} if seconds is None else {"Retry_After": str(seconds)}
            exchange.answer(429, **headers)
        else:
            accepting(exchange)

    @property
    def fullest_minute(self) -> int:
        return max(sum(start <= other < start + 60 for other in self.arrivals) for start in self.arrivals)

    @property
    def a_minute(self) -> float:
        """How many came in a minute, while there was work."""
        return 60 * (len(self.arrivals) - 1) / (self.arrivals[-1] - self.arrivals[0])


def sender(home: Path, account: Account, threads: int = 1, state: str | None = None, **extra: Any) -> dict[str, Any]:
    """Plan a process that sends through the hook.

    :param home: its host.
    :param state: URI of its state database, if any.
    """
    login = {"login": "mary@clinic.example", "password": "sekret-api-key"}
    if state is not None:
        extra["state_conn_id"] = "state"
    connection = {"conn_type": "apptoto", "host": account.url, **login, "extra": extra}
    environment = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW_CONN_APPTOTO_DEFAULT": json.dumps(connection),
        "AIRFLOW_CONN_STATE": state or "",
    }
    return {"threads": threads, "environment": environment}


def send_by_threads(account: Account) -> None:
    """Send by four threads of one client, outside of Airflow."""
    message = Message(type="sms", to="+16505550199", message="Hi")
    with ApptotoClient(
        login="mary@clinic.example", api_key="key", base_url=account.url, pacer=InProcessPacer(A_MINUTE)
    ) as client:

        def work(_: int) -> None:
            while time.monotonic() < deadline:
                client.send(message)

        client.send(message)  # what is imported then may take seconds
        deadline = time.monotonic() + SECONDS
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))


@pytest.fixture(scope="module")
def minute(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Account]:
    """Let all kinds of senders, with an account each, send side by side for a bit more than a minute."""
    accounts = {
        "threads of a client": Account(),
        "threads of a hook": Account(),
        "processes": Account(),
        "enforced": Account(limit=LIMIT),
        "refused": Account(refused={100: REST, 200: None}),
    }
    hosts = {name: tmp_path_factory.mktemp(name.replace(" ", "_")) for name in accounts}
    pace: dict[str, Any] = {"requests_per_minute": A_MINUTE}
    with contextlib.ExitStack() as stack:
        for account in accounts.values():
            stack.enter_context(account)
        plans = [
            sender(hosts["threads of a hook"], accounts["threads of a hook"], 4, **pace),
            *[sender(hosts["processes"], accounts["processes"], **pace)] * 4,
            *[sender(hosts["enforced"], accounts["enforced"])] * 2,
            *[sender(hosts["refused"], accounts["refused"], 2, **pace)] * 2,
        ]
        if "CI" in os.environ or postgres.programs():
            port = request.getfixturevalue("postgres_port")
            state = f"postgres://{postgres.USER}@127.0.0.1:{port}/{postgres.new_database(port)}"
            accounts["hosts"] = stack.enter_context(Account())
            plans += [sender(tmp_path_factory.mktemp("host"), accounts["hosts"], 2, state, **pace) for _ in range(2)]
        command = [sys.executable, "-m", "tests.state.sender", "send", str(SECONDS), json.dumps(plans)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as senders:
            assert senders.stdout is not None
            said = list(itertools.takewhile(lambda line: line != "started\n", senders.stdout))
            send_by_threads(accounts["threads of a client"])
            said += senders.stdout.readlines()
        assert senders.returncode == 0, "".join(said)
        assert "The pace can't be shared" not in "".join(said)
    return accounts


@pytest.mark.parametrize("who", ["threads of a client", "threads of a hook", "processes", "hosts"])
def test_no_minute_holds_more_than_agreed_and_nearly_all_of_it_is_used(minute: dict[str, Account], who: str) -> None:
    if who not in minute:
        pytest.skip("PostgreSQL is not installed")
    assert minute[who].arrivals[-1] - minute[who].arrivals[0] > 60
    assert minute[who].fullest_minute <= A_MINUTE
    assert minute[who].a_minute >= 0.97 * A_MINUTE


def test_by_default_a_server_that_allows_a_hundred_a_minute_refuses_nothing(minute: dict[str, Account]) -> None:
    account = minute["enforced"]
    assert account.arrivals[-1] - account.arrivals[0] > 60
    assert not account.refusals
    assert account.a_minute >= 0.97 * 90


def test_a_refusal_holds_all_processes_back_and_then_the_pace_goes_on(minute: dict[str, Account]) -> None:
    account = minute["refused"]
    rests = []
    for refused in account.refusals:
        after = [arrival - refused for arrival in account.arrivals if arrival > refused]
        # each of the four threads may have had a departure already
        rest = next(later for earlier, later in itertools.pairwise([0.0, *after]) if later - earlier > 1)
        held = [arrival for arrival in after if arrival < rest]
        assert len(held) <= 4
        rests.append(rest)
    with_retry_after, without = rests
    assert with_retry_after >= REST - 0.05
    assert without >= 1.5 - 0.05
    assert account.fullest_minute <= A_MINUTE
    going_on = [arrival for arrival in account.arrivals if arrival >= account.refusals[-1] + without]
    assert 60 * (len(going_on) - 1) / (going_on[-1] - going_on[0]) >= 0.97 * A_MINUTE
