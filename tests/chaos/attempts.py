"""One try of a task: a process of its own, that kills itself where it was drawn to."""

from __future__ import annotations

import contextlib
import http.client
import importlib
import json
import logging
import os
import select
import signal
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pendulum
import requests
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_apptoto.client import (
    ApptotoClient,
    ApptotoNotSentError,
    ApptotoUnknownOutcomeError,
    InProcessPacer,
    Message,
    RetryPolicy,
    transport,
)
from airflow_provider_apptoto.delivery import Scope, deliver
from airflow_provider_apptoto.state.ledger import LedgerTiming
from airflow_provider_apptoto.state.store import UNDER_WAY, Entry, LedgerAwayError, LedgerStore, State
from tests.chaos.arms import Arm, Rules
from tests.chaos.draws import LedgerFault, Point, Step
from tests.chaos.people import number_of, origin_of

if TYPE_CHECKING:
    from airflow_provider_apptoto.hooks.apptoto import ApptotoHook

# What attempts import is loaded once, before they are forked.
assert all([pendulum, transport])
with contextlib.suppress(ImportError):  # not in Airflow 2.11, on which nothing here is run
    importlib.import_module("airflow.sdk.execution_time.context")
Message(type="sms", to=number_of(0), message="loads what checks recipients")

TIMEOUT = 0.5
"""Seconds that an answer may take."""
BESIDE = 0.3
"""Seconds that an exchange may last beside it."""
TIMING = LedgerTiming(margin=0.2, poll=0.02, record_retries=(0.02,) * 4)
STALL = 0.4
"""Seconds that a ledger stalls: less than the lease of who sends."""


class End(StrEnum):
    """What Airflow sees of an attempt."""

    SUCCESS = "success"
    RETRYABLE = "retryable"
    """An exception after which Airflow tries again."""
    FAILED = "failed"
    """``AirflowFailException``."""
    KILLED = "killed"
    BROKEN = "broken"
    """An exception that none of this should raise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What an attempt has to do.

    :param folder: where its arm keeps its ledger.
    :param kill_at: where it is killed, if it is.
    :param ledger_fault: how its ledger goes wrong, if it does.
    """

    arm: Arm
    folder: Path
    url: str
    person: int
    try_number: int
    kill_at: Point | None
    ledger_fault: tuple[LedgerFault, Step] | None = None


