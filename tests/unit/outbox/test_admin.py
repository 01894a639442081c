"""People can find, resolve, forget and purge entries of the ledger in the state database."""

from __future__ import annotations

import csv
import dataclasses
import errno
import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, func, select

from airflow_provider_apptoto.outbox import admin as admins
from airflow_provider_apptoto.outbox.admin import FORGOTTEN, Author, LedgerAdmin, Record, Selection
from airflow_provider_apptoto.outbox.entry import State
from airflow_provider_apptoto.outbox.schema import changes, ledger
from airflow_provider_apptoto.outbox.stores.sql import SqlLedgerStore
from tests.support.entries import SECOND, entry, filled

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from airflow_provider_apptoto.outbox.database import StateDatabase

ANN = Author(by="ann", note="it is in the conversation")
BOB = Author(by="bob", note="that was another message")
ALL = Selection()
UNKNOWN = Selection(states=["unknown"])
UNKNOWN_KEY, ABANDONED_KEY = "5" * 32, "6" * 32


@pytest.fixture
def admin(database: StateDatabase) -> LedgerAdmin:
    """Provide the administration of a ledger with an entry of each state."""
    filled(database)
    return LedgerAdmin(database)


@pytest.fixture
def store(database: StateDatabase) -> SqlLedgerStore:
    """Provide the tasks' access to the same database."""
    return SqlLedgerStore(database)


def keys(records: Iterable[Record]) -> list[str]:
    return sorted(record.entry.key for record in records)


def only(admin: LedgerAdmin, key: str) -> Record:
    [record] = admin.select(Selection(keys=[key]))
    return record


# --- selecting


@pytest.mark.parametrize(
    ("selection", "count"),
    [
        ({}, 7),
        ({"keys": ["55555555", "2" * 32]}, 2),
        ({"keys": ["%"]}, 0),
        ({"keys": ["5" * 32, "2" * 32, "3"]}, 3),
        ({"dag_id": "clinic", "task_id": "remind", "run_id": "monday"}, 7),
        ({"dag_id": "lab"}, 0),
        ({"task_id": "lab"}, 0),
        ({"run_id": "tuesday"}, 0),
        ({"reference": "4711"}, 7),
        ({"reference": "471"}, 0),
        ({"channel": "sms"}, 7),
        ({"channel": "email"}, 0),
        ({"states": ["sent", "rejected"]}, 2),
        ({"states": ["sending"]}, 2),
        ({"states": ["unknown"]}, 2),
        ({"states": ["unknown"], "keys": ["5" * 8]}, 1),
    ],
)
def test_entries_are_found_by_what_people_know_of_them(
    admin: LedgerAdmin, selection: dict[str, Any], count: int
) -> None:
    assert len(admin.select(Selection(**selection))) == count
    assert admin.count(Selection(**selection)) == count


def test_the_ledger_counts_what_waits_for_a_person(admin: LedgerAdmin, store: SqlLedgerStore) -> None:
    assert store.unresolved() == admin.count(UNKNOWN) == 2


def test_unknown_includes_what_a_killed_task_left_but_nothing_in_flight(admin: LedgerAdmin) -> None:
    assert keys(admin.select(UNKNOWN)) == [UNKNOWN_KEY, ABANDONED_KEY]


def test_a_period_includes_its_start_and_excludes_its_end(database: StateDatabase, store: SqlLedgerStore) -> None:
    for number in (1000.0, 2000.0, 3000.0):
        assert store.compare_and_swap(None, entry(key=f"k{number}", updated_at=number))
    admin = LedgerAdmin(database)
    assert keys(admin.select(Selection(since=2000.0))) == ["k2000.0", "k3000.0"]
    assert keys(admin.select(Selection(since=1000.0, until=3000.0))) == ["k1000.0", "k2000.0"]


def test_a_limit_keeps_the_newest_and_they_come_first(admin: LedgerAdmin) -> None:
    assert [record.entry.key[0] for record in admin.select(ALL, limit=3)] == ["6", "5", "4"]


def test_more_entries_than_one_statement_has_parameters_keep_their_changes(
    admin: LedgerAdmin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admins, "_LOT", 1)
    admin.resolve(admin.resolvable(UNKNOWN), State.SENT, ANN)
    assert sum(len(record.changes) for record in admin.select(ALL)) == 2


