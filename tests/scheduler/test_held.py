"""Messages that wait for their sending window under a real scheduler go out once, whatever happens meanwhile."""

from __future__ import annotations

import datetime as dt
import itertools
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.support.faults import Exchange, accepting
from tests.support.people import number_of, person_of
from tests.support.standalone import OVER, sender
from tests.support.windows import CLOSED_FOR_DAYS, hours_from, next_minute, zone_at

if TYPE_CHECKING:
    import contextlib

    from tests.support.standalone import Airflow

pytestmark = pytest.mark.scheduler

DAG = """
import pendulum
from datetime import timedelta
from airflow.sdk import DAG
from airflow_provider_apptoto.hooks.apptoto import ApptotoHook
from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageBatchOperator, ApptotoSendMessageOperator
from airflow_provider_apptoto.outbox.ledger import LedgerTiming

# what was killed while it sent is waited for as long as its answer might have taken, and this
ApptotoHook.total_timeout = 6.0
ApptotoHook.ledger_timing = LedgerTiming(margin=1.0)

TEXT = "It is {{{{ macros.time.monotonic() }}}}"
TASK = dict(task_id="send", send_window="{window}", max_age=None, retries=2, retry_delay=timedelta(seconds=1))

def dag(dag_id, **arguments):
    made = DAG(dag_id=dag_id, schedule="@once", start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), **arguments)
    globals()[dag_id] = made
    return made

for dag_id, (conn_id, rows) in {batches}.items():
    with dag(dag_id):
        ApptotoSendMessageBatchOperator(
            apptoto_conn_id=conn_id, messages=rows, defaults={{"type": "sms", "message": TEXT}},
            timezone_column="zone", concurrency=1, **TASK,
        )

SETTINGS = {{"task_limited": ({{"execution_timeout": timedelta(seconds=20)}}, {{}}),
            "run_limited": ({{}}, {{"dagrun_timeout": timedelta(seconds=40)}})}}
for dag_id, (conn_id, [row]) in {singles}.items():
    of_task, of_dag = SETTINGS.get(dag_id, ({{}}, {{}}))
    with dag(dag_id, **of_dag):
        ApptotoSendMessageOperator(
            apptoto_conn_id=conn_id, type="sms", to=row["to"], message=TEXT, recipient_timezone=row["zone"],
            **of_task, **TASK,
        )
"""
OPEN, FIRST, SECOND, CLOSED = "open", "first", "second", "closed"
"""When a person may get messages: now, from the first opening, from one a minute later, not for days."""
ALL = (OPEN, FIRST, SECOND, CLOSED)
BATCHES = {
    "task_state_rows": ("task_state", ALL),
    "state_database_rows": ("state_database", ALL),
    "worker_killed": ("state_database", (OPEN, *[FIRST] * 6)),
    "cleared": ("state_database", (OPEN, FIRST)),
    "told": ("state_database", (OPEN, FIRST)),
    "given_up": ("task_state", (OPEN, FIRST)),
}
SINGLES = {
    "task_state_message": ("task_state", (SECOND,)),
    "state_database_message": ("state_database", (SECOND,)),
    "task_limited": ("task_state", (FIRST,)),
    "run_limited": ("state_database", (FIRST,)),
    "paused": ("state_database", (FIRST,)),
}
"""Each DAG, its connection, and when its people may get messages."""
DAGS = BATCHES | SINGLES
FIRST_PERSON = 800


class Arrival(NamedTuple):
    """A message that arrived.

    :param clock: when it arrived, by the clock of the texts, which nobody sets.
    """

    at: dt.datetime
    clock: float
    text: str

    @property
    def rendered(self) -> float:
        """When its text was rendered, by that clock."""
        return float(self.text.removeprefix("It is "))


