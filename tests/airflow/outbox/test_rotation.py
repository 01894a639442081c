"""The secret of the ledger's hashes can be replaced while tasks run, and nobody gets a message twice."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_apptoto.client import ApptotoNotSentError
from tests.support.entries import SECOND
from tests.support.faults import accepting, answering
from tests.support.memory_store import MemoryStore
from tests.support.outbox_process import OutboxProcess
from tests.support.outboxes import NUMBER, OTHER_NUMBER, TEXT, outbox_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.clock import Clock
    from tests.support.faults import FaultServer

OLD, NEW = "an old secret of 20 characters", "a new secret of 20 characters"
OLD_KEY, NEW_KEY = b"old", b"new"
MESSAGE: dict[str, Any] = {"type": "sms", "to": NUMBER, "message": TEXT}
REFUSED = "ledger_unusable"


def test_a_message_of_the_old_secret_is_found_and_a_new_one_is_written_under_the_new_secret(
    clinic: FaultServer, clock: Clock
) -> None:
    before, after = MemoryStore(OLD_KEY), MemoryStore(NEW_KEY, OLD_KEY)
    after.entries = before.entries
    first = outbox_of(clinic, before, clock).send(**MESSAGE)
    found = outbox_of(clinic, after, clock, origin=SECOND).send(**MESSAGE)
    assert (found.outcome, found.key) == ("deduplicated", first.key)
    other = outbox_of(clinic, after, clock, origin=SECOND).send(**{**MESSAGE, "to": OTHER_NUMBER})
    assert other.outcome == "sent"
    last = MemoryStore(NEW_KEY)
    last.entries = before.entries
    again = outbox_of(clinic, last, clock, origin=SECOND).send(**{**MESSAGE, "to": OTHER_NUMBER})
    assert (again.outcome, again.key) == ("deduplicated", other.key)
    assert len(clinic.accepted) == 2


def test_what_was_not_sent_under_the_old_secret_keeps_its_entry(clinic: FaultServer, clock: Clock) -> None:
    before, after = MemoryStore(OLD_KEY), MemoryStore(NEW_KEY, OLD_KEY)
    after.entries = before.entries
    clinic.scripts = [answering(429), accepting]
    with pytest.raises(ApptotoNotSentError):
        outbox_of(clinic, before, clock).send(**MESSAGE)
    assert outbox_of(clinic, after, clock, origin=SECOND).send(**MESSAGE).outcome == "sent"
    assert before.only.state == "sent"


def test_a_batch_finds_messages_of_both_secrets(clinic: FaultServer, clock: Clock) -> None:
    before, after = MemoryStore(OLD_KEY), MemoryStore(NEW_KEY, OLD_KEY)
    after.entries = before.entries
    old_key = outbox_of(clinic, before, clock).send(**MESSAGE).key
    outbox = outbox_of(clinic, after, clock, origin=SECOND)
    messages = [(outbox.build(**{**MESSAGE, "to": to}), None) for to in (NUMBER, OTHER_NUMBER)]
    assert outbox.keys_of_older_secrets(messages) == {outbox.key_of(messages[0][0]): old_key}
    outbox.look_ahead([old_key or "", outbox.key_of(messages[1][0])])
    assert [outbox.send(message).outcome for message, _ in messages] == ["deduplicated", "sent"]


@pytest.mark.processes
def test_a_process_that_knows_the_old_secret_alone_sends_nothing_that_another_one_sent_under_the_new_one(
    tmp_path: Path, clinic: FaultServer
) -> None:
    file = tmp_path / "state.db"
    first, second, third = (f"+1650555{number:04}" for number in range(100, 103))
    with OutboxProcess(file, clinic.url, OLD, "old") as old:
        assert old.send(first) == "sent"
        with OutboxProcess(file, clinic.url, f"{NEW},{OLD}", "new") as new:
            assert new.send(first) == "deduplicated"
            assert new.send(second) == "sent"
            assert old.send(second) == REFUSED
            assert old.send(third) == REFUSED
            assert old.send(first) == "deduplicated"
            assert new.send(third) == "sent"
        with OutboxProcess(file, clinic.url, OLD, "late") as late:
            assert late.send(first) == REFUSED
    assert Counter(request.json["to"] for request in clinic.accepted) == Counter([first, second, third])


@pytest.mark.processes
def test_processes_that_send_the_same_messages_while_the_secret_is_replaced_send_each_once(
    tmp_path: Path, clinic: FaultServer
) -> None:
    file = tmp_path / "state.db"
    people = [f"+1650555{number:04}" for number in range(100, 160)]
    with (
        OutboxProcess(file, clinic.url, OLD, "old") as old,
        OutboxProcess(file, clinic.url, f"{NEW},{OLD}", "new") as new,
    ):
        old.ask(*people)
        assert old.answer() == "sent"
        new.ask(*reversed(people))
        outcomes_of_new = Counter(new.answer() for _ in people)
        outcomes_of_old = Counter(["sent", *(old.answer() for _ in people[1:])])
    assert Counter(request.json["to"] for request in clinic.accepted) == Counter(people)
    assert set(outcomes_of_new) <= {"sent", "deduplicated"}
    assert outcomes_of_new["sent"] + outcomes_of_old["sent"] == len(people)
    assert set(outcomes_of_old) <= {"sent", "deduplicated", REFUSED}
