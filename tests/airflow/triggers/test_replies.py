"""The trigger that watches replies loses none, wherever it is killed, and tells nothing personal."""

from __future__ import annotations

import asyncio
import datetime as dt
import importlib
import itertools
import json
import logging
import time
from collections import Counter
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_apptoto._airflow_triggers import has_shared_streams
from airflow_provider_apptoto.answers.replies import FoundReply, ReplyReader
from airflow_provider_apptoto.client import ApptotoConfigurationError
from airflow_provider_apptoto.triggers import replies as module
from airflow_provider_apptoto.triggers.apptoto import ApptotoReplyTrigger
from tests.support.appointments import NAMES, Clinic
from tests.support.faults import answering

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.faults import FaultServer

pytestmark = [pytest.mark.contract, pytest.mark.usefixtures("airflow_database", "quick_retries")]
on_3_3 = pytest.mark.skipif(not has_shared_streams(), reason="Airflow before 3.3 has no state of assets")

PATTERNS = {"yes": "^y", "other": r"\S"}
KEY = "apptoto_replies_apptoto_default"


class Killed(BaseException):
    """The triggerer is killed."""


class State:
    """The state of an asset, as Airflow stores it: as JSON.

    :param step: called before each access.
    """

    def __init__(self, step: Callable[[], None] = lambda: None) -> None:
        self.stored: dict[str, str] = {}
        self._step = step

    async def aget(self, key: str, default: Any = None) -> Any:
        self._step()
        return json.loads(self.stored[key]) if key in self.stored else default

    async def aset(self, key: str, value: Any) -> None:
        self._step()
        self.stored[key] = json.dumps(value)


async def unavailable(*_: Any) -> None:
    raise RuntimeError("the API server is away")


@pytest.fixture
def clinic(server: FaultServer) -> Clinic:
    clinic = Clinic.of(40)
    for number, event in clinic.events.items():
        event["start_time"] = (dt.datetime.now(dt.UTC) + dt.timedelta(days=1, minutes=number)).isoformat()
    server.scripts = [clinic]
    return clinic


@pytest.fixture(autouse=True)
def short_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAUSE_AFTER_REFUSAL", 0.1)


def trigger_of(*states: Any, **fields: Any) -> ApptotoReplyTrigger:
    """Return a trigger as it comes out of the database, which watches assets with these states."""
    _, kwargs = ApptotoReplyTrigger(**({"replies": PATTERNS} | fields)).serialize()
    trigger = ApptotoReplyTrigger(**json.loads(json.dumps(kwargs)))
    trigger.poke_interval = 0.1
    by_name = {f"asset {number}": state for number, state in enumerate(states)}
    trigger.asset_state_store = SimpleNamespace(_by_name=by_name, _by_uri={})  # type: ignore[assignment]
    return trigger


def events_of(trigger: ApptotoReplyTrigger, count: int, *steps: Callable[[], None]) -> list[dict[str, Any]]:
    """Return the payloads of the next events.

    :param steps: called one after the other, half a second apart.
    """

    async def run() -> list[dict[str, Any]]:
        for number, step in enumerate(steps, 1):
            asyncio.get_running_loop().call_later(number / 2, step)
        generator = trigger.run()
        return [dict((await anext(generator)).payload) for _ in range(count)]

    return asyncio.run(asyncio.wait_for(run(), 60))


def answers(payload: dict[str, Any]) -> list[tuple[int, str | None]]:
    return [(each["event_id"], each["answer"]) for each in payload["replies"]]


@on_3_3
def test_it_begins_now_and_a_burst_is_one_event(clinic: Clinic) -> None:
    clinic.say(1, "yes", at=dt.datetime.now(dt.UTC) - dt.timedelta(minutes=5))

    def burst() -> None:
        for number in range(1, 41):
            clinic.say(number, "Yes, gladly" if number % 2 else "who is this?", id=number)

    state = State()
    [event] = events_of(trigger_of(state), 1, burst)
    assert sorted(answers(event)) == [(number, "yes" if number % 2 else "other") for number in range(1, 41)]
    assert event.keys() == {"replies"}
    assert event["replies"][0].keys() == {"reply_id", "event_id", "participant_id", "reference", "answer", "at"}
    assert not any(private in json.dumps(event) + state.stored[KEY] for private in (*NAMES, "gladly", "who is"))


@on_3_3
def test_what_matches_no_pattern_is_left_out_and_without_patterns_all_replies_count(clinic: Clinic) -> None:
    def say() -> None:
        clinic.say(1, "no")
        clinic.say(2, "yes")

    [event] = events_of(trigger_of(State(), replies={"yes": "^y"}), 1, say)
    assert answers(event) == [(2, "yes")]
    clinic.person(1)["conversations"].clear()
    clinic.person(2)["conversations"].clear()
    [event] = events_of(trigger_of(State(), replies=None), 1, say)
    assert answers(event) == [(1, None), (2, None)]


