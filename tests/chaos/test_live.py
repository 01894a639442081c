"""If two tries of one task run at the same time, everybody gets one copy, and no record is overwritten."""

from __future__ import annotations

import dataclasses
import functools
import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from sqlalchemy.engine import make_url

from airflow_provider_apptoto.outbox.admin import LedgerAdmin, Selection
from airflow_provider_apptoto.outbox.database import StateDatabase
from airflow_provider_apptoto.outbox.entry import State
from airflow_provider_apptoto.outbox.ledger import LedgerTiming
from airflow_provider_apptoto.outbox.rate_limit import SqlRateLimiter
from tests.chaos.attempts import DEADLINE
from tests.chaos.batches import FIRST, Batch, sql_store, task_state_store, tries, try_of
from tests.chaos.driver import processes
from tests.support.faults import FaultServer
from tests.support.people import person_of

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_apptoto.client import RateLimiter

PATIENT = LedgerTiming(poll=0.02)
"""Long leases, which no test waits for: a try that does not wait for the other reports the message as unknown."""
SECOND = dataclasses.replace(FIRST, try_number=2)


def url_of(database: StateDatabase) -> str:
    return database._url.render_as_string(hide_password=False)


def shared_limiter(url: str) -> RateLimiter:
    return SqlRateLimiter(StateDatabase(make_url(url)), ("https://clinic.example/v1", "mary"), 3000)


def senders(server: FaultServer) -> dict[int, int]:
    """Return which try sent to each person; nobody got two."""
    found = [(person_of(request.json["to"]), try_of(request.json["message"])) for request in server.accepted]
    assert max(Counter(person for person, _ in found).values()) == 1
    return dict(found)


@pytest.mark.parametrize("order", ["the same order", "another order"])
def test_two_live_tries_of_a_batch_send_each_message_once_and_both_end(database: StateDatabase, order: str) -> None:
    people = list(range(60))
    url = url_of(database)
    batch = Batch(
        url="",
        open_store=functools.partial(sql_store, url),
        people=people,
        threads=8,
        timing=PATIENT,
        timeout=30.0,
        barrier=processes().Barrier(2),
        waits_before=[0],
        open_limiter=functools.partial(shared_limiter, url),
    )
    other = people if order == "the same order" else random.Random(1).sample(people, len(people))  # noqa: S311
    with FaultServer() as server, tries() as running:
        first = running.start(dataclasses.replace(batch, url=server.url))
        second = running.start(dataclasses.replace(batch, url=server.url, origin=SECOND, people=other))
        outcomes = {1: first.outcomes(), 2: second.outcomes()}
    sent_by = senders(server)
    assert len(server.requests) == len(people)
    assert sent_by.keys() == set(people)
    for number, found in outcomes.items():
        expected = {person: "sent" if by == number else "deduplicated" for person, by in sent_by.items()}
        assert found == expected
    entries = [record.entry for record in LedgerAdmin(database).select(Selection())]
    assert {entry.state for entry in entries} == {State.SENT}
    assert Counter(entry.origin.try_number for entry in entries) == Counter(sent_by.values())


@pytest.mark.parametrize("of", ["one task", "two DAGs with one idempotency_key"])
def test_two_that_begin_each_message_at_the_same_moment_send_it_once(database: StateDatabase, of: str) -> None:
    people = range(60)
    second = SECOND if of == "one task" else dataclasses.replace(SECOND, dag_id="another")
    batch = Batch(
        url="",
        open_store=functools.partial(sql_store, url_of(database)),
        people=people,
        idempotency_key=None if of == "one task" else "visit",
        timing=PATIENT,
        timeout=30.0,
        barrier=processes().Barrier(2),
        waits_before=people,
    )
    with FaultServer() as server, tries() as running:
        running.start(dataclasses.replace(batch, url=server.url))
        running.start(dataclasses.replace(batch, url=server.url, origin=second))
        outcomes = [each.outcomes() for each in running.started]
    assert senders(server).keys() == set(people)
    assert len(server.requests) == len(people)
    assert {tuple(sorted(found[person] for found in outcomes)) for person in people} == {("deduplicated", "sent")}


def test_an_older_live_try_stops_sending_once_airflow_has_started_a_newer_one(tmp_path: Path) -> None:
    people, before = range(20), 5
    barrier = processes().Barrier(2)
    batch = Batch(
        url="",
        open_store=functools.partial(task_state_store, tmp_path),
        people=people,
        timing=PATIENT,
        timeout=30.0,
        barrier=barrier,
    )
    with FaultServer() as server, tries() as running:
        older = running.start(dataclasses.replace(batch, url=server.url, waits_before=[before, before]))
        barrier.wait(DEADLINE)  # it has sent some
        newer = running.start(dataclasses.replace(batch, url=server.url, origin=SECOND, waits_before=[0]))
        told_older, told_newer = older.outcomes(), newer.outcomes()
    assert senders(server) == {person: 1 if person < before else 2 for person in people}
    assert told_older == {person: "sent" if person < before else "ledger_unusable" for person in people}
    assert told_newer == {person: "deduplicated" if person < before else "sent" for person in people}
