"""A secret of the deployment keys the ledger's hashes; it can be replaced, and a missing one is an error."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy.engine import URL

from airflow_provider_apptoto.client import ApptotoConfigurationError
from airflow_provider_apptoto.outbox.database import StateDatabase
from airflow_provider_apptoto.outbox.entry import State
from airflow_provider_apptoto.outbox.secret import LedgerSecret
from airflow_provider_apptoto.outbox.stores.base import LedgerStoreError
from airflow_provider_apptoto.outbox.stores.sql import SqlLedgerStore
from airflow_provider_apptoto.outbox.stores.task_state import TaskStateLedgerStore
from tests.support.entries import entry

if TYPE_CHECKING:
    from tests.support.task_state import FakeTaskState

OLD, NEW = "an old secret of 20 characters", "a new secret of 20 characters"


def secret(*values: str) -> LedgerSecret:
    return LedgerSecret.parse(",".join(values), "ledger_secret") if values else LedgerSecret()


def keys(database: StateDatabase, of: LedgerSecret) -> list[bytes]:
    """Return the secrets with which a new task hashes."""
    return SqlLedgerStore(database, secret=of).hash_keys()


def test_entries_are_still_found_under_a_secret_that_was_replaced(database: StateDatabase) -> None:
    [old] = keys(database, secret(OLD))
    assert keys(database, secret(OLD)) == [old] != [database.salt()]
    [new, still] = keys(database, secret(NEW, OLD))
    assert (still, new != old) == (old, True)


@pytest.mark.parametrize(("before", "after"), [([], [OLD]), ([OLD], [NEW, OLD]), ([OLD], [NEW]), ([OLD], [])])
def test_a_running_process_begins_no_message_once_a_secret_is_in_use_that_it_does_not_know(
    database: StateDatabase, before: list[str], after: list[str]
) -> None:
    """Otherwise it would not find messages sent under the new secret, and would resend them."""
    running = SqlLedgerStore(database, secret=secret(*before))
    running.hash_keys()
    in_flight = entry()
    assert running.compare_and_swap(None, in_flight)
    database.check_secret(secret(*after), accept=True)
    with pytest.raises(LedgerStoreError, match="keyed with another ledger_secret"):
        running.compare_and_swap(None, entry(key="k2"))
    assert running.find(["k2"]) == {}
    assert running.compare_and_swap(in_flight, in_flight.changed(State.SENT))  # what it has sent is still recorded


def test_a_process_that_knows_all_secrets_in_use_begins_messages(database: StateDatabase) -> None:
    stores = [SqlLedgerStore(database, secret=secret(*values)) for values in ([OLD], [NEW, OLD])]
    for store in stores:
        store.hash_keys()
    assert stores[1].compare_and_swap(None, entry())


@pytest.mark.parametrize(
    ("before", "after"), [([OLD], [NEW]), ([OLD], []), ([], [NEW]), ([NEW, OLD], [OLD]), ([NEW, OLD], [])]
)
def test_a_secret_that_is_not_known_any_more_is_refused_until_somebody_accepts_it(
    database: StateDatabase, before: list[str], after: list[str]
) -> None:
    keys(database, secret(*before))
    for _ in range(2):
        with pytest.raises(LedgerStoreError, match=r"keyed with another ledger_secret.*NEW,OLD"):
            keys(database, secret(*after))
    database.check_secret(secret(*after), accept=True)
    assert len(keys(database, secret(*after))) == 1


def test_an_old_secret_that_was_rotated_out_is_accepted_as_gone(database: StateDatabase) -> None:
    """The newest secret is stored already, so only the old one must be removed."""
    for used in ([OLD], [NEW, OLD]):
        SqlLedgerStore(database, secret=secret(*used)).hash_keys()
    with pytest.raises(LedgerStoreError, match="ledger_secret"):
        database.check_secret(secret(NEW))
    database.check_secret(secret(NEW), accept=True)
    database.check_secret(secret(NEW))


@pytest.mark.parametrize(("before", "after"), [([OLD], [NEW]), ([OLD], []), ([], [NEW])])
def test_a_task_whose_secret_changed_between_its_tries_sends_nothing(
    before: list[str], after: list[str], task_state: FakeTaskState
) -> None:
    first = TaskStateLedgerStore(task_state, secret(*before)).hash_keys()
    assert TaskStateLedgerStore(task_state, secret(*before)).hash_keys() == first
    assert OLD not in str(task_state.values)
    with pytest.raises(LedgerStoreError, match=r"Airflow's task state are keyed with another ledger_secret"):
        TaskStateLedgerStore(task_state, secret(*after)).hash_keys()
    assert first[0] in TaskStateLedgerStore(task_state, secret(NEW, *before) if before else secret()).hash_keys()


@pytest.mark.parametrize("text", ["short", f"{OLD},", f",{OLD}", f"{OLD},short", ","])
def test_what_is_no_secret_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(ApptotoConfigurationError, match=r"^here: must be one secret, or several") as raised:
        LedgerSecret.parse(text, "here")
    assert "short" not in str(raised.value)
    assert OLD not in repr(secret(OLD))


def test_what_a_secret_makes_stays_the_same_over_versions_of_this_package() -> None:
    """Otherwise nothing that was sent before an upgrade would be found after it."""
    of_secret = LedgerSecret(("x" * 16,))
    assert [key.hex() for key in of_secret.keys(b"salt")] == [
        "525a4ea3390460c602642b2370a01eb0c246ede8c0b6ec7fc1602b8e86f25f5b"
    ]
    assert of_secret.checks(b"salt") == ["4b151866af4130c9"]
    assert (LedgerSecret().keys(b"salt"), LedgerSecret().checks(b"salt")) == ([b"salt"], ["b9a56543696bd4eb"])


def test_a_secret_has_at_least_16_characters() -> None:
    assert LedgerSecret.parse("x" * 16, "here").values == ("x" * 16,)
    with pytest.raises(ApptotoConfigurationError, match="at least 16 characters"):
        LedgerSecret.parse("x" * 15, "here")


def test_nobody_else_may_read_a_database_file(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    umask = os.umask(0o022)
    try:
        database = StateDatabase(URL.create("sqlite", database=str(path)))
        database.init()
    finally:
        os.umask(umask)
    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in tmp_path.iterdir()}
    assert modes == dict.fromkeys(modes, 0o600)
    assert "state.db" in modes
    database._engine.dispose()
