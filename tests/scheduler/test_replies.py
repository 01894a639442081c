"""Replies start a DAG in a real Airflow: however often the triggerer is killed, each is told, and acted on once."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import json
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_apptoto.sandbox import Sandbox
from tests.support.standalone import DEADLINE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_apptoto.sandbox.appointments.store import Appointment
    from tests.support.standalone import Airflow

pytestmark = pytest.mark.scheduler

EXAMPLE = Path(__file__).parents[2] / "example_dags" / "example_apptoto_replies.py"
INTERVAL = 3
"""Seconds between two polls."""
BURST = 50
PRIVATE = ("Gwendolyn", "1415555", "patients.example", "Root canal", "said the patient")


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as sandbox:
        yield sandbox


class Watch:
    """The example DAG, which watches a sandbox."""

    def __init__(self, airflow: Airflow, sandbox: Sandbox, stack: contextlib.ExitStack) -> None:
        self.airflow = airflow
        self.people: list[Appointment] = sandbox.appointments.add_events(
            [
                {
                    "title": "Root canal",
                    "calendar": "Dr Lee",
                    "external_id": f"visit-{number}",
                    "start_time": (dt.datetime.now(dt.UTC) + dt.timedelta(days=1, minutes=number)).isoformat(),
                    "end_time": (dt.datetime.now(dt.UTC) + dt.timedelta(days=1, minutes=number + 9)).isoformat(),
                    "participants": [
                        {"name": "Gwendolyn", "phone": f"+1415555{number:04}", "email": f"p{number}@patients.example"}
                    ],
                }
                for number in range(BURST + 30)
            ]
        )
        self.said: set[int] = set()
        self._sandbox = sandbox
        self._stack = stack
        self._before = ""
        # a triggerer takes over the triggers of another one that has not been heard of for so long
        quick = {"AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10"}
        self._next = dataclasses.replace(airflow, environment=airflow.environment | quick)

    def start(self) -> None:
        """Connect the example to the sandbox, and wait until it watches."""
        fields = json.loads(self._sandbox.connection())
        connection = {
            "connection_id": "watched",
            **fields,
            "extra": json.dumps({"state_conn_id": "ledger", "requests_per_minute": 6000}),
        }
        self.airflow.call("POST", "connections", connection)
        source = EXAMPLE.read_text()
        for old, new in {
            "ApptotoReplyTrigger(\n": f'ApptotoReplyTrigger(poke_interval={INTERVAL}, apptoto_conn_id="watched",\n',
            'task_id="tell_reception",': 'task_id="tell_reception", apptoto_conn_id="watched",',
        }.items():
            assert source.count(old) == 1
            source = source.replace(old, new)
        self.airflow.add_dag("replies", source)
        self.airflow.wait_for(lambda: '"seen": {' in self.position())

    def say(self, first: int, count: int) -> None:
        """Let patients reply, one after the other, at once."""
        for number in range(first, first + count):
            self._sandbox.appointments.reply(self.people[number], "No, said the patient")
            self.said.add(self.people[number].event_id)

    def position(self) -> str:
        """Return what the watcher has stored."""
        found = self.airflow.query("select value from asset_state_store where key = 'apptoto_replies_watched'")
        return str(found[0][0]) if found else ""

    def events(self) -> list[list[dict[str, Any]]]:
        """Return the replies of each asset event."""
        text = "select e.extra from asset_event e join asset a on a.id = e.asset_id where a.name = 'patients_replies'"
        payloads = [extra["payload"] for [extra] in self.airflow.query(text)]
        assert [each for each in payloads if "error" in each] == []
        return [each["replies"] for each in payloads]

    def told(self) -> set[int]:
        return {reply["event_id"] for replies in self.events() for reply in replies}

    def kill(self, when: Callable[[], bool]) -> None:
        """Kill the triggerer as soon as a condition holds, and start another one."""
        deadline = time.monotonic() + DEADLINE
        while not when():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        self.airflow.kill("triggerer")
        self._stack.enter_context(self._next.component("triggerer"))


def test_each_reply_starts_the_dag_and_a_killed_triggerer_loses_none(
    airflow: Airflow, sandbox: Sandbox, until_the_end: contextlib.ExitStack
) -> None:
    watch = Watch(airflow, sandbox, until_the_end)
    for old in range(BURST, BURST + 3):
        sandbox.appointments.reply(watch.people[old], "Old, said the patient")
    watch.start()

    watch.say(0, BURST)
    airflow.wait_for(lambda: watch.told() == watch.said)
    assert len(watch.events()) <= 2  # a poll may fall into the burst

    first, before, said_at = BURST + 3, "", 0.0
    # at once; when the event is stored; when the position is stored; two moments of a poll
    moments: list[Callable[[], bool]] = [
        lambda: True,
        lambda: watch.told() == watch.said,
        lambda: watch.position().count(":") > before.count(":"),
        *(partial(lambda share: time.monotonic() > said_at + share * INTERVAL, share) for share in (0.5, 0.9)),
    ]
    for number, moment in enumerate(moments):
        before, said_at = watch.position(), time.monotonic()
        watch.say(first + 3 * number, 2)
        watch.kill(moment)
        watch.say(first + 3 * number + 2, 1)  # no triggerer runs yet
        airflow.wait_for(lambda: watch.told() == watch.said)

    def mails() -> Counter[str]:
        return Counter(str(message["message"]) for message in sandbox.messages() if message["type"] == "email")

    visits = [*range(BURST), *range(first, first + 3 * len(moments))]
    wanted = {f"The answer to appointment visit-{number} is: no." for number in visits}
    airflow.wait_for(lambda: mails().keys() == wanted)
    airflow.wait_for(
        lambda: not airflow.query("select 1 from dag_run where dag_id = 'example_apptoto_replies' and end_date is null")
    )
    assert set(mails().values()) == {1}
    (airflow.home / "dags" / "replies.py").unlink()  # the sandbox ends
    dump = airflow.dump().decode(errors="replace")
    assert "visit-7" in dump
    for private in PRIVATE:
        assert private not in dump
