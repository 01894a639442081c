"""A try that is frozen, and wakes when its successor is sending or done, sends nothing twice."""

from __future__ import annotations

import os
import signal
import time
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from sqlalchemy.engine import make_url

from airflow_provider_apptoto.state.database import StateDatabase
from airflow_provider_apptoto.state.ledger import Claim
from airflow_provider_apptoto.state.sql_ledger import Selection, SqlLedgerStore
from airflow_provider_apptoto.state.store import State
from tests.chaos.driver import processes
from tests.support.faults import FaultServer

if TYPE_CHECKING:
    from multiprocessing.queues import Queue

DEADLINE = 60
"""Seconds after which a state is taken never to come; not a measure of speed."""


class Stopping(Claim):
    """A claim whose process freezes before or after it is written down that the first byte leaves."""

    stop: str

    def sending(self, timeout: float) -> None:
        if self.stop == "before":
            os.kill(os.getpid(), signal.SIGSTOP)
        super().sending(timeout)
        if self.stop == "after":
            os.kill(os.getpid(), signal.SIGSTOP)


def attempt(url: str, server: str, stop: str, number: int, said: Queue[str]) -> None:
    """Send as one try of a task, whose leases are over at once."""
    from airflow_provider_apptoto import delivery
    from airflow_provider_apptoto.state import ledger
    from airflow_provider_apptoto.state.ledger import LedgerTiming
    from tests.chaos.attempts import hook_of
    from tests.chaos.people import origin_of

    Stopping.stop = stop
    ledger.Claim = Stopping  # type: ignore[misc]
    scope = delivery.Scope(
        origin=origin_of(0, number),
        store=SqlLedgerStore(StateDatabase(make_url(url)), "resolve"),
        timing=LedgerTiming(claim_lease=0.0, margin=0.0),
    )
    fields = {"type": "sms", "to": "+16505550199", "message": "Hi"}
    try:
        said.put(delivery.deliver(fields, hook_of(server, timeout=1), scope).outcome)
    except Exception as error:  # noqa: BLE001  the test reads it
        said.put(str(error))
    said.close()
    said.join_thread()


def started(context: BaseContext, *arguments: Any) -> BaseProcess:
    process: BaseProcess = context.Process(target=attempt, args=arguments)  # type: ignore[attr-defined]
    process.start()
    return process


def wait_until_stopped(pid: int | None) -> None:
    process = psutil.Process(pid)
    deadline = time.monotonic() + DEADLINE
    while process.status() != psutil.STATUS_STOPPED:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("stop", "successor", "sleeper", "copies"),
    [("before", "sent", "deduplicated", 1), ("after", "not known whether", "sent", 1)],
)
def test_a_try_that_was_frozen_and_wakes_beside_its_successor_sends_nothing_twice(
    database: StateDatabase, stop: str, successor: str, sleeper: str, copies: int
) -> None:
    url = database._url.render_as_string(hide_password=False)
    context = processes()
    frozen_said, second_said = context.Queue(), context.Queue()
    with FaultServer() as server:
        frozen = started(context, url, server.url, stop, 1, frozen_said)
        wait_until_stopped(frozen.pid)
        second = started(context, url, server.url, "never", 2, second_said)
        assert successor in second_said.get(timeout=DEADLINE)
        os.kill(frozen.pid or 0, signal.SIGCONT)
        assert sleeper in frozen_said.get(timeout=DEADLINE)
        for process in (frozen, second):
            process.join(DEADLINE)
    assert len(server.accepted) == copies
    [(left, _)] = SqlLedgerStore(database, "").entries(Selection())
    assert left.state is State.SENT
