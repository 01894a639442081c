"""Processes that send or reserve beside others: ``python -m tests.state.sender``.

``send SECONDS PLANS``: for each plan (JSON: ``threads``, ``environment``) a process sends through the hook, as fast as
it lets its threads. They are forked, as Airflow's workers fork their tasks.
``reserve URL A_MINUTE COUNT``: reserves departures, one line each; 0: until it is killed.
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

ACCOUNT = "https://clinic.example/v1", "mary@clinic.example"


def tell(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


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
    import airflow_provider_apptoto.state.pace  # noqa: F401  slow to import, so it is done before they are forked

    logging.disable(logging.INFO)  # nobody reads the pipe while they send
    fork = multiprocessing.get_context("fork")
    children = [
        fork.Process(target=send, args=(seconds, plan["environment"], plan["threads"])) for plan in json.loads(plans)
    ]
    for child in children:
        child.start()
    tell("started")
    for child in children:
        child.join()
    sys.exit(any(child.exitcode for child in children))


def reserve(url: str, a_minute: float, count: int) -> None:
    from sqlalchemy.engine import make_url

    from airflow_provider_apptoto.state.database import StateDatabase
    from airflow_provider_apptoto.state.pace import SqlPacer

    pacer = SqlPacer(StateDatabase(make_url(url)), ACCOUNT, a_minute)
    for _ in range(count) if count else itertools.repeat(0):
        tell(str(pacer.reserve()))


if __name__ == "__main__":
    action, *arguments = sys.argv[1:]
    if action == "send":
        send_all(float(arguments[0]), arguments[1])
    else:
        reserve(arguments[0], float(arguments[1]), int(arguments[2]))
