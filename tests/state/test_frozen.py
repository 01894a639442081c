"""A try that is frozen, and wakes when its successor is at work or done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from airflow_provider_apptoto.state.sql_ledger import Selection, SqlLedgerStore
from airflow_provider_apptoto.state.store import State
from tests.faults import FaultServer

if TYPE_CHECKING:
    from airflow_provider_apptoto.state.database import StateDatabase

FROZEN = """
import os, signal, sys
from sqlalchemy.engine import make_url
from airflow_provider_apptoto.client import ApptotoClient, InProcessPacer, Message
from airflow_provider_apptoto.delivery import Scope, deliver
from airflow_provider_apptoto.state.database import StateDatabase
from airflow_provider_apptoto.state.sql_ledger import SqlLedgerStore
from airflow_provider_apptoto.state.ledger import Claim
from airflow_provider_apptoto.state.store import Origin
from airflow_provider_apptoto.state import ledger

url, server, on_unknown, stop, number = sys.argv[1:]
ledger.MARGIN = ledger.CLAIM_LEASE = 0.0
class Hook:
    def get_conn(self):
        return ApptotoClient(login="a", api_key="b", base_url=server, timeout=1, pacer=InProcessPacer(6000))
    def build_message(self, **fields):
        return Message(**fields)
sending = Claim.sending
def stopping(self, timeout):
    if stop == "before":
        os.kill(os.getpid(), signal.SIGSTOP)
    sending(self, timeout)
    if stop == "after":
        os.kill(os.getpid(), signal.SIGSTOP)
Claim.sending = stopping
origin = Origin(dag_id="clinic", task_id="send", run_id="r", map_index=-1, try_number=int(number))
store = SqlLedgerStore(StateDatabase(make_url(url)), "resolve")
scope = Scope(origin=origin, store=store, on_unknown=on_unknown)
print(deliver({"type": "sms", "to": "+16505550199", "message": "Hi"}, Hook(), scope).outcome)
"""


@pytest.mark.parametrize(
    ("stop", "successor", "sleeper", "copies"),
    [("before", "sent", "deduplicated", 1), ("after", "not known whether", "sent", 1)],
)
def test_a_try_that_was_frozen_and_wakes_beside_its_successor_sends_nothing_twice(
    database: StateDatabase, stop: str, successor: str, sleeper: str, copies: int
) -> None:
    url = database._url.render_as_string(hide_password=False)
    with FaultServer() as server:

        def start(stop: str, number: int) -> subprocess.Popen[str]:
            command = [sys.executable, "-c", FROZEN, url, server.url, "fail", stop, str(number)]
            return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

        with start(stop, 1) as frozen:
            _, status = os.waitpid(frozen.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status)
            with start("never", 2) as second:
                assert successor in second.communicate(timeout=60)[0]
            frozen.send_signal(signal.SIGCONT)
            assert sleeper in frozen.communicate(timeout=60)[0]
    assert len(server.accepted) == copies
    [(left, _)] = SqlLedgerStore(database, "").entries(Selection())
    assert left.state is State.SENT
