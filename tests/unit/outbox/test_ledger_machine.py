"""With several tries of one message, no order of events sends it twice, and no try overwrites another one's record.

Time passes only through its own event, so a worker that gets no step is frozen meanwhile. Two things are assumed,
because no program can observe them:

* A process does not freeze between its last check of the lease and its first byte (``_write`` does both). If it froze
  for longer than the lease, it would write that byte although another try may have sent meanwhile.
* A request reaches the server within the time that an exchange may take, or never, and a person who resolves an
  unknown message does not check before that.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
from dataclasses import dataclass, field
from enum import Enum

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from airflow_provider_apptoto.outbox import entry as entry_module
from airflow_provider_apptoto.outbox import ledger
from airflow_provider_apptoto.outbox.entry import DELIVERED, Entry, State
from airflow_provider_apptoto.outbox.ledger import Attempt, LeaseSpentError, LedgerTiming, LostError, look_up
from airflow_provider_apptoto.outbox.stores.base import LedgerAwayError
from tests.support.clock import Clock
from tests.support.entries import FIRST, entry
from tests.support.memory_store import MemoryStore

TOTAL_TIMEOUT = 120.0
TIMING = LedgerTiming(margin=30.0, record_retries=(0.0,))


class Event(Enum):
    """The possible next events."""

    GOES_ON = "a try takes its next step"
    GOES_ON_TO_ITS_END = "a try takes all steps that are left"
    IS_KILLED = "a try is killed"
    IS_STOPPED = "a try is stopped before its first byte"
    GETS_NO_ANSWER = "a try gets no answer"
    IS_REFUSED_AT_FIRST = "a try is told to come later, and does"
    NEXT_WRITE_GETS_NO_ANSWER = "the answer to the next write gets lost"
    REQUESTS_ARRIVE = "what is in flight arrives"
    LESS_THAN_THE_MARGIN_PASSES = "less than the margin passes"
    MORE_THAN_THE_MARGIN_PASSES = "more than the margin passes, and less than the lease"
    LEASE_ENDS = "the lease ends"
    PERSON_RESOLVES = "a person resolves it by what is in Apptoto"


LASTS = {
    Event.LESS_THAN_THE_MARGIN_PASSES: 28.0,
    Event.MORE_THAN_THE_MARGIN_PASSES: 121.0,
    Event.LEASE_ENDS: 151.0,
}
"""Seconds."""


class Stage(Enum):
    """The progress of a worker."""

    IDLE = 1
    MAY_BEGIN = 2
    BEGUN = 3
    """The ledger says ``sending``; no byte was sent."""
    WRITTEN = 4


@dataclass(eq=False)
class Request:
    """A request whose first byte was written.

    :param due: when it has reached the server, or never will.
    :param accepted: whether the server took the message; ``None``: it has not arrived.
    """

    due: float
    accepted: bool | None = None


@dataclass
class Worker:
    """A process that works on one try of a task."""

    task_id: str
    stage: Stage = Stage.IDLE
    own: set[str] = field(default_factory=set)
    attempt: Attempt | None = None
    request: Request | None = None

    @property
    def running(self) -> Attempt:
        assert self.attempt is not None
        return self.attempt

    def end(self) -> None:
        """Start another try, which knows nothing about this one."""
        self.stage, self.own, self.attempt, self.request = Stage.IDLE, set(), None, None


class _WaitsError(Exception):
    pass


def wait(_: float) -> None:
    """End this step, so that other workers can act, and look again in a later step."""
    raise _WaitsError


class WatchedStore(MemoryStore):
    """Detects a try that overwrites another one's record."""

    def compare_and_swap(self, old: Entry | None, new: Entry) -> bool:
        current = self.entries.get(new.key)
        try:
            return super().compare_and_swap(old, new)
        finally:
            self.lost_answers = []
            if current is not None and current is not new and self.entries[new.key] is new:
                assert current.state not in DELIVERED
                if new.state is not State.SENDING:
                    assert (current.state, current.origin) == (State.SENDING, new.origin)


