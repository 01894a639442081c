"""The migration of an older state database keeps every entry and every key, whatever happens during it.

The data of version 1 are in ``tests/data``; ``state_v1.sql`` describes how they were created.
"""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import secrets
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

from airflow_provider_apptoto.client import Message
from airflow_provider_apptoto.outbox import engine as engine_module
from airflow_provider_apptoto.outbox import migrations, schema
from airflow_provider_apptoto.outbox.database import StateDatabase
from airflow_provider_apptoto.outbox.entry import State
from airflow_provider_apptoto.outbox.ledger import fingerprint, message_key
from airflow_provider_apptoto.outbox.origin import Origin
from airflow_provider_apptoto.outbox.schema import MESSAGES_VIEW, MESSAGES_VIEW_QUERY, SCHEMA_VERSION
from airflow_provider_apptoto.outbox.stores.base import LedgerStoreError
from airflow_provider_apptoto.outbox.stores.sql import SqlLedgerStore
from tests.support import old_databases
from tests.support.old_databases import (
    DATA,
    DEADLINE,
    FACTS,
    SCHEMA_CHANGES,
    load_v1,
    opened,
    rows_of,
    run_script,
    schema_of,
)
from tests.support.state_databases import url_of

PROCESSES = 8

forkserver = multiprocessing.get_context("forkserver")
forkserver.set_forkserver_preload([old_databases.__name__])  # otherwise each process imports it


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> URL:
    """Provide the URL of a database that is empty or does not exist yet."""
    return url_of(request.param, request, tmp_path)


@pytest.fixture
def old(url: URL) -> URL:
    """Provide the URL of a filled database of version 1."""
    load_v1(url)
    return url


def migrate(url: URL) -> None:
    """Use a database, as the first process of a new version does."""
    database = StateDatabase(url)
    database.init()
    database._engine.dispose()


# --- the schema


def test_the_migrations_end_at_the_version_of_the_schema() -> None:
    assert len(migrations.MIGRATIONS) == SCHEMA_VERSION


