"""Processes that use Apptoto or a state database beside others: ``python -m tests.support.sender``.

They are forked from a process of one thread that has loaded what they need, as Airflow's workers fork their tasks.

``send SECONDS PLANS``: for each plan (JSON: ``threads``, ``environment``) a process sends through the hook, as fast as
it lets its threads.
``reserve URL A_MINUTE COUNT PROCESSES``: each process reserves slots, one line each; 0: until it is killed.
``init URL PROCESSES``: all processes use a database for the first time at the same moment; each prints its salt.
"""

from __future__ import annotations

import itertools
import json
import logging
import multiprocessing
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

ACCOUNT = "https://clinic.example/v1", "mary@clinic.example"


def tell(text: str) -> None:
    os.write(sys.stdout.fileno(), f"{text}\n".encode())  # at once and whole, beside others


def together(target: Callable[..., None], arguments: list[tuple[Any, ...]]) -> None:
    """Run a process for each tuple of arguments; exit with 1 if one of them failed."""
    fork = multiprocessing.get_context("fork")
    children = [fork.Process(target=target, args=each) for each in arguments]
    for child in children:
        child.start()
    tell("started")
    for child in children:
        child.join()
    sys.exit(any(child.exitcode for child in children))


def send(seconds: float, environment: dict[str, str], threads: int) -> None:
    from airflow_provider_apptoto.client import Message
    from airflow_provider_apptoto.hooks.apptoto import ApptotoHook

    os.environ.update(environment)
    client = ApptotoHook().get_conn()
    message = Message(type="sms", to="+16505550199", message="Hi")

    def work() -> None:
        while time.monotonic() < deadline:
            client.send(message)

    client.send(message)  # what is imported then may take seconds
    deadline = time.monotonic() + seconds
    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def send_all(seconds: float, plans: str) -> None:
    import airflow_provider_apptoto.hooks.apptoto
    import airflow_provider_apptoto.outbox.rate_limit  # noqa: F401  slow to import, so it is done before they are forked

    logging.disable(logging.INFO)  # nobody reads the pipe while they send
    together(send, [(seconds, plan["environment"], plan["threads"]) for plan in json.loads(plans)])


def reserve(url: str, a_minute: float, count: int) -> None:
    from sqlalchemy.engine import make_url

    from airflow_provider_apptoto.outbox.database import StateDatabase
    from airflow_provider_apptoto.outbox.rate_limit import SqlRateLimiter

    limiter = SqlRateLimiter(StateDatabase(make_url(url)), ACCOUNT, a_minute)
    for _ in range(count) if count else itertools.repeat(0):
        tell(str(limiter.reserve()))


def init(url: str, processes: int) -> None:
    from sqlalchemy.engine import make_url

    from airflow_provider_apptoto.outbox.database import StateDatabase

    barrier = multiprocessing.get_context("fork").Barrier(processes)

    def use() -> None:
        database = StateDatabase(make_url(url))
        barrier.wait()
        tell(database.salt().hex())

    together(use, [()] * processes)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["send", seconds, plans]:
            send_all(float(seconds), plans)
        case ["reserve", url, a_minute, count]:
            reserve(url, float(a_minute), int(count))
        case ["reserve", url, a_minute, count, processes]:
            together(reserve, [(url, float(a_minute), int(count))] * int(processes))
        case ["init", url, processes]:
            init(url, int(processes))
        case other:
            sys.exit(f"unknown: {other}")
