"""Run one try of a task in its own process, which is killed or frozen at the drawn point."""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import psutil
import requests
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_apptoto.client import (
    ApptotoClient,
    ApptotoNotSentError,
    ApptotoUnknownOutcomeError,
    InProcessRateLimiter,
    Message,
    RateLimiter,
    RetryPolicy,
    transport,
)
from airflow_provider_apptoto.outbox.ledger import LedgerTiming
from airflow_provider_apptoto.outbox.outbox import Outbox
from airflow_provider_apptoto.outbox.policy import SendPolicy
from tests.chaos.arms import Arm, Rules
from tests.chaos.draws import Halt, LedgerFault, Point, Step
from tests.chaos.ledger_faults import faulty
from tests.chaos.traps import Trap, TrappedRateLimiter, TrappedStore, watch_the_wire
from tests.support.people import number_of, origin_of, target_of
from tests.support.promises import End

if TYPE_CHECKING:
    from airflow_provider_apptoto.outbox.stores.base import LedgerStore

# Modules are imported once, before tries are forked.
assert all([transport])
with contextlib.suppress(ImportError):  # Airflow 2.11 lacks it, but nothing here runs on 2.11
    importlib.import_module("airflow.sdk.execution_time.context")
Message(type="sms", to=number_of(0), message="loads what checks recipients")

TIMEOUT = 0.5
"""Seconds that an answer may take."""
BESIDE = 0.3
"""Seconds that an exchange may last beside it."""
TIMING = LedgerTiming(margin=0.2, poll=0.02, record_retries=(0.02,) * 4)
REQUESTS_PER_MINUTE = 60_000
TEXT = "See you at nine."
DEADLINE = 60
"""Timeout in seconds for things that should happen; not a measure of speed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """The job of a try.

    :param folder: where its arm keeps its ledger.
    :param halt: how it is killed or frozen, if it is.
    :param ledger_fault: how its ledger goes wrong, if it does.
    """

    arm: Arm
    folder: Path
    url: str
    person: int
    try_number: int
    halt: Halt | None = None
    ledger_fault: tuple[LedgerFault, Step] | None = None


@dataclass(frozen=True, slots=True)
class Process:
    """The process of a try."""

    attempt: Attempt
    pid: int
    """0 in the process itself."""

    @classmethod
    def start(cls, attempt: Attempt) -> Self:
        process = cls(attempt, os.fork())
        if process.pid == 0:
            try:
                process._said.write_text(json.dumps(_ending(attempt, process._marker)))
            finally:
                os._exit(0)
        return process

    def wait(self) -> tuple[End, str]:
        """Return how it ended and its text; a frozen process resumes later."""
        _, status = os.waitpid(self.pid, os.WUNTRACED)
        if os.WIFSTOPPED(status):
            return End.FROZEN, ""
        if os.WIFSIGNALED(status):
            return End.KILLED, signal.Signals(os.WTERMSIG(status)).name
        return self._ending()

    def wake(self) -> None:
        """Resume it."""
        os.kill(self.pid, signal.SIGCONT)

    def wake_and_wait(self) -> tuple[End, str]:
        """Resume it, and return how it ended; for processes other than the one that started it."""
        deadline = time.monotonic() + DEADLINE
        self.wake()
        with contextlib.suppress(psutil.NoSuchProcess):
            while psutil.Process(self.pid).status() not in {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}:
                assert time.monotonic() < deadline
                time.sleep(0.005)
        return self._ending()

    def kill(self) -> None:
        """Kill it if it is running."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    @property
    def began_to_write(self) -> bool:
        """Whether it came to write to its ledger."""
        return self._marker.exists()

    @property
    def _said(self) -> Path:
        return self.attempt.folder / f"said-{self.attempt.person}-{self.attempt.try_number}"

    @property
    def _marker(self) -> Path:
        return self._said.with_name(f"{self._said.name}-wrote")

    def _ending(self) -> tuple[End, str]:
        end, text = json.loads(self._said.read_text())
        return End(end), text


def _ending(attempt: Attempt, marker: Path) -> tuple[End, str]:
    logging.disable()
    trap = Trap(attempt.halt)
    watch_the_wire(trap, part=attempt.person % 2, timeout=TIMEOUT)
    try:
        if attempt.arm.rules is Rules.LEDGER:
            _send_by_ledger(attempt, trap, marker)
        else:
            _send_plainly(attempt, trap)
    except AirflowFailException as error:
        return End.FAILED, str(error)
    except (ApptotoNotSentError, ApptotoUnknownOutcomeError, requests.RequestException, _RefusedError) as error:
        return End.RETRYABLE, str(error)
    except Exception as error:  # noqa: BLE001  the checker shows it
        return End.BROKEN, f"{type(error).__name__}: {error}"
    return End.SUCCESS, ""


def client_of(url: str, *, timeout: float = TIMEOUT, rate_limiter: RateLimiter | None = None) -> ApptotoClient:
    """Return a client for a server.

    :param timeout: seconds that an answer may take.
    """
    return ApptotoClient(
        login="clinic@clinic.example",
        api_key="key",
        base_url=url,
        timeout=timeout,
        total_timeout=timeout + BESIDE,
        rate_limiter=rate_limiter or InProcessRateLimiter(REQUESTS_PER_MINUTE),
        retry_policy=RetryPolicy(backoff=0.02),
    )


def _send_by_ledger(attempt: Attempt, trap: Trap, marker: Path) -> None:
    assert attempt.arm.memory is not None
    origin = origin_of(attempt.person, attempt.try_number)
    memory = attempt.arm.memory(attempt.folder)
    fault, step = attempt.ledger_fault or (None, None)
    store: LedgerStore = memory.lost(origin) if fault is LedgerFault.LOST else memory.store(origin)
    if fault is not None and step is not None:
        store = faulty(store, fault, step)
    if attempt.arm.wrap is not None:
        store = attempt.arm.wrap(store)
    outbox = Outbox(
        client=client_of(attempt.url, rate_limiter=TrappedRateLimiter(REQUESTS_PER_MINUTE, trap)),
        build=Message,
        policy=SendPolicy(on_unknown=attempt.arm.on_unknown),
        origin=origin,
        store=cast("LedgerStore", TrappedStore(store, trap, marker)),
        timing=TIMING,
    )
    outbox.send(**_fields(attempt))


class _RefusedError(Exception):
    """An answer that is not a success."""


def _send_plainly(attempt: Attempt, trap: Trap) -> None:
    is_naive = attempt.arm.rules is Rules.NAIVE
    try:
        answer = requests.post(
            f"{attempt.url}/v1/send_message",
            json=_fields(attempt),
            timeout=TIMEOUT,
            allow_redirects=not is_naive,
        )
    finally:
        trap.at(Point.AFTER_ANSWER)
    answer.raise_for_status()
    if is_naive and (answer.status_code != requests.codes.ok or answer.json() != {"success": True}):
        raise _RefusedError(f"HTTP {answer.status_code}")


def _fields(attempt: Attempt) -> dict[str, Any]:
    target = target_of(attempt.person) if attempt.arm.appointments else {"to": number_of(attempt.person)}
    return {"type": "sms", **target, "message": TEXT}
