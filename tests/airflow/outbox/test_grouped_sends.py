"""Threads of one outbox share transactions: after a failed commit, no message is lost and none is sent twice."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import event
from sqlalchemy.engine import URL
from sqlalchemy.exc import OperationalError

from airflow_provider_apptoto.outbox.database import StateDatabase
from airflow_provider_apptoto.outbox.ledger import LedgerTiming
from airflow_provider_apptoto.outbox.stores.sql import SqlLedgerStore
from tests.support import postgres
from tests.support.entries import FIRST
from tests.support.outboxes import TEXT, outbox_of
from tests.support.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_apptoto.outbox import Outbox
    from tests.support.faults import FaultServer

PEOPLE = [f"+1650555{number:04}" for number in range(100, 160)]
TIMING = LedgerTiming(poll=0.01, record_retries=(0.05,) * 5)


def send_to_all(outbox: Outbox) -> Counter[str]:
    """Send from eight threads, and count the outcomes."""

    def send(to: str) -> str:
        return str(outbox.send(type="sms", to=to, message=TEXT).outcome)

    with ThreadPoolExecutor(8) as pool:
        return Counter(pool.map(send, PEOPLE))


def states(database: StateDatabase) -> Counter[str]:
    with database.transaction() as connection:
        return Counter(connection.exec_driver_sql("SELECT state FROM apptoto_ledger").scalars())


@pytest.fixture
def network(postgres_port: int) -> Iterator[Proxy]:
    with Proxy(postgres_port) as proxy:
        yield proxy


@pytest.mark.postgresql
def test_commits_whose_answer_is_lost_send_each_message_once(
    clinic: FaultServer, network: Proxy, postgres_port: int
) -> None:
    name = postgres.new_database(postgres_port)
    url = URL.create("postgresql+psycopg2", username=postgres.USER, host="127.0.0.1", port=network.port, database=name)
    database = StateDatabase(url)
    outbox = outbox_of(clinic, SqlLedgerStore(database), time, timing=TIMING)
    database.init()
    commits = [0]

    def loses_answer_to(data: bytes) -> bool:
        commits[0] += b"COMMIT" in data
        return b"COMMIT" in data and commits[0] % 7 == 3

    network.loses_answer_to = loses_answer_to
    assert send_to_all(outbox) == {"sent": len(PEOPLE)}
    network.loses_answer_to = lambda _: False
    assert Counter(request.json["to"] for request in clinic.accepted) == Counter(PEOPLE)
    assert states(database) == {"sent": len(PEOPLE)}
    again = outbox_of(clinic, SqlLedgerStore(database), time, origin=dataclasses.replace(FIRST, try_number=2))
    assert send_to_all(again) == {"deduplicated": len(PEOPLE)}
    database._engine.dispose()


def test_commits_that_fail_send_each_message_once_at_the_most(clinic: FaultServer, database: StateDatabase) -> None:
    database.init()
    commits = [0]

    def fail(_: object) -> None:
        commits[0] += 1
        if commits[0] % 5 == 2:
            raise OperationalError("COMMIT", {}, Exception("disk I/O error"))

    event.listen(database._engine, "commit", fail)
    outbox = outbox_of(clinic, SqlLedgerStore(database), time, timing=TIMING)

    def send(to: str) -> str:
        try:
            return str(outbox.send(type="sms", to=to, message=TEXT).outcome)
        except Exception as error:  # noqa: BLE001  counted
            return getattr(error, "code", "")

    with ThreadPoolExecutor(8) as pool:
        outcomes = Counter(pool.map(send, PEOPLE))
    event.remove(database._engine, "commit", fail)
    assert set(outcomes) <= {"sent", "ledger_unusable"}
    assert len(clinic.accepted) == outcomes["sent"]
    retry = outbox_of(
        clinic,
        SqlLedgerStore(database),
        time,
        origin=dataclasses.replace(FIRST, try_number=2),
        timing=TIMING,
    )
    assert send_to_all(retry) == {
        key: count
        for key, count in {"sent": outcomes["ledger_unusable"], "deduplicated": outcomes["sent"]}.items()
        if count
    }
    assert Counter(request.json["to"] for request in clinic.accepted) == Counter(PEOPLE)
