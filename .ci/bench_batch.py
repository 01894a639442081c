"""Print what ways of sending many messages come to: copies, people who got nothing, wrong reports, time, CPU, memory.

One server that enforces a sliding window takes all that is sent, and its own list is the truth. Run as
``python .ci/bench_batch.py`` by a Python that has the packages of .ci/pins/bench.txt; PostgreSQL is used if installed.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import functools
import importlib.metadata
import json
import logging
import math
import multiprocessing
import os
import re
import socket
import sqlite3
import statistics
import struct
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.chaos.draws import Draws, Fault  # noqa: E402  found by the line above
from tests.chaos.people import number_of, person_of  # noqa: E402  the same

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from airflow_provider_apptoto.state.database import StateDatabase
    from airflow_provider_apptoto.state.store import LedgerStore

LIMIT = 25
"""Requests that the server looks at in any window; it answers 429 to more. Apptoto's limit is taken to be 100."""
WINDOW = 6.0
"""Seconds; Apptoto's is taken to be 60. So all goes 2.5 times as fast, and a run of few messages meets it."""
PACE = 0.9 * LIMIT / WINDOW
"""Requests a second of whoever keeps a pace: the share of the limit that is our default."""
LATENCY = 0.05
TIMEOUT = 3.0
"""Seconds without an answer after which every arm gives up."""
TEXT = "See you at nine."
MILD, HARSH = 0.03, 0.30
"""Shares of requests that go wrong."""
DEADLINE = 1500.0
"""Seconds after which a run is taken never to end."""


