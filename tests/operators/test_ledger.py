"""Never twice: what the operator does when it runs again, in DAGs that the installed Airflow runs.

The same run of a DAG once more, which ``dag.test`` makes of the same logical date, is to the state database what a
clear is. Clears by a real scheduler are in tests/test_clears.py, kills in tests/test_chaos.py.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import importlib.util
import itertools
import json
import os
import re
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowTaskTimeout

from airflow_provider_apptoto._compat import HAS_RETRY_POLICY as HAS_TASK_STATE  # both came with 3.3
from airflow_provider_apptoto.cli import main
from tests.airflow_runs import Run, own_sigterm, run_tasks
from tests.faults import Exchange, FaultServer, accepting, answering, hanging

if TYPE_CHECKING:
    from collections.abc import Iterator

Connect = Callable[..., None]

pytestmark = [pytest.mark.contract, pytest.mark.usefixtures("airflow_database")]

AIRFLOW_2 = importlib.util.find_spec("airflow.sdk") is None
NUMBER = "+16505550199"
TEXT = "Gwendolyn, your scan was fine"
SEND = f'ApptotoSendMessageOperator(task_id="send", type="sms", to="{NUMBER}", message="{TEXT}", {{}})'
NOW = "retry_delay=timedelta(0)"
BROKEN = answering(500, {"error": "down"}, accepted=True)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_provider_apptoto.client.client.BACKOFF", 0.01)
    monkeypatch.setattr("airflow_provider_apptoto.state.ledger.RECORD_AGAIN_AFTER", (0.01,))


@pytest.fixture(autouse=True)
def _told_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_provider_apptoto.hooks.apptoto._told", set())


@pytest.fixture
def state_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the file of a state database, which connection ``state`` names."""
    path = tmp_path / "state.db"
    monkeypatch.setenv("AIRFLOW_CONN_STATE", json.dumps({"conn_type": "sqlite", "host": str(path)}))
    return path


class Clinic:
    """A DAG that can be run again, and a server that its messages go to."""

    _numbers = itertools.count(1)

    def __init__(self, server: FaultServer) -> None:
        self.server = server
        self.dag_id = f"clinic_{next(self._numbers)}"
        self.day = dt.datetime.now(dt.UTC)

    def run(self, tasks: str, **arguments: Any) -> Run:
        """Run it: the same run as before, by default, so that it is as if somebody had cleared it."""
        return run_tasks(tasks, **{"dag_id": self.dag_id, "at": self.day, **arguments})

    @property
    def copies(self) -> int:
        return len(self.server.accepted)


@pytest.fixture
def clinic(connection: Connect, state_file: Path) -> Iterator[Clinic]:
    """Give a DAG whose sends are remembered in a state database."""
    assert not state_file.exists()
    with FaultServer() as server:
        connection(server.url, state_conn_id="state")
        yield Clinic(server)


def states(path: Path) -> list[str]:
    """Return the states in a ledger."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        return [row[0] for row in database.execute("select state from apptoto_ledger order by updated_at")]


# --- never twice


def test_a_cleared_task_succeeds_without_sending_again(clinic: Clinic) -> None:
    first = clinic.run(SEND.format(""))["send"].xcom
    again = clinic.run(SEND.format(""))
    assert (again.state, clinic.copies) == ("success", 1)
    assert (first["outcome"], again["send"].xcom["outcome"]) == ("sent", "deduplicated")
    assert first["key"] == again["send"].xcom["key"]
    assert (again["send"].xcom["http_status"], again["send"].xcom["sent_at"][:16]) == (200, first["sent_at"][:16])


def test_a_text_that_was_changed_before_the_clear_is_not_sent_and_the_log_says_so(
    clinic: Clinic, provider_log: list[str]
) -> None:
    clinic.run(SEND.format(""))
    clinic.run(SEND.format("").replace("fine", "lost"))
    assert clinic.copies == 1
    assert any("ITS TEXT WAS ANOTHER ONE" in line for line in provider_log)
    assert not any("scan" in line for line in provider_log)


def test_what_was_refused_is_sent_when_the_task_is_cleared(clinic: Clinic) -> None:
    clinic.server.scripts = [answering(422), accepting]
    assert clinic.run(SEND.format(""))["send"].state == "failed"
    assert clinic.run(SEND.format(""))["send"].xcom["outcome"] == "sent"
    assert clinic.copies == 1


def test_what_may_have_been_sent_is_not_sent_when_the_task_is_cleared(clinic: Clinic) -> None:
    clinic.server.scripts = [BROKEN]
    for _ in range(2):
        assert clinic.run(SEND.format("retries=2, " + NOW))["send"].state == "failed"
    assert len(clinic.server.requests) == 1


def test_a_new_run_is_a_new_intention(clinic: Clinic) -> None:
    clinic.run(SEND.format(""))
    run = clinic.run(SEND.format(""), at=clinic.day + dt.timedelta(seconds=1))
    assert (run["send"].xcom["outcome"], clinic.copies) == ("sent", 2)


def test_an_idempotency_key_sends_once_over_tasks_dags_and_runs(clinic: Clinic) -> None:
    send = SEND.format('params={"id": 4711}, idempotency_key="appointment-{{ params.id }}"')
    clinic.run(send + "\n" + send.replace('"send"', '"again"'))
    clinic.run(send, at=clinic.day + dt.timedelta(seconds=1))
    clinic.run(send, dag_id=clinic.dag_id + "_laboratory")
    clinic.run(SEND.format("idempotency_key='appointment-4712'"))
    assert clinic.copies == 2


def test_an_idempotency_key_without_a_state_database_is_refused_before_sending(connection: Connect) -> None:
    with FaultServer() as server:
        connection(server.url)
        assert run_tasks(SEND.format('idempotency_key="a"'))["send"].state == "failed"
        assert server.connections == 0


PEOPLE = """
@task
def people():
    return {people}

