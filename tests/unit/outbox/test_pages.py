"""The outbox page reads the ledger page by page, only of some DAGs, and by an index."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import insert, text

from airflow_provider_apptoto.outbox.admin import Author, LedgerAdmin, Selection
from airflow_provider_apptoto.outbox.entry import State
from airflow_provider_apptoto.outbox.origin import Origin
from airflow_provider_apptoto.outbox.pages import Cursor, LedgerPages, Page, Search, queries
from airflow_provider_apptoto.outbox.schema import ledger
from airflow_provider_apptoto.outbox.stores.sql import values_of
from tests.support.entries import add, entry, filled

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from airflow_provider_apptoto.outbox.database import StateDatabase

ALL = Selection()
UNKNOWN = Selection(states=["unknown"])
DAG_IDS = ("clinic", "lab", "secret")
SIZE = 5_000
STATES = (*[State.SENT] * 95, State.UNKNOWN, State.REJECTED, State.NOT_SENT, State.REDIRECTED, State.SENDING)


def keys(page: Page) -> list[str]:
    return [record.entry.key for record in page.records]


def all_pages(pages: LedgerPages, limit: int, selection: Selection = ALL, **options: Any) -> list[list[str]]:
    found, after = [], None
    while True:
        page = pages.page(selection, after=after, limit=limit, **options)
        found.append(keys(page))
        if (after := page.after) is None:
            return found
        assert Cursor.parse(str(after)) == after


# --- what is found


def test_each_entry_is_on_one_page_and_the_newest_come_first(database: StateDatabase) -> None:
    for number, moment in enumerate([5.0, 3.1, 3.1, 3.1, 0.1 + 0.2, 9.0]):
        add(database, f"k{number}", updated_at=moment)
    pages = LedgerPages(database, ["clinic"])
    wanted = ["k5", "k0", "k1", "k2", "k3", "k4"]
    for limit in range(1, 7):
        assert all_pages(pages, limit) == [wanted[start : start + limit] for start in range(0, 6, limit)]


def test_an_empty_ledger_has_one_empty_page(database: StateDatabase) -> None:
    assert LedgerPages(database, ["clinic"]).page(ALL, limit=10) == Page()


def test_only_entries_of_given_dags_are_shown_whatever_else_is_asked_for(database: StateDatabase) -> None:
    for number, dag_id in enumerate(["clinic", "secret", "lab", "secret", ""]):
        add(database, f"{number}" * 32, dag_id, state=State.UNKNOWN, updated_at=float(number), recipient="r1")
    pages = LedgerPages(database, ["lab", "clinic", "nowhere"])
    everything = ["2" * 32, "0" * 32]
    for selection in (
        ALL,
        UNKNOWN,
        Selection(states=["sent", "unknown"]),
        Selection(run_id="monday"),
        Selection(task_id="remind"),
        Selection(reference="4711"),
        Selection(keys=[f"{number}" * 32 for number in range(5)]),
    ):
        assert all_pages(pages, 1, selection) == [[key] for key in everything]
    for search in (Search(reference="4711"), Search(reference="", recipients=["r1"])):
        assert all_pages(pages, 1, search=search) == [[key] for key in everything]
    for hidden in ("secret", ""):
        assert pages.page(Selection(dag_id=hidden), limit=9) == Page()
    assert keys(LedgerPages(database, []).page(ALL, limit=9)) == []


@pytest.mark.parametrize(
    ("selection", "count"),
    [
        ({}, 7),
        ({"dag_id": "clinic", "task_id": "remind", "run_id": "monday"}, 7),
        ({"dag_id": "clinic", "states": ["sent"]}, 1),
        ({"dag_id": "lab"}, 0),
        ({"task_id": "lab"}, 0),
        ({"run_id": "tuesday"}, 0),
        ({"reference": "4711", "states": ["unknown"]}, 2),
        ({"reference": "471"}, 0),
        ({"channel": "sms"}, 7),
        ({"channel": "email"}, 0),
        ({"states": ["sent", "rejected"]}, 2),
        ({"states": ["sending"]}, 2),
        ({"states": ["sending", "unknown"]}, 3),
        ({"states": ["unknown"]}, 2),
        ({"states": ["unknown"], "run_id": "monday"}, 2),
        ({"keys": ["5" * 32, "2" * 32]}, 2),
        ({"since": 4e9}, 0),
        ({"until": 4e9}, 7),
        ({"until": 1.0}, 0),
    ],
)
@pytest.mark.parametrize("others", [0, 1])
def test_entries_are_found_by_what_people_know_of_them(
    database: StateDatabase, selection: dict[str, Any], count: int, others: int
) -> None:
    """Another DAG in the ledger changes the query, but not its result."""
    filled(database)
    if others:
        add(database, "x", "other")
    assert len(LedgerPages(database, ["clinic", "lab"]).page(Selection(**selection), limit=99).records) == count


def test_a_search_finds_a_reference_or_a_recipient_and_no_entry_twice(database: StateDatabase) -> None:
    add(database, "k1", reference="6505550199", updated_at=1.0)
    add(database, "k2", recipient="r2", updated_at=2.0)
    add(database, "k3", reference="6505550199", recipient="r1", updated_at=3.0)
    add(database, "k4", updated_at=4.0)
    pages = LedgerPages(database, ["clinic"])
    search = Search(reference="6505550199", recipients=["r1", "r2"])
    assert all_pages(pages, 2, search=search) == [["k3", "k2"], ["k1"]]
    assert all_pages(pages, 9, Selection(until=3.0), search=search) == [["k2", "k1"]]
    assert all_pages(pages, 9, search=Search(reference="6505550199")) == [["k3", "k1"]]


def test_a_message_in_flight_is_no_open_case(database: StateDatabase) -> None:
    filled(database)
    assert keys(LedgerPages(database, ["clinic"]).page(UNKNOWN, limit=9)) == ["6" * 32, "5" * 32]


def test_an_entry_comes_with_its_changes(database: StateDatabase) -> None:
    filled(database)
    admin = LedgerAdmin(database)
    admin.resolve(admin.resolvable(UNKNOWN), State.SENT, Author(by="ann", note="seen"))
    page = LedgerPages(database, ["clinic"]).page(ALL, limit=2)
    assert [record.why for record in page.records] == ["ann: seen", "ann: seen"]


@pytest.mark.parametrize("given", ["", "1.0", "x~k1", "~"])
def test_what_is_no_cursor_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match=r"cursor|could not convert"):
        Cursor.parse(given)


# --- how it is found


@pytest.fixture
def large(database: StateDatabase) -> StateDatabase:
    """Provide a ledger with 5,000 entries, nearly all of one DAG and sent. SQLite has no statistics of it."""
    rows = []
    for number in range(SIZE):
        state = STATES[number % 100]
        dag_id = DAG_IDS[0] if number % 250 else DAG_IDS[1 + number // 250 % 2]
        origin = Origin(dag_id=dag_id, task_id="remind", run_id=f"run {number // 100}", map_index=-1, try_number=1)
        found = entry(
            origin,
            f"{number:032x}",
            state=state,
            lease=0.0,
            reference=f"{number // 2}",
            recipient=f"r{number // 3}",
            updated_at=1.7e9 + number,
        )
        rows.append(values_of(found))
    with database.transaction() as connection:
        connection.execute(insert(ledger), rows)
        if database.dialect == "postgresql":
            connection.execute(text("ANALYZE apptoto_ledger"))
    return database


def plan_of(connection: Connection, query: Any) -> list[str]:
    """Return the steps of a query's plan."""
    is_sqlite = connection.dialect.name == "sqlite"
    sql = query.limit(51).compile(connection, compile_kwargs={"literal_binds": True})
    prefix = "EXPLAIN QUERY PLAN" if is_sqlite else "EXPLAIN"
    rows = connection.exec_driver_sql(f"{prefix} {sql}".replace("%", "%%")).all()
    return [row[-1] for row in rows]