@dataclass
class Inbox:
    """Accepts messages, and notes when each person got which texts.

    :param victims: the process that sends the third message to them is killed, once it is accepted.
    """

    victims: list[int]
    got: dict[int, list[Arrival]] = field(default_factory=lambda: defaultdict(list))
    has_killed: bool = False

    def __call__(self, exchange: Exchange) -> None:
        message = exchange.request.json
        person = person_of(message["to"])
        self.got[person].append(Arrival(dt.datetime.now(dt.UTC), time.monotonic(), message["message"]))
        if person in self.victims and len(self.got.keys() & set(self.victims)) == 3 and not self.has_killed:
            self.has_killed = True
            sender(exchange).kill()
        else:
            accepting(exchange)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Messages that were held, and have been interfered with.

    :param people: by DAG, in the order of its rows.
    :param openings: the moments of ``FIRST`` and ``SECOND``.
    :param held_at: when all tasks waited, by the clock of the texts.
    :param pool: Airflow's pool then.
    :param copies_then: how many copies each person of a DAG had got then.
    """

    airflow: Airflow
    inbox: Inbox
    people: dict[str, list[int]]
    openings: dict[str, dt.datetime]
    held_at: float
    pool: dict[str, Any]
    copies_then: dict[str, list[int]]

    def got(self, dag_id: str) -> list[list[Arrival]]:
        """Return what each person of a DAG got."""
        return [self.inbox.got.get(person, []) for person in self.people[dag_id]]

    def copies(self, dag_id: str) -> list[int]:
        """Return how many copies each person of a DAG has got."""
        return [len(arrivals) for arrivals in self.got(dag_id)]

    def wait_until_sent(self) -> None:
        """Wait until all messages of the second opening have arrived, and their tasks have ended or wait again."""
        batches = [dag_id for dag_id, (_, rows) in DAGS.items() if CLOSED in rows]
        singles = [dag_id for dag_id, (_, rows) in DAGS.items() if rows == (SECOND,)]
        ends = {**dict.fromkeys(batches, "deferred"), **dict.fromkeys(singles, "success")}

        def is_sent() -> bool:
            states = {dag_id: state for dag_id, (state, _) in tasks(self.airflow).items()}
            return all(states[each] == end for each, end in ends.items()) and all(
                sum(self.copies(each)) >= len(DAGS[each][1]) - (each in batches) for each in ends
            )

        self.airflow.wait_for(is_sent)


def tasks(airflow: Airflow) -> dict[str, tuple[str, int]]:
    """Return state and number of tries of each DAG's task."""
    rows = airflow.query("select dag_id, state, try_number from task_instance where task_id = 'send'")
    return {dag_id: (state, tries) for dag_id, state, tries in rows if dag_id in DAGS}


def plan(now: dt.datetime) -> tuple[str, dict[str, str], dict[str, dt.datetime]]:
    """Return a window, the zone of each kind of row, and the openings."""
    first = next_minute(now + dt.timedelta(seconds=75))  # to let all tasks wait, and a new triggerer take over
    second = first + dt.timedelta(minutes=1)
    hour = first.replace(minute=0)
    window = [hours_from(14, hour - dt.timedelta(hours=1)), hours_from(15, hour)]
    window += [hours_from(12, first), hours_from(9, second)]
    zones = {OPEN: zone_at(15, first), FIRST: zone_at(12, first), SECOND: zone_at(9, second), CLOSED: CLOSED_FOR_DAYS}
    return ", ".join(window), zones, {FIRST: first, SECOND: second}


def source(window: str, zones: dict[str, str], people: dict[str, list[int]]) -> str:
    def rows(dag_id: str) -> tuple[str, list[dict[str, str]]]:
        conn_id, kinds = DAGS[dag_id]
        pairs = zip(people[dag_id], kinds, strict=True)
        return conn_id, [{"to": number_of(person), "zone": zones[kind]} for person, kind in pairs]

    batches, singles = ({dag_id: rows(dag_id) for dag_id in dags} for dags in (BATCHES, SINGLES))
    return DAG.format(window=window, batches=batches, singles=singles)


@pytest.fixture(scope="module")
def held(running_airflow: Airflow, until_the_end: contextlib.ExitStack) -> Held:
    """Hold messages. While all tasks wait, kill the triggerer, and do to tasks what people do."""
    airflow, numbers = running_airflow, itertools.count(FIRST_PERSON)
    people = {dag_id: [next(numbers) for _ in rows] for dag_id, (_, rows) in DAGS.items()}
    inbox = Inbox(people["worker_killed"])
    airflow.server.scripts = [inbox]
    window, zones, openings = plan(dt.datetime.now(dt.UTC))
    airflow.add_dag("held", source(window, zones, people))

    def have_stopped() -> bool:
        states = [state for state, _ in tasks(airflow).values()]
        return len(states) == len(DAGS) and {"deferred", *OVER}.issuperset(states) and not airflow.workers()

    airflow.wait_for(have_stopped)
    waiting = tasks(airflow) | {"run_limited": ("deferred", 1)}  # on a slow machine, its time is over by now
    assert waiting == dict.fromkeys(DAGS, ("deferred", 1))
    held_at = time.monotonic()
    pool = airflow.call("GET", "pools/default_pool")
    copies = {dag_id: [len(inbox.got.get(person, [])) for person in people[dag_id]] for dag_id in DAGS}

    airflow.kill("triggerer")
    airflow.clear("cleared", only_failed=False)
    airflow.mark("told", "send", "success")
    airflow.mark("given_up", "send", "failed")
    airflow.call("PATCH", "dags/paused", {"is_paused": True})
    until_the_end.enter_context(airflow.component("triggerer"))
    airflow.wait_for(lambda: tasks(airflow)["cleared"] == ("deferred", 2))
    assert dt.datetime.now(dt.UTC) < openings[FIRST], "this machine is too slow for the first opening"
    return Held(
        airflow=airflow, inbox=inbox, people=people, openings=openings, held_at=held_at, pool=pool, copies_then=copies
    )


