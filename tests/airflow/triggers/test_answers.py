"""The trigger waits for answers with as few requests as its promises say, and tells nothing personal."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import itertools
import json
import logging
import random
import time
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_apptoto._airflow_triggers import has_shared_streams
from airflow_provider_apptoto.answers.appointment import appointments_of, window_of
from airflow_provider_apptoto.answers.predicate import ANSWERED
from airflow_provider_apptoto.answers.reading import AnswerReader, ReadFailure
from airflow_provider_apptoto.triggers.apptoto import ApptotoAnswerTrigger
from tests.support.appointments import DAY, NAMES, Clinic, answers_meanwhile, row
from tests.support.faults import answering

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.faults import FaultServer, Script

pytestmark = [pytest.mark.contract, pytest.mark.usefixtures("airflow_database", "quick_retries")]

SINCE = time.time() - 60
shared = pytest.mark.skipif(not has_shared_streams(), reason="Airflow before 3.3 does not share streams")


@pytest.fixture
def clinic(server: FaultServer) -> Clinic:
    clinic = Clinic.of(40)
    server.scripts = [clinic]
    return clinic


def trigger_of(*numbers: int, **fields: Any) -> ApptotoAnswerTrigger:
    window = window_of(appointments_of([row(1), row(40)], DAY), whole_days=True)
    assert window is not None
    arguments: dict[str, Any] = {
        "apptoto_conn_id": "apptoto_default",
        "appointments": [[number, number + 1000, SINCE] for number in numbers],
        "answered": list(ANSWERED),
        "replies": {"yes": "^y"},
        "deadline": time.time() + 600,
        "poke_interval": 0.2,
        "window": [window.begin, window.end],
    }
    return ApptotoAnswerTrigger(**(arguments | fields))


def outcome(trigger: ApptotoAnswerTrigger, *, meanwhile: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Run a trigger as it comes out of the database, and return its event.

    :param meanwhile: called after half a second.
    """
    _, kwargs = trigger.serialize()

    async def run() -> list[Any]:
        asyncio.get_running_loop().call_later(0.5, meanwhile)
        return [event.payload async for event in ApptotoAnswerTrigger(**json.loads(json.dumps(kwargs))).run()]

    [found] = asyncio.run(asyncio.wait_for(run(), 240))
    return dict(found)


def test_a_trigger_ends_when_everybody_has_answered(clinic: Clinic) -> None:
    clinic.person(1)["state"] = "confirmed"
    event = outcome(trigger_of(1, 2), meanwhile=lambda: clinic.say(2, "Yes, gladly"))
    assert event["status"] == "done"
    assert [each[:3] for each in event["answers"]] == [[1, 1001, "confirmed"], [2, 1002, "yes"]]
    assert not any(private in json.dumps(event) for private in (*NAMES, "gladly"))
    assert len(clinic.reads) >= 2


def test_at_the_deadline_it_tells_the_answers_so_far(clinic: Clinic) -> None:
    clinic.person(1)["state"] = "not_coming"
    began = time.time()
    event = outcome(trigger_of(1, 2, 99, deadline=began + 1, poke_interval=3600))
    assert event == {"status": "done", "answers": [[1, 1001, "not_coming", None], [99, 1099, "not_found", None]]}
    assert time.time() >= began + 1


def test_the_last_read_begins_after_the_deadline(clinic: Clinic) -> None:
    """Otherwise an answer is lost that came before the deadline, while an earlier read went on."""
    clinic.faults = [answers_meanwhile(clinic)]
    event = outcome(trigger_of(1, deadline=time.time() + 0.5, poke_interval=3600))
    assert event["answers"][0][:3] == [1, 1001, "yes"]


def test_a_trigger_that_is_started_again_loses_no_answer(clinic: Clinic) -> None:
    """It remembers nothing: what came while the triggerer was down is read."""
    trigger = trigger_of(1, deadline=time.time() - 5)
    clinic.say(1, "yes")
    assert outcome(trigger)["answers"][0][:3] == [1, 1001, "yes"]


def test_events_without_a_start_are_read_alone(clinic: Clinic) -> None:
    clinic.person(7)["state"] = "confirmed"
    event = outcome(trigger_of(7, window=None, event_ids=[7]))
    assert event["answers"] == [[7, 1007, "confirmed", None]]
    assert clinic.reads == ["/v1/event?id=7&include_conversations=true"]


def test_the_arguments_for_thousands_fit_into_the_column_of_mysql() -> None:
    """Airflow encrypts them, which makes four bytes of three."""
    number = random.Random(7)  # noqa: S311  no secret
    ids = itertools.accumulate(number.randrange(1, 40) for _ in range(3000))
    appointments = [[1_000_026_606 + each, number.randrange(10**9, 10**10), 1_780_000_000.123] for each in ids]
    _, kwargs = trigger_of(appointments=appointments).serialize()
    assert len(json.dumps(kwargs)) * 4 / 3 < 65_000
    assert ApptotoAnswerTrigger(**json.loads(json.dumps(kwargs))).appointments == appointments


# --- errors


def test_errors_that_pass_are_waited_over(clinic: Clinic) -> None:
    clinic.person(1)["state"] = "confirmed"
    clinic.faults = [answering(502)] * 6  # two reads of three attempts each
    assert outcome(trigger_of(1, max_errors=3))["status"] == "done"