def run(attempt: Attempt) -> tuple[End, str]:
    """Make an attempt in a child, and return how it ended and what it said."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            os.write(writer, json.dumps(_ending(attempt)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        said = stream.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return End.KILLED, signal.Signals(os.WTERMSIG(status)).name
    end, text = json.loads(said)
    return End(end), text


def _ending(attempt: Attempt) -> tuple[End, str]:
    logging.disable()
    killer = _Killer(attempt.kill_at)
    killer.watch_the_wire(first=attempt.person % 2)
    try:
        if attempt.arm.rules is Rules.LEDGER:
            _send_by_ledger(attempt, killer)
        else:
            _send_plainly(attempt, killer)
    except AirflowFailException as error:
        return End.FAILED, str(error)
    except (ApptotoNotSentError, ApptotoUnknownOutcomeError, requests.RequestException, _RefusedError) as error:
        return End.RETRYABLE, str(error)
    except Exception as error:  # noqa: BLE001  said to whoever looks on
        return End.BROKEN, f"{type(error).__name__}: {error}"
    return End.SUCCESS, ""


class _Killer:
    """Kills this process at a point.

    :param point: ``None``: nowhere.
    """

    def __init__(self, point: Point | None) -> None:
        self._point = point

    def at(self, point: Point) -> None:
        if point is self._point:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch_the_wire(self, *, first: int) -> None:
        """Come by the points that are in the sending of a request.

        :param first: 0: the request is cut in its headers; 1: in its body.
        """
        send, getresponse = http.client.HTTPConnection.send, http.client.HTTPConnection.getresponse
        writes: list[int] = []

        def watched_send(connection: http.client.HTTPConnection, data: bytes) -> None:
            if connection.sock is None:
                connection.connect()
            self.at(Point.BEFORE_FIRST_BYTE)
            if self._point is Point.MID_REQUEST and len(writes) == first:
                connection.sock.sendall(data[: len(data) // 2])
                self.at(Point.MID_REQUEST)
            writes.append(len(data))
            send(connection, data)

        def watched_getresponse(connection: http.client.HTTPConnection) -> http.client.HTTPResponse:
            if self._point is Point.AFTER_ACCEPTANCE:
                select.select([connection.sock], [], [], TIMEOUT)
                self.at(Point.AFTER_ACCEPTANCE)
            return getresponse(connection)

        http.client.HTTPConnection.send = watched_send  # type: ignore[method-assign,assignment]
        http.client.HTTPConnection.getresponse = watched_getresponse  # type: ignore[method-assign,assignment]


class _KillingStore:
    """A ledger at whose steps the process may be killed."""

    def __init__(self, store: LedgerStore, killer: _Killer) -> None:
        self._store = store
        self._killer = killer

    def swap(self, old: Entry | None, new: Entry) -> bool:
        if new.state not in UNDER_WAY:
            self._killer.at(Point.AFTER_ANSWER)
        swapped = self._store.swap(old, new)
        if new.state is State.CLAIMED and swapped:
            self._killer.at(Point.AFTER_CLAIM)
        if new.state not in UNDER_WAY:
            self._killer.at(Point.AFTER_RECORDING)
        return swapped

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class _FaultyStore:
    """A ledger that goes wrong once, over one of its steps."""

    def __init__(self, store: LedgerStore, fault: LedgerFault, step: Step) -> None:
        self._store = store
        self._fault: LedgerFault | None = fault
        self._step = step

    def swap(self, old: Entry | None, new: Entry) -> bool:
        step = {State.CLAIMED: Step.CLAIM, State.SENDING: Step.SENDING}.get(new.state, Step.OUTCOME)
        if self._fault is None or step is not self._step:
            return self._store.swap(old, new)
        fault, self._fault = self._fault, None
        if fault is LedgerFault.AWAY:
            raise LedgerAwayError("away")
        if fault is LedgerFault.STALLS:
            time.sleep(STALL)
        swapped = self._store.swap(old, new)
        if fault is LedgerFault.ANSWER_LOST:
            raise LedgerAwayError("answer lost")
        return swapped

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class _Hook:
    """As much of the hook as a delivery needs."""

    def __init__(self, url: str, timeout: float) -> None:
        self._url = url
        self._timeout = timeout

    def build_message(self, **fields: Any) -> Message:
        return Message(**fields)

    def get_conn(self) -> ApptotoClient:
        return ApptotoClient(
            login="clinic@clinic.example",
            api_key="key",
            base_url=self._url,
            timeout=self._timeout,
            total_timeout=self._timeout + BESIDE,
            pacer=InProcessPacer(60_000),
            retry_policy=RetryPolicy(backoff=0.02),
        )


def hook_of(url: str, *, timeout: float) -> ApptotoHook:
    """Return a hook for a server."""
    return cast("ApptotoHook", _Hook(url, timeout))


def _send_by_ledger(attempt: Attempt, killer: _Killer) -> None:
    assert attempt.arm.memory is not None
    origin = origin_of(attempt.person, attempt.try_number)
    memory = attempt.arm.memory(attempt.folder)
    fault, step = attempt.ledger_fault or (None, None)
    store: LedgerStore = memory.lost(origin) if fault is LedgerFault.LOST else memory.store(origin)
    if fault is not None and step is not None:
        store = cast("LedgerStore", _FaultyStore(store, fault, step))
    if attempt.arm.wrap is not None:
        store = attempt.arm.wrap(store)

    def before_claim() -> str:
        killer.at(Point.BEFORE_CLAIM)
        return ""

    scope = Scope(
        origin=origin,
        store=cast("LedgerStore", _KillingStore(store, killer)),
        on_unknown=attempt.arm.on_unknown,
        why_too_old=before_claim,
        timing=TIMING,
    )
    deliver(_fields(attempt), hook_of(attempt.url, timeout=TIMEOUT), scope)


class _RefusedError(Exception):
    """An answer that is no success."""


def _send_plainly(attempt: Attempt, killer: _Killer) -> None:
    is_naive = attempt.arm.rules is Rules.NAIVE
    try:
        answer = requests.post(
            f"{attempt.url}/v1/send_message",
            json=_fields(attempt),
            timeout=TIMEOUT,
            allow_redirects=not is_naive,
        )
    finally:
        killer.at(Point.AFTER_ANSWER)
    answer.raise_for_status()
    if is_naive and (answer.status_code != requests.codes.ok or answer.json() != {"success": True}):
        raise _RefusedError(f"HTTP {answer.status_code}")


def _fields(attempt: Attempt) -> dict[str, str]:
    return {"type": "sms", "to": number_of(attempt.person), "message": "See you at nine."}