@on_3_3
@pytest.mark.parametrize("pages", [1, 4])
def test_a_poll_takes_one_request_more_than_pages(clinic: Clinic, pages: int) -> None:
    clinic.cap = 40 // pages
    began = time.monotonic()
    events_of(trigger_of(State()), 1, lambda: None, lambda: clinic.say(1, "yes"))
    assert len(clinic.reads) % (pages + 1) == 0
    assert len(clinic.reads) / (pages + 1) <= (time.monotonic() - began) / 0.1 + 1
    assert all("include_conversations=true" in path for path in clinic.reads)


@on_3_3
def test_a_reply_to_an_event_that_began_during_a_pause_is_found(clinic: Clinic) -> None:
    """The window goes back as far as the position that was stored."""
    then = dt.datetime.now(dt.UTC) - dt.timedelta(days=5)
    clinic.events[1]["start_time"] = then.isoformat()
    clinic.say(1, "yes", at=then + dt.timedelta(hours=1))
    state = State()
    state.stored[KEY] = json.dumps({"since": then.isoformat(), "seen": {}})
    [event] = events_of(trigger_of(state), 1)
    assert answers(event) == [(1, "yes")]


@on_3_3
def test_assets_that_share_the_trigger_begin_where_the_earliest_stopped(clinic: Clinic) -> None:
    at = dt.datetime.now(dt.UTC) - dt.timedelta(hours=3)
    clinic.say(1, "yes", at=at)
    late, early = State(), State()
    for state, since in ((late, at + dt.timedelta(hours=1)), (early, at)):
        state.stored[KEY] = json.dumps({"since": since.isoformat(), "seen": {}})
    first, _ = events_of(trigger_of(late, State(), early), 2, lambda: clinic.say(2, "yes"))
    assert answers(first) == [(1, "yes")]
    assert late.stored == early.stored


# --- kills


