"""All processes that send for an account share one rate limit, as the server counts a real minute."""

from __future__ import annotations

import collections
import contextlib
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_apptoto.client import ApptotoClient, InProcessRateLimiter, Message
from tests.support import postgres
from tests.support.faults import Exchange, FaultServer, accepting

SECONDS = 65.0
A_MINUTE = 600
LIMIT = 100
"""The real service was observed to refuse the 101st request in a minute."""
REST = 3
MOST = 0.5
"""Minimum share of the rate: up to 98 % is used (docs/performance.rst), much less on a busy machine."""


class Account(FaultServer):
    """An account with its own server, which records when requests arrive.

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
        """Number of requests per minute while there was work."""
        return 60 * (len(self.arrivals) - 1) / (self.arrivals[-1] - self.arrivals[0])


def pace(arrivals: list[float]) -> float:
    """Return the usual number of requests per minute: by the median, since the whole machine may stand still once."""
    return 60 / statistics.median(later - earlier for earlier, later in itertools.pairwise(arrivals))


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
    """Send from four threads of one client, outside Airflow."""
    message = Message(type="sms", to="+16505550199", message="Hi")
    with ApptotoClient(
        login="mary@clinic.example", api_key="key", base_url=account.url, rate_limiter=InProcessRateLimiter(A_MINUTE)
    ) as client:

        def work(_: int) -> None:
            while time.monotonic() < deadline:
                client.send(message)

        client.send(message)  # imports may take seconds
        deadline = time.monotonic() + SECONDS
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))


@pytest.fixture(scope="module")
def minute(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Account]:
    """Run all kinds of senders, each with its own account, at the same time for a bit more than a minute."""
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
        command = [sys.executable, "-m", "tests.support.sender", "send", str(SECONDS), json.dumps(plans)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as senders:
            assert senders.stdout is not None
            said = list(itertools.takewhile(lambda line: line != "started\n", senders.stdout))
            send_by_threads(accounts["threads of a client"])
            said += senders.stdout.readlines()
        assert senders.returncode == 0, "".join(said)
        assert "The rate limit can't be shared" not in "".join(said)
    return accounts


@pytest.mark.parametrize("who", ["threads of a client", "threads of a hook", "processes", "hosts"])
def test_no_minute_holds_more_than_agreed_and_nearly_all_of_it_is_used(minute: dict[str, Account], who: str) -> None:
    if who not in minute:
        pytest.skip("PostgreSQL is not installed")
    assert minute[who].arrivals[-1] - minute[who].arrivals[0] > 60
    assert minute[who].fullest_minute <= A_MINUTE
    assert minute[who].a_minute >= MOST * A_MINUTE


def test_by_default_a_server_that_allows_a_hundred_a_minute_refuses_nothing(minute: dict[str, Account]) -> None:
    account = minute["enforced"]
    assert account.arrivals[-1] - account.arrivals[0] > 60
    assert not account.refusals
    assert account.a_minute >= MOST * 90


def test_a_refusal_holds_all_processes_back_and_then_the_pace_goes_on(minute: dict[str, Account]) -> None:
    account = minute["refused"]
    rests = []
    for refused in account.refusals:
        after = [arrival - refused for arrival in account.arrivals if arrival > refused]
        # each of the four threads may have had a slot already
        rest = next(later for earlier, later in itertools.pairwise([0.0, *after]) if later - earlier > 1)
        held = [arrival for arrival in after if arrival < rest]
        assert len(held) <= 4
        rests.append(rest)
    with_retry_after, without = rests
    assert with_retry_after >= REST - 0.05
    assert without >= 1.5 - 0.05
    assert account.fullest_minute <= A_MINUTE
    going_on = [arrival for arrival in account.arrivals if arrival >= account.refusals[-1] + without]
    assert pace(going_on) >= MOST * A_MINUTE
