"""Never twice: the operator does not resend when it runs again, in DAGs that the installed Airflow runs.

To the state database, a second run of the same DAG with the same logical date is the same as a clear. Clears by a real
scheduler are in tests/scheduler/test_kills.py, kills in tests/chaos.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import importlib
import importlib.util
import itertools
import json
import os
import re
import signal
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pendulum
import pytest
from airflow.providers.common.compat.sdk import AirflowTaskTimeout, chain

from airflow_provider_apptoto._airflow import HAS_RETRY_POLICY as HAS_TASK_STATE  # both are new in 3.3
from airflow_provider_apptoto.cli import main
from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageBatchOperator, ApptotoSendMessageOperator
from airflow_provider_apptoto.outbox.cancellation import Cancellation
from tests.support.dag_runs import Run, own_sigterm, run_dag
from tests.support.faults import Exchange, FaultServer, accepting, answering
from tests.support.state_databases import forget_databases

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow.providers.common.compat.sdk import Context

Connect = Callable[..., None]

pytestmark = [pytest.mark.contract, pytest.mark.usefixtures("airflow_database", "quick_retries")]

AIRFLOW_2 = importlib.util.find_spec("airflow.sdk") is None
NUMBER = "+16505550199"
OTHER_NUMBER = "+16505550198"
TEXT = "Gwendolyn, your scan was fine"
NOW = dt.timedelta(0)
BROKEN = answering(500, {"error": "down"}, accepted=True)

MakeTasks = Callable[[], Any]


def send(
    operator: type[ApptotoSendMessageOperator] = ApptotoSendMessageOperator, task_id: str = "send", **arguments: Any
) -> MakeTasks:
    """Return a function that creates a task that sends one text."""
    fields = {"type": "sms", "to": NUMBER, "message": TEXT, **arguments}
    return lambda: operator(task_id=task_id, **fields)


@pytest.fixture
def state_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Provide the file of a state database, to which the connection ``state`` points."""
    path = tmp_path / "state.db"
    monkeypatch.setenv("AIRFLOW_CONN_STATE", json.dumps({"conn_type": "sqlite", "host": str(path)}))
    return path


class Clinic:
    """A DAG that can be run again, and a server that receives its messages."""

    _numbers = itertools.count(1)

    def __init__(self, server: FaultServer) -> None:
        self.server = server
        self.dag_id = f"clinic_{next(self._numbers)}"
        self.day = dt.datetime.now(dt.UTC)

    def run(self, *tasks: MakeTasks, **arguments: Any) -> Run:
        """Run it. By default, repeat the same run, as a clear does."""

        def build() -> None:
            for make in tasks:
                make()

        return run_dag(build, **{"dag_id": self.dag_id, "at": self.day, **arguments})

    @property
    def copies(self) -> int:
        return len(self.server.accepted)


@pytest.fixture
def clinic(connection: Connect, state_file: Path) -> Iterator[Clinic]:
    """Provide a DAG whose ledger is in a state database."""
    assert not state_file.exists()
    with FaultServer() as server:
        connection(server.url, state_conn_id="state")
        yield Clinic(server)


