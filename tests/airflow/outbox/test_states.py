"""A message that is sent only in some states of its appointment leaves, however busy the account is."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from airflow_provider_apptoto.client import InProcessRateLimiter
from airflow_provider_apptoto.outbox import states
from airflow_provider_apptoto.outbox.cancellation import Cancellation
from airflow_provider_apptoto.outbox.guards import Guards
from airflow_provider_apptoto.outbox.policy import OPEN_STATES
from airflow_provider_apptoto.outbox.states import EventStates
from tests.support.appointments import Clinic
from tests.support.faults import FaultServer
from tests.support.outboxes import client_of, outbox_of

if TYPE_CHECKING:
    from tests.support.clock import Clock
    from tests.support.memory_store import MemoryStore


class Crowded(InProcessRateLimiter):
    """Makes each request wait behind those of many other tasks."""

    def __init__(self, wait: float) -> None:
        self.interval, self.wait, self.reserved = 0.68, wait, 0

    def reserve(self, max_wait: float = math.inf, lead: float = 0.0) -> float:  # noqa: ARG002  the interface
        self.reserved += 1
        assert self.reserved < 20, "the message is never sent"
        return self.wait


@pytest.mark.parametrize("wait", [10, 25, 35, 59])
def test_a_message_leaves_however_long_each_request_waits_for_its_slot(
    clock: Clock, memory: MemoryStore, monkeypatch: pytest.MonkeyPatch, wait: float
) -> None:
    monkeypatch.setattr(states, "time", clock)
    monkeypatch.setattr(Cancellation, "sleep", lambda _, seconds: clock.sleep(seconds))
    appointments, limiter = Clinic.of(1), Crowded(wait)
    with FaultServer([appointments]) as server:
        guards = Guards(states=EventStates(client=client_of(server, clock, limiter=limiter), allowed=OPEN_STATES))
        outbox = outbox_of(server, memory, clock, limiter=limiter, guards=guards)
        sent = outbox.send(type="sms", message="See you", event_id=1, participant_id=1001)
    assert (sent.outcome, len(appointments.sent)) == ("sent", 1)
