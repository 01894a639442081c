"""The routes of the outbox page show rows of readable DAGs, and change rows of DAGs that the user may edit."""

from __future__ import annotations

import csv
import io
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import inspect, text

from airflow_provider_apptoto.outbox.admin import LedgerAdmin, Selection
from airflow_provider_apptoto.outbox.ledger import recipient_hash
from airflow_provider_apptoto.outbox.optouts import OptOuts
from airflow_provider_apptoto.outbox.stores.sql import SqlLedgerStore
from tests.support.entries import add
from tests.support.old_databases import load_v1, rows_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fastapi.testclient import TestClient

    from airflow_provider_apptoto.outbox.database import StateDatabase

    Client = Callable[[str], TestClient]

ROLES = ("viewer", "user", "op", "admin")
ANN = "+16505550199"
UNKNOWN_KEY, ABANDONED_KEY, SENT_KEY, IN_FLIGHT_KEY = "5" * 32, "6" * 32, "1" * 32, "0" * 32
NOTE = "it is in the conversation"
READS: list[tuple[str, str, dict[str, Any] | None]] = [
    ("GET", "api/about", None),
    ("GET", "api/open", None),
    ("GET", "api/messages", None),
    ("POST", "api/search", {"text": "4711"}),
    ("POST", "api/export", {}),
]
CHANGES: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "api/dags/clinic/resolve", {"keys": [UNKNOWN_KEY], "note": NOTE, "outcome": "sent"}),
    ("POST", "api/dags/clinic/forget", {"keys": [UNKNOWN_KEY], "note": NOTE}),
    ("POST", "api/dags/clinic/optout", {"keys": [UNKNOWN_KEY], "note": NOTE}),
]


def of_ann(database: StateDatabase) -> str:
    [key] = SqlLedgerStore(database).hash_keys()
    return str(recipient_hash(key, ANN))


def keys(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [row["key"] for row in answer.json()["rows"]]


# --- who


@pytest.mark.usefixtures("ledger")
@pytest.mark.parametrize(("method", "path", "body"), [*READS, *CHANGES])
def test_nobody_sees_or_changes_anything_without_logging_in(
    anonymous: TestClient, method: str, path: str, body: Any
) -> None:
    headers = {"Origin": "http://airflow.example:8080"}
    assert anonymous.request(method, path, json=body, headers=headers).status_code == 401
    anonymous.headers["Authorization"] = "Bearer nonsense"
    assert anonymous.request(method, path, json=body).status_code in {401, 403}


@pytest.mark.usefixtures("ledger")
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(("method", "path", "body"), READS)
def test_each_role_may_read(client: Client, role: str, method: str, path: str, body: Any) -> None:
    assert client(role).request(method, path, json=body).status_code == 200


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change[1])
def test_only_who_may_edit_task_instances_may_change_entries(
    client: Client, ledger: StateDatabase, role: str, change: tuple[str, str, dict[str, Any]]
) -> None:
    method, path, body = change
    before = rows_of(ledger._url)
    assert {row["may_change"] for row in client(role).get("api/open").json()["rows"]} == {role != "viewer"}
    answer = client(role).request(method, path, json=body)
    assert answer.status_code == (403 if role == "viewer" else 200)
    assert role != "viewer" or rows_of(ledger._url) == before


def test_rows_of_dags_that_the_user_may_not_read_are_not_shown(client: Client, state: StateDatabase) -> None:
    """``secret`` stands for any DAG that is not among the user's: here Airflow does not know it."""
    for number, dag_id in enumerate(["clinic", "secret", "lab", "secret"]):
        add(state, f"{number}" * 32, dag_id, state="unknown", updated_at=float(number), recipient=of_ann(state))
    viewer, wanted = client("viewer"), ["2" * 32, "0" * 32]
    assert keys(viewer.get("api/open")) == wanted
    assert keys(viewer.get("api/messages")) == wanted
    assert keys(viewer.get("api/messages?dag=secret")) == []
    assert keys(viewer.get("api/messages?reference=4711")) == wanted
    assert keys(viewer.post("api/search", json={"text": ANN})) == wanted
    assert keys(viewer.post("api/search", json={"text": "4711"})) == wanted
    lines = viewer.post("api/export", json={}).text.splitlines()
    assert len(lines) == 3
    assert not any("secret" in line for line in lines)


def test_an_entry_of_another_dag_than_the_one_in_the_path_is_not_changed(client: Client, ledger: StateDatabase) -> None:
    before = rows_of(ledger._url)
    for _, path, body in CHANGES:
        for dag_id in ("lab", "~", "*", "%"):
            answer = client("admin").post(path.replace("clinic", dag_id.replace("%", "%25")), json=body)
            assert answer.status_code == 200
            assert answer.json()["skipped"] == 1
    assert rows_of(ledger._url) == before