def states(path: Path) -> list[str]:
    """Return the states in a ledger."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        return [row[0] for row in database.execute("select state from apptoto_ledger order by updated_at")]


# --- never twice


def test_a_cleared_task_succeeds_without_sending_again_and_its_xcom_is_the_same(clinic: Clinic) -> None:
    clinic.server.scripts = [answering(200, {"success": True, "id": 4711}, accepted=True)]
    first = clinic.run(send())["send"].xcom
    again = clinic.run(send())
    assert (again.state, clinic.copies) == ("success", 1)
    assert (first["outcome"], again["send"].xcom["outcome"]) == ("sent", "deduplicated")
    assert {**again["send"].xcom, "outcome": "sent"} == first
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first["sent_at"])


def test_a_text_that_was_changed_before_the_clear_is_not_sent_and_the_log_says_so(
    clinic: Clinic, provider_log: list[str]
) -> None:
    clinic.run(send())
    clinic.run(send(message=TEXT.replace("fine", "lost")))
    assert clinic.copies == 1
    assert any("The text has changed since; the new text is not sent" in line for line in provider_log)
    assert not any("scan" in line for line in provider_log)


def test_what_was_refused_is_sent_when_the_task_is_cleared(clinic: Clinic) -> None:
    clinic.server.scripts = [answering(422), accepting]
    assert clinic.run(send())["send"].state == "failed"
    assert clinic.run(send())["send"].xcom["outcome"] == "sent"
    assert (clinic.copies, len(clinic.server.requests)) == (1, 2)


def test_what_may_have_been_sent_is_not_sent_when_the_task_is_cleared(clinic: Clinic) -> None:
    clinic.server.scripts = [BROKEN]
    for _ in range(2):
        assert clinic.run(send(retries=2, retry_delay=NOW))["send"].state == "failed"
    assert len(clinic.server.requests) == 1


def test_a_new_run_is_a_new_intention(clinic: Clinic) -> None:
    clinic.run(send())
    run = clinic.run(send(), at=clinic.day + dt.timedelta(seconds=1))
    assert (run["send"].xcom["outcome"], clinic.copies) == ("sent", 2)


def test_an_idempotency_key_sends_once_over_tasks_dags_and_runs(clinic: Clinic) -> None:
    params = {"id": 4711}
    key = "appointment-{{ params.id }}"
    keyed = send(idempotency_key=key)
    clinic.run(keyed, send(task_id="again", idempotency_key=key), params=params)
    assert clinic.copies == 1
    clinic.run(keyed, params=params, at=clinic.day + dt.timedelta(seconds=1))
    other = send(task_id="other", idempotency_key="appointment-4712")
    run = clinic.run(keyed, other, params=params, dag_id=clinic.dag_id + "_laboratory")
    assert (run["send"].xcom["outcome"], run["other"].xcom["outcome"]) == ("deduplicated", "sent")
    assert clinic.copies == 2


def test_a_wrong_setting_is_refused_before_sending(
    clinic: Clinic, connection: Connect, capsys: pytest.CaptureFixture[str]
) -> None:
    connection(clinic.server.url, "no_state")
    run = clinic.run(send(task_id="key", idempotency_key="a", apptoto_conn_id="no_state"))
    assert [task.state for task in run.tasks] == ["failed"]
    assert clinic.server.connections == 0
    shown = capsys.readouterr()
    assert "idempotency_key: needs a state database" in shown.out + shown.err


def send_mapped(people: list[dict[str, str]], task_id: str = "send") -> MakeTasks:
    """Return a function that creates a task that is mapped over people."""
    fields = {"task_id": task_id, "type": "email", "subject": "News"}
    return lambda: ApptotoSendMessageOperator.partial(**fields).expand_kwargs(people)


def test_a_list_whose_order_changed_sends_nobody_a_second_copy(clinic: Clinic) -> None:
    people = [{"to": f"{name}@clinic.example", "message": f"Hi {name}"} for name in ("ann", "bob", "cid")]
    clinic.run(send_mapped(people[:2]))
    run = clinic.run(send_mapped(people[::-1]))
    assert run.state == "success"
    assert sorted(request.json["to"][:3] for request in clinic.server.accepted) == ["ann", "bob", "cid"]


def test_two_texts_to_one_person_need_an_idempotency_key(clinic: Clinic) -> None:
    rows = [{"to": "ann@clinic.example", "message": text} for text in ("Your results are in", "Please pay")]
    with_keys = [{**row, "idempotency_key": row["message"]} for row in rows]
    run = clinic.run(send_mapped(rows), send_mapped(with_keys, "send_with_keys"))
    assert sorted(task.state for task in run.tasks if task.task_id == "send") == ["failed", "success"]
    assert [task.state for task in run.tasks if task.task_id == "send_with_keys"] == ["success", "success"]
    assert clinic.copies == 3


class Forgetful(ApptotoSendMessageOperator):
    """Sends in its first try and cannot report it."""

    def execute(self, context: Context) -> dict[str, Any]:
        result = super().execute(context)
        if context["ti"].try_number == 1:
            raise OSError("Airflow's API server is away")
        return result


def test_a_try_after_one_that_sent_but_could_not_say_so_does_not_send(clinic: Clinic) -> None:
    run = clinic.run(send(Forgetful, retries=1, retry_delay=NOW))
    assert (run["send"].state, run["send"].tries, clinic.copies) == ("success", 2, 1)
    assert (run["send"].xcom["outcome"], run["send"].xcom["try_number"]) == ("deduplicated", 1)


def test_a_task_that_was_deferred_sends_once(clinic: Clinic) -> None:
    home = "airflow.triggers.temporal" if AIRFLOW_2 else "airflow.providers.standard.triggers.temporal"
    trigger: Any = importlib.import_module(home).DateTimeTrigger

    class Deferring(ApptotoSendMessageOperator):
        def execute(self, context: Context) -> Any:  # noqa: ARG002  Airflow's
            self.defer(trigger=trigger(pendulum.now("UTC")), method_name="resume")

        def resume(self, context: Context, event: Any = None) -> dict[str, Any]:  # noqa: ARG002  Airflow's
            return super().execute(context)

    for _ in range(2):
        assert clinic.run(send(Deferring, message="Hi {{ macros.datetime.now() }}")).state == "success"
    assert clinic.copies == 1


# --- which ledger is used


def remembered(log: list[str]) -> list[str]:
    return [line for line in log if line.startswith(("Ledger: ", "No ledger: "))]


def test_the_log_says_once_where_sends_are_remembered(clinic: Clinic, provider_log: list[str]) -> None:
    clinic.run(send(), send(task_id="again"))
    assert remembered(provider_log) == ["Ledger: state database 'state'"]


def test_without_a_state_database_task_state_remembers_or_a_warning_says_that_nothing_does(
    connection: Connect, provider_log: list[str]
) -> None:
    with FaultServer() as server:
        connection(server.url)
        run_dag(send())
    [line] = remembered(provider_log)
    assert line.startswith(
        "Ledger: Airflow's task state" if HAS_TASK_STATE else "No ledger: if this worker is killed, a retry may resend"
    )


@pytest.mark.skipif(not HAS_TASK_STATE, reason="came with Airflow 3.3")
def test_task_state_keeps_a_message_that_was_sent_from_the_next_try(connection: Connect) -> None:
    with FaultServer() as server:
        connection(server.url)
        run = run_dag(send(Forgetful, retries=1, retry_delay=NOW))
    assert (run["send"].state, run["send"].tries, len(server.accepted)) == ("success", 2, 1)


def test_a_dry_run_is_not_remembered_and_a_redirected_message_does_not_stand_for_the_real_one(
    clinic: Clinic, connection: Connect
) -> None:
    connection(clinic.server.url, state_conn_id="state", redirect_phone_to="+16505550100")
    modes = ["dry_run", "redirect", "redirect", "live", "live"]

    def build() -> None:
        chain(
            *(
                send(task_id=f"send_{number}", idempotency_key="results", delivery_mode=mode)()
                for number, mode in enumerate(modes)
            )
        )

    run = clinic.run(build)
    outcomes = [task.xcom["outcome"] for task in run.tasks]
    assert outcomes == ["dry_run", "redirected", "deduplicated", "sent", "deduplicated"]
    assert [request.json["to"] for request in clinic.server.accepted] == ["+16505550100", NUMBER]


def test_the_database_holds_nothing_of_a_person(clinic: Clinic, state_file: Path) -> None:
    run = clinic.run(
        send(reference="appointment 4711"),
        send(task_id="email", type="email", subject="S", to="gwendolyn@clinic.example"),
    )
    assert (run.state, states(state_file)) == ("success", ["sent", "sent"])
    held = b"".join(path.read_bytes() for path in state_file.parent.iterdir())
    assert b"appointment 4711" in held
    for mark in (NUMBER[1:], "5550199", "wendolyn", "scan was", "clinic@clinic", "sekret"):
        assert mark.encode() not in held


# --- a store that fails


def test_a_store_that_fails_before_the_send_stops_it_and_the_next_try_sends(
    clinic: Clinic, state_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state_file.mkdir()  # no file can be opened there
    run = clinic.run(send(retries=1, retry_delay=NOW, on_retry_callback=lambda _: state_file.rmdir()))
    assert (run["send"].state, run["send"].tries, clinic.copies, len(clinic.server.requests)) == ("success", 2, 1, 1)
    shown = capsys.readouterr()
    assert "Nothing is sent while the ledger can't be used" in shown.out + shown.err


def test_a_store_that_fails_after_the_send_is_an_error_in_the_log_and_the_task_succeeds(
    clinic: Clinic, state_file: Path, provider_log: list[str]
) -> None:
    def breaking(exchange: Exchange) -> None:
        with contextlib.closing(sqlite3.connect(state_file)) as database:
            assert states(state_file) == ["sending"]
            database.execute("alter table apptoto_ledger rename to elsewhere")
        accepting(exchange)

    clinic.server.scripts = [breaking]
    run = clinic.run(send(retries=1, retry_delay=NOW))
    assert (run["send"].state, run["send"].tries, clinic.copies) == ("success", 1, 1)
    assert any("Outcome not recorded" in line and "sent" in line for line in provider_log)


# --- unknown outcomes


def test_the_failure_names_the_message_and_the_commands_that_resolve_it(
    clinic: Clinic, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Resolve it as an on-call engineer does: read the failure, check in Apptoto, run the command, clear the task."""
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "")  # the command sets it for its own process
    clinic.server.scripts = [BROKEN, accepting]
    first = send(reference="appointment 4711")
    second = send(task_id="second", to=OTHER_NUMBER)
    clinic.run(first)
    shown = capsys.readouterr()
    text = shown.out + shown.err
    for part in ("+1•••0199", "appointment 4711", f"try 1 of {clinic.dag_id}.send", "HTTP 500"):
        assert part in text
    assert len(clinic.server.requests) == 1
    [command] = set(re.findall(r"apptoto\w* (ledger resolve \w+ --to sent)", text))
    main([*command.split(), "--note", "seen in the conversation", "--by", "ann"])
    run = clinic.run(first)
    assert (run["send"].state, run["send"].xcom["outcome"], clinic.copies) == ("success", "deduplicated", 1)
    clinic.server.scripts = [answering(500), accepting]
    other = clinic.dag_id + "_other"
    clinic.run(second, dag_id=other)
    main(["ledger", "resolve", "--dag", other, "--state", "unknown", "--to", "not_sent", "--note", "not there"])
    assert clinic.run(second, dag_id=other)["second"].xcom["outcome"] == "sent"