class World:
    """A message, the ledger, the server, a person, and two workers whose tries follow each other or overlap.

    :param resend: whether the tasks have ``on_unknown="resend"``.
    :param is_same_task: else they are two that share an idempotency key.
    :param steps: that the first try has taken at the beginning.
    """

    def __init__(self, *, resend: bool, is_same_task: bool, steps: int) -> None:
        self._patch = pytest.MonkeyPatch()
        self._clock = Clock()
        for module in (ledger, entry_module):
            self._patch.setattr(module, "time", self._clock)
        self._patch.setattr(ledger.log, "disabled", True)
        self._resend = resend
        self._store = WatchedStore()
        self._requests: list[Request] = []
        self._tries = itertools.count(1)
        self._workers = [Worker("remind"), Worker("remind" if is_same_task else "remind_again")]
        for _ in range(steps):
            self._take_a_step(self._workers[0])

    def end(self) -> None:
        self._patch.undo()

    def happens(self, event: Event, number: int, *, accepted: bool) -> None:
        """Run one event, if it is possible.

        :param number: of the worker.
        :param accepted: whether the server takes a message that arrives meanwhile.
        """
        worker = self._workers[number]
        if event is Event.GOES_ON:
            self._take_a_step(worker)
        elif event is Event.GOES_ON_TO_ITS_END:
            self._take_all_steps(worker, accepted=accepted)
        elif event is Event.IS_KILLED:
            worker.end()
        elif event is Event.IS_STOPPED and worker.stage is Stage.BEGUN:
            self._record(worker, State.NOT_SENT)
        elif event is Event.GETS_NO_ANSWER and worker.request is not None:
            self._record(worker, State.UNKNOWN)
        elif event is Event.IS_REFUSED_AT_FIRST and worker.request is not None and not worker.request.accepted:
            worker.request.accepted = False
            self._begin(worker)
        elif event is Event.NEXT_WRITE_GETS_NO_ANSWER:
            self._store.lost_answers = [*State]
        elif event is Event.REQUESTS_ARRIVE:
            for request in self._in_flight:
                request.accepted = accepted
        elif event in LASTS:
            self._wait(LASTS[event], accepted=accepted)
        elif event is Event.PERSON_RESOLVES:
            self._resolve(accepted=accepted)

    def check(self) -> None:
        """Check the invariants."""
        if not self._resend:
            assert self._copies <= 1
        for found in self._store.entries.values():
            if found.state in {State.NOT_SENT, State.REJECTED}:
                assert self._copies == 0
            elif found.state is State.SENT:
                assert self._copies > 0
        if not self._store.entries:
            assert not self._requests

    @property
    def _in_flight(self) -> list[Request]:
        return [request for request in self._requests if request.accepted is None]

    @property
    def _copies(self) -> int:
        return sum(bool(request.accepted) for request in self._requests)

    # --- what a try does

    def _take_all_steps(self, worker: Worker, *, accepted: bool) -> None:
        self._take_a_step(worker)
        while worker.stage is not Stage.IDLE:
            if worker.request is not None and worker.request.accepted is None:
                worker.request.accepted = accepted
            self._take_a_step(worker)

    def _take_a_step(self, worker: Worker) -> None:
        if worker.stage is Stage.IDLE:
            self._look_up(worker)
        elif worker.stage is Stage.MAY_BEGIN:
            self._begin(worker)
        elif worker.stage is Stage.BEGUN:
            self._write(worker)
        elif worker.request is not None and worker.request.accepted is not None:
            self._record(worker, State.SENT if worker.request.accepted else State.REJECTED)

    def _look_up(self, worker: Worker) -> None:
        origin = dataclasses.replace(FIRST, task_id=worker.task_id, try_number=next(self._tries))
        try:
            found = look_up(self._store, entry(origin), resend=self._resend, sleep=wait, timing=TIMING, own=worker.own)
        except _WaitsError:
            return
        if isinstance(found, Attempt):
            worker.stage, worker.attempt = Stage.MAY_BEGIN, found
        else:
            assert found.state in DELIVERED or (found.is_unresolved and not self._resend)
            worker.end()

    def _begin(self, worker: Worker) -> None:
        worker.request = None
        try:
            worker.running.begin(TOTAL_TIMEOUT)
        except (LostError, LedgerAwayError):  # the same try looks again
            worker.stage = Stage.IDLE
        else:
            worker.stage = Stage.BEGUN

    def _write(self, worker: Worker) -> None:
        try:
            worker.running.check_lease()
        except LeaseSpentError:
            worker.running.record(State.NOT_SENT)
            worker.stage = Stage.IDLE
        else:
            worker.stage, worker.request = Stage.WRITTEN, Request(self._clock.now + TOTAL_TIMEOUT)
            self._requests.append(worker.request)

    def _record(self, worker: Worker, state: State) -> None:
        worker.running.record(state)
        worker.end()

    # --- what others do

    def _wait(self, seconds: float, *, accepted: bool) -> None:
        self._clock.now += seconds
        for request in self._in_flight:
            if request.due <= self._clock.now:
                request.accepted = accepted

    def _resolve(self, *, accepted: bool) -> None:
        """Act as a person who checks in Apptoto after the lease has ended, and resolves the entry."""
        for key, found in self._store.entries.items():
            if found.may_be_sent:
                self._wait(
                    TOTAL_TIMEOUT if found.state is State.UNKNOWN else found.remaining + 0.001, accepted=accepted
                )
                state = State.SENT if self._copies else State.NOT_SENT
                self._store.entries[key] = found.changed(state, in_doubt=False)


