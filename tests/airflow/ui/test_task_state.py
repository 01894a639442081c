"""The outbox page shows and changes messages in Airflow's task state, but never while their task may run."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("airflow.models.task_state_store", reason="task state needs Airflow 3.3 or newer")

from airflow_provider_apptoto import _airflow_task_state
from airflow_provider_apptoto._airflow_task_state import TaskInstanceId
from airflow_provider_apptoto.outbox.entry import Entry
from airflow_provider_apptoto.outbox.ledger import recipient_hash
from airflow_provider_apptoto.outbox.origin import Origin
from airflow_provider_apptoto.outbox.stores.sql import SqlLedgerStore
from airflow_provider_apptoto.outbox.stores.task_state import TaskStateLedgerStore
from airflow_provider_apptoto.ui import task_state
from tests.support.entries import entry
from tests.support.task_instances import StoredTaskState, add_run, add_task, set_state

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi.testclient import TestClient

    from airflow_provider_apptoto.outbox.database import StateDatabase

    Client = Callable[[str], TestClient]

RUN = "scheduled__2026-11-29T08:00:00+00:00"
OF_RUN = {"dag": "clinic", "run": RUN}
TASK = TaskInstanceId("clinic", RUN, "remind", -1)
ANN = "+16505550199"
NOTE = "it is in the conversation"
ENDED = ("success", "failed", "skipped", "upstream_failed", "removed")
NOT_ENDED = (
    *(None, "scheduled", "queued", "running", "restarting", "up_for_retry"),
    *("up_for_reschedule", "deferred", "awaiting_input"),
)


class Task:
    """A task instance whose ledger is in task state."""

    def __init__(self, task: TaskInstanceId, state: str | None) -> None:
        add_task(task, state)
        self.id = task
        self.state = StoredTaskState(task)
        self._store = TaskStateLedgerStore(self.state)
        [self.hash_key] = self._store.hash_keys()

    def send(self, number: int, **fields: Any) -> None:
        """Write the entry of a message."""
        origin = Origin(
            dag_id=self.id.dag_id,
            task_id=self.id.task_id,
            run_id=self.id.run_id,
            map_index=self.id.map_index,
            try_number=1,
        )
        recipient = recipient_hash(self.hash_key, ANN)
        given = {"state": "unknown", "lease": 0.0, "updated_at": 1.7e9 + number, "recipient": recipient, **fields}
        made = Entry.from_dict({**entry(origin, key(number)).to_dict(), **given})
        assert self._store.compare_and_swap(None, made)

    def entry(self, number: int) -> dict[str, Any]:
        """Return the stored entry."""
        found: dict[str, Any] = self.state.stored()[f"apptoto-message-{key(number)}"]
        return found


def key(number: int) -> str:
    return f"{number:032x}"


@pytest.fixture
def run(dags: None, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Task]:  # noqa: ARG001  it is needed
    """Provide a new run, and return what adds a task instance to it; no connection has a state database."""
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")  # as the API server does
    monkeypatch.setenv("AIRFLOW_CONN_APPTOTO_DEFAULT", '{"conn_type": "apptoto", "login": "a", "password": "b"}')
    for dag_id in ("clinic", "secret"):
        add_run(dag_id, RUN)

    def add(task: TaskInstanceId = TASK, state: str | None = "failed") -> Task:
        return Task(task, state)

    return add


def listed(answer: Any) -> list[int]:
    assert answer.status_code == 200, answer.text
    return [int(row["key"], 16) for row in answer.json()["rows"]]


def change(row: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Return what the page sends to change a row."""
    return {"place": row["place"], "keys": [row["key"]], "seen": [row["seen"]], "note": NOTE, **fields}


def only_row(client: TestClient) -> dict[str, Any]:
    [row] = client.get("api/messages", params=OF_RUN).json()["rows"]
    assert isinstance(row, dict)
    return row


# --- read