ApptotoSendMessageOperator.partial(task_id="send", type="email", subject="News").expand_kwargs(people())
"""


def test_a_list_whose_order_changed_sends_nobody_a_second_copy(clinic: Clinic) -> None:
    people = [{"to": f"{name}@clinic.example", "message": f"Hi {name}"} for name in ("ann", "bob", "cid")]
    clinic.run(PEOPLE.format(people=people[:2]))
    run = clinic.run(PEOPLE.format(people=people[::-1]))
    assert run.state == "success"
    assert sorted(request.json["to"][:3] for request in clinic.server.accepted) == ["ann", "bob", "cid"]


def test_two_texts_to_one_person_need_an_idempotency_key(clinic: Clinic) -> None:
    rows = [{"to": "ann@clinic.example", "message": text} for text in ("Your results are in", "Please pay")]
    run = clinic.run(PEOPLE.format(people=rows))
    assert sorted(task.state for task in run.tasks if task.task_id == "send") == ["failed", "success"]
    rows = [{**row, "idempotency_key": row["message"]} for row in rows]
    assert clinic.run(PEOPLE.format(people=rows), dag_id=clinic.dag_id + "_laboratory").state == "success"
    assert clinic.copies == 3


def test_a_try_after_one_that_sent_but_could_not_say_so_does_not_send(clinic: Clinic) -> None:
    tasks = """
class Forgetful(ApptotoSendMessageOperator):
    def execute(self, context):
        result = super().execute(context)
        if context["ti"].try_number == 1:
            raise OSError("Airflow's API server is away")
        return result

Forgetful(task_id="send", type="sms", to="+16505550199", message="Hi", retries=1, retry_delay=timedelta(0))
"""
    run = clinic.run(tasks)
    assert (run["send"].state, run["send"].tries, clinic.copies) == ("success", 2, 1)
    assert (run["send"].xcom["outcome"], run["send"].xcom["try_number"]) == ("deduplicated", 1)


def test_a_task_that_was_deferred_sends_once(clinic: Clinic) -> None:
    tasks = """
from airflow.providers.standard.triggers.temporal import DateTimeTrigger

class Deferring(ApptotoSendMessageOperator):
    def execute(self, context):
        self.defer(trigger=DateTimeTrigger(pendulum.now("UTC")), method_name="resume")

    def resume(self, context, event=None):
        return super().execute(context)

Deferring(task_id="send", type="sms", to="+16505550199", message="Hi {{ macros.datetime.now() }}")
"""
    if AIRFLOW_2:
        tasks = tasks.replace("providers.standard.triggers", "triggers")
    for _ in range(2):
        assert clinic.run(tasks).state == "success"
    assert clinic.copies == 1


# --- whether it is remembered


def remembered(log: list[str]) -> list[str]:
    return [line for line in log if "remembered" in line]


def test_the_log_says_once_where_sends_are_remembered(clinic: Clinic, provider_log: list[str]) -> None:
    clinic.run(SEND.format("") + "\n" + SEND.format("").replace('"send"', '"again"'))
    assert remembered(provider_log) == ["Sends are remembered in the state database 'state'"]


def test_without_a_state_database_task_state_remembers_or_a_warning_says_that_nothing_does(
    connection: Connect, provider_log: list[str]
) -> None:
    with FaultServer() as server:
        connection(server.url)
        run_tasks(SEND.format(""))
    [line] = remembered(provider_log)
    assert line.startswith("Sends are remembered in Airflow's task state" if HAS_TASK_STATE else "Sends are not remem")


@pytest.mark.skipif(not HAS_TASK_STATE, reason="came with Airflow 3.3")
def test_task_state_keeps_a_message_that_was_sent_from_the_next_try(connection: Connect) -> None:
    tasks = """
