"""If tries of a batch are killed and frozen while its threads send, everybody gets one copy or is reported."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from typing import TYPE_CHECKING

from airflow_provider_apptoto.outbox.admin import LedgerAdmin, Selection
from airflow_provider_apptoto.outbox.entry import Entry, State
from tests.chaos.batches import FIRST, Batch, sql_store, tries
from tests.chaos.draws import FREEZES, Halt, Point, Wake
from tests.chaos.memory import resolve
from tests.support.faults import FaultServer
from tests.support.people import person_of

if TYPE_CHECKING:
    from airflow_provider_apptoto.outbox.database import StateDatabase

PEOPLE = range(240)
UNKNOWN = "outcome_unknown"
_STEP = 11
"""Messages that a killed try sends at most, those that it leaves in flight included."""


def passing(point: Point) -> int:
    """Return when a try is halted at a point; a batch looks up all its messages at once."""
    return 1 if point in {Point.BEFORE_LOOK_UP, Point.AFTER_LOOK_UP} else 3


def entries_in(database: StateDatabase) -> list[Entry]:
    return [record.entry for record in LedgerAdmin(database).select(Selection())]


def copies(server: FaultServer) -> Counter[int]:
    return Counter(person_of(request.json["to"]) for request in server.accepted)


def test_a_batch_that_is_killed_and_frozen_over_and_over_sends_to_everybody_once(database: StateDatabase) -> None:
    url = database._url.render_as_string(hide_password=False)
    with FaultServer() as server, tries() as running:

        def batch(halt: Halt | None = None, threads: int = 8) -> Batch:
            done = _STEP * len(running.started)
            return Batch(
                url=server.url,
                open_store=functools.partial(sql_store, url),
                people=[*PEOPLE[done:], *PEOPLE[:done]],  # the messages in doubt come last
                origin=dataclasses.replace(FIRST, try_number=len(running.started) + 1),
                threads=threads,
                halt=halt,
            )

        for point in Point:
            running.start(batch(Halt(point=point, passing=passing(point)))).wait_until_killed()
        halts = [Halt(point=point, passing=passing(point), wake=Wake.LAST) for point in FREEZES]
        # one thread: another one could freeze right before its first byte, or while it holds a database lock
        frozen = [running.start(batch(halt, threads=1)) for halt in halts]
        for each in frozen:
            each.wait_until_frozen()

        told = running.start(batch()).outcomes()
        assert told.keys() == set(PEOPLE)
        assert set(told.values()) == {"sent", "deduplicated", UNKNOWN}
        got = copies(server)
        assert max(got.values()) == 1
        assert got.keys() >= {person for person, outcome in told.items() if outcome != UNKNOWN}

        for entry in entries_in(database):
            if entry.is_unresolved:
                resolve(database, entry, State.SENT if got[int(entry.reference or "")] else State.NOT_SENT)
        assert set(running.start(batch()).outcomes().values()) == {"sent", "deduplicated"}
        assert copies(server) == Counter(PEOPLE)
        for each in frozen:
            each.wake()
        for each in frozen:
            each.outcomes()
    assert copies(server) == Counter(PEOPLE)
    assert {entry.state for entry in entries_in(database)} == {State.SENT}
