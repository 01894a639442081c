"""A cancellation ends the waits of all its sends, and gives the reason."""

from __future__ import annotations

import threading
import time

import pytest

from airflow_provider_apptoto.client.errors import ApptotoStoppedError
from airflow_provider_apptoto.outbox.cancellation import Cancellation


def test_messages_may_be_sent_until_it_is_cancelled_and_the_first_reason_counts() -> None:
    cancellation = Cancellation()
    cancellation.check()
    assert cancellation.reason == ""
    cancellation.cancel("the task was stopped")
    cancellation.cancel("the worker shuts down")
    with pytest.raises(ApptotoStoppedError, match=r"^The message was not sent: the task was stopped$") as raised:
        cancellation.check()
    assert (raised.value.reason, raised.value.code) == ("the task was stopped", "stopped")


def test_a_parent_cancels_its_children_and_no_child_its_parent() -> None:
    parent = Cancellation()
    child, other = Cancellation(parent), Cancellation(parent)
    child.cancel("five failures in a row")
    parent.check()
    other.check()
    parent.cancel("the task was stopped")
    assert other.reason == "the task was stopped"
    assert child.reason == "five failures in a row"


def test_a_wait_ends_when_it_is_cancelled() -> None:
    cancellation = Cancellation()
    threading.Timer(0.05, cancellation.cancel, ["the task was stopped"]).start()
    began = time.monotonic()
    with pytest.raises(ApptotoStoppedError):
        cancellation.sleep(3600)
    assert time.monotonic() - began < 3600


@pytest.mark.parametrize("seconds", [0.0, 3600.0])
def test_no_wait_begins_after_it_was_cancelled(seconds: float) -> None:
    cancellation = Cancellation()
    cancellation.cancel("the task was stopped")
    with pytest.raises(ApptotoStoppedError):
        cancellation.sleep(seconds)


def test_a_wait_lasts_as_long_as_it_was_asked_to() -> None:
    began = time.monotonic()
    Cancellation().sleep(0.3)
    assert time.monotonic() - began >= 0.3