def test_the_messages_of_a_run_are_shown_without_a_state_database(client: Client, run: Callable[..., Task]) -> None:
    task = run()
    task.send(1)
    task.send(2, state="sent", reference="4712", channel="email", sent_at=1.7e9)
    other = run(dataclasses.replace(TASK, task_id="call", map_index=3))
    other.send(3, lease=60.0, state="sending", updated_at=time.time())
    viewer = client("viewer")
    assert listed(viewer.get("api/messages", params=OF_RUN)) == [3, 2, 1]
    assert viewer.get("api/messages", params=OF_RUN).json()["problems"] == []
    for filters, expected in (
        ({"task": "remind"}, [2, 1]),
        ({"task": "nothing"}, []),
        ({"outcome": "sent"}, [2]),
        ({"outcome": "unknown"}, [1]),
        ({"channel": "sms"}, [3, 1]),
        ({"reference": "4712"}, [2]),
        ({"since": "2023-11-14T22:13:22Z"}, [3, 2]),
        ({"until": "2023-11-14T22:13:22Z"}, [1]),
    ):
        assert listed(viewer.get("api/messages", params={**OF_RUN, **filters})) == expected, filters
    assert listed(viewer.get("api/open", params=OF_RUN)) == [1]
    assert viewer.get("api/open", params=OF_RUN).json()["problems"] == []
    assert listed(viewer.get("api/open")) == []
    assert "Filter by DAG and run" in viewer.get("api/messages").json()["detail"]


def test_a_row_has_the_fields_of_one_from_a_state_database(
    client: Client, run: Callable[..., Task], state: StateDatabase
) -> None:
    run().send(1)
    origin = Origin(dag_id="clinic", task_id="remind", run_id=RUN, map_index=-1, try_number=1)
    assert SqlLedgerStore(state).compare_and_swap(None, entry(origin, key(2), state="unknown", updated_at=1.0))
    kept, stored = client("op").get("api/messages", params=OF_RUN).json()["rows"]
    assert set(kept) == set(stored)
    assert (kept["place"], stored["place"], stored["seen"]) == (
        {"run": RUN, "task": "remind", "map_index": -1},
        None,
        None,
    )
    same = ("state", "dag_id", "run_id", "task_id", "target", "is_unresolved", "may_change", "is_in_flight", "why")
    assert {name: kept[name] for name in same} == {name: stored[name] for name in same}
    assert not {"recipient", "fingerprint", "version"} & set(kept)
    assert "has_recipient" in kept


