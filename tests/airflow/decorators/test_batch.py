"""``@task.apptoto_message_batch`` sends the rows that its function yields, in DAGs that the installed Airflow runs."""

from __future__ import annotations

import datetime as dt
import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import task

from airflow_provider_apptoto.client.errors import ApptotoConfigurationError
from airflow_provider_apptoto.decorators.apptoto import ApptotoMessageBatchDecoratedOperator
from tests.support.dag_runs import run_dag
from tests.support.marked_people import database, log_files
from tests.support.windows import zone_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.faults import FaultServer

pytestmark = [pytest.mark.contract, pytest.mark.usefixtures("airflow_database", "quick_retries")]

DEFAULTS: dict[str, Any] = {"type": "sms", "message": "Hi {{ row.name }}, see you at {{ params.place }}"}
PLACE = {"place": "north"}


@pytest.fixture
def clinic(tmp_path: Path) -> Path:
    """Provide a database with three patients, one of whom is called like a template."""
    path = tmp_path / "clinic.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("create table patient (id text, number text, name text)")
        people = [
            ("1", "+16505557351", "Eulalia"),
            ("2", "+16505557352", "Ethelbert"),
            ("3", "+16505550193", "{{ds}}"),
        ]
        connection.executemany("insert into patient values (?, ?, ?)", people)
    return path


def patients(path: Path) -> Iterator[dict[str, str]]:
    with closing(sqlite3.connect(path)) as connection:
        for item, number, name in connection.execute("select id, number, name from patient order by id"):
            yield {"id": item, "to": number, "name": name}


def texts(server: FaultServer) -> list[str]:
    return sorted(request.json["message"] for request in server.accepted)