AFTER = Cursor(1.7e9 + SIZE * 3 / 4, "")
READABLE = (DAG_IDS, ("clinic", "lab"), ("lab",))
KEY, RECIPIENT, REFERENCE = "sqlite_autoindex_apptoto_ledger_1", "apptoto_ledger_recipient", "apptoto_ledger_reference"
RUN, STATE, DAG, NEWEST = (
    "apptoto_ledger_run",
    "apptoto_ledger_state",
    "apptoto_ledger_dag",
    "apptoto_ledger_updated_at",
)
ASKED: list[tuple[dict[str, Any], Search | None, set[str]]] = [
    ({}, None, {NEWEST}),
    ({"states": ["unknown"]}, None, {STATE}),
    ({"states": ["rejected", "not_sent"]}, None, {STATE}),
    ({"states": ["sent"]}, None, {STATE}),
    ({"dag_id": "lab"}, None, {DAG}),
    ({"dag_id": "lab", "states": ["sent"]}, None, {DAG}),
    ({"dag_id": "clinic", "states": ["rejected"]}, None, {STATE}),
    ({"run_id": "run 7"}, None, {RUN}),
    ({"dag_id": "clinic", "run_id": "run 7", "states": ["rejected"]}, None, {RUN}),
    ({"reference": "7", "dag_id": "clinic", "states": ["rejected"]}, None, {REFERENCE}),
    ({"since": 1.7e9 + SIZE / 2}, None, {NEWEST}),
    ({"until": 1.7e9 + SIZE / 2, "channel": "sms"}, None, {NEWEST}),
    ({"keys": [f"{number:032x}" for number in range(3)]}, None, {KEY}),
    ({}, Search(reference="7"), {REFERENCE}),
    ({"dag_id": "clinic"}, Search(reference="", recipients=["r7", "r8"]), {REFERENCE, RECIPIENT}),
]
"""Selections, and the indexes that lead to few other entries if every DAG may be read."""


