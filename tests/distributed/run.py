"""The script of a run: send, kill a worker, kill the database, resolve what is unknown, clear, and clear all of it."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from tests.distributed import cluster
from tests.distributed.account import AGREED, Account
from tests.distributed.checker import Observed, Result
from tests.support.people import number_of
from tests.support.standalone import OVER

if TYPE_CHECKING:
    from tests.support.standalone import Airflow

DAG_ID = "reminders"
HELD = 4
"""Requests of the worker that is killed, which it has no answer to."""
PARTS = {"worker": 0.2, "database": 0.5}
"""Shares of the messages that are accepted by the time that each is killed."""


def run(messages: int, home: Path) -> Result:
    """Run a cluster, break it, resolve what is unknown, clear, and return what was seen."""
    began = time.monotonic()

    def say(text: str) -> None:
        sys.stdout.write(f"{time.monotonic() - began:4.0f} s  {text}\n")
        sys.stdout.flush()

    people = home / "people"
    people.mkdir()
    for name, numbers in (("batch", range(messages // 2)), ("mapped", range(messages // 2, messages))):
        rows = ({"to": number_of(number), "reference": str(number)} for number in numbers)
        (people / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with Account() as account, cluster.running(home, account, DISTRIBUTED_PEOPLE=str(people)) as own:
        airflow = own.airflow
        say("The cluster runs")
        airflow.add_dag(DAG_ID, Path(__file__).with_name("reminders.py").read_text())
        own.wait_for(lambda: len(account.accepted) >= messages * PARTS["worker"])
        account.hold()
        own.wait_for(lambda: max(_held(account).values(), default=0) >= HELD)
        [(victim, _)] = _held(account).most_common(1)
        own.kill(victim)
        account.release(victim)
        say(f"Worker {own.sessions[victim]} was killed, {len(account.accepted)} messages are accepted")
        own.start_worker("w3")
        own.wait_for(lambda: len(account.accepted) >= messages * PARTS["database"])
        away = own.restart_database()
        say(f"PostgreSQL was killed, and runs again, {len(account.accepted)} messages are accepted")
        own.wait_for(lambda: _is_over(airflow, messages))
        first, by_session = _observed(airflow, account, messages), Counter(account.by_session)
        say(f"All tasks have ended, {len(account.accepted)} messages are accepted")
        resolved = _resolve(own, first.copies)
        airflow.clear(DAG_ID, only_failed=True)
        own.wait_for(lambda: _is_over(airflow, messages))
        cleared = _observed(airflow, account, messages)
        say("The failed tasks were cleared, and have ended")
        airflow.clear(DAG_ID, only_failed=False)
        own.wait_for(lambda: _is_over(airflow, messages))
        say("All tasks were cleared, and have ended")
        killed = [pid for pid, session in account.held if session == victim]
        return Result(
            messages=messages,
            first=first,
            cleared=cleared,
            cleared_again=_observed(airflow, account, messages),
            tries_killed=len(set(killed)),
            requests_killed=len(killed),
            away=away,
            restarts=own.restarts,
            resolved=resolved,
            most={seconds: account.most(seconds) for seconds in AGREED},
            agreed=AGREED,
            refused=account.refused,
            by_worker=Counter({own.sessions.get(session, "gone"): count for session, count in by_session.items()}),
            seconds=time.monotonic() - began,
        )


def _held(account: Account) -> Counter[int]:
    """Return how many requests of each session are held."""
    return Counter(session for _, session in list(account.held) if session)


def _is_over(airflow: Airflow, messages: int) -> bool:
    """Tell whether all tasks have ended, and the run: a task that is cleared before its run's end never starts."""
    states = [state for (state,) in airflow.query("select state from task_instance where dag_id = %s", DAG_ID)]
    [[run]] = airflow.query("select state from dag_run where dag_id = %s", DAG_ID) or [[None]]
    return run in OVER and len(states) == 1 + messages - messages // 2 and set(states) <= OVER


def _observed(airflow: Airflow, account: Account, messages: int) -> Observed:
    half = messages // 2
    text = "select task_id, map_index, state from task_instance where dag_id = %s"
    states = {(task_id, index): state for task_id, index, state in airflow.query(text, DAG_ID)}
    named = {half + index for (task_id, index), state in states.items() if task_id == "mapped" and state != "success"}
    if states["batch", -1] != "success":
        reports = airflow.query(
            "select value from xcom where dag_id = %s and task_id = 'batch' and key = 'report'", DAG_ID
        )
        named |= {row["index"] for [report] in reports for row in report["failures"]} if reports else set(range(half))
    return Observed(copies=account.copies, named=frozenset(named))


def _resolve(own: cluster.Cluster, copies: Counter[int]) -> Counter[str]:
    """Do as people who look up in Apptoto each message whose outcome is unknown; return how many were sent or not."""
    ledger = ["apptoto", "ledger"]
    listed = own.command(*ledger, "list", "--state", "unknown", "--limit", "1000", "--output", "json")
    found = {row["key"]: "sent" if copies[int(row["reference"])] else "not_sent" for row in json.loads(listed)}
    for state in sorted(set(found.values())):
        keys = [key for key, was in found.items() if was == state]
        own.command(*ledger, "resolve", *keys, "--to", state, "--note", "looked into the inbox", "--yes")
    return Counter(found.values())