def test_the_rows_of_a_generator_over_sql_are_sent_once_and_stored_nowhere(
    server: FaultServer, clinic: Path, provider_log: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    def build() -> None:
        @task.apptoto_message_batch(
            defaults=DEFAULTS, id_column="id", on_invalid="send_others", max_failed=1, idempotency_key="monday"
        )
        def remind(path: str, params: dict[str, Any] | None = None) -> Iterator[dict[str, str]]:
            assert params == PLACE
            yield from patients(clinic if path == str(clinic) else clinic / "other")

        remind(str(clinic)) >> remind.override(task_id="again")(str(clinic))

    run = run_dag(build, params=PLACE)
    assert [run[name].state for name in ("remind", "again")] == ["success", "success"]
    assert (run["remind"].xcom["sent"], run["remind"].xcom["invalid"]) == (2, 1)
    assert (run["again"].xcom["sent"], run["again"].xcom["deduplicated"]) == (0, 2)
    assert texts(server) == ["Hi Ethelbert, see you at north", "Hi Eulalia, see you at north"]
    shown = capfd.readouterr()
    places = {
        "database": database(),
        "log": "\n".join(provider_log) + log_files() + shown.out + shown.err,
        "xcom": json.dumps([each.xcom for each in run.tasks]),
    }
    marks = ("Eulalia", "Ethelbert", "+16505557351", "+16505557352")
    assert [(place, mark) for place, text in places.items() for mark in marks if mark in text] == []


def test_a_failed_generator_sends_nothing_is_closed_and_called_again(server: FaultServer) -> None:
    closed: list[int] = []

    def build() -> None:
        @task.apptoto_message_batch(defaults=DEFAULTS, id_column="id", retries=1, retry_delay=dt.timedelta(0))
        def remind(ti: Any = None) -> Iterator[dict[str, str]]:
            try:
                yield {"id": "1", "to": "+16505550191", "name": "Ann"}
                if ti.try_number == 1:
                    raise OSError("the database went away")
                assert server.accepted == []
                yield {"id": "2", "to": "+16505550192", "name": "Bob"}
            finally:
                closed.append(ti.try_number)

        remind()

    run = run_dag(build, params=PLACE)
    assert (run["remind"].state, run["remind"].tries, closed) == ("success", 2, [1, 2])
    assert texts(server) == ["Hi Ann, see you at north", "Hi Bob, see you at north"]


def test_a_generator_that_is_not_read_to_its_end_is_closed(server: FaultServer) -> None:
    closed: list[str] = []

    def build() -> None:
        @task.apptoto_message_batch(defaults=DEFAULTS, max_messages=1)
        def remind() -> Iterator[dict[str, str]]:
            try:
                for number in range(10_000):
                    yield {"to": f"+1650555{number:04}", "name": "Ann"}
            finally:
                closed.append("closed")

        remind()

    assert run_dag(build, params=PLACE)["remind"].state == "failed"
    assert (closed, server.accepted) == (["closed"], [])


def test_a_function_may_return_a_list_and_be_mapped(server: FaultServer) -> None:
    def build() -> None:
        @task.apptoto_message_batch(defaults=DEFAULTS)
        def remind(names: list[str], first: int) -> list[dict[str, str]]:
            return [{"to": f"+1650555{first + index:04}", "name": name} for index, name in enumerate(names)]

        remind.partial(names=["Ann", "Bob"]).expand(first=[100, 200])

    run = run_dag(build, params=PLACE)
    assert [each.state for each in run.tasks] == ["success", "success"]
    assert len(server.accepted) == 4


@pytest.mark.parametrize("returned", [None, "rows", {"to": "+16505550191"}, 7], ids=repr)
def test_what_is_no_rows_fails_without_a_retry_and_says_why(
    server: FaultServer, errors: dict[str, BaseException], returned: object
) -> None:
    def build() -> None:
        @task.apptoto_message_batch(defaults=DEFAULTS, retries=1, retry_delay=dt.timedelta(0))
        def remind() -> object:
            return returned

        remind()

    run = run_dag(build, params=PLACE)
    assert (run["remind"].state, run["remind"].tries, server.accepted) == ("failed", 1, [])
    what = "nothing" if returned is None else type(returned).__name__
    assert f"remind(): returned {what}; yield rows, or return a list of them" in str(errors["remind"])


@pytest.mark.parametrize("name", ["messages", "messages_path"])
def test_the_decorator_takes_no_other_rows(name: str) -> None:
    source: dict[str, Any] = {name: "/rows.csv"}
    with pytest.raises(ApptotoConfigurationError, match=f"{name}: is not a parameter of the decorator"):
        ApptotoMessageBatchDecoratedOperator(task_id="remind", python_callable=list, **source)


def test_the_zone_of_each_row_decides_even_if_the_connection_has_another(
    server: FaultServer, connection: Callable[..., None]
) -> None:
    now = dt.datetime.now(dt.UTC)
    connection(server.url, state_conn_id="state", timezone=zone_at(3, now))

    def build() -> None:
        @task.apptoto_message_batch(
            defaults=DEFAULTS, timezone_column="zone", send_window="09:00-18:00", when_closed="skip"
        )
        def remind() -> list[dict[str, str]]:
            return [{"to": "+16505550191", "name": "Ann", "zone": zone_at(12, now)}]

        remind()

    run = run_dag(build, params=PLACE)
    assert (run["remind"].state, run["remind"].xcom["sent"]) == ("success", 1)


def test_a_generator_that_can_not_be_closed_changes_no_outcome_and_is_logged_without_its_text(
    server: FaultServer, provider_log: list[str], errors: dict[str, BaseException]
) -> None:
    def build() -> None:
        def remind() -> Iterator[dict[str, str]]:
            try:
                for number in range(10):
                    yield {"to": f"+165055501{number:02}", "name": "Ann"}
            finally:
                raise OSError("Ottilie could not be closed")

        task.apptoto_message_batch(defaults=DEFAULTS, max_messages=1)(remind)()

    run = run_dag(build, params=PLACE)
    assert (run["remind"].state, server.accepted) == ("failed", [])
    assert "max_messages: is 1" in str(errors["remind"])
    assert "remind() could not be closed: OSError" in "\n".join(provider_log)
    assert "Ottilie" not in "\n".join(provider_log)
