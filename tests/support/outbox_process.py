"""Send through a state database: ``python -m tests.support.outbox_process FILE URL SECRETS TASK``.

It prints that it is ready, reads one line per recipient, and prints the outcome or the code of the error.
"""

from __future__ import annotations

import dataclasses
import logging
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pathlib import Path


class OutboxProcess:
    """Such a process, controlled by another one.

    :param file: the SQLite file.
    :param url: of the server.
    :param secrets: the newest first, separated by commas; empty: none.
    :param task: the task id with which it sends. All share an idempotency key.
    """

    def __init__(self, file: Path, url: str, secrets: str, task: str) -> None:
        command = [sys.executable, "-m", __name__, str(file), url, secrets, task]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Self:
        assert self.answer() == "ready"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()
        assert self._process.returncode == 0

    def ask(self, *recipients: str) -> None:
        """Let it send to these, one after the other."""
        assert self._process.stdin is not None
        self._process.stdin.write("".join(f"{to}\n" for to in recipients))
        self._process.stdin.flush()

    def answer(self) -> str:
        """Return its next answer."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def send(self, to: str) -> str:
        """Let it send, and return its answer."""
        self.ask(to)
        return self.answer()


def main(file: str, url: str, secrets: str, task: str) -> None:
    """Send to the recipients in the lines."""
    from sqlalchemy.engine import URL

    from airflow_provider_apptoto.client import ApptotoClient, ApptotoError, InProcessRateLimiter, Message
    from airflow_provider_apptoto.outbox import Outbox, SendPolicy
    from airflow_provider_apptoto.outbox.database import StateDatabase
    from airflow_provider_apptoto.outbox.ledger import LedgerTiming
    from airflow_provider_apptoto.outbox.secret import LedgerSecret
    from airflow_provider_apptoto.outbox.stores.sql import SqlLedgerStore
    from tests.support.entries import FIRST

    logging.disable()  # Airflow writes its log lines among the answers
    secret = LedgerSecret.parse(secrets, "here") if secrets else LedgerSecret()
    outbox = Outbox(
        client=ApptotoClient(
            login="clinic@clinic.example", api_key="key", base_url=url, rate_limiter=InProcessRateLimiter(1e9, time)
        ),
        build=Message,
        policy=SendPolicy(idempotency_key="monday"),
        origin=dataclasses.replace(FIRST, task_id=task),
        store=SqlLedgerStore(StateDatabase(URL.create("sqlite", database=file)), secret=secret),
        timing=LedgerTiming(poll=0.01),
    )
    print("ready", flush=True)  # noqa: T201  to the other process
    for line in sys.stdin:
        try:
            answer = str(outbox.send(type="sms", to=line.strip(), message="Hi").outcome)
        except ApptotoError as error:
            answer = error.code
        print(answer, flush=True)  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