def test_a_refused_message_is_named_as_an_unknown_one_is_in_lines_that_a_log_page_shows_whole(
    clinic: Clinic, errors: dict[str, BaseException]
) -> None:
    def refusing(exchange: Exchange) -> None:
        is_first = exchange.request.json["to"] == NUMBER
        (answering(422, {"error": "no"}) if is_first else BROKEN)(exchange)

    clinic.server.scripts = [refusing]
    clinic.run(send(reference="appointment 4711"), send(task_id="unknown", to=OTHER_NUMBER))
    for task_id, number in {"send": "0199", "unknown": "0198"}.items():
        lines = str(errors[task_id]).splitlines()
        assert lines[1].startswith(f"  sms to +1•••{number}, reference ")
        assert lines[2].startswith(f"  try 1 of {clinic.dag_id}.{task_id}, run ")
        assert re.fullmatch(r"  key [0-9a-f]{32}", lines[3])
        assert max(map(len, lines)) <= 120  # a command, in the long form of older Airflows
    assert "appointment 4711" in str(errors["send"])
    assert str(errors["send"]).endswith("then clear the task to send it")


def test_resend_tries_again_what_may_have_been_sent_with_and_without_a_ledger(
    clinic: Clinic, connection: Connect
) -> None:
    def broken_at_first(exchange: Exchange) -> None:
        is_first = [request.json for request in clinic.server.requests].count(exchange.request.json) == 1
        (BROKEN if is_first else accepting)(exchange)

    clinic.server.scripts = [broken_at_first]
    connection(clinic.server.url, "no_state")
    options: dict[str, Any] = {"on_unknown": "resend", "retries": 1, "retry_delay": NOW}
    run = clinic.run(
        send(task_id="with_ledger", **options),
        send(task_id="without", to=OTHER_NUMBER, apptoto_conn_id="no_state", **options),
    )
    assert [(task.state, task.tries) for task in run.tasks] == [("success", 2)] * 2
    assert sorted(request.json["to"] for request in clinic.server.accepted) == [OTHER_NUMBER] * 2 + [NUMBER] * 2


