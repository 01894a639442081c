"""A state database that lost its memory is noticed before anything is sent."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy.engine import URL

from airflow_provider_apptoto.state.database import StateDatabase, ledger, meta
from airflow_provider_apptoto.state.pin import Pin
from airflow_provider_apptoto.state.sql_ledger import SqlLedgerStore
from airflow_provider_apptoto.state.store import LedgerStoreError
from tests.support.entries import entry


class Memory(dict[str, str]):
    """Airflow's Variables, as far as a pin needs them."""

    def set(self, name: str, value: str) -> None:
        self[name] = value


def store_of(path: Path, memory: Memory) -> SqlLedgerStore:
    """Return the ledger of a file, as a new process sees it."""
    database = StateDatabase(URL.create("sqlite", database=str(path)))
    return SqlLedgerStore(database, "resolve", Pin("state", database, memory, "ledger init --accept"))


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def used(tmp_path: Path, memory: Memory) -> Path:
    """Give the file of a ledger in which a message stands."""
    path = tmp_path / "state.db"
    store = store_of(path, memory)
    store.hash_keys()
    assert store.swap(None, entry())
    store._database._engine.dispose()
    return path


def test_all_that_was_committed_stands_in_one_file(used: Path) -> None:
    elsewhere = used.with_name("copy.db")
    shutil.copy(used, elsewhere)  # without a -wal or a -journal beside it
    assert store_of(elsewhere, Memory()).find("k1") is not None


def test_the_same_database_is_used_on(used: Path, memory: Memory) -> None:
    store = store_of(used, memory)
    store.hash_keys()
    assert store.find("k1") is not None


def delete(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    path.write_bytes(b"")


def replace(path: Path) -> None:
    path.unlink()
    StateDatabase(URL.create("sqlite", database=str(path))).init()


@pytest.mark.parametrize(("lose", "says"), [(delete, "is empty"), (truncate, "is empty"), (replace, "is not the one")])
def test_a_database_that_lost_its_memory_is_refused_until_somebody_accepts_it(
    used: Path, memory: Memory, lose: Callable[[Path], None], says: str
) -> None:
    lose(used)
    for store in [store_of(used, memory), store_of(used, memory)]:
        with pytest.raises(LedgerStoreError, match=rf"'state' {says}.*ledger init --accept"):
            store.hash_keys()
    database = StateDatabase(URL.create("sqlite", database=str(used)))
    if lose is not replace:
        assert database.existing_salt() is None  # looking made no tables
    Pin("state", database, memory, "").accept()
    store = store_of(used, memory)
    assert store.find("k1") is None
    store_of(used, memory).hash_keys()


def test_a_database_whose_tables_are_gone_is_refused(database: StateDatabase, memory: Memory) -> None:
    pin = Pin("state", database, memory, "")
    pin.check()
    with database.transaction() as connection:
        for table in (meta, ledger):
            table.drop(connection)
    with pytest.raises(LedgerStoreError, match="is empty"):
        pin.check()


def test_a_file_that_is_deleted_under_a_worker_takes_no_further_message(used: Path, memory: Memory) -> None:
    store = store_of(used, memory)
    store.hash_keys()
    used.unlink()
    with pytest.raises(LedgerStoreError):
        store.swap(None, entry(key="k2"))


def test_without_a_pin_that_can_be_read_nothing_is_sent(used: Path) -> None:
    class Broken(Memory):
        def get(self, *_: object) -> str:
            raise ConnectionError("of the API server")

    with pytest.raises(LedgerStoreError, match=r"Variable apptoto_ledger_state.*can't be read: ConnectionError"):
        store_of(used, Broken()).hash_keys()


def test_a_pin_that_can_not_be_set_is_warned_of(used: Path, provider_log: list[str]) -> None:
    class ReadOnly(Memory):
        def set(self, *_: object) -> None:
            raise PermissionError

    store_of(used, ReadOnly()).hash_keys()
    assert any("apptoto_ledger_state can't be set" in line for line in provider_log)