class Forgetful(ApptotoSendMessageOperator):
    def execute(self, context):
        super().execute(context)
        if context["ti"].try_number == 1:
            raise OSError("Airflow's API server is away")

Forgetful(task_id="send", type="sms", to="+16505550199", message="Hi", retries=1, retry_delay=timedelta(0))
"""
    with FaultServer() as server:
        connection(server.url)
        run = run_tasks(tasks)
    assert (run["send"].state, run["send"].tries, len(server.accepted)) == ("success", 2, 1)


def test_a_dry_run_is_not_remembered_and_a_redirected_message_does_not_stand_for_the_real_one(
    clinic: Clinic, connection: Connect
) -> None:
    redirect = {"delivery_mode": "redirect", "redirect_phone_to": "+16505550100"}
    for extra in ({"delivery_mode": "dry_run"}, redirect, redirect, {}, {}):
        connection(clinic.server.url, state_conn_id="state", **extra)
        assert clinic.run(SEND.format("")).state == "success"
    assert [request.json["to"] for request in clinic.server.accepted] == ["+16505550100", NUMBER]


def test_the_database_holds_nothing_of_a_person(clinic: Clinic, state_file: Path) -> None:
    clinic.run(SEND.format('reference="appointment 4711"'))
    clinic.run(SEND.format("").replace('"sms"', '"email", subject="S"').replace(NUMBER, "gwendolyn@clinic.example"))
    held = b"".join(path.read_bytes() for path in state_file.parent.iterdir())
    assert b"appointment 4711" in held
    for mark in (NUMBER[1:], "5550199", "wendolyn", "scan was", "clinic@clinic", "sekret"):
        assert mark.encode() not in held


# --- a store that fails


def test_a_store_that_fails_before_the_send_stops_it_and_the_next_try_sends(
    clinic: Clinic, state_file: Path, provider_log: list[str]
) -> None:
    tasks = f"""
from pathlib import Path

def mend(context):
    Path({str(state_file)!r}).rmdir()

{SEND.format("retries=1, on_retry_callback=mend, " + NOW)}
"""
    state_file.mkdir()  # no file can be opened there
    run = clinic.run(tasks)
    assert (run["send"].state, run["send"].tries, clinic.copies, len(clinic.server.requests)) == ("success", 2, 1, 1)
    assert provider_log


def test_a_store_that_fails_after_the_send_is_cried_out_and_the_task_succeeds(
    clinic: Clinic, state_file: Path, provider_log: list[str]
) -> None:
    def breaking(exchange: Exchange) -> None:
        with contextlib.closing(sqlite3.connect(state_file)) as database:
            assert states(state_file) == ["sending"]
            database.execute("alter table apptoto_ledger rename to elsewhere")
        accepting(exchange)

    clinic.server.scripts = [breaking]
    run = clinic.run(SEND.format("retries=1, " + NOW))
    assert (run["send"].state, run["send"].tries, clinic.copies) == ("success", 1, 1)
    assert any("THE LEDGER COULD NOT BE WRITTEN" in line and "sent" in line for line in provider_log)


# --- nobody can tell


def test_the_failure_names_the_message_and_the_commands_that_resolve_it(
    clinic: Clinic, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an on-call engineer does: read the failure, look in Apptoto, run what it says, clear the task."""
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "")  # the command sets it, for itself
    clinic.server.scripts = [BROKEN, accepting]
    send = SEND.format('reference="appointment 4711"')
    second = SEND.format("").replace('"send"', '"second"').replace("0199", "0198")
    clinic.run(send)
    shown = capsys.readouterr()
    text = shown.out + shown.err
    for part in ("+1•••0199", "appointment 4711", f"try 1 of {clinic.dag_id}.send", "HTTP 500"):
        assert part in text
    assert len(clinic.server.requests) == 1
    [command] = set(re.findall(r"apptoto\w* (ledger resolve \w+ --to sent)", text))
    main([*command.split(), "--note", "seen in the conversation", "--by", "ann"])
    run = clinic.run(send)
    assert (run["send"].state, run["send"].xcom["outcome"], clinic.copies) == ("success", "deduplicated", 1)
    clinic.server.scripts = [answering(500), accepting]
    other = clinic.dag_id + "_other"
    clinic.run(second, dag_id=other)
    main(["ledger", "resolve", "--dag", other, "--state", "unknown", "--to", "not_sent", "--note", "not there"])
    assert clinic.run(second, dag_id=other)["second"].xcom["outcome"] == "sent"