def say(text: str) -> None:
    """Show progress where it is no part of the tables."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


# --- the server: a process of its own -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """How the server behaves.

    :param limit: requests in a window; ``None``: any number.
    :param faults: share of the requests that go wrong, drawn for each person and each request that is looked at.
    :param kill_at: the message at whose acceptance the process that sent it is killed.
    """

    latency: float = LATENCY
    limit: int | None = None
    faults: float = 0.0
    seed: int = 0
    kill_at: int | None = None


@dataclass(slots=True)
class Seen:
    """What the server knows.

    :param copies: that each person got.
    :param refused: requests over the limit.
    :param killed: whether a process was.
    :param arrivals: when each request came.
    """

    copies: Counter[int] = field(default_factory=Counter)
    refused: int = 0
    killed: bool = False
    arrivals: list[float] = field(default_factory=list)


_OK = b'{"success": true}'
_ANSWERS: dict[Fault | None, tuple[int, str]] = {
    None: (200, ""),
    Fault.TOO_MANY: (429, ""),
    Fault.TOO_MANY_RETRY_AFTER: (429, "Retry-After: 1"),
    Fault.UNAVAILABLE_RETRY_AFTER: (503, "Retry-After: 1"),
    Fault.UNAVAILABLE_NOT_ACCEPTED: (503, ""),
    Fault.UNAVAILABLE_ACCEPTED: (503, ""),
    Fault.BROKEN_NOT_ACCEPTED: (500, ""),
    Fault.BROKEN_ACCEPTED: (500, ""),
    Fault.REFUSED: (422, ""),
    Fault.REDIRECT: (302, "Location: /v1/send_message"),
}
_ACCEPTED = {fault for fault in (None, *Fault) if fault is None or re.search(r"(?<!not )accepted$", fault)}
_CUT: dict[Fault | None, bytes] = {
    Fault.CUT_IN_HEADERS: b"HTTP/1.1 200 OK\r\nContent-Ty",
    Fault.CUT_IN_BODY: b'HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n{"success":',
    Fault.CLOSED_ACCEPTED: b"",
}


class Desk:
    """Plays the server."""

    def __init__(self) -> None:
        self.begin(Conditions())

    def begin(self, conditions: Conditions) -> None:
        """Forget what was, and behave like this."""
        self._conditions = conditions
        self._draws = Draws(seed=conditions.seed, faults=conditions.faults)
        self._window: collections.deque[float] = collections.deque()
        self._looked_at: Counter[int] = Counter()
        self.seen = Seen()

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while await self._exchange(reader, writer):
                pass
        writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request, and tell whether the connection stays."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        length = re.search(r"(?im)^content-length: *(\d+)", head)
        body = await reader.readexactly(int(length[1]) if length else 0)
        if not head.startswith("POST "):  # somebody followed the redirect
            _answer(writer, 200, "", b"<html>Hello</html>")
            return True
        now = time.monotonic()
        self.seen.arrivals.append(now)
        wait = self._wait(now)
        if wait:
            self.seen.refused += 1
            await asyncio.sleep(self._conditions.latency)
            _answer(writer, 429, f"Retry-After: {wait}")
            return True
        person = person_of(json.loads(body)["to"])
        fault = self._draws.fault(person, self._looked_at[person])
        self._looked_at[person] += 1
        if fault in _ACCEPTED:
            self.seen.copies[person] += 1
            if self.seen.copies.total() == self._conditions.kill_at:
                _kill_sender(writer)
                self.seen.killed = True
        await asyncio.sleep(self._conditions.latency)
        return await _end(fault, reader, writer)

    def _wait(self, now: float) -> int:
        """Return the seconds until the window has room for one more request; 0: it has, and the request is in it."""
        while self._window and self._window[0] <= now - WINDOW:
            self._window.popleft()
        if self._conditions.limit is None or len(self._window) < self._conditions.limit:
            self._window.append(now)
            return 0
        return math.ceil(self._window[0] + WINDOW - now)


async def _end(fault: Fault | None, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    if fault in _ANSWERS:
        status, header = _ANSWERS[fault]
        _answer(writer, status, header, _OK if fault is None else b"")
        return True
    if fault is Fault.HANGING:
        await reader.read(1)  # until the client has gone
    elif fault in {Fault.RESET_ACCEPTED, Fault.RESET_NOT_ACCEPTED}:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    else:
        writer.write(_CUT[fault])
    return False


def _answer(writer: asyncio.StreamWriter, status: int, header: str, body: bytes = b"") -> None:
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}", *([header] if header else [])]
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)


def _kill_sender(writer: asyncio.StreamWriter) -> None:
    """Kill the process that owns the other end of the socket."""
    peer = writer.get_extra_info("peername")
    [pid] = {each.pid for each in psutil.net_connections(kind="tcp") if each.laddr == peer}
    psutil.Process(pid).kill()


def serve(pipe: Connection) -> None:
    """Be the server's process: say the port, then take conditions, or tell what was seen."""

    async def run() -> None:
        desk = Desk()
        listener = await asyncio.start_server(desk.converse, "127.0.0.1", 0, backlog=1024)

        def command() -> None:
            try:
                conditions = pipe.recv()
            except EOFError:
                sys.exit()  # who asked is gone
            if conditions is not None:
                desk.begin(conditions)
            pipe.send(desk.seen)

        asyncio.get_running_loop().add_reader(pipe.fileno(), command)
        pipe.send(listener.sockets[0].getsockname()[1])
        await listener.serve_forever()

    asyncio.run(run())


class Server:
    """The server, from outside."""

    def __enter__(self) -> Self:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=serve, args=(other,), daemon=True)
        self._process.start()
        self.port: int = self._pipe.recv()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join()

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self.port}"

    def begin(self, conditions: Conditions) -> None:
        """Have it forget what was, and behave like this."""
        self._pipe.send(conditions)
        self._pipe.recv()

    def seen(self) -> Seen:
        """Return what it knows."""
        self._pipe.send(None)
        seen: Seen = self._pipe.recv()
        return seen


# --- speed: the batch's sending alone, without Airflow ------------------------------------------------------------


def send_batch(server: Server, numbers: Sequence[str], pacer: Any, store: LedgerStore | None, concurrency: int) -> None:
    """Send to these people as a batch does."""
    from airflow_provider_apptoto.batch.plan import Plan, PlannedMessage
    from airflow_provider_apptoto.batch.report import Tally
    from airflow_provider_apptoto.batch.sending import Sender
    from airflow_provider_apptoto.client import ApptotoClient, Message
    from airflow_provider_apptoto.delivery import Scope
    from airflow_provider_apptoto.state.store import Origin, State

    origin = Origin(dag_id="bench", task_id="send", run_id=str(time.time_ns()), map_index=-1, try_number=1)
    messages = [
        PlannedMessage(index, Message(type="sms", to=number, message=TEXT), str(index), None, None)
        for index, number in enumerate(numbers)
    ]
    tally = Tally(Plan(rows=len(messages), messages=messages), has_ledger=store is not None)
    with ApptotoClient(base_url=server.url, login="bench@clinic.example", api_key="key", pacer=pacer) as client:
        scope = Scope(origin=origin, store=store, log_level=logging.DEBUG)
        sender = Sender(messages, client, scope, tally, concurrency=concurrency, stop_after_unknown=5)
        sender.send(lambda: None)
    assert tally[State.SENT] == len(messages), tally.table()  # noqa: S101  else the figures mean nothing