def test_assume_sent_succeeds_with_a_warning_and_never_sends_again(clinic: Clinic, provider_log: list[str]) -> None:
    clinic.server.scripts = [BROKEN, accepting]
    for _ in range(2):
        run = clinic.run(send(on_unknown="assume_sent"))
        assert (run.state, run["send"].xcom["outcome"]) == ("success", "assumed_sent")
    assert len(clinic.server.requests) == 1
    assert sum("assumed sent" in line for line in provider_log) == 2


# --- interruption


def run_out_of_time(*_: object) -> None:
    """End the timer of ``execution_timeout`` now."""
    ident = threading.main_thread().ident
    assert ident is not None
    signal.pthread_kill(ident, signal.SIGALRM)


HOUR = dt.timedelta(hours=1)


def test_a_task_timeout_in_mid_send_leaves_unknown(clinic: Clinic, state_file: Path) -> None:
    def running_out_of_time(exchange: Exchange) -> None:
        exchange.accept()
        run_out_of_time()
        exchange.server.released.wait()

    clinic.server.scripts = [running_out_of_time]
    for _ in range(2):
        run = clinic.run(send(retries=1, retry_delay=NOW, execution_timeout=HOUR))
        assert (run["send"].state, run["send"].tries) == ("failed", 1)
    assert (clinic.copies, states(state_file)) == (1, ["unknown"])


