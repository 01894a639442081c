"""Nobody gets more messages than ``at_most``, over all tasks, DAGs and processes."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine, select, text

from airflow_provider_apptoto.client import DeliveryMode, Routing
from airflow_provider_apptoto.outbox.caps import Caps
from airflow_provider_apptoto.outbox.database import StateDatabase
from airflow_provider_apptoto.outbox.entry import State
from airflow_provider_apptoto.outbox.guards import Guards
from airflow_provider_apptoto.outbox.policy import limits_of
from airflow_provider_apptoto.outbox.schema import ledger
from airflow_provider_apptoto.outbox.secret import LedgerSecret
from airflow_provider_apptoto.outbox.stores.base import Cap, CapReachedError
from airflow_provider_apptoto.outbox.stores.sql import SqlLedgerStore, _Write
from tests.support.entries import FIRST, entry
from tests.support.outboxes import NUMBER, OTHER_NUMBER, outbox_of
from tests.support.state_databases import url_of

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.engine import URL

    from airflow_provider_apptoto.outbox import Outbox
    from tests.support.faults import FaultServer

LOGIN = "clinic@clinic.example"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> URL:
    """Provide the URL of an empty state database."""
    return url_of(request.param, request, tmp_path)


@pytest.fixture
def store(url: URL) -> SqlLedgerStore:
    """Provide a ledger."""
    return SqlLedgerStore(StateDatabase(url))


def sender(
    clinic: FaultServer, store: SqlLedgerStore, at_most: str = "2/day", task: str = "remind", **others: Any
) -> Outbox:
    guards = Guards(caps=Caps(store, limits_of(at_most), LOGIN))
    origin = dataclasses.replace(FIRST, task_id=task)
    return outbox_of(clinic, store, time, origin=origin, guards=guards, **others)


def send(outbox: Outbox, count: int, to: str = NUMBER) -> list[str]:
    return [str(outbox.send(type="sms", to=to, message="Hi", item=str(number)).outcome) for number in range(count)]


def test_the_message_after_the_last_allowed_one_is_capped_and_says_why(
    clinic: FaultServer, store: SqlLedgerStore
) -> None:
    assert send(sender(clinic, store, task="a"), 1) == ["sent"]
    outbox = sender(clinic, store, task="b")
    assert send(outbox, 2) == ["sent", "capped"]
    delivery = outbox.send(type="sms", to=NUMBER, message="Hi", item="9")
    assert delivery.reason.startswith("at_most='2/day' is reached (messages to this recipient in that time: 2). ")
    assert NUMBER not in delivery.reason
    assert send(sender(clinic, store, task="c"), 1, OTHER_NUMBER) == ["sent"]
    assert len(clinic.requests) == 3


def test_a_capped_message_leaves_no_entry_and_can_be_sent_later(clinic: FaultServer, store: SqlLedgerStore) -> None:
    send(sender(clinic, store, task="a"), 2)
    outbox = sender(clinic, store, task="b")
    assert send(outbox, 1) == ["capped"]
    assert send(sender(clinic, store, at_most="3/day", task="b"), 1) == ["sent"]


def test_each_of_several_limits_applies(clinic: FaultServer, store: SqlLedgerStore) -> None:
    assert send(sender(clinic, store, "5/7d, 1/hour"), 2) == ["sent", "capped"]


@pytest.mark.parametrize(
    ("state", "age", "counts"),
    [
        (State.SENDING, 0, True),
        (State.SENT, 0, True),
        (State.UNKNOWN, 0, True),
        (State.NOT_SENT, 0, False),
        (State.REJECTED, 0, False),
        (State.REDIRECTED, 0, False),
        (State.SENT, 86_390, True),
        (State.SENT, 86_410, False),
    ],
)
def test_what_reached_or_may_have_reached_the_person_within_the_time_counts(
    clinic: FaultServer, store: SqlLedgerStore, state: State, age: int, counts: bool
) -> None:
    send(sender(clinic, store, task="a"), 1)
    [found] = _entries(store)
    changed = dataclasses.replace(found, state=state, sent_at=time.time() - age, version="changed")
    assert store.compare_and_swap(found, changed)
    assert send(sender(clinic, store, "1/day", task="b"), 1) == ["capped" if counts else "sent"]


def test_a_retry_of_a_message_does_not_count_itself(clinic: FaultServer, store: SqlLedgerStore) -> None:
    outbox = sender(clinic, store, "1/day")
    assert send(outbox, 1) == ["sent"]
    assert send(sender(clinic, store, "1/day"), 1) == ["deduplicated"]


def test_another_account_counts_for_itself(clinic: FaultServer, store: SqlLedgerStore) -> None:
    send(sender(clinic, store, "1/day", task="a"), 1)
    [found] = _entries(store)
    other = dataclasses.replace(found, account="o•••@other.example", version="changed")
    assert store.compare_and_swap(found, other)
    assert send(sender(clinic, store, "1/day", task="b"), 1) == ["sent"]


def test_a_dry_run_says_who_would_be_capped_and_counts_nothing(clinic: FaultServer, store: SqlLedgerStore) -> None:
    routing = Routing(DeliveryMode.DRY_RUN)
    send(sender(clinic, store, task="a"), 1)
    assert send(sender(clinic, store, task="b", routing=routing), 3) == ["dry_run", "capped", "capped"]
    assert send(sender(clinic, store, task="c", routing=routing), 1) == ["dry_run"]
    assert send(sender(clinic, store, task="d"), 2) == ["sent", "capped"]


def test_a_dry_run_does_not_count_who_only_apptoto_knows(clinic: FaultServer, store: SqlLedgerStore) -> None:
    outbox = sender(clinic, store, "1/day", routing=Routing(DeliveryMode.DRY_RUN))
    deliveries = [outbox.send(type="sms", event_id=1, message="Hi", item=item) for item in ("a", "b")]
    assert [delivery.outcome for delivery in deliveries] == ["dry_run", "dry_run"]


def test_redirected_messages_are_not_limited(clinic: FaultServer, store: SqlLedgerStore) -> None:
    routing = Routing(DeliveryMode.REDIRECT, OTHER_NUMBER, None)
    assert send(sender(clinic, store, "1/day", routing=routing), 3) == ["redirected"] * 3


def test_after_a_rotation_messages_under_the_old_secret_count(clinic: FaultServer, url: URL) -> None:
    old, new = "o" * 20, "n" * 20
    before = SqlLedgerStore(StateDatabase(url), secret=LedgerSecret.parse(old, "here"))
    assert send(sender(clinic, before, "1/day", task="a"), 1) == ["sent"]
    after = SqlLedgerStore(StateDatabase(url), secret=LedgerSecret.parse(f"{new},{old}", "here"))
    assert send(sender(clinic, after, "1/day", task="b"), 1) == ["capped"]


def test_a_message_is_counted_only_after_the_one_before_it_is_committed(url: URL) -> None:
    """The recipient's row is locked first, so another message waits, and then sees the entry of this one."""
    stores = [SqlLedgerStore(StateDatabase(url)) for _ in range(2)]
    caps = [Cap(store, limits_of("1/day"), ("r1",), "c•••@clinic.example") for store in stores]
    first, second = (entry(key=key, recipient="r1", account=caps[0].account) for key in ("k1", "k2"))
    stores[0].hash_keys()
    with ThreadPoolExecutor(1) as pool:
        with stores[0]._database.transaction() as connection:
            stores[0]._lock_recipients(connection, [_Write(None, first, caps[0])])
            assert stores[0]._execute(connection, _Write(None, first, caps[0]))
            other = pool.submit(stores[1].compare_and_swap_capped, None, second, caps[1])
            assert _waits(url, other)
        with pytest.raises(CapReachedError):
            other.result(60)
    assert list(stores[0].find(["k1", "k2"])) == ["k1"]