def test_a_page_needs_neither_a_scan_of_the_table_nor_a_sort_of_it(large: StateDatabase) -> None:
    with large.transaction() as connection:
        for (given, search, indexes), readable, after in itertools.product(ASKED, READABLE, [None, AFTER]):
            selection = Selection(**given)
            dag_ids = {*readable} if selection.dag_id is None else {*readable} & {selection.dag_id}
            are_all = dag_ids == {*DAG_IDS}
            is_sqlite = large.dialect == "sqlite"
            found = queries(selection, search, after, dag_ids, are_all=are_all, is_sqlite=is_sqlite)
            plans = [plan_of(connection, query) for query in found]
            where = f"{selection} {search} {readable} {after}: {plans}"
            assert bool(plans) == bool(dag_ids)
            assert "Seq Scan" not in str(plans), where
            if is_sqlite and dag_ids:
                is_walk = not are_all and (indexes == {NEWEST} or selection.states == ["sent"])
                assert used(plans) == ({DAG} if is_walk else indexes), where
                is_sorted = "USE TEMP B-TREE FOR ORDER BY" in str(plans)
                assert is_sorted == bool(indexes & {RUN, REFERENCE, KEY}), where


def used(plans: list[list[str]]) -> set[str]:
    """Return the indexes that SQLite uses."""
    steps = [step for plan in plans for step in plan if step.startswith(("SCAN", "SEARCH"))]
    return {found[1] if (found := re.search(r"USING (?:COVERING )?INDEX (\w+)", step)) else step for step in steps}


def test_the_dags_of_the_ledger_are_found_without_reading_it(large: StateDatabase) -> None:
    from airflow_provider_apptoto.outbox import pages

    with large.transaction() as connection:
        assert sorted(connection.execute(pages._DAG_IDS).scalars()) == sorted(DAG_IDS)
        sql = str(pages._DAG_IDS.compile(connection, compile_kwargs={"literal_binds": True}))
        prefix = "EXPLAIN QUERY PLAN" if large.dialect == "sqlite" else "EXPLAIN"
        plan = [row[-1] for row in connection.exec_driver_sql(f"{prefix} {sql}")]
    assert not any("Seq Scan" in step or step == "SCAN apptoto_ledger" for step in plan), plan
