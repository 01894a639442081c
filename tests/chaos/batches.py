"""Run tries of one task that send to many people, each in its own process with several threads."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

import psutil
from sqlalchemy.engine import make_url

from airflow_provider_apptoto.client import ApptotoError, Message
from airflow_provider_apptoto.outbox.database import StateDatabase
from airflow_provider_apptoto.outbox.origin import Origin
from airflow_provider_apptoto.outbox.outbox import Outbox
from airflow_provider_apptoto.outbox.policy import SendPolicy
from airflow_provider_apptoto.outbox.stores.sql import SqlLedgerStore
from tests.chaos.attempts import DEADLINE, REQUESTS_PER_MINUTE, TIMEOUT, TIMING, client_of
from tests.chaos.driver import processes
from tests.chaos.memory import TaskStateMemory
from tests.chaos.traps import Trap, TrappedRateLimiter, TrappedStore, watch_the_wire
from tests.support.people import number_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from multiprocessing.process import BaseProcess
    from multiprocessing.synchronize import Barrier

    from airflow_provider_apptoto.client import RateLimiter
    from airflow_provider_apptoto.outbox.ledger import LedgerTiming
    from airflow_provider_apptoto.outbox.stores.base import LedgerStore
    from tests.chaos.draws import Halt

FIRST = Origin(dag_id="chaos", task_id="remind", run_id="run", map_index=-1, try_number=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One try of a task.

    :param url: of the server.
    :param open_store: gives the ledger as a try sees it.
    :param people: to whom it sends, in this order.
    :param threads: how many of them send at once.
    :param halt: how it is killed or frozen, if it is.
    :param barrier: where it waits for others.
    :param waits_before: indexes of messages before which it waits there; 0: before it begins.
    :param open_limiter: gives the rate limiter; by default a fast one of its own.
    """

    url: str
    open_store: Callable[[Origin], LedgerStore]
    people: Sequence[int]
    origin: Origin = FIRST
    idempotency_key: str | None = None
    threads: int = 1
    halt: Halt | None = None
    timing: LedgerTiming = TIMING
    timeout: float = TIMEOUT
    barrier: Barrier | None = None
    waits_before: Sequence[int] = ()
    open_limiter: Callable[[], RateLimiter] | None = None


def sql_store(url: str, _origin: Origin) -> LedgerStore:
    """Return the ledger in a state database."""
    return SqlLedgerStore(StateDatabase(make_url(url)))


def task_state_store(folder: Path, origin: Origin) -> LedgerStore:
    """Return the ledger in the fake of Airflow's task state."""
    return TaskStateMemory(folder).store(origin)


def text_of(try_number: int) -> str:
    """Return the text that a try sends."""
    return f"Try {try_number}: see you at nine."


def try_of(text: str) -> int:
    """Return the try that sent a text."""
    return int(text.removeprefix("Try ").partition(":")[0])


@dataclass(slots=True)
class Trying:
    """The process of a try."""

    process: BaseProcess
    said: Path

    def outcomes(self) -> dict[int, str]:
        """Wait for its end, and return the outcome of each message, or the code of its error."""
        self.process.join(DEADLINE)
        assert self.process.exitcode == 0, self.process.exitcode
        return dict(json.loads(self.said.read_text()))

    def wait_until_killed(self) -> None:
        self.process.join(DEADLINE)
        assert self.process.exitcode == -signal.SIGKILL

    def wait_until_frozen(self) -> None:
        process = psutil.Process(self.process.pid)
        deadline = time.monotonic() + DEADLINE
        while process.status() != psutil.STATUS_STOPPED:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def wake(self) -> None:
        os.kill(self.process.pid or 0, signal.SIGCONT)


@dataclass(slots=True)
class Tries:
    """Starts tries."""

    folder: Path
    started: list[Trying] = field(default_factory=list)

    def start(self, batch: Batch) -> Trying:
        said = self.folder / str(len(self.started))
        process = processes().Process(target=_run, args=(batch, said))
        self.started.append(Trying(process, said))
        process.start()
        return self.started[-1]


@contextlib.contextmanager
def tries() -> Iterator[Tries]:
    """Provide a function that starts tries; they are killed at the end."""
    with tempfile.TemporaryDirectory(prefix="apptoto-tries-") as name:
        found = Tries(Path(name))
        try:
            yield found
        finally:
            for each in found.started:
                each.process.kill()
                each.process.join()


def _run(batch: Batch, said: Path) -> None:
    logging.disable()
    trap = Trap(batch.halt)
    watch_the_wire(trap, part=0, timeout=batch.timeout)
    limiter = TrappedRateLimiter(REQUESTS_PER_MINUTE, trap) if batch.open_limiter is None else batch.open_limiter()
    store = TrappedStore(batch.open_store(batch.origin), trap, said.with_suffix(".wrote"))
    outbox = Outbox(
        client=client_of(batch.url, timeout=batch.timeout, rate_limiter=limiter),
        build=Message,
        policy=SendPolicy(idempotency_key=batch.idempotency_key),
        origin=batch.origin,
        store=cast("LedgerStore", store),
        timing=batch.timing,
    )
    text = text_of(batch.origin.try_number)
    messages = [Message(type="sms", to=number_of(person), message=text) for person in batch.people]
    outbox.look_ahead([outbox.key_of(message) for message in messages])

    def wait_before(index: int) -> None:
        for _ in range(batch.waits_before.count(index)):
            assert batch.barrier is not None
            batch.barrier.wait(DEADLINE)

    def send(index: int) -> tuple[int, str]:
        if index > 0:
            wait_before(index)
        try:
            sent = outbox.send(messages[index], reference=str(batch.people[index]))
            return batch.people[index], str(sent.outcome)
        except ApptotoError as error:
            return batch.people[index], error.code

    wait_before(0)
    with ThreadPoolExecutor(batch.threads) as pool:
        outcomes = list(pool.map(send, range(len(messages))))
    said.write_text(json.dumps(outcomes))