def test_both_stores_are_one_list_with_pages_and_a_csv_file(
    client: Client, run: Callable[..., Task], state: StateDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = run()
    origin = Origin(dag_id="clinic", task_id="remind", run_id=RUN, map_index=-1, try_number=1)
    for number in range(1, 8):
        if number % 3:
            task.send(number)
        else:
            made = entry(origin, key(number), state="unknown", updated_at=1.7e9 + number)
            assert SqlLedgerStore(state).compare_and_swap(None, made)
    viewer, found = client("viewer"), []
    after: dict[str, str] = {}
    while True:
        answer = viewer.get("api/messages", params={**OF_RUN, "limit": 2, **after})
        found.append(listed(answer))
        if answer.json()["after"] is None:
            break
        after = {"after": answer.json()["after"]}
    assert found == [[7, 6], [5, 4], [3, 2], [1]]
    assert listed(viewer.get("api/open", params=OF_RUN)) == [7, 6, 5, 4, 3, 2, 1]
    from airflow_provider_apptoto.ui import routes

    monkeypatch.setattr(routes, "MAX_ROWS", 3)
    table = csv.DictReader(io.StringIO(viewer.post("api/export", json=OF_RUN).text))
    assert [int(row["key"], 16) for row in table] == [7, 6, 5, 4, 3, 2, 1]


def test_a_recipient_is_found_under_the_salt_of_each_task(client: Client, run: Callable[..., Task]) -> None:
    first, second = run(), run(dataclasses.replace(TASK, map_index=1))
    assert first.hash_key != second.hash_key
    first.send(1)
    first.send(2, recipient="0" * 32)
    second.send(3, reference="4712")
    viewer = client("viewer")
    for text in (ANN, "+1 (650) 555-0199"):
        assert listed(viewer.post("api/search", json={**OF_RUN, "text": text})) == [3, 1]
    assert listed(viewer.post("api/search", json={**OF_RUN, "text": "4712"})) == [3]
    assert "has no country code" in viewer.post("api/search", json={**OF_RUN, "text": "650-555-0199"}).json()["hint"]


def test_a_value_that_is_no_entry_of_its_task_is_counted_but_not_shown(
    client: Client, run: Callable[..., Task]
) -> None:
    task = run()
    for number in range(1, 6):
        task.send(number)
    other = StoredTaskState(dataclasses.replace(TASK, dag_id="secret"))
    add_task(dataclasses.replace(TASK, dag_id="secret"), "failed")
    other.put(f"apptoto-message-{key(9)}", "{}")
    good = task.entry(2)
    task.state.put(f"apptoto-message-{key(1)}", "no JSON")
    task.state.set(f"apptoto-message-{key(2)}", {**good, "dag_id": "secret"}, retention="run")
    task.state.set(f"apptoto-message-{key(3)}", {**good, "state": "lost"}, retention="run")
    task.state.set(f"apptoto-message-{key(4)}", {**good, "key": key(4), "updated_at": "now"}, retention="run")
    answer = client("viewer").get("api/messages", params=OF_RUN)
    assert listed(answer) == [5]
    [problem] = answer.json()["problems"]
    assert problem.startswith("4 values in Airflow's task state can't be read")
    assert client("viewer").get("api/open", params=OF_RUN).json()["problems"] == [problem]


def test_the_newest_of_very_many_are_shown_and_the_page_says_so(
    client: Client, run: Callable[..., Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = run()
    for number in range(1, 5):
        task.send(number)
    monkeypatch.setattr(task_state, "MAX_ENTRIES", 3)
    answer = client("viewer").get("api/messages", params=OF_RUN)
    assert listed(answer) == [4, 3, 2]
    assert "Only the newest 3 messages" in answer.json()["problems"][0]
    assert client("viewer").post("api/export", json=OF_RUN).headers["x-apptoto-complete"] == "no"


def test_a_database_that_is_down_does_not_hide_task_state(
    client: Client, run: Callable[..., Task], state: StateDatabase
) -> None:
    run().send(1)
    database = state._url.database
    assert database is not None
    with open(database, "w") as file:  # noqa: PTH123  as short as it can be
        file.write("not a database, but long enough to be read as one" * 20)
    for path, body in (("api/messages", None), ("api/search", {**OF_RUN, "text": ANN}), ("api/open", None)):
        viewer = client("viewer")
        answer = viewer.get(path, params=OF_RUN) if body is None else viewer.post(path, json=body)
        assert listed(answer) == [1]
        assert "can't be used now" in answer.json()["problems"][0]


# --- who


def test_task_state_of_a_dag_that_the_user_may_not_read_is_not_shown(client: Client, run: Callable[..., Task]) -> None:
    task = run(dataclasses.replace(TASK, dag_id="secret"))
    task.send(1)
    viewer, of_secret = client("viewer"), {"dag": "secret", "run": RUN}
    assert viewer.get("api/messages", params=of_secret).status_code == 503
    assert viewer.post("api/search", json={**of_secret, "text": ANN}).status_code == 503
    assert viewer.post("api/export", json=of_secret).status_code == 503
    assert listed(viewer.get("api/open", params=of_secret)) == []


@pytest.mark.parametrize(("role", "status"), [("viewer", 403), ("user", 200), ("op", 200), ("admin", 200)])
@pytest.mark.parametrize("what", ["resolve", "forget"])
def test_only_who_may_edit_task_instances_changes_task_state(
    client: Client, run: Callable[..., Task], role: str, status: int, what: str
) -> None:
    task = run()
    task.send(1)
    row = only_row(client(role))
    assert row["may_change"] is (status == 200)
    before = task.state.stored()
    body = change(row, **({"outcome": "sent"} if what == "resolve" else {}))
    assert client(role).post(f"api/dags/clinic/{what}", json=body).status_code == status
    assert (task.state.stored() == before) is (status == 403)


# --- change


@pytest.mark.parametrize("outcome", ["sent", "not_sent"])
def test_a_resolution_is_obeyed_by_the_next_try_and_says_who_and_why(
    client: Client, run: Callable[..., Task], provider_log: list[str], outcome: str
) -> None:
    task = run()
    task.send(1)
    task.send(2, state="sent")
    rows = client("op").get("api/messages", params=OF_RUN).json()["rows"]
    body = change(rows[0], outcome=outcome)
    body |= {"keys": [row["key"] for row in rows], "seen": [row["seen"] for row in rows]}
    answer = client("op").post("api/dags/clinic/resolve", json=body)
    assert (listed(answer), answer.json()["skipped"]) == ([1], 1)
    next_try = StoredTaskState(TASK)
    next_try.values = {name: json.dumps(value) for name, value in next_try.stored().items()}
    assert TaskStateLedgerStore(next_try).find([key(1)])[key(1)].state == outcome
    assert task.entry(2)["state"] == "sent"
    resolved = client("viewer").get("api/messages", params=OF_RUN).json()["rows"][0]
    assert (resolved["state"], resolved["why"], resolved["is_resolved"]) == (outcome, f"ann op: {NOTE}", True)
    assert [each["note"] for each in resolved["changes"]] == [NOTE]
    assert listed(client("op").get("api/open", params=OF_RUN)) == []
    [line] = [line for line in provider_log if "resolved" in line]
    assert line == f"ann op resolved as {outcome} messages of DAG 'clinic': {key(1)}"


@pytest.mark.parametrize("what", ["resolve", "forget"])
@pytest.mark.parametrize("state", NOT_ENDED)
def test_nothing_is_changed_while_the_task_may_still_send(
    client: Client, run: Callable[..., Task], state: str | None, what: str
) -> None:
    task = run(state=state)
    task.send(1)
    before = task.state.stored()
    body = change(only_row(client("admin")), **({"outcome": "not_sent"} if what == "resolve" else {}))
    answer = client("admin").post(f"api/dags/clinic/{what}", json=body)
    assert answer.status_code == 409
    assert f"its state is {state or 'not scheduled yet'}" in answer.json()["detail"]
    assert task.state.stored() == before


@pytest.mark.parametrize("state", ENDED)
def test_a_message_of_a_task_that_has_ended_can_be_changed(
    client: Client, run: Callable[..., Task], state: str
) -> None:
    run(state=state).send(1)
    body = change(only_row(client("op")), outcome="sent")
    assert listed(client("op").post("api/dags/clinic/resolve", json=body)) == [1]


def test_a_message_that_changed_after_it_was_seen_is_not_changed(client: Client, run: Callable[..., Task]) -> None:
    task = run()
    task.send(1)
    task.send(2)
    rows = client("op").get("api/messages", params=OF_RUN).json()["rows"]
    task.state.edit(f"apptoto-message-{key(1)}", reason="edited by hand")
    task.state.put(f"apptoto-message-{key(1)}", task.state.values[f"apptoto-message-{key(1)}"])
    before = task.state.stored()
    body = change(rows[0], outcome="sent")
    body |= {"keys": [row["key"] for row in rows], "seen": [row["seen"] for row in rows]}
    answer = client("op").post("api/dags/clinic/resolve", json=body)
    assert answer.status_code == 409
    assert "changed after the page was loaded" in answer.json()["detail"]
    assert task.state.stored() == before, "the other message must not be changed either"


@pytest.mark.parametrize(
    "between", [lambda task: set_state(task.id, "running"), lambda task: task.send(1, state="sent")]
)
def test_a_change_between_reading_and_writing_wins(
    client: Client, run: Callable[..., Task], monkeypatch: pytest.MonkeyPatch, between: Callable[[Task], None]
) -> None:
    """Between the last read of the route and its write, the task is started or a value is written."""
    task = run()
    task.send(1)
    body = change(only_row(client("op")), outcome="not_sent")
    original = _airflow_task_state.replace_values

    def late(*arguments: Any) -> None:
        task._store._known.clear()
        between(task)
        original(*arguments)

    monkeypatch.setattr(task_state, "replace_values", late)
    assert client("op").post("api/dags/clinic/resolve", json=body).status_code == 409
    assert task.entry(1)["state"] != "not_sent"


def test_a_task_that_starts_after_the_check_of_its_state_wins(
    client: Client, run: Callable[..., Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite locks no rows: there, the statement itself checks the state."""
    task = run()
    task.send(1)
    body = change(only_row(client("op")), outcome="not_sent")
    original = _airflow_task_state._swapped

    def late(*arguments: Any) -> bool:
        set_state(task.id, "running")
        return original(*arguments)

    monkeypatch.setattr(_airflow_task_state, "_swapped", late)
    assert client("op").post("api/dags/clinic/resolve", json=body).status_code == 409
    assert task.entry(1)["state"] == "unknown"


def test_of_two_people_who_resolve_at_once_one_is_refused(client: Client, run: Callable[..., Task]) -> None:
    task = run()
    task.send(1)
    row = only_row(client("op"))
    http, start, codes = client("op"), threading.Barrier(2), []

    def resolve(outcome: str) -> None:
        start.wait()
        codes.append(http.post("api/dags/clinic/resolve", json=change(row, outcome=outcome)).status_code)

    threads = [threading.Thread(target=resolve, args=(outcome,)) for outcome in ("sent", "not_sent")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == [200, 409]
    [history] = [value for name, value in task.state.stored().items() if name.startswith("apptoto-changes-")]
    assert [each["to_state"] for each in history] == [task.entry(1)["state"]]


def test_a_message_in_flight_is_neither_resolved_nor_forgotten(client: Client, run: Callable[..., Task]) -> None:
    """A task that was marked as failed may live on for some seconds."""
    task = run(state="failed")
    task.send(1, state="sending", lease=60.0, updated_at=time.time())
    before = task.state.stored()
    row = only_row(client("admin"))
    for what, more in (("resolve", {"outcome": "sent", "force": True}), ("forget", {})):
        answer = client("admin").post(f"api/dags/clinic/{what}", json=change(row, **more))
        assert (answer.json()["rows"], answer.json()["skipped"]) == ([], 1)
    assert task.state.stored() == before


def test_a_resolution_is_taken_back_by_force_and_all_changes_are_kept(client: Client, run: Callable[..., Task]) -> None:
    run().send(1)
    for outcome, force, expected in (("sent", False, [1]), ("not_sent", False, []), ("not_sent", True, [1])):
        body = change(only_row(client("op")), outcome=outcome, force=force)
        assert listed(client("op").post("api/dags/clinic/resolve", json=body)) == expected
    changes = [(each["from_state"], each["to_state"]) for each in only_row(client("op"))["changes"]]
    assert changes == [("unknown", "sent"), ("sent", "not_sent")]


def test_a_forgotten_message_is_gone_but_who_and_why_is_kept(client: Client, run: Callable[..., Task]) -> None:
    task = run()
    task.send(1)
    answer = client("op").post("api/dags/clinic/forget", json=change(only_row(client("op"))))
    assert listed(answer) == [1]
    assert listed(client("op").get("api/messages", params=OF_RUN)) == []
    stored = task.state.stored()
    assert f"apptoto-message-{key(1)}" not in stored
    [made] = stored[f"apptoto-changes-{key(1)}"]
    assert (made["to_state"], made["changed_by"], made["note"]) == ("forgotten", "ann op", NOTE)


def test_a_change_names_its_task_and_what_was_seen(client: Client, run: Callable[..., Task]) -> None:
    task = run()
    task.send(1)
    row, before = only_row(client("admin")), task.state.stored()
    good = change(row, outcome="sent")
    wrong: list[tuple[dict[str, Any], int]] = [
        ({"seen": []}, 422),
        ({"seen": ["x"]}, 422),
        ({"keys": [row["key"]] * 2, "seen": [row["seen"]] * 2}, 422),
        ({"place": {**row["place"], "more": 1}}, 422),
        ({"place": {"task": "remind"}}, 422),
        ({"seen": ["0" * 32]}, 409),
        ({"place": {**row["place"], "map_index": 0}}, 409),
        ({"place": {**row["place"], "task": "%"}}, 409),
        ({"place": {**row["place"], "run": "another"}}, 409),
    ]
    for fields, status in wrong:
        answer = client("admin").post("api/dags/clinic/resolve", json={**good, **fields})
        assert answer.status_code == status, (fields, answer.text)
    assert client("admin").post("api/dags/lab/resolve", json=good).status_code == 409
    assert client("admin").post("api/dags/clinic/optout", json=change(row)).status_code == 409
    assert task.state.stored() == before
