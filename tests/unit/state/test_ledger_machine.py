"""Two workers, one message, and whatever may come between them: no interleaving sends it twice."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from enum import Enum

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from airflow_provider_apptoto.state import ledger, store
from airflow_provider_apptoto.state.ledger import Claim, LedgerTiming, TakenOverError, claim
from airflow_provider_apptoto.state.store import Entry, Origin, State
from tests.support.clock import Clock

WORKERS = st.sampled_from([0, 1])


class MemoryStore:
    """The ledger's store, as simple as it gets; the real ones are tested in test_stores.py."""

    spans_tasks = True

    def __init__(self) -> None:
        self.entry: Entry | None = None

    def hash_keys(self) -> list[bytes]:
        return [b"salt"]

    def find(self, key: str) -> Entry | None:
        assert key == "key"
        return self.entry

    def swap(self, old: Entry | None, new: Entry) -> bool:
        if self.entry != old:
            return False
        self.entry = new
        return True

    def unresolved(self) -> int | None:
        return None

    def how_to_resolve(self, key: str) -> str:
        return key


class Stage(Enum):
    """How far a worker has come."""

    IDLE = 1
    CLAIMED = 2
    SENDING = 3
    """The ledger says ``sending``; the request has not arrived."""
    ARRIVED = 4


@dataclass
class Worker:
    stage: Stage = Stage.IDLE
    claim: Claim | None = None
    accepted: bool = False


class OneMessage(RuleBasedStateMachine):
    """A worker that is not stepped on is frozen; one that is dropped was killed; a new start is a retry or a clear."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.clock = Clock()
        for module in (ledger, store):
            self.patch.setattr(module, "time", self.clock)
        self.store = MemoryStore()
        self.workers = [Worker(), Worker()]
        self.tries = itertools.count(1)
        self.copies = 0

    def teardown(self) -> None:
        self.patch.undo()

    @initialize(same_task=st.booleans())
    def tasks(self, *, same_task: bool) -> None:
        self.task_ids = ["a", "a" if same_task else "b"]

    @rule(number=WORKERS)
    def starts(self, number: int) -> None:
        worker = self.workers[number]
        if worker.stage is not Stage.IDLE:
            return
        origin = Origin(
            dag_id="d", task_id=self.task_ids[number], run_id="r", map_index=-1, try_number=next(self.tries)
        )
        new = Entry(
            key="key", state=State.CLAIMED, fingerprint="f", type="sms", origin=origin, lease=150.0, updated_at=self.now
        )
        found = claim(self.store, new, resend=False, before_claim=lambda _: None, timing=LedgerTiming())
        if isinstance(found, Claim):
            self.workers[number] = Worker(Stage.CLAIMED, found)
        elif found.state is State.SENT:
            assert self.copies == 1
        else:
            assert found.may_be_sent

    @rule(number=WORKERS)
    def is_about_to_write(self, number: int) -> None:
        worker = self.workers[number]
        if worker.stage is Stage.CLAIMED and worker.claim:
            try:
                worker.claim.sending(120)
            except TakenOverError:
                self.workers[number] = Worker()
            else:
                worker.stage = Stage.SENDING

    @rule(number=WORKERS, accepted=st.booleans())
    def request_arrives(self, number: int, *, accepted: bool) -> None:
        worker = self.workers[number]
        if worker.stage is Stage.SENDING:
            worker.stage, worker.accepted = Stage.ARRIVED, accepted
            self.copies += accepted

    @rule(number=WORKERS, is_clear=st.booleans(), is_rejected=st.booleans())
    def answer_arrives(self, number: int, *, is_clear: bool, is_rejected: bool) -> None:
        worker = self.workers[number]
        if worker.stage is Stage.ARRIVED and worker.claim:
            refused = State.REJECTED if is_rejected else State.NOT_SENT
            truth = State.SENT if worker.accepted else refused
            worker.claim.record(truth if is_clear else State.UNKNOWN)
            self.workers[number] = Worker()

    @rule(number=WORKERS)
    def is_killed(self, number: int) -> None:
        self.workers[number] = Worker()

    @rule(seconds=st.sampled_from([1.0, 100.0, 1000.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @precondition(lambda self: not self.in_flight)
    @rule()
    def person_resolves_by_truth(self) -> None:
        entry = self.store.entry
        if entry is not None and entry.is_unresolved:
            self.store.entry = entry.changed(State.SENT if self.copies else State.NOT_SENT, in_doubt=False)

    @property
    def now(self) -> float:
        return self.clock.now

    @property
    def in_flight(self) -> bool:
        return any(worker.stage is Stage.SENDING for worker in self.workers)

    @invariant()
    def never_twice(self) -> None:
        assert self.copies <= 1

    @invariant()
    def the_ledger_tells_no_lie(self) -> None:
        entry = self.store.entry
        if entry is None or entry.state is State.CLAIMED:
            assert self.copies == 0
        elif entry.state is State.SENT:
            assert self.copies == 1
        elif entry.state in {State.NOT_SENT, State.REJECTED}:
            assert self.copies == 0


TestOneMessage = OneMessage.TestCase
TestOneMessage.settings = settings(max_examples=300, stateful_step_count=40)