# --- read


@pytest.mark.usefixtures("ledger")
def test_the_open_cases_are_those_that_a_person_must_resolve(client: Client) -> None:
    answer = client("viewer").get("api/open")
    assert keys(answer) == [ABANDONED_KEY, UNKNOWN_KEY]
    assert (answer.json()["is_cut"], answer.json()["problems"]) == (False, [])
    row = answer.json()["rows"][1]
    assert (row["target"], row["reference"], row["dag_id"], row["state"]) == ("+1•••0199", "4711", "clinic", "unknown")
    assert not {"recipient", "fingerprint", "version"} & set(row)


def test_pages_follow_each_other_and_filters_apply(client: Client, state: StateDatabase) -> None:
    for number in range(5):
        add(state, f"{number}" * 32, updated_at=1.7e9 + number, channel="sms" if number % 2 else "email")
    viewer, found, after = client("viewer"), [], ""
    while True:
        answer = viewer.get(f"api/messages?limit=2{after}")
        found.append([each[0] for each in keys(answer)])
        if answer.json()["after"] is None:
            break
        after = f"&after={answer.json()['after']}"
    assert found == [["4", "3"], ["2", "1"], ["0"]]
    assert [each[0] for each in keys(viewer.get("api/messages?channel=email"))] == ["4", "2", "0"]
    period = "since=2023-11-14T22:13:21Z&until=2023-11-14T23:13:23%2B01:00"
    assert [each[0] for each in keys(viewer.get(f"api/messages?{period}"))] == ["2", "1"]
    assert keys(viewer.get("api/messages?outcome=sent&outcome=rejected")) == []
    assert len(keys(viewer.get("api/messages?outcome=sent&outcome=unknown"))) == 5


@pytest.mark.usefixtures("ledger")
@pytest.mark.parametrize(
    "query", ["limit=0", "limit=201", "outcome=lost", "after=x", "since=2023-11-14T22:13:21", "dag_id=lab", "run=%00"]
)
def test_an_invalid_filter_is_refused_without_repeating_it(client: Client, query: str) -> None:
    answer = client("viewer").get(f"api/messages?{query}")
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(f"Invalid request: {query.partition('=')[0]}")
    assert set(answer.json()) == {"detail"}


# --- search


def test_a_recipient_is_found_in_any_spelling_and_is_nowhere_afterwards(
    client: Client, state: StateDatabase, caplog: pytest.LogCaptureFixture, provider_log: list[str]
) -> None:
    add(state, SENT_KEY, recipient=of_ann(state))
    add(state, UNKNOWN_KEY)
    before = rows_of(state._url)
    caplog.set_level(logging.DEBUG)
    for written in ("+1 (650) 555-0199", "tel:+1-650-555-0199", f" {ANN} "):
        answer = client("viewer").post("api/search", json={"text": written})
        assert keys(answer) == [SENT_KEY]
        assert answer.json()["hint"] is None
        everything = [*provider_log, caplog.text, str(answer.url), json.dumps(answer.json())]
        assert not any(part in each for part in (written, "5550199", "555-0199") for each in everything)
    assert "ann viewer searched for a reference or a recipient: 1 rows" in "\n".join(provider_log)
    assert rows_of(state._url) == before


@pytest.mark.usefixtures("ledger")
@pytest.mark.parametrize(
    "body", [{"text": {"a": "+16505550199"}}, {"text": "+16505550199", "dag": 1}, ["+16505550199"]]
)
def test_an_invalid_search_does_not_repeat_the_recipient(client: Client, body: Any, provider_log: list[str]) -> None:
    answer = client("viewer").post("api/search", json=body)
    assert answer.status_code == 422
    assert "5550199" not in answer.text + "".join(provider_log)


def test_a_search_finds_a_reference_too_and_says_if_a_number_lacks_its_country(
    client: Client, state: StateDatabase
) -> None:
    add(state, SENT_KEY, reference="650-555-0199")
    add(state, UNKNOWN_KEY, recipient=of_ann(state))
    answer = client("viewer").post("api/search", json={"text": "650-555-0199"})
    assert keys(answer) == [SENT_KEY]
    assert "has no country code" in answer.json()["hint"]
    assert keys(client("viewer").post("api/search", json={"text": "nobody"})) == []


# --- change


