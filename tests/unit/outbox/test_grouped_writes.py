"""Threads that write to the ledger at the same time share a transaction, and each gets its own result."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import URL
from sqlalchemy.exc import OperationalError

from airflow_provider_apptoto.outbox.database import StateDatabase
from airflow_provider_apptoto.outbox.entry import Entry, State
from airflow_provider_apptoto.outbox.stores.base import LedgerAwayError, LedgerStoreError
from airflow_provider_apptoto.outbox.stores.sql import SqlLedgerStore
from tests.support import postgres
from tests.support.entries import SECOND, entry
from tests.support.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

THREADS = 12
DEADLINE = 60
Write = tuple[Entry | None, Entry]


def fresh(count: int = THREADS) -> list[Entry]:
    """Return entries of as many messages."""
    return [entry(key=f"k{number:02}", recipient=f"r{(number * 7) % count:02}") for number in range(count)]


def at_once(store: SqlLedgerStore, writes: Sequence[Write]) -> list[Any]:
    """Hold each write in its own thread, then release them; return the result or error of each."""
    with ThreadPoolExecutor(len(writes)) as pool:
        with store._turn:
            futures = [pool.submit(store.compare_and_swap, *write) for write in writes]
            deadline = time.monotonic() + DEADLINE
            while len(store._pending) < len(writes):
                assert time.monotonic() < deadline
        return [future.exception(DEADLINE) or future.result() for future in futures]


def inserts(entries: Sequence[Entry]) -> list[Write]:
    return [(None, new) for new in entries]


def versions(store: SqlLedgerStore, entries: Sequence[Entry]) -> dict[str, str]:
    return {key: found.version for key, found in store.find([new.key for new in entries]).items()}


@contextlib.contextmanager
def commits_of(database: StateDatabase) -> Iterator[list[object]]:
    """Collect the transactions that are committed in the meantime."""
    database.init()
    seen: list[object] = []

    def note(connection: object) -> None:
        seen.append(connection)

    event.listen(database._engine, "commit", note)
    yield seen
    event.remove(database._engine, "commit", note)


@pytest.fixture
def store(database: StateDatabase) -> SqlLedgerStore:
    return SqlLedgerStore(database)


def test_writes_that_wait_at_the_same_time_share_one_transaction(
    database: StateDatabase, store: SqlLedgerStore
) -> None:
    entries = fresh()
    with commits_of(database) as commits:
        assert at_once(store, inserts(entries)) == [True] * THREADS
    assert len(commits) == 1
    assert versions(store, entries) == {new.key: new.version for new in entries}
    sent = [new.changed(State.SENT) for new in entries]
    with commits_of(database) as commits:
        assert at_once(store, list(zip(entries, sent, strict=True))) == [True] * THREADS
    assert len(commits) == 1
    assert {found.state for found in store.find([new.key for new in sent]).values()} == {State.SENT}


def test_a_write_that_is_alone_waits_for_nobody(database: StateDatabase, store: SqlLedgerStore) -> None:
    with commits_of(database) as commits:
        assert store.compare_and_swap(None, entry())
    assert len(commits) == 1


def test_a_write_that_finds_something_else_drops_out_alone(store: SqlLedgerStore) -> None:
    taken, changed, *others = fresh()
    current = changed.changed(State.SENT)
    for old, new in ((None, taken), (None, changed), (changed, current)):
        assert store.compare_and_swap(old, new)
    late = dataclasses.replace(taken, origin=SECOND, version="late")
    stale = changed.changed(State.NOT_SENT)
    assert at_once(store, [(None, late), (changed, stale), *inserts(others)]) == [False, False] + [True] * len(others)
    assert versions(store, [taken, changed]) == {taken.key: taken.version, changed.key: current.version}


def test_of_two_writes_of_one_message_one_is_done(store: SqlLedgerStore) -> None:
    rivals = [entry(SECOND) for _ in range(THREADS)]
    assert Counter(at_once(store, inserts(rivals))) == {True: 1, False: THREADS - 1}


@pytest.mark.parametrize("count", [2, THREADS])
@pytest.mark.parametrize(
    "bad", [{"http_status": 2**70}, {"reason": None}, {"reference": "\ud800"}], ids=["too large", "null", "no text"]
)
def test_a_write_that_the_database_refuses_fails_alone(
    database: StateDatabase, store: SqlLedgerStore, bad: dict[str, Any], count: int
) -> None:
    entries = fresh(count)
    entries[count // 2] = dataclasses.replace(entries[count // 2], **bad)
    results = at_once(store, inserts(entries))
    refused = results.pop(count // 2)
    assert isinstance(refused, LedgerStoreError)
    assert str(refused).startswith(("the state database rejected the ledger entry", "the state database can't be used"))
    assert results == [True] * (count - 1)
    assert len(versions(store, entries)) == count - 1
    assert isinstance(at_once(store, [(None, entries[count // 2])])[0], LedgerStoreError)
    database.init()


@pytest.mark.parametrize("is_committed", [True, False])
def test_after_a_commit_that_failed_nobody_is_told_that_it_lost_and_a_fresh_read_shows_what_was_written(
    database: StateDatabase, store: SqlLedgerStore, is_committed: bool
) -> None:
    database.init()
    failures = [None]

    def fail(connection: Any) -> None:
        if failures:
            failures.pop()
            if is_committed:
                connection.connection.commit()
            raise OperationalError("COMMIT", {}, Exception("server closed the connection unexpectedly"))

    event.listen(database._engine, "commit", fail)
    entries = fresh()
    results = at_once(store, inserts(entries))
    written = versions(store, entries)
    for new, result in zip(entries, results, strict=True):
        if result is True:
            assert written[new.key] == new.version
        else:
            assert isinstance(result, LedgerStoreError)
            assert (new.key in written) is is_committed
    assert at_once(store, inserts(entries)) == [True] * THREADS  # again with the same version: it counts as written


def test_a_writer_that_is_interrupted_lets_the_others_of_its_transaction_look_again(
    database: StateDatabase, store: SqlLedgerStore
) -> None:
    database.init()
    interrupts = [KeyboardInterrupt()]

    def interrupt(_: Any) -> None:
        if interrupts:
            raise interrupts.pop()

    event.listen(database._engine, "begin", interrupt)
    entries = fresh()
    results = at_once(store, inserts(entries))
    assert Counter(type(result) for result in results) == {KeyboardInterrupt: 1, LedgerAwayError: THREADS - 1}
    assert versions(store, entries) == {}
    assert at_once(store, inserts(entries)) == [True] * THREADS


def test_two_processes_write_in_the_same_order_so_that_neither_waits_for_the_other_for_ever(
    database: StateDatabase, store: SqlLedgerStore
) -> None:
    database.init()
    order: list[str] = []

    def note(*arguments: Any) -> None:
        if "INSERT" in arguments[2]:
            order.append(str(arguments[3]))

    event.listen(database._engine, "before_cursor_execute", note)
    entries = fresh()
    at_once(store, inserts(entries))
    expected = [new.key for new in sorted(entries, key=lambda new: (new.recipient or "", new.key))]
    assert [next(key for key in expected if key in said) for said in order] == expected
    assert expected != [new.key for new in entries]


def test_more_keys_than_one_query_takes_are_found(store: SqlLedgerStore) -> None:
    entries = fresh(3)
    at_once(store, inserts(entries))
    keys = [f"other{number}" for number in range(1200)]
    keys[0], keys[600], keys[-1] = (new.key for new in entries)
    assert store.find(keys) == {new.key: new for new in entries}
    assert store.find([]) == {}


@pytest.mark.postgresql
def test_a_group_whose_commit_got_no_answer_finds_its_versions(postgres_port: int) -> None:
    losing = [b"COMMIT"]

    def loses_answer_to(data: bytes) -> bool:
        return bool(losing) and losing[0] in data and bool(losing.pop())

    name = postgres.new_database(postgres_port)
    with Proxy(postgres_port) as network:
        url = URL.create(
            "postgresql+psycopg2", username=postgres.USER, host="127.0.0.1", port=network.port, database=name
        )
        database = StateDatabase(url)
        store = SqlLedgerStore(database)
        database.init()
        network.loses_answer_to = loses_answer_to
        entries = fresh()
        results = at_once(store, inserts(entries))
        assert [type(result) for result in results] == [LedgerAwayError] * THREADS
        assert at_once(store, inserts(entries)) == [True] * THREADS  # waits for that commit, and finds it
        assert versions(store, entries) == {new.key: new.version for new in entries}
        database._engine.dispose()