def test_tasks_that_hold_messages_use_no_slot_and_their_open_rows_are_sent_at_once(held: Held) -> None:
    assert held.pool["occupied_slots"] == 0
    assert len(DAGS) - held.pool["deferred_slots"] in (0, 1)  # run_limited may be over, as above
    assert held.copies_then == {dag_id: [int(row == OPEN) for row in rows] for dag_id, (_, rows) in DAGS.items()}


def test_a_cleared_task_holds_again_and_sends_once(held: Held) -> None:
    held.airflow.wait_for(lambda: tasks(held.airflow)["cleared"][0] in OVER)
    assert tasks(held.airflow)["cleared"] == ("success", 2)
    assert held.copies("cleared") == [1, 1]


def test_execution_timeout_does_not_count_the_wait(held: Held) -> None:
    held.airflow.wait_for(lambda: tasks(held.airflow)["task_limited"][0] in OVER)
    assert (tasks(held.airflow)["task_limited"], held.copies("task_limited")) == (("success", 1), [1])


def test_dagrun_timeout_counts_the_wait_and_ends_it(held: Held) -> None:
    held.airflow.wait_for(lambda: tasks(held.airflow)["run_limited"][0] in OVER)
    assert tasks(held.airflow)["run_limited"] == ("skipped", 1)
    assert held.airflow.query("select state from dag_run where dag_id = 'run_limited'") == [("failed",)]


def test_a_batch_killed_after_the_opening_goes_on_and_nobody_gets_it_twice(held: Held) -> None:
    held.airflow.wait_for(lambda: tasks(held.airflow)["worker_killed"][0] in OVER)
    assert held.inbox.has_killed
    assert tasks(held.airflow)["worker_killed"] == ("failed", 2)  # the message in flight is unknown
    assert held.copies("worker_killed") == [1] * len(held.people["worker_killed"])


@pytest.mark.parametrize("ledger", ["task_state", "state_database"])
def test_held_messages_go_out_once_from_their_opening_though_the_triggerer_was_killed(held: Held, ledger: str) -> None:
    held.wait_until_sent()
    assert held.copies(f"{ledger}_rows") == [1, 1, 1, 0]
    assert held.copies(f"{ledger}_message") == [1]
    _, at_first, at_second, _ = held.got(f"{ledger}_rows")
    [alone] = held.got(f"{ledger}_message")
    assert at_first[0].at >= held.openings[FIRST]
    assert min(at_second[0].at, alone[0].at) >= held.openings[SECOND]


@pytest.mark.parametrize("ledger", ["task_state", "state_database"])
def test_texts_are_rendered_at_each_opening_and_a_new_text_does_not_send_a_message_again(
    held: Held, ledger: str
) -> None:
    held.wait_until_sent()
    [at_once], [at_first], [at_second], _ = held.got(f"{ledger}_rows")
    assert at_once.rendered < held.held_at < at_first.rendered < at_first.clock < at_second.rendered


@pytest.mark.parametrize(("dag_id", "state"), [("told", "success"), ("given_up", "failed"), ("run_limited", "skipped")])
def test_nothing_is_sent_once_a_task_was_marked_or_its_run_timed_out(held: Held, dag_id: str, state: str) -> None:
    held.wait_until_sent()
    assert tasks(held.airflow)[dag_id] == (state, 1)
    assert held.copies(dag_id) == held.copies_then[dag_id]


@pytest.mark.parametrize("dag_id", ["told", "given_up"])
def test_the_report_of_a_batch_that_was_marked_still_counts_who_was_held(held: Held, dag_id: str) -> None:
    [[report]] = held.airflow.query("select value from xcom where dag_id = %s and key = 'report'", dag_id)
    assert (report["sent"], report["held"]) == (1, 1)


def test_a_paused_dag_sends_when_it_is_unpaused(held: Held) -> None:
    held.wait_until_sent()
    assert (tasks(held.airflow)["paused"], held.copies("paused")) == (("scheduled", 1), [0])
    held.airflow.call("PATCH", "dags/paused", {"is_paused": False})
    held.airflow.wait_for(lambda: tasks(held.airflow)["paused"][0] in OVER)
    assert (tasks(held.airflow)["paused"], held.copies("paused")) == (("success", 1), [1])


def test_a_batch_with_a_row_that_is_still_closed_waits_on(held: Held) -> None:
    held.wait_until_sent()
    runs = held.airflow.query("select dag_id, state from dag_run where dag_id like '%%_rows'")
    assert dict(runs) == {"task_state_rows": "running", "state_database_rows": "running"}
    assert [tasks(held.airflow)[dag_id] for dag_id, _ in runs] == [("deferred", 1)] * 2
