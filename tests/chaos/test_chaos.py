"""Tasks killed anywhere, a server that goes wrong anyhow: nobody gets a message twice, and nothing is lost unseen."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_apptoto.delivery import OnUnknown
from airflow_provider_apptoto.state.store import Entry, LedgerStore, LedgerStoreError, State
from tests.chaos.arms import HTTP_OPERATOR, LEDGERS, NAIVE, Arm
from tests.chaos.attempts import End
from tests.chaos.checker import Observed, broken, not_put_right
from tests.chaos.draws import ASSIGNED, Draws, Fault, LedgerFault, Point
from tests.chaos.driver import Played, workers
from tests.chaos.memory import SqlMemory, TaskStateMemory
from tests.chaos.people import origin_of
from tests.chaos.report import report, summary
from tests.chaos.run import Result, run_arm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SHORT = Draws(seed=20, assigned=True)


@pytest.fixture(scope="module")
def chaos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Arm], Result]]:
    """Give a function that runs an arm: short, but with every kill and every fault."""
    with workers() as pool:
        yield lambda arm: run_arm(arm, SHORT, ASSIGNED, tmp_path_factory.mktemp("chaos"), pool)


@pytest.mark.parametrize("arm", LEDGERS, ids=lambda arm: arm.name)
def test_a_ledger_keeps_its_promises_wherever_tasks_are_killed_and_however_the_server_fails(
    arm: Arm, chaos: Callable[[Arm], Result]
) -> None:
    result = chaos(arm)
    assert result.broken == []
    assert set(result.kills) == set(Point)
    assert set(result.faults) == set(Fault)
    assert set(result.ledger_faults) == set(LedgerFault)


def test_the_same_chaos_sends_twice_where_nothing_is_remembered(chaos: Callable[[Arm], Result]) -> None:
    naive = chaos(NAIVE).observed
    assert max(naive.copies.values()) > 1


def test_the_rules_of_http_operator_also_take_for_sent_what_was_not(chaos: Callable[[Arm], Result]) -> None:
    observed = chaos(HTTP_OPERATOR).observed
    assert max(observed.copies.values()) > 1
    assert [task for task in observed.tasks if task.succeeded and not observed.copies[task.person]]


class Forgetful:
    """A store that says it has written down that a message is on its way, and has not."""

    def __init__(self, store: LedgerStore) -> None:
        self._store = store

    def swap(self, old: Entry | None, new: Entry) -> bool:
        return new.state is State.SENDING or self._store.swap(old, new)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def test_a_store_that_forgets_what_is_on_its_way_is_found_out(chaos: Callable[[Arm], Result]) -> None:
    result = chaos(Arm(name="forgetful", memory=SqlMemory, wrap=Forgetful))
    assert any(" copies" in line for line in result.broken)
    assert any("by the ledger, and accepted" in line for line in result.broken)
    assert "BROKEN" in report([result])


SENT = Entry(key="0", state=State.SENT, fingerprint="f", type="sms", origin=origin_of(0, 1))
SUCCESS = Played(person=0, succeeded=True, ends=(End.SUCCESS,), killed_at=(), said="")
FAILED = Played(person=0, succeeded=False, ends=(End.FAILED,), killed_at=(), said="")
KILLED = Played(person=0, succeeded=False, ends=(End.KILLED,), killed_at=(Point.BEFORE_CLAIM,), said="")
RAISED = Played(person=0, succeeded=False, ends=(End.BROKEN,), killed_at=(), said="TypeError: oops")


def in_state(state: State) -> Entry:
    return dataclasses.replace(SENT, state=state)


@pytest.mark.parametrize(
    ("task", "copies", "entries"),
    [
        (SUCCESS, 1, [SENT]),
        (FAILED, 1, [SENT]),
        (FAILED, 1, [in_state(State.UNKNOWN)]),
        (FAILED, 0, [in_state(State.UNKNOWN)]),
        (FAILED, 1, [in_state(State.SENDING)]),
        (FAILED, 0, [in_state(State.REJECTED)]),
        (FAILED, 0, [in_state(State.CLAIMED)]),
        (KILLED, 0, []),
    ],
)
def test_what_may_be_is_let_pass(task: Played, copies: int, entries: list[Entry]) -> None:
    observed = Observed(tasks=[task], copies=Counter({0: copies}), entries=entries)
    assert broken(observed, OnUnknown.FAIL) == []


@pytest.mark.parametrize(
    ("task", "copies", "entries", "what"),
    [
        (SUCCESS, 2, [SENT], "2 copies"),
        (SUCCESS, 0, [SENT], "success, and not accepted"),
        (SUCCESS, 1, [in_state(State.UNKNOWN)], "success, and the ledger says unknown"),
        (FAILED, 0, [SENT], "sent by the ledger, and not accepted"),
        (FAILED, 1, [in_state(State.NOT_SENT)], "not_sent by the ledger, and accepted"),
        (FAILED, 1, [in_state(State.REJECTED)], "rejected by the ledger, and accepted"),
        (FAILED, 1, [in_state(State.CLAIMED)], "claimed by the ledger, and accepted"),
        (FAILED, 0, [], "0 entries"),
        (SUCCESS, 1, [SENT, SENT], "2 entries"),
        (KILLED, 1, [], "None by the ledger, and accepted"),
        (RAISED, 0, [in_state(State.NOT_SENT)], "TypeError: oops"),
    ],
)
def test_what_must_not_be_is_noticed(task: Played, copies: int, entries: list[Entry], what: str) -> None:
    observed = Observed(tasks=[task], copies=Counter({0: copies}), entries=entries)
    assert any(line.endswith(what) for line in broken(observed, OnUnknown.FAIL))


def test_an_entry_of_nobody_is_noticed() -> None:
    entries = [SENT, dataclasses.replace(SENT, origin=origin_of(7, 1))]
    observed = Observed(tasks=[SUCCESS], copies=Counter({0: 1}), entries=entries)
    assert broken(observed, OnUnknown.FAIL) == ["entries of nobody: [7]"]


def test_resending_may_send_twice_and_must_still_not_take_for_sent_what_was_not() -> None:
    twice = Observed(tasks=[SUCCESS], copies=Counter({0: 2}), entries=[SENT])
    assert broken(twice, OnUnknown.RESEND) == []
    never = Observed(tasks=[SUCCESS], copies=Counter(), entries=[SENT])
    assert len(broken(never, OnUnknown.RESEND)) == 2


@pytest.mark.parametrize(("task", "copies"), [(FAILED, 1), (SUCCESS, 0), (SUCCESS, 2)])
def test_whoever_does_not_have_one_copy_after_people_have_put_it_right_is_named(task: Played, copies: int) -> None:
    [line] = not_put_right(Observed(tasks=[task], copies=Counter({0: copies}), entries=[SENT]))
    assert line.startswith("person 0 ")


def test_the_table_tells_what_was_sent_from_what_was_said() -> None:
    tasks = [dataclasses.replace(task, person=person) for person, task in enumerate([SUCCESS, SUCCESS, FAILED, FAILED])]
    states = [State.SENT, State.SENT, State.UNKNOWN, State.NOT_SENT]
    entries = [dataclasses.replace(in_state(state), origin=origin_of(number, 1)) for number, state in enumerate(states)]
    observed = Observed(tasks=tasks, copies=Counter({0: 3, 2: 1}), entries=entries)
    assert summary(Result(arm=LEDGERS[0], observed=observed)) == {
        "arm": "state database, fail",
        "extra copies (people hit)": "2 (1)",
        "never delivered": "2",
        "successes (false)": "2 (1)",
        "flagged unknown (really sent)": "1 (1)",
        "failed (really sent)": "1 (0)",
        "promises": "kept",
    }


def test_a_seed_draws_the_same_again_and_another_one_something_else() -> None:
    def drawn(seed: int) -> list[Point | Fault | None]:
        draws = Draws(seed=seed)
        kills = [draws.kill(person, 1, tuple(Point)) for person in range(200)]
        return [*kills, *(draws.fault(person, 0) for person in range(200))]

    assert drawn(1) == drawn(1) != drawn(2)


def test_the_stand_in_for_airflows_task_state_refuses_a_try_that_is_not_the_newest(tmp_path: Path) -> None:
    memory = TaskStateMemory(tmp_path)
    first = memory.store(origin_of(0, 1))
    assert first.swap(None, in_state(State.CLAIMED))
    second = memory.store(origin_of(0, 2))
    with pytest.raises(LedgerStoreError, match="404"):
        first.swap(None, in_state(State.SENDING))
    assert not first.swap(in_state(State.CLAIMED), in_state(State.SENDING))
    assert second.swap(in_state(State.CLAIMED), SENT)
    assert memory.entries() == [SENT]