# --- resolving


def test_only_what_may_have_been_sent_is_resolved_and_who_did_it_and_why_is_kept(admin: LedgerAdmin) -> None:
    resolved = admin.resolve(admin.resolvable(ALL), State.SENT, ANN)
    assert keys(resolved) == [UNKNOWN_KEY, ABANDONED_KEY]
    assert {record.entry.state for record in resolved} == {State.SENT}
    assert only(admin, UNKNOWN_KEY) in resolved
    [change] = only(admin, UNKNOWN_KEY).changes
    assert (change.from_state, change.to_state) == ("unknown", "sent")
    assert (change.changed_by, change.note) == ("ann", "it is in the conversation")
    assert only(admin, "1" * 32).changes == ()
    assert admin.count(UNKNOWN) == 0


def test_a_resolved_message_is_no_longer_in_doubt(database: StateDatabase, store: SqlLedgerStore) -> None:
    assert store.compare_and_swap(None, entry(in_doubt=True, lease=0.0))
    admin = LedgerAdmin(database)
    [resolved] = admin.resolve(admin.resolvable(ALL), State.NOT_SENT, ANN)
    assert (resolved.entry.state, resolved.entry.in_doubt, resolved.entry.lease) == (State.NOT_SENT, False, 0.0)
    assert store.find(["k1"]) == {"k1": resolved.entry}


@pytest.mark.parametrize("state", sorted(set(State) - {State.SENT, State.NOT_SENT}))
def test_a_person_can_say_sent_or_not_sent_and_nothing_else(admin: LedgerAdmin, state: State) -> None:
    with pytest.raises(ValueError, match="sent, not_sent"):
        admin.resolve(admin.resolvable(ALL), state, ANN)
    assert admin.count(UNKNOWN) == 2


@pytest.mark.parametrize("line", ["", " ", "a\nb", "a\x1b[2J", "x" * 201])
def test_an_author_gives_a_name_and_a_note_of_one_line(line: str) -> None:
    for name in ("by", "note"):
        with pytest.raises(ValueError, match=f"^{name} must be one line of 1 to 200 characters$"):
            Author(**{"by": "ann", "note": "seen", name: line})


def test_a_resolution_can_be_reversed_by_force_and_an_answer_of_apptoto_can_not(admin: LedgerAdmin) -> None:
    assert keys(admin.resolvable(ALL, force=True)) == [UNKNOWN_KEY, ABANDONED_KEY]
    admin.resolve(admin.resolvable(ALL), State.SENT, ANN)
    assert admin.resolvable(ALL) == []
    again = admin.resolve(admin.resolvable(ALL, force=True), State.NOT_SENT, BOB)
    assert keys(again) == [UNKNOWN_KEY, ABANDONED_KEY]
    history = only(admin, UNKNOWN_KEY).changes
    assert [(change.changed_by, change.to_state) for change in history] == [("ann", "sent"), ("bob", "not_sent")]


def test_what_a_later_try_was_told_is_not_taken_for_the_resolution_before_it(
    admin: LedgerAdmin, store: SqlLedgerStore
) -> None:
    [resolved] = admin.resolve(admin.resolvable(Selection(keys=[UNKNOWN_KEY])), State.NOT_SENT, ANN)
    refused = dataclasses.replace(resolved.entry, origin=SECOND).changed(
        State.NOT_SENT, http_status=429, reason="slow down"
    )
    assert store.compare_and_swap(resolved.entry, refused)
    assert admin.resolvable(Selection(keys=[UNKNOWN_KEY]), force=True) == []
    assert only(admin, UNKNOWN_KEY).why == "HTTP 429, slow down"


def test_what_is_resolved_as_sent_keeps_the_time_of_sending(database: StateDatabase, store: SqlLedgerStore) -> None:
    sending = entry(lease=0.0, updated_at=1_000.0, sent_at=1_000.0)
    assert store.compare_and_swap(None, sending)
    admin = LedgerAdmin(database)
    [resolved] = admin.resolve(admin.resolvable(ALL), State.SENT, ANN)
    assert resolved.entry.at == sending.at == "1970-01-01T00:16:40.000Z"


