"""If tries are killed or frozen anywhere or run at the same time, and the server fails, nobody gets a message twice."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING, Any, cast

import pytest

from airflow_provider_apptoto.outbox.entry import Entry, State
from airflow_provider_apptoto.outbox.ledger import Attempt
from airflow_provider_apptoto.outbox.policy import OnUnknown
from airflow_provider_apptoto.outbox.stores.base import LedgerStore, LedgerStoreError
from tests.chaos.arms import APPOINTMENTS, HTTP_OPERATOR, LEDGERS, NAIVE, Arm
from tests.chaos.draws import ASSIGNED, FREEZES, FROZEN, Draws, Fault, Halt, LedgerFault, Point
from tests.chaos.driver import workers
from tests.chaos.memory import SqlMemory, TaskStateMemory
from tests.chaos.report import report, summary
from tests.chaos.run import Result, run_arm
from tests.support.people import origin_of
from tests.support.promises import End, Observed, Played, broken, not_put_right, undone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SHORT = Draws(seed=20, assigned=True)


@pytest.fixture(scope="module")
def chaos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Arm, int], Result]]:
    """Provide a function that runs an arm: short, but with every kill, freeze and fault."""
    with workers() as pool:
        yield lambda arm, sends: run_arm(arm, SHORT, sends, tmp_path_factory.mktemp("chaos"), pool)


@pytest.mark.parametrize("arm", LEDGERS, ids=lambda arm: arm.name)
def test_a_ledger_keeps_its_promises_wherever_tries_are_killed_or_frozen_and_however_the_server_fails(
    arm: Arm, chaos: Callable[[Arm, int], Result]
) -> None:
    result = chaos(arm, ASSIGNED)
    assert result.broken == []
    assert set(result.kills) == set(Point)
    assert set(result.freezes) == set(FREEZES)
    assert result.live > 0
    assert set(result.faults) == set(Fault)
    assert set(result.ledger_faults) == set(LedgerFault)


def test_conversations_settle_what_was_sent_and_leave_to_a_person_what_was_not(
    chaos: Callable[[Arm, int], Result],
) -> None:
    result = chaos(APPOINTMENTS, ASSIGNED)
    assert result.broken == []
    assert result.unresolved is not None
    before, after = result.unresolved
    assert 0 < after < before


def test_the_same_chaos_sends_twice_if_nothing_is_remembered(chaos: Callable[[Arm, int], Result]) -> None:
    naive = chaos(NAIVE, ASSIGNED).observed
    assert max(naive.copies.values()) > 1


def test_the_rules_of_http_operator_also_report_as_sent_what_was_not(chaos: Callable[[Arm, int], Result]) -> None:
    observed = chaos(HTTP_OPERATOR, ASSIGNED).observed
    assert max(observed.copies.values()) > 1
    assert [task for task in observed.tasks if task.succeeded and not observed.copies[task.person]]


class Forgetful:
    """A store that reports that it wrote ``sending``, but did not."""

    def __init__(self, store: LedgerStore) -> None:
        self._store = store

    def compare_and_swap(self, old: Entry | None, new: Entry) -> bool:
        return new.state is State.SENDING or self._store.compare_and_swap(old, new)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class Overwriting(Forgetful):
    """A store that swaps without comparing: the last write wins."""

    def compare_and_swap(self, _old: Entry | None, new: Entry) -> bool:
        return self._store.compare_and_swap(self._store.find([new.key]).get(new.key), new)


def without_check_of_the_lease(store: LedgerStore) -> LedgerStore:
    """Let the tries of this process send, however long the write took."""

    def let_pass(_: Attempt) -> None:
        pass

    Attempt.check_lease = let_pass  # type: ignore[method-assign,assignment]
    return store


def test_a_store_that_forgets_what_is_on_its_way_is_found_out(chaos: Callable[[Arm, int], Result]) -> None:
    result = chaos(Arm(name="forgetful", memory=SqlMemory, wrap=cast("Any", Forgetful)), FROZEN)
    assert any(" copies" in line for line in result.broken)
    assert any("by the ledger, and accepted" in line for line in result.broken)
    assert "BROKEN" in report([result])


@pytest.mark.parametrize("wrap", [Overwriting, without_check_of_the_lease])
def test_a_ledger_that_lets_a_frozen_try_send_beside_its_successor_is_found_out(
    wrap: Callable[[LedgerStore], LedgerStore], chaos: Callable[[Arm, int], Result]
) -> None:
    result = chaos(Arm(name=wrap.__name__, memory=SqlMemory, wrap=wrap), FROZEN)
    assert any("woken: 1 more copies" in line for line in result.broken)


SENT = Entry(key="0", state=State.SENT, fingerprint="f", channel="sms", origin=origin_of(0, 1))
SUCCESS = Played(person=0, succeeded=True, ends=(End.SUCCESS,), killed_at=(), said="")
FAILED = Played(person=0, succeeded=False, ends=(End.FAILED,), killed_at=(), said="")
KILLED = Played(person=0, succeeded=False, ends=(End.KILLED,), killed_at=(Point.AFTER_SLOT,), said="", silent=1)
WROTE = dataclasses.replace(KILLED, killed_at=(Point.AFTER_SENDING,), silent=0)
RAISED = Played(person=0, succeeded=False, ends=(End.BROKEN,), killed_at=(), said="TypeError: oops")


def woken(end: End, said: str = "") -> Played:
    return dataclasses.replace(FAILED, ends=(End.FROZEN, End.FAILED), woken=((end, said),))


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
        (FAILED, 0, [in_state(State.NOT_SENT)]),
        (KILLED, 0, []),
        (woken(End.SUCCESS), 1, [SENT]),
        (woken(End.RETRYABLE), 0, [in_state(State.SENDING)]),
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
        (FAILED, 0, [], "0 entries"),
        (WROTE, 0, [], "0 entries"),
        (SUCCESS, 1, [SENT, SENT], "2 entries"),
        (KILLED, 1, [], "None by the ledger, and accepted"),
        (RAISED, 0, [in_state(State.NOT_SENT)], "TypeError: oops"),
        (woken(End.SUCCESS), 0, [in_state(State.NOT_SENT)], "woken, success with 0 copies: "),
        (woken(End.BROKEN, "oops"), 1, [SENT], "woken, broken with 1 copies: oops"),
    ],
)
def test_what_must_not_be_is_noticed(task: Played, copies: int, entries: list[Entry], what: str) -> None:
    observed = Observed(tasks=[task], copies=Counter({0: copies}), entries=entries)
    assert any(line.endswith(what) for line in broken(observed, OnUnknown.FAIL))


def test_an_entry_of_nobody_is_noticed() -> None:
    entries = [SENT, dataclasses.replace(SENT, origin=origin_of(7, 1))]
    observed = Observed(tasks=[SUCCESS], copies=Counter({0: 1}), entries=entries)
    assert broken(observed, OnUnknown.FAIL) == ["entries of nobody: [7]"]


def test_resending_may_send_twice_and_must_still_not_report_as_sent_what_was_not() -> None:
    twice = Observed(tasks=[SUCCESS], copies=Counter({0: 2}), entries=[SENT])
    assert broken(twice, OnUnknown.RESEND) == []
    never = Observed(tasks=[SUCCESS], copies=Counter(), entries=[SENT])
    assert len(broken(never, OnUnknown.RESEND)) == 2


@pytest.mark.parametrize(("task", "copies"), [(FAILED, 1), (SUCCESS, 0), (SUCCESS, 2)])
def test_everybody_without_exactly_one_copy_after_people_have_resolved_it_is_named(task: Played, copies: int) -> None:
    [line] = not_put_right(Observed(tasks=[task], copies=Counter({0: copies}), entries=[SENT]))
    assert line.startswith("person 0 ")


@pytest.mark.parametrize(
    ("copies", "entries"),
    [(2, [SENT]), (1, []), (1, [in_state(State.NOT_SENT)]), (1, [dataclasses.replace(SENT, version="another")])],
)
def test_a_frozen_try_that_changes_anything_about_a_message_that_was_sent_is_noticed(
    copies: int, entries: list[Entry]
) -> None:
    before = Observed(tasks=[SUCCESS], copies=Counter({0: 1}), entries=[SENT])
    assert undone(before, before) == []
    [line] = undone(before, Observed(tasks=[SUCCESS], copies=Counter({0: copies}), entries=entries))
    assert f"woken: {copies - 1} more copies" in line


def test_a_frozen_try_may_send_what_was_not_sent() -> None:
    before = Observed(tasks=[FAILED], copies=Counter(), entries=[in_state(State.NOT_SENT)])
    after = Observed(tasks=[FAILED], copies=Counter({0: 1}), entries=[SENT])
    assert undone(before, after) == []


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
        "left to a person: before, after a clear": "-",
        "failed (really sent)": "1 (0)",
        "promises": "kept",
    }


def test_a_seed_draws_the_same_again_and_another_one_something_else() -> None:
    def drawn(seed: int) -> list[Halt | Fault | bool | None]:
        draws = Draws(seed=seed)
        people = range(200)
        halts = [draws.halt(person, 1, tuple(Point)) for person in people]
        return [
            *halts,
            *(draws.is_live(person, 1) for person in people),
            *(draws.fault(person, 0) for person in people),
        ]

    assert drawn(1) == drawn(1) != drawn(2)


def test_the_stand_in_for_airflows_task_state_refuses_a_try_that_is_not_the_newest(tmp_path: Path) -> None:
    memory = TaskStateMemory(tmp_path)
    sending = in_state(State.SENDING)
    first = memory.store(origin_of(0, 1))
    assert first.compare_and_swap(None, sending)
    second = memory.store(origin_of(0, 2))
    memory.store(origin_of(0, 1))  # a live try uses it again, but is still not the newest
    with pytest.raises(LedgerStoreError, match="404"):
        first.compare_and_swap(sending, SENT)
    assert first.find(["0"]) == {}
    assert second.find(["0"]) == {"0": sending}
    assert second.compare_and_swap(sending, SENT)
    assert memory.entries() == [SENT]