def changes_of(database: StateDatabase, key: str) -> list[tuple[str, str, str, str]]:
    [record] = LedgerAdmin(database).select(Selection(keys=[key]))
    return [(each.from_state, each.to_state, each.changed_by, each.note) for each in record.changes]


def test_a_resolution_is_kept_with_who_and_why_and_written_to_the_audit_log(
    client: Client, ledger: StateDatabase, provider_log: list[str]
) -> None:
    body = {"keys": [UNKNOWN_KEY, ABANDONED_KEY, SENT_KEY, IN_FLIGHT_KEY], "note": NOTE, "outcome": "sent"}
    answer = client("op").post("api/dags/clinic/resolve", json=body)
    assert sorted(keys(answer)) == [UNKNOWN_KEY, ABANDONED_KEY]
    assert answer.json()["skipped"] == 2
    assert {row["why"] for row in answer.json()["rows"]} == {f"ann op: {NOTE}"}
    assert changes_of(ledger, UNKNOWN_KEY) == [("unknown", "sent", "ann op", NOTE)]
    assert changes_of(ledger, SENT_KEY) == []
    assert keys(client("op").get("api/open")) == []
    [line] = [line for line in provider_log if "resolved" in line]
    assert line.startswith("ann op resolved as sent messages of DAG 'clinic': ")
    assert UNKNOWN_KEY in line
    assert NOTE not in line


def test_a_resolution_is_taken_back_only_by_force(client: Client, ledger: StateDatabase) -> None:
    path, body = "api/dags/clinic/resolve", {"keys": [UNKNOWN_KEY], "note": NOTE}
    assert keys(client("op").post(path, json={**body, "outcome": "sent"})) == [UNKNOWN_KEY]
    assert keys(client("op").post(path, json={**body, "outcome": "not_sent"})) == []
    assert keys(client("user").post(path, json={**body, "outcome": "not_sent", "force": True})) == [UNKNOWN_KEY]
    assert [each[:3] for each in changes_of(ledger, UNKNOWN_KEY)] == [
        ("unknown", "sent", "ann op"),
        ("sent", "not_sent", "ann user"),
    ]


def test_a_message_is_forgotten_unless_it_is_in_flight(client: Client, ledger: StateDatabase) -> None:
    body = {"keys": [SENT_KEY, IN_FLIGHT_KEY], "note": NOTE}
    answer = client("op").post("api/dags/clinic/forget", json=body)
    assert (keys(answer), answer.json()["skipped"]) == ([SENT_KEY], 1)
    assert LedgerAdmin(ledger).select(Selection(keys=[SENT_KEY])) == []
    assert len(LedgerAdmin(ledger).select(Selection(keys=[IN_FLIGHT_KEY]))) == 1


def test_the_recipient_of_a_message_is_opted_out_without_being_typed(client: Client, state: StateDatabase) -> None:
    add(state, SENT_KEY, recipient=of_ann(state))
    add(state, UNKNOWN_KEY, recipient=of_ann(state))
    add(state, ABANDONED_KEY)
    body = {"keys": [SENT_KEY, UNKNOWN_KEY, ABANDONED_KEY], "note": NOTE, "list": "campaigns"}
    answer = client("op").post("api/dags/clinic/optout", json=body)
    assert answer.json() == {"added": 1, "messages": 2, "skipped": 1}
    assert OptOuts(state, SqlLedgerStore(state).hash_keys).check(ANN) == ["campaigns"]


@pytest.mark.parametrize("number", range(len(CHANGES)))
@pytest.mark.parametrize(
    "wrong",
    [{"note": ""}, {"note": "a\nb"}, {"note": None}, {"keys": []}, {"keys": ["5"]}, {"keys": ["%" * 32]}, {"more": 1}],
)
def test_a_change_needs_whole_keys_and_a_note_of_one_line(
    client: Client, ledger: StateDatabase, number: int, wrong: dict[str, Any]
) -> None:
    before = rows_of(ledger._url)
    _, path, body = CHANGES[number]
    assert client("admin").post(path, json={**body, **wrong}).status_code == 422
    assert rows_of(ledger._url) == before


@pytest.mark.parametrize("outcome", ["unknown", "sending", "redirected", "forgotten", None])
def test_a_message_is_resolved_as_sent_or_not_sent_and_nothing_else(
    client: Client, ledger: StateDatabase, outcome: Any
) -> None:
    before = rows_of(ledger._url)
    _, path, body = CHANGES[0]
    assert client("admin").post(path, json={**body, "outcome": outcome}).status_code == 422
    assert rows_of(ledger._url) == before


# --- export


