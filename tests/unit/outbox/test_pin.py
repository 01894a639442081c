"""A state database that lost its data is detected before anything is sent."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy.engine import URL

from airflow_provider_apptoto.outbox.database import StateDatabase
from airflow_provider_apptoto.outbox.pin import Pin
from airflow_provider_apptoto.outbox.schema import metadata
from airflow_provider_apptoto.outbox.stores.base import LedgerStoreError
from airflow_provider_apptoto.outbox.stores.sql import SqlLedgerStore
from tests.support.entries import entry

if TYPE_CHECKING:
    from pytest_mock import MockerFixture


class Memory(dict[str, str]):
    """A fake of Airflow's Variables, as a pin uses them."""

    def set(self, name: str, value: str) -> None:
        self[name] = value


def store_of(path: Path, memory: Memory) -> SqlLedgerStore:
    """Return the ledger of a file, as a new process sees it."""
    database = StateDatabase(URL.create("sqlite", database=str(path)))
    return SqlLedgerStore(database, Pin("state", database, memory, "ledger init --accept"))


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def used(tmp_path: Path, memory: Memory) -> Path:
    """Provide the file of a ledger with one entry."""
    path = tmp_path / "state.db"
    store = store_of(path, memory)
    store.hash_keys()
    assert store.compare_and_swap(None, entry())
    store._database._engine.dispose()
    return path


def test_one_file_holds_all_that_was_committed(used: Path) -> None:
    elsewhere = used.with_name("copy.db")
    shutil.copy(used, elsewhere)  # without a -wal or a -journal beside it
    assert store_of(elsewhere, Memory()).find(["k1"])


def test_the_database_that_was_pinned_is_accepted(used: Path, memory: Memory) -> None:
    store = store_of(used, memory)
    store.hash_keys()
    assert store.find(["k1"])


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
        assert database.existing_salt() is None  # the check created no tables
    Pin("state", database, memory, "").accept()
    store = store_of(used, memory)
    assert store.find(["k1"]) == {}
    store_of(used, memory).hash_keys()


def test_a_database_whose_tables_are_gone_is_refused(database: StateDatabase, memory: Memory) -> None:
    pin = Pin("state", database, memory, "")
    pin.check()
    with database.transaction() as connection:
        connection.exec_driver_sql("DROP VIEW apptoto_messages")
        metadata.drop_all(connection)
    with pytest.raises(LedgerStoreError, match="is empty"):
        pin.check()


def test_a_file_that_is_deleted_while_a_worker_uses_it_takes_no_further_message(used: Path, memory: Memory) -> None:
    store = store_of(used, memory)
    store.hash_keys()
    used.unlink()
    with pytest.raises(LedgerStoreError):
        store.compare_and_swap(None, entry(key="k2"))


def test_a_pin_that_cannot_be_read_stops_sending(used: Path) -> None:
    class Broken(Memory):
        def get(self, *_: object) -> str:
            raise ConnectionError("of the API server")

    with pytest.raises(LedgerStoreError, match=r"Variable apptoto_ledger_state.*can't be read: ConnectionError"):
        store_of(used, Broken()).hash_keys()


def test_a_pin_that_cannot_be_set_is_logged(used: Path, provider_log: list[str]) -> None:
    class ReadOnly(Memory):
        def set(self, *_: object) -> None:
            raise PermissionError

    store_of(used, ReadOnly()).hash_keys()
    assert any("Can't set the Airflow Variable apptoto_ledger_state" in line for line in provider_log)


def test_a_pin_stays_the_same_over_versions_of_this_package(used: Path, memory: Memory, mocker: MockerFixture) -> None:
    database = StateDatabase(URL.create("sqlite", database=str(used)))
    mocker.patch.object(database, "salt", return_value=b"salt")
    Pin("state", database, memory, "").accept()
    assert memory == {"apptoto_ledger_state": "1c88e745537b0911"}