def test_the_first_migration_makes_the_tables_of_version_1(
    url: URL, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = url_of(url.get_backend_name(), request, tmp_path / "other")
    load_v1(other)
    run_script(url, ";".join(migrations.MIGRATIONS[0][url.get_backend_name()]))
    assert schema_of(url) == schema_of(other)


SENT_AT = "ALTER TABLE apptoto_ledger ADD COLUMN sent_at FLOAT; UPDATE apptoto_ledger SET sent_at = updated_at - 2;"
"""Objects that development versions added to version 1."""


@pytest.mark.parametrize("start", ["empty", "version 1", "version 1 with sent_at"])
def test_the_migrations_make_the_tables_that_the_code_uses(
    url: URL, request: pytest.FixtureRequest, tmp_path: Path, start: str
) -> None:
    if start != "empty":
        load_v1(url)
    if start == "version 1 with sent_at":
        run_script(url, SENT_AT)
    migrate(url)
    (tmp_path / "other").mkdir()
    other = url_of(url.get_backend_name(), request, tmp_path / "other")
    engine = create_engine(other, poolclass=NullPool, future=True)
    with engine.begin() as connection:
        schema.metadata.create_all(connection)
        connection.execute(text(f"CREATE VIEW {MESSAGES_VIEW} AS\n{MESSAGES_VIEW_QUERY}"))
    assert schema_of(url) == schema_of(other)


def test_the_view_shows_each_message_under_documented_names(old: URL) -> None:
    migrate(old)
    with opened(old) as connection:
        found = {
            row["message_key"]: row for row in connection.execute(text("SELECT * FROM apptoto_messages")).mappings()
        }
    assert len(found) == len(rows_of(old)["apptoto_ledger"])
    text_to_ann = FACTS["messages"][0]
    assert found[text_to_ann["key"]] == {
        "message_key": text_to_ann["key"],
        "outcome": "sent",
        "channel": "sms",
        "target": None,
        "reference": "4711",
        "labels": None,
        "origin": "task",
        "dag_id": "reminders",
        "task_id": "text",
        "run_id": "manual__2026-11-20T08:00:00+00:00",
        "map_index": -1,
        "try_number": 1,
        "account": None,
        "http_status": 200,
        "code": None,
        "reason": "",
        "response_id": None,
        "segments": None,
        "created_at": 1795903565.9797425,
        "sent_at": None,
        "updated_at": 1795903565.9797425,
    }


# --- the memory

CLAIMED = {"claimed": "not_sent", "claimed_once_more": "not_sent", "claimed_in_doubt": "unknown"}
"""The tasks that were killed before their first byte, and the state that their messages get."""
NEW = ("target", "recipient", "account", "labels", "code", "response_id", "segments")


def by_key(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["message_key"]: row for row in rows}


def as_version_2(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of version 1 as it must be in the next version."""
    kept = {name: value for name, value in row.items() if name != "type"}
    new = {**dict.fromkeys(NEW), "channel": row["type"], "origin": "task", "created_at": row["updated_at"]}
    changed = {"state": CLAIMED[row["task_id"]], "lease": 0.0} if row["state"] == "claimed" else {}
    return {"sent_at": None, **kept, **new, **changed}


@pytest.mark.parametrize("has_sent_at", [False, True])
def test_all_that_was_remembered_still_is(old: URL, *, has_sent_at: bool) -> None:
    if has_sent_at:
        run_script(old, SENT_AT)
    before = rows_of(old)
    migrate(old)
    after = rows_of(old)
    assert len(before["apptoto_ledger"]) == 33
    assert by_key(after["apptoto_ledger"]) == by_key([as_version_2(row) for row in before["apptoto_ledger"]])
    assert after["apptoto_ledger_change"] == before["apptoto_ledger_change"]
    assert after["apptoto_pace"] == before["apptoto_pace"]
    assert [(row["name"], row["value"]) for row in after["apptoto_meta"]] == [
        ("salt", "8c3782eda9e9f3aea2172c222dd544dd"),
        ("schema_version", str(SCHEMA_VERSION)),
    ]


def test_the_messages_of_then_are_found_under_the_keys_of_now(old: URL) -> None:
    database = StateDatabase(old)
    store = SqlLedgerStore(database)
    [hash_key] = store.hash_keys()
    account = f"{FACTS['host']}/v1", FACTS["login"]
    for fact in FACTS["messages"]:
        message = Message(**fact["message"])
        where = {name: fact[name] for name in ("dag_id", "task_id", "run_id", "map_index")}
        key = message_key(
            hash_key,
            message,
            account=account,
            mode=fact.get("mode", "live"),
            origin=Origin(try_number=1, **where),
            idempotency_key=fact.get("idempotency_key"),
            item=fact.get("item"),
        )
        found = store.find([key]).get(key)
        if fact["state"] == "forgotten":
            assert found is None
        else:
            assert found is not None
            assert (found.state, found.fingerprint) == (State(fact["state"]), fingerprint(hash_key, message))
    database._engine.dispose()


def test_entries_of_then_can_be_changed_and_people_can_be_noted(old: URL) -> None:
    database = StateDatabase(old)
    store = SqlLedgerStore(database)
    key = FACTS["messages"][0]["key"]
    found = store.find([key])[key]
    changed = dataclasses.replace(found.changed(State.SENT), reference="x")
    assert store.compare_and_swap(found, changed)
    assert store.find([key])[key] == changed
    change = {"at": 1.0, "from_state": "a", "to_state": "b", "changed_by": "ann", "note": ""}
    with database.transaction() as connection:
        connection.execute(schema.changes.insert().values(message_key=key, **change))
    database._engine.dispose()


def test_a_reference_of_any_length_survives(old: URL) -> None:
    """PostgreSQL's usual indexes refuse values that can't be compressed to 2,700 bytes."""
    key, reference = FACTS["messages"][0]["key"], secrets.token_hex(4000)
    run_script(old, f"UPDATE apptoto_ledger SET reference = '{reference}' WHERE message_key = '{key}'")  # noqa: S608
    database = StateDatabase(old)
    assert SqlLedgerStore(database).find([key])[key].reference == reference
    database._engine.dispose()


def test_tables_that_version_1_had_only_begun_to_make_are_completed(url: URL) -> None:
    first, *_ = (DATA / f"state_v1.{url.get_backend_name()}.sql").read_text().split(";")
    run_script(url, first)
    migrate(url)
    assert set(schema.metadata.tables) == set(rows_of(url))


# --- who may migrate, and when


def test_a_database_of_a_newer_version_is_refused_and_left_as_it_is(url: URL) -> None:
    migrate(url)
    run_script(url, "UPDATE apptoto_meta SET value = '99' WHERE name = 'schema_version'")
    before = rows_of(url)
    database = StateDatabase(url)
    with pytest.raises(LedgerStoreError, match=r"version is 99, but this version of airflow-.* Upgrade"):
        database.init()
    assert rows_of(url) == before
    database._engine.dispose()


def test_looking_for_the_salt_migrates_nothing(old: URL) -> None:
    before = rows_of(old)
    database = StateDatabase(old)
    assert database.existing_salt() == bytes.fromhex("8c3782eda9e9f3aea2172c222dd544dd")
    assert rows_of(old) == before
    database._engine.dispose()


def test_a_current_database_costs_a_process_one_query(url: URL) -> None:
    migrate(url)
    database = StateDatabase(url)
    queries: list[str] = []
    event.listen(database._engine, "before_cursor_execute", lambda *given: queries.append(given[2]))
    for _ in range(2):
        with database.transaction():
            pass
    assert len(queries) == 1
    assert "FROM apptoto_meta" in queries[0]
    database._engine.dispose()


@pytest.mark.parametrize("from_version", [0, 1])
def test_the_statements_that_are_printed_do_what_the_first_use_does(
    url: URL, request: pytest.FixtureRequest, tmp_path: Path, from_version: int
) -> None:
    (tmp_path / "other").mkdir()
    other = url_of(url.get_backend_name(), request, tmp_path / "other")
    if from_version == 1:
        load_v1(url)
        load_v1(other)
    run_script(url, StateDatabase(url).ddl(from_version))
    migrate(other)
    assert schema_of(url) == schema_of(other)
    by_hand, by_use = rows_of(url), rows_of(other)
    if from_version == 0:  # a salt is nothing to print
        by_use["apptoto_meta"] = [row for row in by_use["apptoto_meta"] if row["name"] != "salt"]
    assert by_hand == by_use


@pytest.mark.parametrize("version", [-1, SCHEMA_VERSION])
def test_statements_from_an_unknown_version_are_refused(tmp_path: Path, version: int) -> None:
    with pytest.raises(ValueError, match=f"{version} is not a schema version from 0 to {SCHEMA_VERSION - 1}"):
        StateDatabase(URL.create("sqlite", database=str(tmp_path / "state.db"))).ddl(version)


@pytest.mark.postgresql
def test_a_role_without_the_rights_is_told_what_somebody_else_has_to_run(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = url_of("postgresql", request, tmp_path)
    load_v1(url)
    role = f"role_{url.database}"
    granted = "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO"
    run_script(url, f"CREATE ROLE {role} LOGIN; {granted} {role}")
    database = StateDatabase(url.set(username=role))
    with pytest.raises(LedgerStoreError, match="must be owner of table apptoto_ledger") as raised:
        database.init()
    assert "python -m airflow_provider_apptoto ledger init --conn-id APPTOTO_CONN_ID --sql --from 1" in str(
        raised.value
    )
    run_script(url, database.ddl(1))
    key = FACTS["messages"][0]["key"]
    assert SqlLedgerStore(database).find([key])  # privileges granted before still exist
    database._engine.dispose()


def test_a_file_that_a_process_of_version_1_has_open_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "_SQLITE_LOCK_TIMEOUT", 0.2)
    url = URL.create("sqlite", database=str(tmp_path / "state.db"))
    load_v1(url)
    before = rows_of(url)
    with contextlib.closing(sqlite3.connect(tmp_path / "state.db")) as worker:
        worker.execute("SELECT * FROM apptoto_meta").fetchall()
        with pytest.raises(LedgerStoreError, match="database is locked"):
            StateDatabase(url).init()
        assert rows_of(url) == before
    migrate(url)


# --- many at once


@pytest.mark.processes
@pytest.mark.parametrize("from_version", [0, 1])
def test_of_processes_that_come_together_one_migrates_and_all_go_on(url: URL, from_version: int) -> None:
    if from_version == 1:
        load_v1(url)
    before = rows_of(url).get("apptoto_ledger", [])
    others, salts = forkserver.Barrier(PROCESSES), forkserver.Queue()
    address = url.render_as_string(hide_password=False)
    children = [forkserver.Process(target=old_databases.use, args=(address, others, salts)) for _ in range(PROCESSES)]
    for child in children:
        child.start()
    told = [salts.get(timeout=DEADLINE) for _ in children]
    for child in children:
        child.join(DEADLINE)
    salts.close()
    assert [child.exitcode for child in children] == [0] * PROCESSES
    assert len({salt for salt, _ in told}) == 1
    wanted = migrations.statements(url.get_backend_name(), from_version)
    assert [statements for _, statements in told if statements] == [
        [each for each in wanted if each.startswith(SCHEMA_CHANGES)]
    ]
    if from_version == 1:
        assert told[0][0] == "8c3782eda9e9f3aea2172c222dd544dd"
    assert by_key(rows_of(url)["apptoto_ledger"]) == by_key([as_version_2(row) for row in before])


@pytest.mark.processes
def test_a_process_that_is_killed_in_mid_migration_leaves_the_old_version_as_it_was(old: URL) -> None:
    before, tables = rows_of(old), schema_of(old)
    here, there = forkserver.Pipe()
    child = forkserver.Process(
        target=old_databases.stop_in_mid_migration, args=(old.render_as_string(hide_password=False), there)
    )
    child.start()
    assert here.poll(DEADLINE)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join(DEADLINE)
    assert child.exitcode == -signal.SIGKILL
    if old.get_backend_name() == "sqlite":  # it was in the middle of writing
        assert Path(f"{old.database}-journal").stat().st_size > 0
    assert (rows_of(old), schema_of(old)) == (before, tables)
    migrate(old)
    assert by_key(rows_of(old)["apptoto_ledger"]) == by_key([as_version_2(row) for row in before["apptoto_ledger"]])
