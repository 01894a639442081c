"""A frozen try that resumes during or after the next try sends nothing twice."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING

import pytest

from airflow_provider_apptoto.outbox.admin import LedgerAdmin, Selection
from airflow_provider_apptoto.outbox.entry import Entry, State
from tests.chaos.batches import FIRST, Batch, sql_store, tries
from tests.chaos.draws import Halt, Point, Wake
from tests.chaos.memory import resolve
from tests.support.faults import FaultServer

if TYPE_CHECKING:
    from airflow_provider_apptoto.outbox.database import StateDatabase

BEFORE = Halt(point=Point.BEFORE_SENDING, wake=Wake.LAST)
AFTER = Halt(point=Point.AFTER_SENDING, wake=Wake.LAST)
BETWEEN = Halt(point=Point.AFTER_HEADERS, wake=Wake.LAST)


def entry_in(database: StateDatabase) -> Entry:
    [record] = LedgerAdmin(database).select(Selection())
    return record.entry


def batch_of(server: FaultServer, database: StateDatabase, number: int, halt: Halt | None = None) -> Batch:
    """Return a try that sends one message."""
    url = database._url.render_as_string(hide_password=False)
    origin = dataclasses.replace(FIRST, try_number=number)
    return Batch(url=server.url, open_store=functools.partial(sql_store, url), people=[0], origin=origin, halt=halt)


@pytest.mark.parametrize(
    ("halt", "successor", "sleeper"),
    [
        (BEFORE, "sent", "deduplicated"),
        (AFTER, "outcome_unknown", "sent"),  # the first lookup is too old, and the next one finds that no try sent it
        (BETWEEN, "outcome_unknown", "outcome_unknown"),
    ],
)
def test_a_try_that_wakes_after_its_successor_sends_only_what_that_one_did_not(
    database: StateDatabase, halt: Halt, successor: str, sleeper: str
) -> None:
    with FaultServer() as server, tries() as running:
        frozen = running.start(batch_of(server, database, 1, halt))
        frozen.wait_until_frozen()
        assert running.start(batch_of(server, database, 2)).outcomes() == {0: successor}
        frozen.wake()
        assert frozen.outcomes() == {0: sleeper}
    sent = "sent" in {successor, sleeper}
    assert len(server.accepted) == sent
    assert entry_in(database).state is (State.SENT if sent else State.UNKNOWN)


@pytest.mark.parametrize(("halt", "sleeper"), [(AFTER, "deduplicated"), (BETWEEN, "outcome_unknown")])
def test_a_try_that_wakes_after_a_person_had_the_message_sent_again_sends_nothing(
    database: StateDatabase, halt: Halt, sleeper: str
) -> None:
    with FaultServer() as server, tries() as running:
        frozen = running.start(batch_of(server, database, 1, halt))
        frozen.wait_until_frozen()
        assert running.start(batch_of(server, database, 2)).outcomes() == {0: "outcome_unknown"}
        resolve(database, entry_in(database), State.NOT_SENT)
        assert running.start(batch_of(server, database, 3)).outcomes() == {0: "sent"}
        frozen.wake()
        assert frozen.outcomes() == {0: sleeper}
    assert len(server.accepted) == 1
    left = entry_in(database)
    assert (left.state, left.origin.try_number) == (State.SENT, 3)
