"""If a task's process is killed while it sends, under a real scheduler, nobody gets a message twice."""

from __future__ import annotations

import json
import signal
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import pytest
from sqlalchemy.engine import URL

from airflow_provider_apptoto.outbox.admin import Author, LedgerAdmin, Selection
from airflow_provider_apptoto.outbox.database import StateDatabase
from airflow_provider_apptoto.outbox.entry import Entry, State
from airflow_provider_apptoto.outbox.policy import OnUnknown
from tests.support.faults import Exchange, Script, accepting, answering
from tests.support.people import number_of, person_of
from tests.support.promises import End, Observed, Played, broken, not_put_right
from tests.support.standalone import OVER, sender

if TYPE_CHECKING:
    from tests.support.standalone import Airflow

pytestmark = pytest.mark.scheduler

DAG = """
import pendulum
from datetime import timedelta
from airflow.sdk import DAG
from airflow_provider_apptoto.hooks.apptoto import ApptotoHook
from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageOperator
from airflow_provider_apptoto.outbox.ledger import LedgerTiming

# what was killed while it sent is waited for as long as its answer might have taken, and this
ApptotoHook.total_timeout = 6.0
ApptotoHook.ledger_timing = LedgerTiming(margin=1.0)

with DAG(dag_id="{dag_id}", schedule="@once", start_date=pendulum.datetime(2026, 1, 1, tz="UTC")):
    ApptotoSendMessageOperator.partial(
        task_id="send", apptoto_conn_id="{dag_id}", type="sms", message="See you at nine.", retries=2,
        retry_delay=timedelta(seconds=1), max_age=None,
    ).expand(to={people})
"""


def killing_before_acceptance(exchange: Exchange) -> None:
    sender(exchange).kill()


def killing_after_acceptance(exchange: Exchange) -> None:
    exchange.accept()
    sender(exchange).kill()


def killing_before_the_answer_is_read(exchange: Exchange) -> None:
    process = sender(exchange)
    process.send_signal(signal.SIGSTOP)
    accepting(exchange)
    process.kill()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """The answers to the first requests for a person; all others are accepted.

    :param refuses_first_try: whether each request of the first try's process is told to come later.
    :param ends: state and number of tries of the task.
    :param ledger: what the ledger says then.
    :param copies: that have reached the person.
    """

    scripts: tuple[Script, ...]
    refuses_first_try: bool = False
    ends: tuple[str, int]
    ledger: State
    copies: int


GOOD = Fate(scripts=(), ends=("success", 1), ledger=State.SENT, copies=1)
KILLED_TOO_EARLY = Fate(scripts=(killing_before_acceptance,), ends=("failed", 2), ledger=State.SENDING, copies=0)
KILLED = Fate(scripts=(killing_after_acceptance,), ends=("failed", 2), ledger=State.SENDING, copies=1)
LATER = answering(503, Retry_After="0")
FATES = [
    GOOD,
    KILLED_TOO_EARLY,
    KILLED,
    replace(KILLED, scripts=(killing_before_the_answer_is_read,)),
    replace(KILLED, scripts=(LATER, killing_after_acceptance)),
    Fate(scripts=(answering(500, accepted=True),), ends=("failed", 1), ledger=State.UNKNOWN, copies=1),
    replace(GOOD, scripts=(LATER,)),
    replace(GOOD, refuses_first_try=True, ends=("success", 2)),
]
OF_DAG = {"task_state": 0, "state_database": 100}
"""The DAGs, called as their connections, and the first person to whom each sends."""


class Plays:
    """Answers each person as planned; it does not know tasks and tries."""

    def __init__(self) -> None:
        self._seen: Counter[int] = Counter()
        self._first_process: dict[int, int] = {}

    def __call__(self, exchange: Exchange) -> None:
        person = person_of(exchange.request.json["to"])
        fate = FATES[person % 100]
        if fate.refuses_first_try:
            # by process: on a slow machine a try may restart its attempts after its lease is over
            pid = sender(exchange).pid
            if self._first_process.setdefault(person, pid) == pid:
                LATER(exchange)
                return
        scripts = fate.scripts
        number = self._seen[person]
        self._seen[person] += 1
        (scripts[number] if number < len(scripts) else accepting)(exchange)


