"""Processes that use Apptoto or a state database at the same time: ``python -m tests.support.sender``.

They are forked from a single-threaded process that has imported their modules, as Airflow's workers fork their tasks.

``send SECONDS PLANS``: for each plan (JSON: ``threads``, ``environment``) a process sends through the hook, as fast as
possible.
``outbox PLANS``: for each plan (JSON: ``environment``, ``name``, ``rows``, ``threads``, ``after``, ``max_wait``) a
process sends a batch through an outbox with a state database; with 0 ``threads``, one message after the other, as tasks
without retries do. It starts after ``after`` seconds, and waits for a slot for at most ``max_wait`` seconds.
When they run, one line has their ids (a JSON list).
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
    os.write(sys.stdout.fileno(), f"{text}\n".encode())  # in one write, because other processes print too


def together(
    target: Callable[..., None],
    arguments: list[tuple[Any, ...]],
    started: Callable[[list[int | None]], str] = lambda _: "started",
) -> None:
    """Run a process for each tuple of arguments; exit with 1 if one of them failed.

    :param started: what to tell once they run, by their ids.
    """
    fork = multiprocessing.get_context("fork")
    children = [fork.Process(target=target, args=each) for each in arguments]
    for child in children:
        child.start()
    tell(started([child.pid for child in children]))
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

    client.send(message)  # imports may take seconds
    deadline = time.monotonic() + seconds
    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def send_all(seconds: float, plans: str) -> None:
    import airflow_provider_apptoto.hooks.apptoto
    import airflow_provider_apptoto.outbox.rate_limit  # noqa: F401  slow to import, so it is done before they are forked

    logging.disable(logging.INFO)  # the pipe is not read while they send
    together(send, [(seconds, plan["environment"], plan["threads"]) for plan in json.loads(plans)])


def send_by_outbox(plan: dict[str, Any]) -> None:
    from airflow_provider_apptoto.batch.options import BatchOptions
    from airflow_provider_apptoto.batch.plan import Plan, PlannedMessage
    from airflow_provider_apptoto.batch.results import BatchResults
    from airflow_provider_apptoto.batch.sending import Sender
    from airflow_provider_apptoto.client import RetryPolicy
    from airflow_provider_apptoto.hooks.apptoto import ApptotoHook
    from airflow_provider_apptoto.outbox.origin import Origin
    from airflow_provider_apptoto.outbox.outbox import Outbox
    from airflow_provider_apptoto.outbox.stores.sql import SqlLedgerStore

    os.environ.update(plan["environment"])
    ApptotoHook.retry_policy = RetryPolicy(window=plan["max_wait"])
    hook, name, rows = ApptotoHook(), plan["name"], plan["rows"]
    assert hook.state_database is not None
    outbox = Outbox(
        client=hook.get_conn(),
        build=hook.build_message,
        origin=Origin(dag_id="clinic", task_id=name, run_id="today", map_index=-1, try_number=1),
        store=SqlLedgerStore(hook.state_database),
    )
    time.sleep(plan["after"])
    messages = [hook.build_message(type="sms", to="+16505550199", message=f"{name} {row}") for row in range(rows)]
    if not plan["threads"]:
        for message in messages:
            outbox.send(message)
        return
    planned = [
        PlannedMessage(row, message, key=outbox.key_of(message, str(row)), item=str(row), reference=None)
        for row, message in enumerate(messages)
    ]
    results = BatchResults(Plan(rows=rows, messages=planned), has_ledger=True)
    Sender(planned, outbox, results, BatchOptions(concurrency=plan["threads"])).send(lambda: None)
    counts = {outcome: count for outcome, count in results.counts().items() if count}
    assert counts == {"total": rows, "sent": rows}, counts


def send_all_by_outbox(plans: str) -> None:
    import airflow_provider_apptoto.batch.run
    import airflow_provider_apptoto.hooks.apptoto
    import airflow_provider_apptoto.outbox.rate_limit
    import airflow_provider_apptoto.outbox.stores.sql  # noqa: F401  slow to import

    logging.disable(logging.INFO)
    together(send_by_outbox, [(plan,) for plan in json.loads(plans)], json.dumps)


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
        case ["outbox", plans]:
            send_all_by_outbox(plans)
        case ["reserve", url, a_minute, count]:
            reserve(url, float(a_minute), int(count))
        case ["reserve", url, a_minute, count, processes]:
            together(reserve, [(url, float(a_minute), int(count))] * int(processes))
        case ["init", url, processes]:
            init(url, int(processes))
        case other:
            sys.exit(f"unknown: {other}")