def _waits(url: URL, other: Future[bool]) -> bool:
    """Return whether the other transaction waits for a lock; SQLite does not say so, but the file is locked."""
    if url.get_backend_name() == "sqlite":
        return not other.done()
    query = text("select count(*) from pg_stat_activity where wait_event_type = 'Lock'")
    engine = create_engine(url)
    deadline = time.monotonic() + 60
    try:
        while not other.done() and time.monotonic() < deadline:
            with engine.connect() as connection:
                if connection.execute(query).scalar_one():
                    return True
    finally:
        engine.dispose()
    return False


def test_four_connections_that_text_one_person_at_once_never_exceed_the_limit(clinic: FaultServer, url: URL) -> None:
    """The recipient's row is locked before the messages are counted; without the lock, all four count the same."""
    stores = [SqlLedgerStore(StateDatabase(url)) for _ in range(4)]
    stores[0].hash_keys()
    outboxes = [sender(clinic, store, task=f"t{number}") for number, store in enumerate(stores)]
    with ThreadPoolExecutor(4) as pool:
        outcomes = Counter(each for found in pool.map(lambda outbox: send(outbox, 5), outboxes) for each in found)
    assert outcomes == {"sent": 2, "capped": 18}
    assert len(clinic.requests) == 2


def test_messages_that_share_a_transaction_count_each_other(clinic: FaultServer, store: SqlLedgerStore) -> None:
    outbox = sender(clinic, store)
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(
            lambda item: str(outbox.send(type="sms", to=NUMBER, message="Hi", item=str(item)).outcome), range(8)
        )
        assert Counter(found) == {"sent": 2, "capped": 6}


def _entries(store: SqlLedgerStore) -> list[Any]:
    with store._database.transaction() as connection:
        keys = [row.message_key for row in connection.execute(select(ledger.c.message_key))]
    return list(store.find(keys).values())