def test_an_export_has_all_pages_and_no_formulas(
    client: Client, state: StateDatabase, monkeypatch: pytest.MonkeyPatch, provider_log: list[str]
) -> None:
    from airflow_provider_apptoto.ui import routes

    monkeypatch.setattr(routes, "MAX_ROWS", 2)
    add(state, "1" * 32, updated_at=1.0, reference='=HYPERLINK("http://x")', labels={"clinic": "north"})
    for number in range(2, 7):
        add(state, f"{number}" * 32, updated_at=float(number))
    answer = client("viewer").post("api/export", json={})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert "x-apptoto-complete" not in answer.headers
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [row["key"][0] for row in rows] == ["6", "5", "4", "3", "2", "1"]
    assert rows[-1]["reference"] == '\'=HYPERLINK("http://x")'
    assert rows[-1]["target"] == "'+1•••0199"
    assert json.loads(rows[-1]["labels"]) == {"clinic": "north"}
    assert "ann viewer exported 6 messages (all that are selected) of 'apptoto_default'" in "\n".join(provider_log)
    monkeypatch.setattr(routes, "MAX_EXPORTED", 4)
    answer = client("viewer").post("api/export", json={})
    assert (len(answer.text.splitlines()), answer.headers["x-apptoto-complete"]) == (5, "no")
    assert (
        len(
            client("viewer")
            .post("api/export", json={"text": "4711", "until": "1970-01-01T00:00:04Z"})
            .text.splitlines()
        )
        == 3
    )


# --- databases that can't be used


def test_an_empty_database_is_shown_as_empty_and_stays_so(client: Client, state: StateDatabase) -> None:
    viewer = client("viewer")
    assert keys(viewer.get("api/open")) == keys(viewer.get("api/messages")) == []
    with state._engine.connect() as connection:
        assert inspect(connection).get_table_names() == []
    _, path, body = CHANGES[0]
    assert client("admin").post(path, json=body).status_code == 503


def test_reading_does_not_migrate_a_database_of_an_older_version(client: Client, state: StateDatabase) -> None:
    load_v1(state._url)
    before = rows_of(state._url)
    assert "Migrate it with: " in client("viewer").get("api/messages").json()["detail"]
    assert "Migrate it with: " in client("viewer").get("api/open").json()["problems"][0]
    assert rows_of(state._url) == before


@pytest.mark.usefixtures("state")
def test_a_database_that_is_down_is_told_without_its_address(
    client: Client, tmp_path: Path, provider_log: list[str]
) -> None:
    (tmp_path / "state.db").write_text("not a database, but long enough to be read as one" * 20)
    for answer in (client("viewer").get("api/messages"), client("viewer").post("api/search", json={"text": ANN})):
        assert answer.status_code == 503
        assert answer.json()["detail"].startswith(
            "The state database of connection 'apptoto_default' can't be used now"
        )
        assert str(tmp_path) not in answer.text
    assert client("viewer").get("api/open").json()["problems"] == [answer.json()["detail"]]
    assert "file is not a database" in "\n".join(provider_log)


@pytest.mark.usefixtures("ledger")
def test_a_connection_without_a_database_is_named_beside_the_others(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__APPTOTO__OUTBOX_CONN_IDS", "apptoto_default, bare, missing,apptoto_default")
    viewer = client("viewer")
    assert viewer.get("api/about").json() == {
        "user": "ann viewer",
        "sources": ["apptoto_default", "bare", "missing"],
    }
    answer = viewer.get("api/open")
    assert keys(answer) == [ABANDONED_KEY, UNKNOWN_KEY]
    problems = answer.json()["problems"]
    assert [each.partition(",")[0].partition(".")[0] for each in problems] == [
        "Connection 'bare' has no state_conn_id",
        "Connection 'missing' can't be used",
    ]
    assert viewer.get("api/messages?source=missing").status_code == 503
    assert "is not one of [apptoto] outbox_conn_ids" in viewer.get("api/messages?source=state").json()["detail"]


@pytest.mark.usefixtures("ledger")
def test_an_invalid_configuration_is_told_without_its_values(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__APPTOTO__OUTBOX_CON_IDS", "sekret")
    answer = client("viewer").get("api/messages")
    assert answer.status_code == 503
    assert "sekret" not in answer.text


def test_an_unexpected_error_is_answered_in_json_without_its_text(client: Client, ledger: StateDatabase) -> None:
    with ledger.transaction() as connection:
        connection.execute(text("UPDATE apptoto_ledger SET labels = 'sekret{'"))
    answer = client("viewer").get("api/messages")
    assert answer.status_code == 500
    assert answer.json() == {"detail": "The request failed. The log of the API server has the reason."}
    assert answer.headers["cache-control"] == "no-store"
