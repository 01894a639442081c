"""A message that may have been sent is settled by the next try or a command if its conversation has it, else never."""

from __future__ import annotations

import datetime as dt
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_apptoto.cli import main
from airflow_provider_apptoto.hooks.apptoto import ApptotoHook
from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageBatchOperator, ApptotoSendMessageOperator
from airflow_provider_apptoto.outbox.admin import LedgerAdmin, Selection
from airflow_provider_apptoto.outbox.ledger import LedgerTiming
from airflow_provider_apptoto.outbox.stores.base import LedgerAwayError
from airflow_provider_apptoto.outbox.stores.sql import SqlLedgerStore
from tests.support.appointments import DAY, NAMES, Clinic, row
from tests.support.dag_runs import run_dag
from tests.support.faults import answering

if TYPE_CHECKING:
    from tests.support.dag_runs import TaskRun
    from tests.support.faults import Exchange, FaultServer

pytestmark = [pytest.mark.contract, pytest.mark.usefixtures("airflow_database", "quick_retries")]

TEXT = "Hi {{ name }}, see you {{ event.start_time | date_and_time_phrase }}"
PLAIN = "Your scan is ready"
FILLED = "Hi Gwendolyn, see you Tuesday at 8:01"
AT = dt.datetime(2026, 11, 30, tzinfo=dt.UTC)


class Doubtful(Clinic):
    """Answers each message with an error, and has sent it to those whose numbers are in ``reached``."""

    reached: tuple[int, ...] = ()

    def __call__(self, exchange: Exchange) -> None:
        if exchange.request.method == "GET":
            super().__call__(exchange)
            return
        message = exchange.request.json
        self.sent.append(message)
        for number in self.events:
            if number in self.reached and message.get("participant_id", message.get("event_id")) in {
                number,
                number + 1000,
            }:
                self.say(number, FILLED if "{{" in message["message"] else message["message"], event_type="sent")
        answering(500, accepted=True)(exchange)


