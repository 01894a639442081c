"""A message has the same XCom whether this try or an earlier one sent it, in each store of the ledger."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy.engine import URL

from airflow_provider_apptoto.client import Routing
from airflow_provider_apptoto.client.routing import DeliveryMode
from airflow_provider_apptoto.outbox.database import StateDatabase
from airflow_provider_apptoto.outbox.entry import State
from airflow_provider_apptoto.outbox.stores.sql import SqlLedgerStore
from airflow_provider_apptoto.outbox.stores.task_state import TaskStateLedgerStore
from tests.support.entries import SECOND
from tests.support.faults import Exchange, FaultServer, answering
from tests.support.memory_store import MemoryStore
from tests.support.outboxes import NUMBER, TEXT, outbox_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from airflow_provider_apptoto.outbox.stores.base import LedgerStore
    from tests.support.clock import Clock
    from tests.support.task_state import FakeTaskState

MESSAGE: dict[str, Any] = {"type": "sms", "to": NUMBER, "message": TEXT, "reference": "4711"}
ACCEPTED = answering(200, {"success": True, "id": 4711}, accepted=True)


@pytest.fixture(params=["memory", "sqlite", "task_state"])
def new_process(
    request: pytest.FixtureRequest, tmp_path: Path, fake_task_state: FakeTaskState
) -> Iterator[Callable[[], LedgerStore]]:
    """Provide a function that returns the ledger as a new process sees it."""
    databases: list[StateDatabase] = []
    memory = MemoryStore()

    def sqlite() -> LedgerStore:
        databases.append(StateDatabase(URL.create("sqlite", database=str(tmp_path / "state.db"))))
        return SqlLedgerStore(databases[-1])

    stores: dict[str, Callable[[], LedgerStore]] = {
        "memory": lambda: memory,
        "sqlite": sqlite,
        "task_state": lambda: TaskStateLedgerStore(fake_task_state),
    }
    yield stores[request.param]
    for database in databases:
        database._engine.dispose()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {"type": "sms", "target": "+1•••0199", "segments": 1}),
        (
            {"type": "email", "to": "mary@clinic.example", "subject": "S"},
            {"type": "email", "target": "m•••@•••.example", "segments": None},
        ),
        ({"to": None, "event_id": 4712}, {"type": "sms", "target": "event 4712", "segments": 1}),
        ({"type": "call"}, {"type": "call", "target": "+1•••0199", "segments": None}),
    ],
    ids=["text", "e-mail", "event", "call"],
)
def test_the_try_that_finds_a_message_sent_returns_what_the_try_that_sent_it_returned(
    new_process: Callable[[], LedgerStore],
    clinic: FaultServer,
    clock: Clock,
    *,
    fields: dict[str, Any],
    expected: dict[str, Any],
) -> None:
    def accepting_after_a_while(exchange: Exchange) -> None:
        clock.now += 2.5
        ACCEPTED(exchange)

    clinic.scripts = [accepting_after_a_while]
    message = {**MESSAGE, **fields}
    sent = outbox_of(clinic, new_process(), clock).send(**message).to_xcom()
    clock.now += 3600
    found = outbox_of(clinic, new_process(), clock, origin=SECOND).send(**message).to_xcom()
    assert (sent.pop("outcome"), found.pop("outcome")) == ("sent", "deduplicated")
    assert found == sent
    assert json.loads(json.dumps(sent)) == sent
    key = sent.pop("key")
    assert re.fullmatch("[0-9a-f]{32}", key)
    assert sent == {
        "reference": "4711",
        "http_status": 200,
        "sent_at": "2026-09-21T14:13:20.123Z",
        "try_number": 1,
        "response": {"success": True, "id": "4711"},
        **expected,
    }


def test_a_redirected_message_names_its_recipient_and_counts_as_redirected_once(
    new_process: Callable[[], LedgerStore], clinic: FaultServer, clock: Clock
) -> None:
    clinic.scripts = [ACCEPTED]
    routing = Routing(DeliveryMode.REDIRECT, "+16505550100", "test@clinic.example")
    xcoms = [outbox_of(clinic, new_process(), clock, routing=routing).send(**MESSAGE).to_xcom() for _ in range(2)]
    assert [xcom.pop("outcome") for xcom in xcoms] == ["redirected", "deduplicated"]
    assert xcoms[0] == xcoms[1]
    assert xcoms[0]["target"] == "+1•••0199"


def test_without_a_ledger_an_xcom_has_the_same_shape(clinic: FaultServer, clock: Clock) -> None:
    clinic.scripts = [ACCEPTED]
    with_ledger = outbox_of(clinic, MemoryStore(), clock).send(**MESSAGE).to_xcom()
    without = outbox_of(clinic, None, clock).send(**MESSAGE).to_xcom()
    assert (with_ledger.keys(), without["key"]) == (without.keys(), None)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", without["sent_at"])
    assert {**without, "key": "", "sent_at": ""} == {**with_ledger, "key": "", "sent_at": ""}


def test_an_answer_without_an_id_is_kept_without_one(
    new_process: Callable[[], LedgerStore], clinic: FaultServer, clock: Clock
) -> None:
    xcoms = [outbox_of(clinic, new_process(), clock).send(**MESSAGE).to_xcom() for _ in range(2)]
    assert [xcom["response"] for xcom in xcoms] == [{"success": True}] * 2


def test_what_a_person_resolved_as_sent_tells_when_its_request_left(
    new_process: Callable[[], LedgerStore], clinic: FaultServer, clock: Clock
) -> None:
    clinic.scripts = [answering(500, accepted=True)]
    store = new_process()
    assumed = outbox_of(clinic, store, clock, on_unknown="assume_sent").send(**MESSAGE)
    assert (assumed.outcome, assumed.http_status, assumed.response) == ("assumed_sent", 500, {})
    clock.now += 3600
    [left] = store.find([assumed.key or ""]).values()
    assert store.compare_and_swap(left, dataclasses.replace(left, state=State.SENT, version="resolved"))
    found = outbox_of(clinic, new_process(), clock, origin=SECOND).send(**MESSAGE)
    assert (found.outcome, found.sent_at, found.response) == (
        "deduplicated",
        "2026-09-21T14:13:20.123Z",
        {"success": True},
    )