def test_what_changed_since_it_was_selected_is_left_as_it_is(admin: LedgerAdmin, store: SqlLedgerStore) -> None:
    chosen = admin.resolvable(ALL)
    first, second = chosen
    assert store.compare_and_swap(first.entry, first.entry.changed(State.SENT))
    assert keys(admin.resolve(chosen, State.NOT_SENT, ANN)) == [second.entry.key]
    assert admin.forget([first], ANN) == []
    assert only(admin, first.entry.key).entry.state is State.SENT
    assert only(admin, first.entry.key).changes == ()


# --- forgetting


def test_a_message_in_flight_is_not_forgotten(admin: LedgerAdmin) -> None:
    forgotten = admin.forget(admin.forgettable(ALL), ANN)
    assert keys(forgotten) == [str(number) * 32 for number in range(1, 7)]
    assert keys(admin.select(ALL)) == ["0" * 32]


def test_a_forgotten_message_that_is_sent_again_shows_that_it_was_forgotten(
    admin: LedgerAdmin, store: SqlLedgerStore
) -> None:
    admin.forget(admin.forgettable(Selection(keys=[UNKNOWN_KEY])), ANN)
    assert store.compare_and_swap(None, entry(key=UNKNOWN_KEY).changed(State.SENT, http_status=200))
    record = only(admin, UNKNOWN_KEY)
    assert [(change.from_state, change.to_state) for change in record.changes] == [("unknown", FORGOTTEN)]
    assert record.why == "HTTP 200"


# --- purging


def test_a_purge_leaves_what_is_young_in_flight_or_unresolved(admin: LedgerAdmin) -> None:
    assert admin.purge(60) == 0
    assert admin.purge(-1) == 4
    assert keys(admin.select(ALL)) == ["0" * 32, UNKNOWN_KEY, ABANDONED_KEY]


def test_a_purge_removes_the_changes_of_what_it_removes_alone(admin: LedgerAdmin, database: StateDatabase) -> None:
    admin.resolve(admin.resolvable(Selection(keys=[UNKNOWN_KEY])), State.SENT, ANN)
    admin.forget(admin.forgettable(Selection(keys=[ABANDONED_KEY])), BOB)
    assert admin.purge(-1) == 5
    with database.transaction() as connection:
        assert list(connection.execute(select(changes.c.message_key)).scalars()) == [ABANDONED_KEY]


