"""The page does the same on each kind of state database, and says that one is down without its address."""

from __future__ import annotations

import csv
import io
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_apptoto.outbox.admin import LedgerAdmin, Selection
from airflow_provider_apptoto.outbox.database import StateDatabase
from airflow_provider_apptoto.outbox.ledger import recipient_hash
from airflow_provider_apptoto.outbox.origin import Origin
from airflow_provider_apptoto.outbox.stores.sql import SqlLedgerStore
from tests.support.entries import entry
from tests.support.standalone import free_ports
from tests.support.state_databases import forget_databases, url_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fastapi.testclient import TestClient

    Client = Callable[[str], TestClient]

ANN = "+16505550199"


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def database(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    state: StateDatabase,  # noqa: ARG001  its connections
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[StateDatabase]:
    """Provide the state database of ``apptoto_default``, with three messages to Ann."""
    url = url_of(request.param, request, tmp_path)
    fields = {"host": url.database} if request.param == "sqlite" else {"host": url.host, "port": url.port}
    if request.param == "postgresql":
        fields |= {"login": url.username, "schema": url.database}
    monkeypatch.setenv("AIRFLOW_CONN_STATE", json.dumps({"conn_type": request.param.removesuffix("ql"), **fields}))
    forget_databases()
    database = StateDatabase(url)
    store = SqlLedgerStore(database)
    recipient = recipient_hash(store.hash_keys()[0], ANN)
    for number, state_name in enumerate(("sent", "unknown", "unknown")):
        origin = Origin(dag_id="clinic", task_id="remind", run_id="monday", map_index=number, try_number=1)
        made = entry(
            origin, str(number) * 32, state=state_name, lease=0.0, recipient=recipient, updated_at=1.7e9 + number
        )
        assert store.compare_and_swap(None, made)
    yield database
    database._engine.dispose()
    forget_databases()


def keys(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [row["key"][0] for row in answer.json()["rows"]]


def test_everything_that_the_page_does_works(client: Client, database: StateDatabase) -> None:
    op = client("op")
    first = op.get("api/messages?limit=2&dag=clinic&run=monday")
    assert keys(first) == ["2", "1"]
    assert keys(op.get("api/messages", params={"limit": 2, "after": first.json()["after"]})) == ["0"]
    assert keys(op.get("api/open")) == ["2", "1"]
    assert keys(op.post("api/search", json={"text": ANN, "outcome": ["sent"]})) == ["0"]
    table = csv.DictReader(io.StringIO(op.post("api/export", json={"text": ANN}).text))
    assert [row["key"][0] for row in table] == ["2", "1", "0"]
    body = {"keys": ["1" * 32, "2" * 32], "note": "seen"}
    assert keys(op.post("api/dags/clinic/resolve", json={**body, "outcome": "sent"})) == ["2", "1"]
    assert op.post("api/dags/clinic/optout", json=body).json() == {"added": 1, "messages": 2, "skipped": 0}
    assert keys(op.post("api/dags/clinic/forget", json={**body, "keys": ["1" * 32]})) == ["1"]
    assert keys(op.get("api/messages")) == ["2", "0"]
    [record] = LedgerAdmin(database).select(Selection(keys=["2" * 32]))
    assert record.why == "ann op: seen"


def test_of_many_people_who_resolve_a_message_at_once_one_is_told_that_it_was_done(
    client: Client, database: StateDatabase
) -> None:
    op, start = client("op"), threading.Barrier(4)
    done: list[tuple[int, int]] = []

    def resolve(outcome: str) -> None:
        start.wait()
        body = {"keys": ["1" * 32], "note": "seen", "outcome": outcome}
        answer = op.post("api/dags/clinic/resolve", json=body).json()
        done.append((len(answer["rows"]), answer["skipped"]))

    threads = [threading.Thread(target=resolve, args=(outcome,)) for outcome in ("sent", "not_sent") * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == [(0, 1), (0, 1), (0, 1), (1, 0)]
    [record] = LedgerAdmin(database).select(Selection(keys=["1" * 32]))
    assert [each.to_state for each in record.changes] == [record.entry.state]


@pytest.mark.parametrize("text", ["%", "_", "%%", "4_11", "47%", "' OR 1=1 --", '"', "\\", "0" * 1000])
def test_a_search_and_filters_take_every_character_literally(
    client: Client, database: StateDatabase, text: str
) -> None:
    assert len(LedgerAdmin(database).select(Selection())) == 3
    op = client("op")
    assert keys(op.post("api/search", json={"text": text})) == []
    assert keys(op.get("api/messages", params={"reference": text})) == []
    assert keys(op.get("api/messages", params={"run": text[:250], "dag": text[:250]})) == []


@pytest.mark.usefixtures("state")
def test_a_server_that_is_down_is_told_without_its_address(
    client: Client, monkeypatch: pytest.MonkeyPatch, provider_log: list[str]
) -> None:
    [port] = free_ports(1)
    fields = {"conn_type": "postgres", "host": "127.0.0.1", "port": port, "login": "ann", "password": "sekret-pass"}
    monkeypatch.setenv("AIRFLOW_CONN_STATE", json.dumps(fields))
    forget_databases()
    body = {"keys": ["1" * 32], "note": "seen"}
    for path, asked in (
        ("api/messages", None),
        ("api/search", {"text": ANN}),
        ("api/export", {}),
        ("api/dags/clinic/resolve", {**body, "outcome": "sent"}),
        ("api/dags/clinic/forget", body),
        ("api/dags/clinic/optout", body),
    ):
        admin = client("admin")
        answer = admin.get(path) if asked is None else admin.post(path, json=asked)
        assert answer.status_code == 503, path
        assert answer.json()["detail"].startswith("The state database of connection 'apptoto_default' can't be used")
        assert not any(part in answer.text for part in ("127.0.0.1", str(port), "sekret-pass"))
    assert len(client("admin").get("api/open").json()["problems"]) == 1
    assert "sekret-pass" not in "".join(provider_log)
