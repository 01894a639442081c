"""The queries of docs/messages-view.rst run as printed, and its dbt source names the columns of the view."""

from __future__ import annotations

import datetime as dt
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import inspect

from airflow_provider_apptoto.outbox.entry import State
from airflow_provider_apptoto.outbox.stores.sql import SqlLedgerStore
from tests.support.entries import entry
from tests.support.printed_runs import run_by

if TYPE_CHECKING:
    from airflow_provider_apptoto.outbox.database import StateDatabase

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "messages-view.rst").read_text()
DIALECTS = {"postgresql": "On PostgreSQL:", "sqlite": "On SQLite:"}
NORTH, SOUTH = {"clinic": "north"}, {"clinic": "south"}
MESSAGES: list[dict[str, Any]] = [
    {"reference": "4711", "state": State.SENT, "labels": NORTH, "segments": 2},
    {"reference": "4712", "state": State.SENT, "labels": NORTH, "segments": 1},
    {"reference": "4713", "state": State.REJECTED, "labels": SOUTH, "segments": 1, "code": "rejected"},
    # rejected as a text, then sent as an e-mail
    {"reference": "4714", "state": State.REJECTED, "labels": SOUTH, "segments": 1, "code": "rejected"},
    {"reference": "4714", "state": State.SENT, "labels": SOUTH, "channel": "email"},
    {"reference": "4715", "state": State.REDIRECTED, "labels": SOUTH, "segments": 3},
    {"reference": "4716", "state": State.UNKNOWN, "labels": SOUTH, "segments": 1, "code": "unknown"},
    {"reference": "4716", "state": State.NOT_SENT, "labels": SOUTH, "channel": "call", "code": "not_sent"},
    {"reference": None, "state": State.NOT_SENT, "code": "not_sent"},
    {"reference": "4717", "state": State.SENDING, "lease": 60.0},
]
OLD = {"reference": "4000", "state": State.REJECTED, "created_at": 1_790_000_000.0, "updated_at": 1_790_000_000.0}


def query(title: str, dialect: str | None) -> str:
    """Return a query of a section, for one kind of database, or the one for both."""
    section = re.search(rf"^{title}\n-+\n(.*?)(?=^\S[^\n]*\n---+\n)", PAGE, re.MULTILINE | re.DOTALL)
    assert section is not None
    before = "[Oo]n both:" if dialect is None else DIALECTS[dialect]
    [found] = re.findall(rf"{before}\n\n\.\. code-block:: sql\n\n((?:   .*\n|\n)+)", section[1])
    return str(found)


def run(database: StateDatabase, sql: str) -> list[tuple[Any, ...]]:
    with database.transaction() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(sql)]


@pytest.fixture
def filled(database: StateDatabase) -> StateDatabase:
    store, now = SqlLedgerStore(database), time.time()
    for number, fields in enumerate([*MESSAGES, OLD]):
        is_sent = fields["state"] in {State.SENT, State.REDIRECTED}
        given = {"created_at": now - 60, "updated_at": now, "sent_at": now if is_sent else None, "lease": 0.0}
        given["http_status"] = 200 if is_sent else 422 if fields["state"] is State.REJECTED else None
        assert store.compare_and_swap(None, entry(key=f"{number:032}", **given | fields))
    return database


def test_cost_per_clinic(filled: StateDatabase) -> None:
    month = f"{dt.datetime.now(dt.UTC):%Y-%m}"
    found = run(filled, query("Cost per clinic", filled.dialect))
    assert found == [(month, "north", 2, 3), (month, "south", 1, 3)]


def test_who_got_nothing(filled: StateDatabase) -> None:
    assert run(filled, query("Who got nothing", filled.dialect)) == [
        ("4713", "+1•••0199", 1, 0, "rejected"),
        ("4715", "+1•••0199", 1, 0, None),
        ("4716", "+1•••0199", 2, 1, "unknown"),
        ("4717", "+1•••0199", 1, 1, None),
    ]


def test_who_got_nothing_of_those_who_were_meant_to(filled: StateDatabase) -> None:
    with filled.transaction() as connection:
        connection.exec_driver_sql("create table appointment (id integer primary key)")
        connection.exec_driver_sql("insert into appointment values (4711), (4713), (4714), (4999)")
    assert run(filled, query("Who got nothing", None)) == [(4713,), (4999,)]


def test_what_apptoto_answered(filled: StateDatabase) -> None:
    found = run(filled, query("What Apptoto answered", None))
    assert sum(count for *_, count in found) == len([*MESSAGES, OLD]) - 1  # one is still being sent
    assert found[0] == ("sms", 200, None, 3)
    assert {("sms", 422, "rejected", 2), ("email", 200, None, 1)} <= set(found)


def test_messages_to_resolve(filled: StateDatabase) -> None:
    store = SqlLedgerStore(filled)
    left: dict[str, Any] = {"created_at": 0.0, "updated_at": time.time() - 181}
    assert store.compare_and_swap(None, entry(key="left by a killed task", **left))
    found = run(filled, query("Messages to resolve", filled.dialect))
    assert [row[0] for row in found] == ["left by a killed task", f"{6:032}"]
    assert [row[4] for row in found] == ["4711", "4716"]


def test_each_statement_of_the_page_runs_on_the_databases_that_it_is_for(filled: StateDatabase) -> None:
    run = []
    with filled.transaction() as connection:
        connection.exec_driver_sql("create table appointment (id integer primary key)")
        if filled.dialect == "postgresql":
            connection.exec_driver_sql("create role dashboard")
    for printed in run_by(__name__, "sql"):
        before = " ".join(PAGE.splitlines()[: printed.line - 1]).rstrip()
        named = re.search(r"[Oo]n (PostgreSQL|SQLite|both)\b[^.]*:$", before)
        assert named is not None, printed
        if named[1].lower() in {filled.dialect, "both"}:
            run.append(named[1])
            with filled.transaction() as connection:
                connection.exec_driver_sql(printed.text)
    assert {"both", filled.dialect} == {each.lower() for each in run}
    if filled.dialect == "postgresql":
        with filled.transaction() as connection:
            connection.exec_driver_sql("set local role dashboard")
            assert connection.exec_driver_sql("select count(*) from apptoto_messages").scalar_one() > 1
        with filled.transaction() as connection:  # a role belongs to all databases of the server
            connection.exec_driver_sql("drop owned by dashboard")
            connection.exec_driver_sql("drop role dashboard")


def test_page_and_dbt_source_name_the_columns_of_the_view(database: StateDatabase) -> None:
    with database.transaction() as connection:
        columns = [column["name"] for column in inspect(connection).get_columns("apptoto_messages")]
    table = PAGE[PAGE.index("* - Column") : PAGE.index("``target``, ``account``")]
    documented = [name for line in re.findall(r"\* - (``.*``)", table) for name in re.findall(r"``(\w+)``", line)]
    source = (DOCS / "apptoto_sources.yml").read_text()
    assert documented == re.findall(r"^ +- name: (\w+)$", source, re.MULTILINE)[2:]
    assert sorted(documented) == sorted(columns)