def test_a_purge_has_a_transaction_for_each_lot_so_that_others_can_write_between(
    database: StateDatabase, store: SqlLedgerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admins, "_LOT", 10)
    for number in range(25):
        assert store.compare_and_swap(None, entry(key=f"k{number}", state=State.SENT))
    lots: list[int] = []
    left = select(func.count()).select_from(ledger)
    event.listen(database._engine, "begin", lambda connection: lots.append(connection.execute(left).scalar_one()))
    assert LedgerAdmin(database).purge(older_than=-1) == 25
    assert lots == [25, 15, 5]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_what_a_purge_removes_is_in_its_file_with_the_changes_that_people_made(
    admin: LedgerAdmin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setattr(admins, "_LOT", 2)
    admin.resolve(admin.resolvable(Selection(keys=[UNKNOWN_KEY])), State.SENT, ANN)
    expected = {record.entry.key: record.to_dict() for record in admin.select(ALL)}
    path = tmp_path / f"purged{suffix}"
    assert admin.purge(-1, path) == 5
    left = keys(admin.select(ALL))
    assert left == ["0" * 32, ABANDONED_KEY]
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file)) if suffix == ".csv" else [json.loads(line) for line in file]
    assert [row["key"] for row in rows] == sorted(expected.keys() - set(left))
    for row in rows:
        shown = expected[row["key"]]
        if suffix == ".jsonl":
            assert row == shown
        else:
            assert json.loads(row["changes"]) == shown["changes"]
            assert (row["state"], row["sent_at"], row["target"]) == (shown["state"], "", "'+1•••0199")
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_is_on_disk_before_the_first_entry_is_removed(
    admin: LedgerAdmin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "purged.jsonl"
    seen: list[tuple[int, int]] = []
    sync = os.fsync

    def observed(descriptor: int) -> None:
        seen.append((admin.count(ALL), path.read_text().count("\n")))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", observed)
    assert admin.purge(-1, path) == 4
    assert seen[:2] == [(7, 4), (7, 4)]  # the file, and its folder


def test_nothing_is_removed_if_the_file_can_not_be_written(
    admin: LedgerAdmin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "purged.csv"
    with pytest.raises(ValueError, match=r"must end with \.csv or \.jsonl"):
        admin.purge(-1, tmp_path / "purged.txt")
    with pytest.raises(FileNotFoundError):
        admin.purge(-1, tmp_path / "nowhere" / "purged.csv")
    path.write_text("evidence")
    with pytest.raises(ValueError, match="already exists"):
        admin.purge(-1, path)
    assert path.read_text() == "evidence"
    path.unlink()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        admin.purge(-1, path)
    assert list(tmp_path.glob("purged*")) == []
    assert admin.count(ALL) == 7


def test_a_spreadsheet_calculates_no_cell_of_an_export(
    database: StateDatabase, store: SqlLedgerStore, tmp_path: Path
) -> None:
    values: dict[str, Any] = {
        "reference": '=HYPERLINK("http://evil.example")',
        "labels": {"clinic": "=1+1"},
        "reason": "@SUM(1)",
    }
    assert store.compare_and_swap(None, entry(state=State.SENT, lease=0.0, **values))
    LedgerAdmin(database).purge(-1, tmp_path / "purged.csv")
    with (tmp_path / "purged.csv").open(newline="") as file:
        [row] = csv.DictReader(file)
    assert row["reference"] == "'" + values["reference"]
    assert (row["labels"], row["reason"]) == ('{"clinic": "=1+1"}', "'@SUM(1)")


# --- showing


def test_an_entry_is_shown_with_all_that_is_public_and_times_in_iso_8601(
    database: StateDatabase, store: SqlLedgerStore
) -> None:
    sent = entry(
        *(SECOND, "a" * 32),
        state=State.UNKNOWN,
        lease=0.0,
        target="+1•••0199",
        recipient="private",
        account="c•••@•••.example",
        labels={"clinic": "north"},
        segments=2,
        created_at=1_000.0,
        updated_at=1_001.25,
        sent_at=1_001.0,
        http_status=500,
        code="server_error",
        reason="down",
    )
    assert store.compare_and_swap(None, sent)
    shown = only(LedgerAdmin(database), "a" * 32).to_dict()
    assert json.loads(json.dumps(shown)) == {
        "key": "a" * 32,
        "state": "unknown",
        "at": "1970-01-01T00:16:41.250Z",
        "is_unresolved": True,
        "channel": "sms",
        "target": "+1•••0199",
        "reference": "4711",
        "origin": "task",
        "dag_id": "clinic",
        "task_id": "remind",
        "run_id": "monday",
        "map_index": -1,
        "try_number": 2,
        "account": "c•••@•••.example",
        "labels": {"clinic": "north"},
        "segments": 2,
        "created_at": "1970-01-01T00:16:40.000Z",
        "updated_at": "1970-01-01T00:16:41.250Z",
        "sent_at": "1970-01-01T00:16:41.000Z",
        "in_doubt": False,
        "http_status": 500,
        "code": "server_error",
        "reason": "down",
        "response_id": None,
        "why": "HTTP 500, down",
        "changes": [],
    }


def test_a_change_is_shown_with_its_time_in_iso_8601(admin: LedgerAdmin) -> None:
    [resolved] = admin.resolve(admin.resolvable(Selection(keys=[UNKNOWN_KEY])), State.SENT, ANN)
    shown = resolved.to_dict()
    assert shown["changes"] == [
        {
            "at": shown["updated_at"],
            "from_state": "unknown",
            "to_state": "sent",
            "changed_by": "ann",
            "note": "it is in the conversation",
        }
    ]


def test_why_names_a_person_or_what_came_back_or_that_nothing_did(admin: LedgerAdmin) -> None:
    assert only(admin, "0" * 32).why == "in flight"
    assert only(admin, "1" * 32).why == ""
    assert only(admin, ABANDONED_KEY).why == "no outcome was recorded"
    admin.resolve(admin.resolvable(UNKNOWN), State.SENT, ANN)
    assert only(admin, ABANDONED_KEY).why == "ann: it is in the conversation"