def send_bare(server: Server, numbers: Sequence[str]) -> None:
    """Send to these people one after the other, as a script does that knows neither pace nor failures."""
    import requests

    with requests.Session() as session:
        for number in numbers:
            fields = {"type": "sms", "to": number, "message": TEXT}
            answer = session.post(f"{server.url}/v1/send_message", json=fields, timeout=TIMEOUT)
            answer.raise_for_status()


def show_shares(server: Server, home: Path, seconds: float) -> None:
    """Print how much of its pace a batch keeps."""
    from airflow_provider_apptoto.state.pace import SqlPacer
    from airflow_provider_apptoto.state.sql_ledger import SqlLedgerStore

    latencies = (0.05, 0.5, 1.0, 3.0)
    print(
        f"Share of the pace that a batch keeps, by the server's latency (pace and ledger in SQLite; {seconds} s each)"
    )
    print(f"{'':<44}" + "".join(f"{f'{latency:g} s':>9}" for latency in latencies))
    for a_minute, concurrency in ((90, 8), (600, 32)):
        shares = []
        for latency in latencies:
            say(f"speed: {a_minute} a minute at a latency of {latency:g} s")
            numbers = [number_of(person) for person in range(int(a_minute / 60 * seconds))]
            state = database(home / f"state-{a_minute}-{latency}.db")
            pacer, store = SqlPacer(state, (server.url, "bench"), a_minute), SqlLedgerStore(state, "")
            send_batch(server, numbers[:1], pacer, store, 1)  # makes the tables
            server.begin(Conditions(latency=latency))
            send_batch(server, numbers, pacer, store, concurrency)
            # the first come late, while all threads begin at once: counted from them, the rest would look too fast
            arrivals = server.seen().arrivals[len(numbers) // 4 :]
            shares.append((len(arrivals) - 1) / (arrivals[-1] - arrivals[0]) / (a_minute / 60))
        name = f"{a_minute} a minute, {concurrency} under way at once"
        print(f"{name:<44}" + "".join(f"{share:>9.1%}" for share in shares))


def database(path: Path) -> StateDatabase:
    """Return a state database in SQLite."""
    from sqlalchemy.engine import URL

    from airflow_provider_apptoto.state.database import StateDatabase

    return StateDatabase(URL.create("sqlite", database=str(path)))


def stores(stack: contextlib.ExitStack, home: Path) -> Iterator[tuple[str, LedgerStore | None]]:
    """Yield the places where a ledger can be kept without Airflow."""
    from sqlalchemy.engine import URL

    from airflow_provider_apptoto.state.database import StateDatabase
    from airflow_provider_apptoto.state.sql_ledger import SqlLedgerStore
    from tests.support import postgres

    yield "no ledger", None
    yield "ledger in SQLite", SqlLedgerStore(database(home / "ledger.db"), "")
    if postgres.programs() is None:
        print("PostgreSQL is not installed: not measured")
        return
    port = stack.enter_context(postgres.running())
    url = URL.create(
        "postgresql+psycopg2",
        username=postgres.USER,
        host="127.0.0.1",
        port=port,
        database=postgres.new_database(port),
    )
    yield "ledger in PostgreSQL (fsync off)", SqlLedgerStore(StateDatabase(url), "")


def show_speeds(server: Server, home: Path, rounds: int) -> None:
    """Print messages a second with the limit off, beside a bare session."""
    from airflow_provider_apptoto.client import InProcessPacer

    with contextlib.ExitStack() as stack:
        ways: dict[str, Callable[[Sequence[str]], None]] = {
            "bare requests.Session, one at a time": functools.partial(send_bare, server)
        }
        for name, store in stores(stack, home):
            for concurrency in (1, 8):
                ways[f"batch, {name}, {concurrency} at once"] = functools.partial(
                    send_batch, server, pacer=InProcessPacer(1e9), store=store, concurrency=concurrency
                )
        print(f"\nMessages a second with the limit off, median of {rounds} rounds, and to the bare session")
        for latency, count in ((0.0, 240), (LATENCY, 48)):
            server.begin(Conditions(latency=latency))
            numbers = [number_of(person) for person in range(count)]
            rates: dict[str, list[float]] = {name: [] for name in ways}
            for number in range(rounds):
                say(f"speed: the limit off, latency {latency:g} s, round {number + 1} of {rounds}")
                for name, send in ways.items():
                    start = time.perf_counter()
                    send(numbers)
                    rates[name].append(count / (time.perf_counter() - start))
            medians = {name: statistics.median(each) for name, each in rates.items()}
            bare = next(iter(medians.values()))
            print(f"{f'server latency {latency * 1000:g} ms':<58}{'a second':>10}{'to bare':>10}")
            for name, median in medians.items():
                print(f"  {name:<56}{median:>10.0f}{median / bare:>9.2f}x")


# --- arms: each a DAG file, run by a real Airflow -----------------------------------------------------------------

SCENARIOS = {
    "clean": "nothing goes wrong",
    "mild": f"{MILD:.0%} of the requests go wrong",
    "harsh": f"{HARSH:.0%} of the requests go wrong",
    "killed": "the process that sends is killed once, in mid-batch",
}

WARM_UP = "warm_up"
"""A scenario too, of two messages, which is not shown."""

HEAD = """
import json, os
from datetime import timedelta
import pendulum
from airflow.sdk import DAG, get_current_context, task

BENCH = json.loads(os.environ["BENCH"])
URL, TEXT, PACE, TIMEOUT = (BENCH[name] for name in ("url", "text", "pace", "timeout"))
RETRIES = {"retries": 3, "retry_delay": timedelta(seconds=1)}

def dags():
    for scenario, people in BENCH["people"].items():
        dag_id = os.path.basename(__file__).removesuffix(".py") + "-" + scenario
        with DAG(dag_id, schedule="@once", start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), default_args=RETRIES):
            yield people

def finish(failed):
    if failed:
        get_current_context()["ti"].xcom_push(key="failed", value=failed)
        raise RuntimeError(f"not sent: {failed}")
"""
BATCH = """
from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageBatchOperator

for people in dags():
    ApptotoSendMessageBatchOperator(
        task_id="send", messages=[{"to": to} for to in people], defaults={"type": "sms", "message": TEXT}, max_age=None
    )
"""
MAPPED = """
from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageOperator

for people in dags():
    ApptotoSendMessageOperator.partial(task_id="send", type="sms", message=TEXT, max_age=None).expand(to=people)
"""
HTTP_OPERATOR = """
from airflow.providers.http.operators.http import HttpOperator

for people in dags():
    HttpOperator.partial(
        task_id="send", http_conn_id="http_server", endpoint="v1/send_message", method="POST", pool="few",
        headers={"Content-Type": "application/json"}, extra_options={"timeout": TIMEOUT},
        response_check=lambda response: response.json()["success"] is True,
    ).expand(data=[json.dumps({"type": "sms", "to": to, "message": TEXT}) for to in people])
"""
REQUESTS = """
for people in dags():
    @task
    def send(people):
        import time
        import requests

        def post(session, to):
            for attempt in range(3):
                wait = 0.5 * 2**attempt
                try:
                    answer = session.post(
                        URL, json={"type": "sms", "to": to, "message": TEXT}, timeout=TIMEOUT
                    )
                    if answer.ok and answer.json()["success"] is True:
                        return True
                    if answer.status_code < 500 and answer.status_code != 429:
                        return False
                    wait = float(answer.headers.get("Retry-After", wait))
                except (requests.RequestException, ValueError):
                    pass
                if attempt < 2:
                    time.sleep(wait)
            return False

        failed, turn = [], time.monotonic()
        with requests.Session() as session:
            for to in people:
                time.sleep(max(0, turn - time.monotonic()))
                turn = time.monotonic() + 1 / PACE
                if not post(session, to):
                    failed.append(to)
        finish(failed)

    send(people)
"""
AIOHTTP = """
for people in dags():
    @task
    def send(people):
        import asyncio
        import aiohttp
        from aiolimiter import AsyncLimiter

        async def post(session, limiter, to):
            for attempt in range(3):
                wait = 0.5 * 2**attempt
                try:
                    async with limiter, session.post(
                        URL, json={"type": "sms", "to": to, "message": TEXT}
                    ) as answer:
                        if answer.ok and (await answer.json(content_type=None))["success"] is True:
                            return True
                        if answer.status < 500 and answer.status != 429:
                            return False
                        wait = float(answer.headers.get("Retry-After", wait))
                except (aiohttp.ClientError, TimeoutError, ValueError):
                    pass
                if attempt < 2:
                    await asyncio.sleep(wait)
            return False

        async def run():
            limiter = AsyncLimiter(1, 1 / PACE)  # as its documentation says where bursts are not wanted
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT)) as session:
                sent = await asyncio.gather(*(post(session, limiter, to) for to in people))
            return [to for to, is_sent in zip(people, sent) if not is_sent]

        finish(asyncio.run(run()))

    send(people)
"""


class Said(StrEnum):
    """What the user is told of a person."""

    SENT = "sent"
    NOT_SENT = "not sent"
    ASK = "may have been sent: a person has to look"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What Airflow's database says of a DAG's one run.

    :param tasks: state and number of tries of each task instance, by map index.
    :param seconds: from its start to its end.
    """

    dag_id: str
    database: Path
    tasks: dict[int, tuple[str, int]]
    seconds: float

    def xcom(self, key: str) -> Any:
        """Return what the task that is not mapped left, or ``None``."""
        rows = query(self.database, "select value from xcom where dag_id = ? and key = ?", self.dag_id, key)
        value = json.loads(rows[0][0]) if rows else None
        return json.loads(value) if isinstance(value, str) else value

    def entries(self) -> dict[int, str]:
        """Return the states of messages that the mapped tasks' State tabs show."""
        text = "select map_index, value from task_state_store where dag_id = ? and key like 'apptoto-message-%'"
        return {index: json.loads(value)["state"] for index, value in query(self.database, text, self.dag_id)}


_OF_STATE = {"unknown": Said.ASK, "sending": Said.ASK}


def said_by_batch(run: Run, people: int) -> dict[int, Said]:
    """Read the report: whoever is not among its failures was sent the message."""
    report = run.xcom("report")
    if report is None:
        return {}
    assert not report["failures_left_out"]  # noqa: S101  else the figures mean nothing
    failures = {each["index"]: _OF_STATE.get(each["outcome"], Said.NOT_SENT) for each in report["failures"]}
    return dict.fromkeys(range(people), Said.SENT) | failures


def said_by_mapped(run: Run, people: int) -> dict[int, Said]:  # noqa: ARG001  the others need it
    """Read each task's state; why one failed, its log and its State tab say."""
    entries = run.entries()
    return {
        person: Said.SENT if state == "success" else _OF_STATE.get(entries.get(person, ""), Said.NOT_SENT)
        for person, (state, _) in run.tasks.items()
    }


def said_by_states(run: Run, people: int) -> dict[int, Said]:  # noqa: ARG001  the others need it
    """Read each task's state, which is all there is."""
    return {person: Said.SENT if state == "success" else Said.NOT_SENT for person, (state, _) in run.tasks.items()}


def said_by_loop(run: Run, people: int) -> dict[int, Said]:
    """Read the list of those that failed; where the loop did not come to its end, there is none."""
    state, _ = run.tasks[-1]
    failed = [] if state == "success" else run.xcom("failed")
    if failed is None:
        return {}
    return dict.fromkeys(range(people), Said.SENT) | {person_of(to): Said.NOT_SENT for to in failed}


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to send.

    :param source: of its DAG file, after ``HEAD``.
    """

    name: str
    source: str
    said: Callable[[Run, int], dict[int, Said]]


ARMS = {
    "batch": Arm("our batch", BATCH, said_by_batch),
    "mapped": Arm("our operator, mapped", MAPPED, said_by_mapped),
    "http": Arm("HttpOperator, mapped", HTTP_OPERATOR, said_by_states),
    "requests": Arm("requests loop", REQUESTS, said_by_loop),
    "aiohttp": Arm("aiohttp loop, limiter", AIOHTTP, said_by_loop),
}
OURS = ("batch", "mapped")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What an arm came to in a scenario; each field is a column."""

    duplicates: int
    lost: int
    false: int
    flagged: int
    named: int
    refused: int
    seconds: float
    bound: float
    cpu: float
    instances: float
    tries: float
    megabytes: float


COLUMNS = {
    "duplicates": ("dup", "{:.0f}"),
    "lost": ("lost", "{:.0f}"),
    "false": ("false", "{:.0f}"),
    "flagged": ("flagged", "{:.0f}"),
    "named": ("named", "{:.0f}"),
    "refused": ("429s", "{:.0f}"),
    "seconds": ("s", "{:.1f}"),
    "bound": ("/ bound", "{:.1f}x"),
    "cpu": ("CPU s/k", "{:.0f}"),
    "instances": ("TI/k", "{:.0f}"),
    "tries": ("tries/k", "{:.0f}"),
    "megabytes": ("MB", "{:.0f}"),
}
RULES = """\
dup: further copies that people got. lost: people who got nothing and are reported as sent, or of whom nobody is told.
false: reported as sent and got nothing, or as not sent and got it. flagged: reported as "may have been sent, look".
named: reported as not sent (rightly or not). What is reported: our batch's XCom "report"; our mapped tasks' states and
State tabs; HttpOperator's states (failed = not sent); the loops' states and their XCom list of failures, if they came
so far as to leave one: a loop that was killed in its last try names nobody.
429s: over the limit (not those drawn as faults). s: start to end of the Dag run; bound: messages at the server's limit
(which is scaled down, so that what Airflow takes to start weighs more here than in a batch of minutes).
CPU s/k: seconds per 1,000 messages of all of Airflow's processes, ended ones included, less what they take when idle.
TI/k, tries/k: task instances and their tries per 1,000 messages. MB: most resident memory of a task's process."""


def judge(copies: Counter[int], said: Mapping[int, Said], people: int) -> dict[str, int]:
    """Compare what people got with what the user is told."""
    told = [said.get(person) for person in range(people)]
    return {
        "duplicates": sum(max(copies[person] - 1, 0) for person in range(people)),
        "lost": sum(what in {None, Said.SENT} and not copies[person] for person, what in enumerate(told)),
        "false": sum(
            (what is Said.SENT and not copies[person]) or (what is Said.NOT_SENT and copies[person] > 0)
            for person, what in enumerate(told)
        ),
        "flagged": told.count(Said.ASK),
        "named": told.count(Said.NOT_SENT),
    }


def query(path: Path, text: str, *arguments: Any) -> list[Any]:
    """Ask Airflow's database, or tell it."""
    with contextlib.closing(sqlite3.connect(path, timeout=30)) as connection, connection:
        return connection.execute(text, arguments).fetchall()


_TASK = re.compile(r"airflow worker -- [0-9a-f-]{36}")


class Meter:
    """CPU and memory of a tree of processes."""

    def __init__(self, root: psutil.Process) -> None:
        self._root = root
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.most_resident = 0
        """Bytes, of one task's process."""
        self.idle = 0.0
        """CPU seconds a second."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def cpu(self) -> float:
        """Return the CPU seconds so far, of processes that run and of all that they waited for."""
        total = 0.0
        for process in self._all():
            with contextlib.suppress(psutil.NoSuchProcess):
                total += sum(process.cpu_times()[:4])  # user, system, and both of children
        return total

    def _all(self) -> list[psutil.Process]:
        return [self._root, *self._root.children(recursive=True)]

    def _watch(self) -> None:
        while not self._ended.wait(0.3):
            for process in self._all():
                with contextlib.suppress(psutil.NoSuchProcess):
                    if _TASK.fullmatch(" ".join(process.cmdline()).strip()):
                        self.most_resident = max(self.most_resident, process.memory_info().rss)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A running Airflow, and what is to be sent."""

    server: Server
    database: Path
    meter: Meter
    messages: int
    seed: int

    def measure(self, name: str, scenario: str) -> Result:
        """Run an arm in a scenario."""
        self.server.begin(
            Conditions(
                limit=LIMIT,
                seed=self.seed,
                faults={"mild": MILD, "harsh": HARSH}.get(scenario, 0.0),
                kill_at=self.messages // 2 if scenario == "killed" else None,
            )
        )
        self.meter.most_resident = 0
        dag_id = f"{name}-{scenario}"
        cpu, start = self.meter.cpu(), time.monotonic()
        run = self.run(dag_id)
        cpu = self.meter.cpu() - cpu - self.meter.idle * (time.monotonic() - start)
        seen = self.server.seen()
        assert seen.killed == (scenario == "killed")  # noqa: S101  else the figures mean nothing
        a_thousand = 1000 / self.messages
        return Result(
            **judge(seen.copies, ARMS[name].said(run, self.messages), self.messages),
            refused=seen.refused,
            seconds=run.seconds,
            bound=run.seconds / (self.messages * WINDOW / LIMIT),
            cpu=cpu * a_thousand,
            instances=len(run.tasks) * a_thousand,
            tries=sum(tries for _, tries in run.tasks.values()) * a_thousand,
            megabytes=self.meter.most_resident / 1e6,
        )

    def run(self, dag_id: str) -> Run:
        """Let a DAG have its one run, and wait for the end."""
        query(self.database, "update dag set is_paused = 0 where dag_id = ?", dag_id)
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            time.sleep(0.5)
            text = "select start_date, end_date from dag_run where dag_id = ? and state in ('success', 'failed')"
            for start, end in query(self.database, text, dag_id):
                text = "select map_index, state, try_number from task_instance where dag_id = ?"
                return Run(
                    dag_id=dag_id,
                    database=self.database,
                    tasks={index: (state, tries) for index, state, tries in query(self.database, text, dag_id)},
                    seconds=(datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds(),
                )
        raise TimeoutError(dag_id)


@contextlib.contextmanager
def airflow(server: Server, home: Path, options: argparse.Namespace) -> Iterator[Bench]:
    """Run an Airflow that has the arms' DAGs, none of them started."""
    from tests.support.standalone import standalone

    (home / "dags").mkdir(parents=True)
    for name in options.arms:
        (home / "dags" / f"{name}.py").write_text(HEAD + ARMS[name].source)
    account = {"conn_type": "apptoto", "login": "bench@clinic.example", "password": "key", "host": server.url}
    environment = {
        "AIRFLOW_CONN_APPTOTO_DEFAULT": json.dumps(
            {**account, "extra": {"timeout": TIMEOUT, "requests_per_minute": PACE * 60}}
        ),
        "AIRFLOW_CONN_HTTP_SERVER": server.url,
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True",
        "AIRFLOW__CORE__PARALLELISM": "2",
        "BENCH": json.dumps(
            {
                "url": f"{server.url}/v1/send_message",
                "people": {
                    scenario: [number_of(person) for person in range(2 if scenario == WARM_UP else options.messages)]
                    for scenario in (WARM_UP, *options.scenarios)
                },
                "text": TEXT,
                "pace": PACE,
                "timeout": TIMEOUT,
            }
        ),
    }
    say("starting Airflow")
    path = home / "airflow.db"
    with standalone(home, **environment):
        query(path, "insert into slot_pool (pool, slots, include_deferred) values ('few', 4, 0)")
        deadline = time.monotonic() + DEADLINE
        wanted = len(options.arms) * (1 + len(options.scenarios))
        while query(path, "select count(*) from dag") != [(wanted,)]:
            if time.monotonic() > deadline:
                raise TimeoutError((home / "standalone.log").read_text())
            time.sleep(1)
        [root] = [each for each in psutil.Process().children() if "standalone" in each.cmdline()]
        with Meter(root) as meter:
            bench = Bench(server=server, database=path, meter=meter, messages=options.messages, seed=options.seed)
            say("warming up")
            for name in options.arms:  # Airflow starts parts of itself only when they are needed
                bench.run(f"{name}-{WARM_UP}")
            say(f"measuring what Airflow takes when idle, {options.idle} s")
            time.sleep(10)
            cpu = meter.cpu()
            time.sleep(options.idle)
            meter.idle = (meter.cpu() - cpu) / options.idle
            yield bench


def show_arms(server: Server, home: Path, options: argparse.Namespace) -> None:
    """Print a table for each scenario, and where we lose."""
    results: dict[str, dict[str, Result]] = {scenario: {} for scenario in options.scenarios}
    with airflow(server, home, options) as bench:
        for scenario in options.scenarios:
            for name in options.arms:
                result = results[scenario][name] = bench.measure(name, scenario)
                say(f"{scenario}: {ARMS[name].name}: {result}")
        idle = bench.meter.idle
    limit = f"{LIMIT} requests in any {WINDOW:g} s"
    print(f"\n{options.messages} messages by each arm; the server takes {limit}; its latency is {LATENCY * 1000:g} ms")
    print(f"{RULES}\nAirflow took {idle:.2f} CPU seconds a second when idle.")
    for scenario, of_arms in results.items():
        print(f"\n{f'{scenario}: {SCENARIOS[scenario]}':<120}".rstrip())
        print(f"  {'':<22}" + "".join(f"{title:>8}" for title, _ in COLUMNS.values()))
        for name, result in of_arms.items():
            cells = (form.format(getattr(result, column)) for column, (_, form) in COLUMNS.items())
            print(f"  {ARMS[name].name:<22}" + "".join(f"{cell:>8}" for cell in cells))
    show_losses(results)


def show_losses(results: Mapping[str, Mapping[str, Result]]) -> None:
    """Print in what the others were better than ours; a tenth is taken for chance."""
    print("\nWhere we lose (by more than a tenth; better arms first)")
    for ours in OURS:
        for scenario, of_arms in results.items():
            if ours not in of_arms:
                continue
            for column, (title, form) in COLUMNS.items():
                if column in {"bound", "tries"}:  # they say the same as the ones beside them
                    continue
                mine = getattr(of_arms[ours], column)
                better = {
                    ARMS[name].name: getattr(result, column)
                    for name, result in of_arms.items()
                    if name not in OURS and getattr(result, column) < mine * 0.9
                }
                shown = ", ".join(
                    f"{name} {form.format(value)}" for name, value in sorted(better.items(), key=lambda each: each[1])
                )
                if shown:
                    print(f"  {ARMS[ours].name}, {scenario}, {title} {form.format(mine)}: {shown}")


def show_versions(options: argparse.Namespace) -> None:
    """Print what the figures were made with."""
    names = ("apache-airflow", "airflow-provider-apptoto", "apache-airflow-providers-http", "requests", "aiohttp")
    versions = [f"{name} {importlib.metadata.version(name)}" for name in names]
    print(f"\nPython {sys.version.split()[0]}, {', '.join(versions[:2])},")
    print(f"{', '.join(versions[2:])};")
    print(
        f"{os.cpu_count()} cores, seed {options.seed}, {options.messages} messages; LocalExecutor with 2 slots, SQLite"
    )


def parsed() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=("speed", "arms", "all"), default="all")
    parser.add_argument("--messages", type=int, default=60, help="an arm sends in a scenario (60)")
    parser.add_argument("--seed", type=int, default=1, help="of the faults")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument("--short", action="store_true", help="see that it works; the figures mean little")
    options = parser.parse_args()
    options.seconds, options.rounds, options.idle = (12, 5, 40)
    if options.short:
        options.messages, options.seconds, options.rounds, options.idle = 10, 3, 1, 10
    return options


def main() -> None:
    """Measure, and print."""
    options = parsed()
    # else each task compiles anew what it imports
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    with tempfile.TemporaryDirectory(prefix="apptoto-bench-") as folder, Server() as server:
        home = Path(folder)
        # what runs in this process must not touch a developer's own Airflow
        os.environ["AIRFLOW_HOME"] = folder
        if options.part != "arms":
            logging.disable(logging.INFO)
            show_shares(server, home, options.seconds)
            show_speeds(server, home, options.rounds)
        if options.part != "speed":
            show_arms(server, home / "airflow", options)
        show_versions(options)


if __name__ == "__main__":
    main()