@pytest.mark.parametrize("resend", [False, True])
def test_no_order_of_events_breaks_a_promise(resend: bool) -> None:
    """Try many orders. Hypothesis takes far longer for each, but shrinks a failing one."""
    draw = random.Random(1)  # noqa: S311  the same orders each time
    for _ in range(4000):
        world = World(resend=resend, is_same_task=draw.random() < 0.5, steps=draw.randrange(4))
        happened: list[tuple[Event, int, bool]] = []
        try:
            for _ in range(16):
                event, number, accepted = draw.choice([*Event]), draw.randrange(2), draw.random() < 0.5
                happened.append((event, number, accepted))
                world.happens(event, number, accepted=accepted)
                world.check()
        except AssertionError as error:
            error.add_note(str(happened))
            raise
        finally:
            world.end()


class OneMessage(RuleBasedStateMachine):
    """The same, one order at a time. It has one rule, because Hypothesis leaves some rules out of most examples."""

    resend = False
    world: World | None = None

    @initialize(is_same_task=st.booleans(), steps=st.integers(0, 3))
    def begins(self, *, is_same_task: bool, steps: int) -> None:
        self.world = World(resend=self.resend, is_same_task=is_same_task, steps=steps)

    def teardown(self) -> None:
        if self.world is not None:
            self.world.end()

    @rule(event=st.sampled_from(Event), number=st.sampled_from([0, 1]), accepted=st.booleans())
    def happens(self, event: Event, number: int, *, accepted: bool) -> None:
        assert self.world is not None
        self.world.happens(event, number, accepted=accepted)

    @invariant()
    def keeps_its_promises(self) -> None:
        if self.world is not None:
            self.world.check()


class OneMessageWithResend(OneMessage):
    """The same with ``on_unknown="resend"``: copies are allowed, but the ledger must be correct."""

    resend = True


TestOneMessage = OneMessage.TestCase
TestOneMessageWithResend = OneMessageWithResend.TestCase
TestOneMessage.settings = TestOneMessageWithResend.settings = settings(max_examples=100, stateful_step_count=20)