def copies(airflow: Airflow, dag_id: str) -> Counter[int]:
    """Return how many copies the person of each map index got."""
    first = OF_DAG[dag_id]
    people = (person_of(request.json["to"]) for request in airflow.server.accepted)
    return Counter(person - first for person in people if 0 <= person - first < len(FATES))


def ended(airflow: Airflow, dag_id: str) -> dict[int, tuple[str, int]]:
    """Return state and tries of a DAG's mapped tasks that have ended."""
    text = "select map_index, state, try_number from task_instance where dag_id = %s and map_index >= 0"
    return {index: (state, tries) for index, state, tries in airflow.query(text, dag_id) if state in OVER}


def over(airflow: Airflow, dag_id: str) -> bool:
    """Whether all tasks of a DAG have ended, and its run.

    A task that is cleared before the scheduler ends the run may never start, because the run then ends.
    """
    [[run]] = airflow.query("select state from dag_run where dag_id = %s", dag_id) or [[None]]
    return run in OVER and len(ended(airflow, dag_id)) == len(FATES)


def ledger(airflow: Airflow) -> LedgerAdmin:
    return LedgerAdmin(StateDatabase(URL.create("sqlite", database=str(airflow.home / "state.db"))))


def entries(airflow: Airflow, dag_id: str) -> list[Entry]:
    """Return a DAG's ledger."""
    if dag_id == "state_database":
        return [record.entry for record in ledger(airflow).select(Selection(dag_id=dag_id))]
    text = "select value from task_state_store where dag_id = %s and key like 'apptoto-message-%%'"
    return [Entry.from_dict(json.loads(value)) for (value,) in airflow.query(text, dag_id)]


def observed(airflow: Airflow, dag_id: str) -> Observed:
    tasks = [
        Played(
            person=index,
            succeeded=state == "success",
            ends=(End.SUCCESS if state == "success" else End.FAILED,),
            killed_at=(),
            said=state,
        )
        for index, (state, _) in ended(airflow, dag_id).items()
    ]
    return Observed(tasks=tasks, copies=copies(airflow, dag_id), entries=entries(airflow, dag_id))


def resolve(airflow: Airflow, dag_id: str, found: Observed) -> None:
    """Resolve each unknown message as people who checked it in Apptoto."""
    for entry in found.entries:
        if not entry.is_unresolved:
            continue
        state = State.SENT if found.copies[entry.origin.map_index] else State.NOT_SENT
        if dag_id == "state_database":
            admin, author = ledger(airflow), Author(by="ann", note="looked into the inbox")
            admin.resolve(admin.resolvable(Selection(keys=[entry.key])), state, author)
        else:
            edit = (
                "update task_state_store set value = jsonb_set(value::jsonb, '{state}', to_jsonb(%s::text))::text "
                "where dag_id = %s and key = %s"
            )
            airflow.execute(edit, state, dag_id, f"apptoto-message-{entry.key}")


def test_tasks_killed_while_they_send_send_nothing_twice_and_end_right_once_people_have_looked(
    airflow: Airflow,
) -> None:
    airflow.server.scripts = [Plays()]
    for dag_id, first in OF_DAG.items():
        people = [number_of(first + index) for index in range(len(FATES))]
        airflow.add_dag(dag_id, DAG.format(dag_id=dag_id, people=people))
    for dag_id in OF_DAG:
        airflow.wait_for(partial(over, airflow, dag_id))
    for dag_id in OF_DAG:
        found = observed(airflow, dag_id)
        assert broken(found, OnUnknown.FAIL) == []
        assert ended(airflow, dag_id) == dict(enumerate(fate.ends for fate in FATES))
        assert [found.copies[index] for index in range(len(FATES))] == [fate.copies for fate in FATES]
        states = {entry.origin.map_index: entry.state for entry in found.entries}
        assert states == dict(enumerate(fate.ledger for fate in FATES))
        resolve(airflow, dag_id, found)
        airflow.clear(dag_id, only_failed=True)
    for dag_id in OF_DAG:
        airflow.wait_for(partial(over, airflow, dag_id))
        assert not_put_right(observed(airflow, dag_id)) == []
        airflow.clear(dag_id, only_failed=False)  # a run that had succeeded
    for dag_id in OF_DAG:
        airflow.wait_for(partial(over, airflow, dag_id))
        assert not_put_right(observed(airflow, dag_id)) == []