def test_a_login_that_was_replaced_during_the_wait_is_read_again(clinic: Clinic) -> None:
    reader = AnswerReader("apptoto_default", None, [1])
    assert isinstance(reader.read(), dict)
    clinic.faults = [answering(401)]
    assert isinstance(reader.read(), dict)
    clinic.faults = [answering(401)] * 2
    assert isinstance(reader.read(), ReadFailure)
    reader.close()


@pytest.mark.parametrize(
    ("fault", "reads", "expected"),
    [
        (answering(502), 6, {"code": "not_sent", "is_final": False}),
        (answering(200, b"<p>Down for maintenance</p>"), 2, {"code": "not_apptoto", "is_final": False}),
        (answering(401), 1, {"code": "credentials_refused", "is_final": True}),
    ],
    ids=["502", "HTML", "401"],
)
def test_errors_that_last_end_the_wait_with_a_clear_text(
    clinic: Clinic, fault: Script, reads: int, expected: dict[str, Any]
) -> None:
    clinic.faults = [fault] * 20
    event = outcome(trigger_of(1, max_errors=2))
    assert event.items() >= {"status": "error", **expected}.items()
    assert "HTTP" in event["error"]
    assert len(clinic.reads) == reads


def test_a_wait_for_the_account_is_no_error_until_the_deadline(clinic: Clinic) -> None:
    """A Retry-After stops all requests of the account."""
    clinic.faults = [answering(429, Retry_After="600")]
    began = time.time()
    event = outcome(trigger_of(1, max_errors=3, deadline=began + 2, poke_interval=0.1))
    assert (event["status"], event["code"]) == ("error", "rate_limited")
    assert time.time() >= began + 2


# --- privacy


def test_its_arguments_and_log_lines_hold_nothing_personal(
    clinic: Clinic, caplog: pytest.LogCaptureFixture, provider_log: list[str]
) -> None:
    clinic.say(1, "Yes, said Gwendolyn")
    trigger = trigger_of(1, 2, deadline=time.time() + 0.5)
    path, kwargs = trigger.serialize()
    with caplog.at_level(logging.DEBUG):
        event = outcome(trigger)
    shown = json.dumps([kwargs, event]) + repr(trigger) + caplog.text + "".join(provider_log)
    for private in (*NAMES, "said", "sekret-api-key", "clinic@clinic.example"):
        assert private not in shown
    module, _, name = path.rpartition(".")
    assert getattr(importlib.import_module(module), name) is ApptotoAnswerTrigger


# --- many waits, one read


@shared
@pytest.mark.parametrize("pages", [1, 4])
def test_many_tasks_of_one_triggerer_share_one_read_a_cycle(clinic: Clinic, pages: int) -> None:
    streams: Any = importlib.import_module("airflow.triggers.shared_stream")
    clinic.cap = 40 // pages
    clinic.person(1)["state"] = "confirmed"
    triggers = [trigger_of(1 + number % 2, poke_interval=0.5) for number in range(200)]
    assert len({trigger.shared_stream_key() for trigger in triggers}) == 1
    done = []

    async def wait_for(number: int, manager: Any) -> None:
        trigger: Any = triggers[number]
        stream = manager.subscribe(trigger_id=number, trigger=trigger, key=trigger.shared_stream_key())
        done.extend([event.payload["answers"][0][:3] async for event in trigger.filter_shared_stream(stream)])
        await manager.unsubscribe(number, trigger.shared_stream_key())

    async def run() -> None:
        manager = streams.SharedStreamManager()
        waiting = [asyncio.create_task(wait_for(number, manager)) for number in range(len(triggers))]
        await asyncio.gather(*waiting[::2])
        assert len(done) == 100
        clinic.say(2, "yes")
        await asyncio.gather(*waiting)

    began = time.monotonic()
    asyncio.run(asyncio.wait_for(run(), 240))
    cycles = (time.monotonic() - began) / 0.5 + 2
    assert sorted(map(tuple, done)) == [(1, 1001, "confirmed")] * 100 + [(2, 1002, "yes")] * 100
    assert len(clinic.reads) <= cycles * (pages + 1)


@shared
def test_only_waits_with_the_same_connection_interval_and_window_share_a_read() -> None:
    plain = trigger_of(1).shared_stream_key()
    assert trigger_of(2, deadline=5, replies=None, answered=["confirmed"]).shared_stream_key() == plain
    others: list[dict[str, Any]] = [
        {"apptoto_conn_id": "other"},
        {"poke_interval": 9},
        {"window": [DAY.isoformat(), DAY.isoformat()]},
    ]
    assert plain not in {trigger_of(1, **other).shared_stream_key() for other in others}
    assert trigger_of(1, event_ids=[1]).shared_stream_key() is None
    assert trigger_of(1, window=None).shared_stream_key() is None


@shared
def test_a_failing_read_does_not_end_the_tasks_that_share_it(clinic: Clinic) -> None:
    clinic.faults = [answering(502)] * 3
    clinic.person(1)["state"] = "confirmed"
    _, kwargs = trigger_of(1).serialize()

    async def run() -> list[str]:
        stream: Any = ApptotoAnswerTrigger.open_shared_stream(kwargs)
        async with contextlib.aclosing(stream):
            return [type((await anext(stream)).found).__name__ for _ in range(2)]

    assert asyncio.run(run()) == ["ReadFailure", "dict"]
