"""A stall of some seconds causes no burst afterwards: the rate limit holds at the server."""

from __future__ import annotations

import bisect
import contextlib
import functools
import itertools
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psutil
import psycopg2
import pytest

from tests.support import postgres
from tests.support.faults import Exchange, FaultServer, accepting
from tests.support.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

A_SECOND = 10
"""The configured rate."""
STALL = 3.0
"""Seconds."""
BEFORE = 20
"""Requests before it."""
PROCESSES = 8
"""Each has a slot when the stall begins, and threads that wait for slots."""
WINDOW = 20.0
"""Seconds. So many are needed for slots, which are 2 % further apart than agreed, to make up for what a machine with
other work adds: the last requests before a window may come 0.1 s late, and all may be noted some tenths late."""
BATCHES = 3
SINGLES = 6
SHORT_WAIT = 9.0
"""Seconds that a single message waits for a slot. It would need more if each thread of the batches were ahead of it."""


class Account(FaultServer):
    """An account with its own server, which records when requests arrive."""

    def __init__(self) -> None:
        super().__init__([self._note])
        self.arrivals: list[float] = []
        self.is_under_way = threading.Event()

    def _note(self, exchange: Exchange) -> None:
        self.arrivals.append(time.monotonic())
        if len(self.arrivals) == BEFORE:
            self.is_under_way.set()
        accepting(exchange)

    @property
    def fullest_window(self) -> int:
        times = sorted(self.arrivals)
        return max(bisect.bisect_left(times, start + WINDOW) - place for place, start in enumerate(times))


@dataclass
class Scene:
    """Processes that share an account and a state database, and a stall while they run.

    :param state: URI of their state database.
    :param stall: is given their ids.
    :param plans: one for each process.
    """

    state: str
    stall: Callable[[list[int]], None]
    plans: list[dict[str, Any]]
    account: Account = field(default_factory=Account)
    said: str = ""

    @property
    def messages(self) -> int:
        return sum(plan["rows"] for plan in self.plans)

    def told(self, home: Path) -> list[dict[str, Any]]:
        """Return the environment of its processes.

        :param home: their ``AIRFLOW_HOME``.
        """
        extra = {"requests_per_minute": 60 * A_SECOND, "state_conn_id": "state"}
        login = {"login": "mary@clinic.example", "password": "sekret-api-key"}
        connection = {"conn_type": "apptoto", "host": self.account.url, **login, "extra": extra}
        environment = {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW_CONN_APPTOTO_DEFAULT": json.dumps(connection),
            "AIRFLOW_CONN_STATE": self.state,
        }
        return [{**plan, "name": f"task{number}", "environment": environment} for number, plan in enumerate(self.plans)]

    def stall_when_under_way(self, ids: list[int]) -> None:
        self.account.is_under_way.wait()
        if len(self.account.arrivals) >= BEFORE:  # otherwise they failed
            self.stall(ids)


BATCH = {"rows": int((BEFORE + (WINDOW + 2) * A_SECOND) / PROCESSES), "threads": 4, "after": 0.0, "max_wait": 60.0}
WIDE_BATCH = {**BATCH, "rows": 80, "threads": 32}


def single_message() -> dict[str, Any]:
    """Plan one message of a task without retries, at any time while the batches are sent."""
    return {"rows": 1, "threads": 0, "after": random.uniform(0, 20), "max_wait": SHORT_WAIT}  # noqa: S311  no secret


def lock(path: Path, _: list[int]) -> None:
    """Lock a SQLite file for a while."""
    with contextlib.closing(sqlite3.connect(path, timeout=60, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        time.sleep(STALL)


def freeze(ids: list[int]) -> None:
    """Stop processes for a while."""
    try:
        for each in ids:
            os.kill(each, signal.SIGSTOP)
        time.sleep(STALL)
    finally:
        for each in ids:
            os.kill(each, signal.SIGCONT)


def pause(port: int, _: list[int]) -> None:
    """Stop PostgreSQL for a while."""
    with contextlib.closing(
        psycopg2.connect(host="127.0.0.1", port=port, user=postgres.USER, dbname=postgres.USER)
    ) as connection:
        server = psutil.Process(connection.info.backend_pid).parent()
        assert server is not None
        freeze([server.pid, *(child.pid for child in server.children(recursive=True))])


def go_down(network: Proxy, _: list[int]) -> None:
    """Break all connections to the database, so that some of the processes find it unavailable."""
    network.go_down(3)


def nothing(_: list[int]) -> None:
    pass


def play(scenes: list[Scene], home: Path) -> None:
    """Run the processes of all scenes, and wait for them."""
    told = [scene.told(home) for scene in scenes]
    command = [sys.executable, "-m", "tests.support.sender", "outbox", json.dumps(list(itertools.chain(*told)))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as senders:
        assert senders.stdout is not None
        ids = json.loads(next(line for line in senders.stdout if line.startswith("[")))
        with ThreadPoolExecutor(len(scenes)) as pool:
            for scene in scenes:
                own, ids = ids[: len(scene.plans)], ids[len(scene.plans) :]
                pool.submit(scene.stall_when_under_way, own)
            said = senders.stdout.read()
            for scene in scenes:
                scene.said = said
                scene.account.is_under_way.set()


@pytest.fixture(scope="module")
def scenes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Scene]:
    """Run all scenes at the same time."""
    home = tmp_path_factory.mktemp("stalls")
    batches = [BATCH] * PROCESSES
    beside = [WIDE_BATCH] * BATCHES + [single_message() for _ in range(SINGLES)]
    scenes = {
        "SQLite is locked": Scene(f"sqlite:///{home}/1.db", functools.partial(lock, home / "1.db"), batches),
        "the processes are frozen": Scene(f"sqlite:///{home}/2.db", freeze, batches),
        "nothing, beside wide batches": Scene(f"sqlite:///{home}/3.db", nothing, beside),
    }
    with contextlib.ExitStack() as stack:
        if "CI" in os.environ or postgres.programs():
            port = request.getfixturevalue("postgres_port")
            network = stack.enter_context(Proxy(port))
            paused, away = (
                f"postgres://{postgres.USER}@127.0.0.1:{ends_at}/{postgres.new_database(port)}"
                for ends_at in (port, network.port)
            )
            scenes["PostgreSQL is paused"] = Scene(paused, functools.partial(pause, port), batches)
            scenes["PostgreSQL is away"] = Scene(away, functools.partial(go_down, network), batches)
        for scene in scenes.values():
            stack.enter_context(scene.account)
        play(list(scenes.values()), home)
    return scenes


@pytest.mark.processes
@pytest.mark.parametrize(
    "stall",
    [
        "SQLite is locked",
        "the processes are frozen",
        "nothing, beside wide batches",
        pytest.param("PostgreSQL is paused", marks=pytest.mark.postgresql),
        pytest.param("PostgreSQL is away", marks=pytest.mark.postgresql),
    ],
)
def test_every_message_is_sent_once_and_no_window_holds_more_requests_than_agreed(
    scenes: dict[str, Scene], stall: str
) -> None:
    if stall not in scenes:
        pytest.skip("PostgreSQL is not installed")
    scene = scenes[stall]
    texts = Counter(request.json["message"] for request in scene.account.accepted)
    assert len(texts) == scene.messages, scene.said
    assert set(texts.values()) == {1}
    # one more: a window that begins and ends with a request holds one more than it has gaps
    assert scene.account.fullest_window <= A_SECOND * WINDOW + 1