@on_3_3
@pytest.mark.parametrize("killed_at", range(1, 30))
def test_a_kill_at_any_moment_loses_no_reply(killed_at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow stores the event of a poll before the next one; until then, a kill loses the event."""
    steps = itertools.count(1)
    now = 1_780_000_000.0
    said: list[FoundReply] = []
    stored: list[dict[str, Any]] = []
    in_flight: list[dict[str, Any]] = []

    def step() -> None:
        if next(steps) == killed_at:
            raise Killed

    async def pause(_: float) -> None:
        nonlocal now
        step()
        stored.extend(in_flight)
        in_flight.clear()
        now += 60
        said.append(FoundReply(f"{len(said)}", 7, 70, None, now - 30, "yes"))

    def read(*_: Any) -> list[FoundReply]:
        step()
        return list(said)

    monkeypatch.setattr(asyncio, "sleep", pause)
    monkeypatch.setattr(time, "time", lambda: now)
    monkeypatch.setattr(ReplyReader, "read", read)
    state = State(step)

    async def run() -> None:
        async for event in trigger_of(state).run():
            step()
            in_flight.append(event.payload)
            if len(stored) > 8:
                return

    with pytest.raises(Killed):
        asyncio.run(run())
    first = len(said) if not state.stored else 0
    in_flight.clear()
    now += 7200
    asyncio.run(run())
    copies = Counter(reply["reply_id"] for payload in stored for reply in payload["replies"])
    assert set(copies) >= {each.reply_id for each in said[first:-2]}
    assert max(copies.values()) <= 2


# --- errors


@on_3_3
@pytest.mark.parametrize(
    ("fault", "code", "is_final"),
    [(answering(502), "not_sent", False), (answering(401), "credentials_refused", True)],
)
def test_an_outage_makes_one_event_and_the_replies_come_after_it(
    clinic: Clinic, fault: Any, code: str, *, is_final: bool
) -> None:
    clinic.faults = [fault] * 12
    clinic.say(1, "yes", at=dt.datetime.now(dt.UTC) + dt.timedelta(seconds=1))
    told, event = events_of(trigger_of(State(), max_errors=2), 2)
    assert told.items() >= {"replies": [], "code": code, "is_final": is_final}.items()
    assert "HTTP" in told["error"]
    assert answers(event) == [(1, "yes")]
    assert event.keys() == {"replies"}


@on_3_3
@pytest.mark.parametrize(
    ("access", "what"),
    [("aget", "The stored position could not be read"), ("aset", "The position could not be stored")],
)
def test_nothing_is_read_until_the_beginning_is_stored(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch, access: str, what: str
) -> None:
    """Otherwise a restart would begin later, and lose what came in between."""
    monkeypatch.setattr(State, access, unavailable)
    [event] = events_of(trigger_of(State(), max_errors=2), 1)
    assert event == {"replies": [], "error": f"{what}: RuntimeError", "code": "error", "is_final": False}
    assert clinic.reads == []


@on_3_3
def test_a_position_that_can_not_be_read_is_an_error_not_a_new_beginning(clinic: Clinic) -> None:
    state = State()
    state.stored[KEY] = json.dumps({"since": "yesterday"})
    [event] = events_of(trigger_of(state), 1)
    assert f"Delete {KEY} from the state of the asset" in event["error"]
    assert clinic.reads == []
    assert json.loads(state.stored[KEY]) == {"since": "yesterday"}


@on_3_3
def test_replies_are_told_while_the_position_can_not_be_stored(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        monkeypatch.setattr(State, "aset", unavailable)
        clinic.say(1, "yes")

    [event] = events_of(trigger_of(State()), 1, fail)
    assert answers(event) == [(1, "yes")]


# --- privacy, Airflow, parameters


@on_3_3
def test_its_arguments_and_log_lines_hold_nothing_personal(
    clinic: Clinic, caplog: pytest.LogCaptureFixture, provider_log: list[str]
) -> None:
    trigger, state = trigger_of(State()), State()
    path, kwargs = trigger.serialize()
    with caplog.at_level(logging.DEBUG):
        event = events_of(trigger_of(state), 1, lambda: clinic.say(1, "Yes, said Gwendolyn"))
    shown = json.dumps([kwargs, event, state.stored]) + repr(trigger) + caplog.text + "".join(provider_log)
    for private in (*NAMES, "said", "sekret-api-key", "clinic@clinic.example"):
        assert private not in shown
    module_name, _, name = path.rpartition(".")
    assert getattr(importlib.import_module(module_name), name) is ApptotoReplyTrigger


@on_3_3
def test_airflow_recognizes_the_trigger_of_a_dag_file_among_those_that_it_stored() -> None:
    """If not, each parse of the DAG file would replace it."""
    encoders: Any = importlib.import_module("airflow.serialization.encoders")
    stored: Any = importlib.import_module("airflow.models.trigger").Trigger
    for fields in ({}, {"replies": None}, {"poke_interval": 30, "days_back": 0}):
        trigger = ApptotoReplyTrigger(**({"replies": PATTERNS} | fields))
        encoded = encoders.encode_trigger(trigger)
        row = stored(classpath=encoded["classpath"], kwargs=encoded["kwargs"])
        assert trigger.hash(**encoded) == trigger.hash(row.classpath, row.kwargs)
        watcher: Any = importlib.import_module("airflow.sdk").AssetWatcher
        assert watcher(name="replies", trigger=trigger).trigger is trigger


@on_3_3
def test_a_task_can_not_wait_for_it() -> None:
    trigger = ApptotoReplyTrigger()
    with pytest.raises(ApptotoConfigurationError, match="needs an AssetWatcher"):
        asyncio.run(anext(trigger.run()))  # type: ignore[arg-type]


@on_3_3
@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"replies": {}}, "replies: must not be empty"),
        ({"replies": {"yes": "("}}, "replies: yes: .* is not a pattern"),
        ({"replies": {"confirmed": "y"}}, "can't be the name of an answer"),
        ({"days_back": -1}, "days_back: -1 is not an integer of at least 0"),
        ({"days_ahead": 0}, "days_ahead: 0 is not an integer of at least 1"),
        ({"max_errors": 0}, "max_errors"),
        ({"poke_interval": 0.5}, "poke_interval: must be at least 1 second"),
        ({"poke_interval": float("nan")}, "poke_interval: must be at least 1 second"),
    ],
)
def test_invalid_parameters_are_found_when_the_dag_is_parsed(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ApptotoConfigurationError, match=said):
        ApptotoReplyTrigger(**fields)


@pytest.mark.skipif(has_shared_streams(), reason="for Airflow before 3.3")
def test_before_airflow_3_3_its_use_is_a_clear_error() -> None:
    with pytest.raises(ApptotoConfigurationError, match="needs Airflow 3"):
        ApptotoReplyTrigger()


@on_3_3
def test_an_airflow_that_is_too_old_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "has_shared_streams", lambda: False)
    with pytest.raises(ApptotoConfigurationError, match="needs Airflow 3"):
        ApptotoReplyTrigger()
