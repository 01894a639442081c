"""Run the arms in a real Airflow, under the same conditions for all of them."""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psutil

from benchmarks.arms import ARMS
from benchmarks.judge import Verdict, judge
from benchmarks.meter import Meter
from benchmarks.people import number_of
from benchmarks.runs import Run, query
from benchmarks.server import Conditions, Server
from benchmarks.settings import API_KEY, LIMIT, LOGIN, RATE, TEXT, TIMEOUT, WINDOW, say

ROOT = Path(__file__).resolve().parent.parent
FAULTS = {"mild": 0.03, "harsh": 0.30}
"""Share of the requests that fail, by scenario."""
SCENARIOS = {
    "clean": "nothing fails",
    "mild": f"{FAULTS['mild']:.0%} of the requests fail",
    "harsh": f"{FAULTS['harsh']:.0%} of the requests fail",
    "killed": "the process that sends is killed once, in the middle",
}
WARM_UP = "warm_up"
"""An additional scenario with two messages, which is not shown."""
DEADLINE = 1500.0
"""Seconds after which a run counts as stuck."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What an arm cost in a scenario.

    :param refused: requests over the server's limit.
    :param seconds: from the start of the run to its end.
    :param bound: ``seconds``, relative to the shortest time that the server's limit allows.
    :param cpu: seconds per 1,000 messages, of all processes of Airflow, less what they use when idle.
    :param instances: task instances per 1,000 messages.
    :param tries: of task instances per 1,000 messages.
    :param megabytes: most resident memory of any one task process.
    """

    verdict: Verdict
    refused: int
    seconds: float
    bound: float
    cpu: float
    instances: float
    tries: float
    megabytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A running Airflow with the DAGs of all arms.

    :param database: path of its metadata database.
    :param messages: that each arm sends in a scenario.
    :param seed: of the faults.
    """

    server: Server
    database: Path
    meter: Meter
    messages: int
    seed: int

    def measure(self, arm: str, scenario: str) -> Result:
        """Run an arm in a scenario."""
        self.server.reset(
            Conditions(
                limit=LIMIT,
                seed=self.seed,
                faults=FAULTS.get(scenario, 0.0),
                kill_at=self.messages // 2 if scenario == "killed" else None,
            )
        )
        self.meter.max_resident = 0
        cpu, start = self.meter.cpu(), time.monotonic()
        run = self.run(f"{arm}-{scenario}")
        cpu = self.meter.cpu() - cpu - self.meter.idle * (time.monotonic() - start)
        seen = self.server.seen()
        if seen.killed != (scenario == "killed"):
            raise RuntimeError(f"{arm}, {scenario}: killed is {seen.killed}, so the figures mean nothing")
        per_thousand = 1000 / self.messages
        return Result(
            verdict=judge(seen.copies, ARMS[arm].told(run, self.messages), self.messages),
            refused=seen.refused,
            seconds=run.seconds,
            bound=run.seconds / (self.messages * WINDOW / LIMIT),
            cpu=cpu * per_thousand,
            instances=len(run.tasks) * per_thousand,
            tries=sum(tries for _, tries in run.tasks.values()) * per_thousand,
            megabytes=self.meter.max_resident / 1e6,
        )

    def run(self, dag_id: str) -> Run:
        """Unpause a DAG, which starts its only run, and wait for the end of the run.

        :raises TimeoutError: the run does not end.
        """
        query(self.database, "update dag set is_paused = 0 where dag_id = ?", dag_id)
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            time.sleep(0.5)
            text = "select start_date, end_date from dag_run where dag_id = ? and state in ('success', 'failed')"
            for start, end in query(self.database, text, dag_id):
                text = "select map_index, state, try_number from task_instance where dag_id = ?"
                return Run(
                    dag_id=dag_id,
                    database=self.database,
                    tasks={index: (state, tries) for index, state, tries in query(self.database, text, dag_id)},
                    seconds=(datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds(),
                )
        raise TimeoutError(dag_id)


@contextlib.contextmanager
def airflow(server: Server, home: Path, options: argparse.Namespace) -> Iterator[Bench]:
    """Run an Airflow that has the DAGs of the chosen arms, all of them paused, and measure what it uses when idle."""
    from tests.support.standalone import standalone

    home.mkdir()
    say("starting Airflow")
    path = home / "airflow.db"
    with standalone(home, **_environment(server, options)):
        query(path, "insert into slot_pool (pool, slots, include_deferred) values ('few', 4, 0)")
        deadline = time.monotonic() + DEADLINE
        wanted = len(options.arms) * (1 + len(options.scenarios))
        while query(path, "select count(*) from dag") != [(wanted,)]:
            if time.monotonic() > deadline:
                raise TimeoutError((home / "standalone.log").read_text())
            time.sleep(1)
        [root] = [each for each in psutil.Process().children() if "standalone" in each.cmdline()]
        with Meter(root) as meter:
            bench = Bench(server=server, database=path, meter=meter, messages=options.messages, seed=options.seed)
            say("warming up")
            for arm in options.arms:  # Airflow starts some of its parts on their first use
                bench.run(f"{arm}-{WARM_UP}")
            say(f"measuring what Airflow uses when idle, {options.idle:g} s")
            time.sleep(10)
            cpu = meter.cpu()
            time.sleep(options.idle)
            meter.idle = (meter.cpu() - cpu) / options.idle
            yield bench


def _environment(server: Server, options: argparse.Namespace) -> dict[str, str]:
    """Return the environment of Airflow's processes; :mod:`benchmarks.dags.common` reads ``BENCH``."""
    people = {scenario: [number_of(person) for person in range(options.messages)] for scenario in options.scenarios}
    account = {"conn_type": "apptoto", "login": LOGIN, "password": API_KEY, "host": server.url}
    return {
        "PYTHONPATH": str(ROOT),
        "AIRFLOW_CONN_APPTOTO_DEFAULT": json.dumps(
            {**account, "extra": {"timeout": TIMEOUT, "requests_per_minute": RATE * 60}}
        ),
        "AIRFLOW_CONN_HTTP_SERVER": server.url,
        "AIRFLOW__CORE__DAGS_FOLDER": str(Path(__file__).parent / "dags" / "arms"),
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True",
        "AIRFLOW__CORE__PARALLELISM": "2",
        "BENCH": json.dumps(
            {
                "arms": options.arms,
                "people": {WARM_UP: [number_of(person) for person in range(2)], **people},
                "url": f"{server.url}/v1/send_message",
                "text": TEXT,
                "rate": RATE,
                "timeout": TIMEOUT,
            }
        ),
    }