@pytest.mark.usefixtures("state_file")
@pytest.mark.parametrize("with_ledger", [True, False])
def test_resend_tries_again_what_may_have_been_sent(connection: Connect, *, with_ledger: bool) -> None:
    with FaultServer([BROKEN, accepting]) as server:
        connection(server.url, **{"state_conn_id": "state"} if with_ledger else {})
        run = run_tasks(SEND.format('on_unknown="resend", retries=1, ' + NOW))
    assert (run["send"].state, run["send"].tries, len(server.accepted)) == ("success", 2, 2)


def test_assume_sent_succeeds_with_a_warning_and_never_sends_again(clinic: Clinic, provider_log: list[str]) -> None:
    clinic.server.scripts = [BROKEN, accepting]
    for _ in range(2):
        run = clinic.run(SEND.format('on_unknown="assume_sent"'))
        assert (run.state, run["send"].xcom["outcome"]) == ("success", "assumed_sent")
    assert len(clinic.server.requests) == 1
    assert sum("taken for sent" in line for line in provider_log) == 2


def test_another_word_for_on_unknown_is_refused(clinic: Clinic) -> None:
    assert clinic.run(SEND.format('on_unknown="retry"')).state == "failed"
    assert clinic.server.connections == 0


# --- interruption


def test_a_task_timeout_in_mid_send_leaves_unknown(clinic: Clinic, state_file: Path) -> None:
    clinic.server.scripts = [hanging]
    for _ in range(2):
        run = clinic.run(SEND.format("retries=1, execution_timeout=timedelta(seconds=1), " + NOW))
        assert (run["send"].state, run["send"].tries) == ("failed", 1)
    assert (clinic.copies, states(state_file)) == (1, ["unknown"])


def test_a_task_timeout_before_the_first_byte_leaves_the_message_to_be_sent(
    clinic: Clinic, state_file: Path, connection: Connect
) -> None:
    connection(clinic.server.url, state_conn_id="state", requests_per_minute=2)
    first = SEND.format("").replace("0199", "0198")
    clinic.run(first, dag_id=clinic.dag_id + "_first")
    with contextlib.suppress(AirflowTaskTimeout):  # Airflow 2.11's dag.test does not stop it
        clinic.run(SEND.format("execution_timeout=timedelta(seconds=1)"))  # its turn comes in half a minute
    assert (states(state_file), clinic.copies) == (["sent", "claimed"], 1)
    with contextlib.closing(sqlite3.connect(state_file)) as database:
        database.execute("update apptoto_pace set departs_at = 0")
        database.commit()
    assert clinic.run(SEND.format("")).state == "success"
    assert clinic.copies == 2


def test_sigterm_in_mid_send_leaves_the_true_outcome_or_unknown(clinic: Clinic, state_file: Path) -> None:
    def terminating(exchange: Exchange) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        accepting(exchange)

    clinic.server.scripts = [terminating]
    with own_sigterm():
        clinic.run(SEND.format(""))
    assert states(state_file) in (["sent"], ["unknown"])
    assert clinic.copies == 1


def test_after_sigterm_no_further_attempt_leaves(clinic: Clinic, state_file: Path) -> None:
    def terminating(exchange: Exchange) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        exchange.answer(429, Retry_After="0")

    clinic.server.scripts = [terminating, accepting]
    with own_sigterm():
        assert clinic.run(SEND.format("")).state == "failed"
    assert (clinic.copies, len(clinic.server.requests)) == (0, 1)
    assert states(state_file) in (["not_sent"], ["unknown"])


# --- max_age

OLD = dt.datetime(2026, 3, 2, tzinfo=dt.UTC)


def test_a_run_that_is_older_than_max_age_is_skipped_and_says_how_to_send_all_the_same(
    clinic: Clinic, capsys: pytest.CaptureFixture[str]
) -> None:
    assert clinic.run(SEND.format(""), at=OLD)["send"].state == "skipped"
    assert clinic.server.connections == 0
    shown = capsys.readouterr()
    assert re.search(r"of 2026-03-02T00:00\+0000.*max_age is 1 day.*max_age=None", shown.out + shown.err)
    assert clinic.run(SEND.format("max_age=None"), at=OLD)["send"].state == "success"
    assert clinic.run(SEND.format(""), at=OLD)["send"].xcom["outcome"] == "deduplicated"
    assert clinic.copies == 1


def test_max_age_is_as_the_task_says(clinic: Clinic) -> None:
    at = clinic.day - dt.timedelta(hours=3)
    assert clinic.run(SEND.format("max_age=timedelta(hours=2)"), at=at)["send"].state == "skipped"
    assert clinic.run(SEND.format("max_age=timedelta(hours=4)"), at=at)["send"].state == "success"