def test_a_task_timeout_before_the_first_byte_leaves_the_message_to_be_sent(
    clinic: Clinic, state_file: Path, connection: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection(clinic.server.url, state_conn_id="state", requests_per_minute=2)
    clinic.run(send(to=OTHER_NUMBER), dag_id=clinic.dag_id + "_first")
    with monkeypatch.context() as patch:
        patch.setattr(Cancellation, "sleep", run_out_of_time)  # its slot is in half a minute
        with contextlib.suppress(AirflowTaskTimeout):  # Airflow 2.11's dag.test does not stop it
            clinic.run(send(execution_timeout=HOUR))
    assert (states(state_file), clinic.copies) == (["sent"], 1)
    with contextlib.closing(sqlite3.connect(state_file)) as database:
        database.execute("update apptoto_pace set departs_at = 0")
        database.commit()
    assert clinic.run(send()).state == "success"
    assert clinic.copies == 2


def test_sigterm_in_mid_send_leaves_the_true_outcome_or_unknown(clinic: Clinic, state_file: Path) -> None:
    def terminating(exchange: Exchange) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        accepting(exchange)

    clinic.server.scripts = [terminating]
    with own_sigterm():
        clinic.run(send())
    assert states(state_file) in (["sent"], ["unknown"])
    assert clinic.copies == 1


def test_after_sigterm_no_further_attempt_leaves(clinic: Clinic, state_file: Path) -> None:
    def terminating(exchange: Exchange) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        exchange.answer(429, Retry_After="0")

    clinic.server.scripts = [terminating, accepting]
    with own_sigterm():
        assert clinic.run(send()).state == "failed"
    assert (clinic.copies, len(clinic.server.requests)) == (0, 1)
    assert states(state_file) in (["not_sent"], ["unknown"])


# --- a ledger that lost its memory


def lose(path: Path) -> None:
    path.unlink()
    forget_databases()


@pytest.mark.parametrize("again", ["a retry", "a clear"])
def test_a_try_that_finds_another_ledger_sends_nothing_until_somebody_accepts_it(
    clinic: Clinic, state_file: Path, errors: dict[str, BaseException], again: str
) -> None:
    class Losing(ApptotoSendMessageOperator):
        """Its ledger is lost, and then its first try fails."""

        def execute(self, context: Context) -> dict[str, Any]:
            sent = super().execute(context)
            if context["ti"].try_number == 1 and again == "a retry":
                lose(state_file)
                raise ConnectionError
            return sent

    run = clinic.run(send(Losing, retries=1, retry_delay=NOW))
    if again == "a clear":
        lose(state_file)
        run = clinic.run(send())
    assert run["send"].state == "failed"
    assert re.search(
        r"^The message was not sent: the state database .*'state' is empty.* --accept", str(errors["send"])
    )
    assert clinic.copies == 1
    main(["ledger", "init", "--accept"])
    assert clinic.run(send())["send"].xcom["outcome"] == "sent"


def test_a_batch_that_finds_another_ledger_sends_nothing(clinic: Clinic, state_file: Path) -> None:
    def batch() -> object:
        return ApptotoSendMessageBatchOperator(
            task_id="batch", messages=[{"to": NUMBER}, {"to": OTHER_NUMBER}], defaults={"type": "sms", "message": TEXT}
        )

    clinic.run(batch)
    lose(state_file)
    assert clinic.run(batch)["batch"].state == "failed"
    assert clinic.copies == 2


# --- the secret that keys its hashes


def test_a_secret_is_replaced_without_a_second_copy_and_its_loss_sends_nothing(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch, errors: dict[str, BaseException]
) -> None:
    old, new = "the old one of 20 letters", "the new one of 20 letters"
    monkeypatch.setenv("AIRFLOW__APPTOTO__LEDGER_SECRET", old)
    first = clinic.run(send())["send"].xcom
    monkeypatch.setenv("AIRFLOW__APPTOTO__LEDGER_SECRET", f"{new},{old}")
    again = clinic.run(send())["send"].xcom
    assert (first["outcome"], again["outcome"], first["key"]) == ("sent", "deduplicated", again["key"])
    assert clinic.run(send(to=OTHER_NUMBER))["send"].xcom["outcome"] == "sent"
    monkeypatch.setenv("AIRFLOW__APPTOTO__LEDGER_SECRET", new)
    assert clinic.run(send())["send"].state == "failed"
    assert "keyed with another ledger_secret" in str(errors["send"])
    monkeypatch.setenv("AIRFLOW__APPTOTO__LEDGER_SECRET", "short")
    assert clinic.run(send())["send"].state == "failed"
    assert str(errors["send"]).startswith("AIRFLOW__APPTOTO__LEDGER_SECRET: must be one secret")
    assert clinic.copies == 2


# --- max_age

OLD = dt.datetime(2026, 3, 2, tzinfo=dt.UTC)


def test_a_run_that_is_older_than_max_age_is_skipped_and_says_how_to_send_all_the_same(
    clinic: Clinic, capsys: pytest.CaptureFixture[str]
) -> None:
    assert clinic.run(send(), at=OLD)["send"].state == "skipped"
    assert clinic.server.connections == 0
    shown = capsys.readouterr()
    assert re.search(
        r"Skipped: the run is \d+ h old \(2026-03-02T00:00Z\), .*max_age=24 h.*raise max_age or set it to None",
        shown.out + shown.err,
    )
    assert clinic.run(send(max_age=None), at=OLD)["send"].state == "success"
    assert clinic.run(send(), at=OLD)["send"].xcom["outcome"] == "deduplicated"
    assert clinic.copies == 1


class Ageing(ApptotoSendMessageOperator):
    """A task whose run has become too old by its second try."""

    def execute(self, context: Context) -> dict[str, Any]:
        if context["ti"].try_number > 1:
            self.max_age = dt.timedelta(microseconds=1)
        return super().execute(context)


@pytest.mark.parametrize("remembers", [True, False], ids=["with a ledger", "without"])
def test_a_message_that_was_refused_and_is_too_old_by_the_retry_fails_for_it_was_not_sent(
    clinic: Clinic, connection: Connect, errors: dict[str, BaseException], remembers: bool
) -> None:
    connection(clinic.server.url, **({"state_conn_id": "state"} if remembers else {}))
    clinic.server.scripts = [answering(429, Retry_After="61"), accepting]
    run = clinic.run(send(Ageing, retries=2, retry_delay=NOW, retry_policy=None))
    assert (run["send"].state, run["send"].tries, run.state) == ("failed", 2, "failed")
    assert (len(clinic.server.requests), clinic.copies) == (1, 0)
    assert re.search(r"^The message was not sent: an earlier try started sending.*raise max_age", str(errors["send"]))


def test_a_message_that_no_try_could_begin_to_send_fails_too_for_a_try_had_begun_in_time(
    clinic: Clinic, errors: dict[str, BaseException]
) -> None:
    class Unlucky(Ageing):
        """Its first try can't reach what it needs."""

        def execute(self, context: Context) -> dict[str, Any]:
            if context["ti"].try_number == 1:
                raise ConnectionError
            return super().execute(context)

    run = clinic.run(send(Unlucky, retries=1, retry_delay=NOW))
    assert (run["send"].state, run["send"].tries, clinic.server.requests) == ("failed", 2, [])
    assert "an earlier try started sending" in str(errors["send"])


def test_a_message_that_was_refused_fails_also_where_its_task_is_cleared_too_late(clinic: Clinic) -> None:
    clinic.server.scripts = [answering(503, Retry_After="61"), accepting]
    assert clinic.run(send(max_age=None), at=OLD)["send"].state == "failed"
    assert clinic.run(send(), at=OLD)["send"].state == "failed"
    assert clinic.run(send(max_age=None), at=OLD)["send"].xcom["outcome"] == "sent"
    assert clinic.copies == 1


def test_max_age_is_as_the_task_says(clinic: Clinic) -> None:
    run = clinic.run(
        send(task_id="shorter", max_age=dt.timedelta(hours=2)),
        send(task_id="longer", max_age=dt.timedelta(hours=4)),
        at=clinic.day - dt.timedelta(hours=3),
    )
    assert (run["shorter"].state, run["longer"].state) == ("skipped", "success")