@pytest.fixture
def clinic(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> Doubtful:
    # messages share a write of the ledger: if it fails, and is not repeated as usual, none of a batch is sent
    monkeypatch.setattr(ApptotoHook, "ledger_timing", LedgerTiming(record_retries=(0.01,)))
    clinic = Doubtful(Clinic.of(6).events)
    server.scripts = [clinic]
    return clinic


def send(name: str, **fields: Any) -> TaskRun:
    """Send once more in the same task of the same run, as a clear does."""
    given = {"type": "sms", "message": TEXT, "event_id": 1, "participant_id": 1001, "max_age": None, **fields}
    return run_dag(lambda: ApptotoSendMessageOperator(task_id="send", **given), dag_id=name, at=AT)["send"]


@pytest.mark.parametrize(
    "fields",
    [{}, {"message": PLAIN}, {"participant_id": None}, {"on_unknown": "resend"}],
    ids=["fields", "plain", "event", "resend"],
)
def test_the_next_try_finds_a_message_that_was_sent_and_does_not_send_it_again(
    clinic: Doubtful, request: pytest.FixtureRequest, fields: dict[str, Any]
) -> None:
    name = f"settled_{request.node.callspec.id}"
    clinic.reached = (1,)
    assert send(name, **fields).state == "failed"
    run = send(name, **fields)
    assert (run.state, run.xcom["outcome"]) == ("success", "deduplicated")
    assert len(clinic.sent) == 1
    assert clinic.reads == ["/v1/event?id=1&include_conversations=true"]
    assert send(name, **fields).xcom["outcome"] == "deduplicated"
    assert len(clinic.reads) == 1


@pytest.mark.parametrize(
    "fields", [{}, {"message": "Hi {{ name }}"}, {"event_id": None}], ids=["absent", "vague", "no event"]
)
def test_not_found_proves_nothing(clinic: Doubtful, request: pytest.FixtureRequest, fields: dict[str, Any]) -> None:
    name = f"open_{request.node.callspec.id.replace(' ', '_')}"
    clinic.reached = () if not fields else (1,)
    for _ in range(2):
        assert send(name, **fields).state == "failed"
    assert len(clinic.sent) == 1


def test_a_conversation_that_can_not_be_read_proves_nothing(clinic: Doubtful) -> None:
    clinic.reached = (1,)
    send("unreadable")
    clinic.faults = [answering(502)] * 3
    assert send("unreadable").state == "failed"
    assert send("unreadable").state == "success"
    assert len(clinic.sent) == 1


def batch(name: str, text: str, *numbers: int) -> TaskRun:
    rows = [row(number) for number in numbers]

    def build() -> None:
        ApptotoSendMessageBatchOperator(
            task_id="send",
            messages=rows,
            defaults={"type": "sms", "message": text},
            max_age=None,
            max_consecutive_failures=100,
            retries=0,
        )

    return run_dag(build, dag_id=name, at=AT)["send"]


def unknown() -> int:
    database = ApptotoHook().state_database
    assert database is not None
    return LedgerAdmin(database).count(Selection(states=("unknown",)))


def reconcile(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, str, int]:
    capsys.readouterr()
    code = 0
    window = ("--begin", DAY.isoformat(), "--end", (DAY + dt.timedelta(days=1)).isoformat())
    try:
        main(["ledger", "reconcile", "--yes", "--by", "test", *window, *arguments])
    except SystemExit as end:
        code = int(end.code or 0)
    output, errors = capsys.readouterr()
    return output, errors, code


def test_a_batch_settles_what_it_finds_and_leaves_the_rest_to_a_person(clinic: Doubtful) -> None:
    clinic.reached = (1, 2, 3, 4)
    assert batch("some", TEXT, 1, 2, 3, 4, 5, 6).state == "failed"
    assert unknown() == 6
    assert batch("some", TEXT, 1, 2, 3, 4, 5, 6).state == "failed"
    assert (unknown(), len(clinic.sent)) == (2, 6)


def test_a_failed_write_that_the_messages_share_leaves_none_of_them_behind(
    clinic: Doubtful, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    write, write_pending = SqlLedgerStore._write, SqlLedgerStore._write_pending

    def failing(store: SqlLedgerStore, group: Any) -> None:
        written.append(len(group))
        if len(written) > 1:
            write(store, group)
            return
        for each in group:
            each.error = LedgerAwayError("database is locked")

    def late(store: SqlLedgerStore) -> None:
        time.sleep(0 if written else 1)  # the others wait for this thread
        write_pending(store)

    monkeypatch.setattr(SqlLedgerStore, "_write", failing)
    monkeypatch.setattr(SqlLedgerStore, "_write_pending", late)
    assert batch("locked", TEXT, 1, 2, 3, 4, 5, 6).state == "failed"
    assert written[0] > 1
    assert (unknown(), len(clinic.sent)) == (6, 6)


def test_the_command_settles_plain_texts_by_their_hash(clinic: Doubtful, capsys: pytest.CaptureFixture[str]) -> None:
    clinic.reached = (1, 2, 3)
    batch("plain", PLAIN, 1, 2, 3, 4)
    output, errors, code = reconcile(capsys, "--dag", "plain", "--output", "json")
    assert (code, unknown(), len(clinic.reads)) == (0, 1, 2)
    assert "Resolved as sent: 3. Left for a person: 1." in errors
    assert {each["why"] for each in json.loads(output)} == {"test: found in the conversation in Apptoto"}
    assert not any(private in output + errors for private in (*NAMES, PLAIN))
    assert batch("plain", PLAIN, 1, 2, 3).state == "success"
    assert len(clinic.sent) == 4


def test_the_command_recognizes_filled_texts_if_it_is_given_the_text(
    clinic: Doubtful, capsys: pytest.CaptureFixture[str]
) -> None:
    clinic.reached = (1, 2, 3)
    batch("filled", TEXT, 1, 2, 3, 4)
    _, errors, code = reconcile(capsys)
    assert (code, unknown()) == (1, 4)
    assert "None was found, but any of them may have been sent. A person must decide about 4." in errors
    assert reconcile(capsys, "--message", "Hi {{ name }}, see you tomorrow")[2] == 1
    assert (reconcile(capsys, "--message", TEXT)[2], unknown()) == (0, 1)


def test_without_open_messages_the_command_reads_nothing(clinic: Doubtful, capsys: pytest.CaptureFixture[str]) -> None:
    _, errors, code = reconcile(capsys)
    assert ("nothing to search for" in errors, code, clinic.reads) == (True, 1, [])
