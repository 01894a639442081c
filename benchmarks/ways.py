"""The ways to send that are measured in this process. Only this module and :mod:`.reads` use internals."""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from benchmarks.settings import API_KEY, LOGIN, TEXT, TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from sqlalchemy.engine import URL

    from airflow_provider_apptoto.client import ApptotoClient
    from airflow_provider_apptoto.outbox.origin import Origin
    from airflow_provider_apptoto.outbox.stores.base import LedgerStore

UNLIMITED = 1e6
"""Requests per minute that never delay a message: one every 60 microseconds."""

_numbers = itertools.count()


def bare(url: str, bodies: Iterable[Mapping[str, Any]]) -> None:
    """Post these bodies one after the other with ``requests``, without a rate limit, ledger or retry."""
    import requests

    with requests.Session() as session:
        for body in bodies:
            answer = session.post(f"{url}/v1/send_message", json=body, auth=(LOGIN, API_KEY), timeout=TIMEOUT)
            answer.raise_for_status()


def client(url: str, *, rate_limit: URL | None = None) -> Callable[[], object]:
    """Return a function that sends one more message with the client alone.

    :param rate_limit: database of a rate limit that processes share; ``None``: the rate limit of this process.
    """
    from airflow_provider_apptoto.client import Message

    sender = _client(url, rate_limit, UNLIMITED)
    return lambda: sender.send(Message(type="sms", to=_next_number(), message=TEXT))


def outbox(url: str, *, ledger: URL | None = None, rate_limit: URL | None = None) -> Callable[[], object]:
    """Return a function that sends one more message as an operator does.

    :param ledger: database of the ledger; ``None``: no ledger.
    :param rate_limit: database of a rate limit that processes share; ``None``: the rate limit of this process.
    """
    return _outbox(_client(url, rate_limit, UNLIMITED), _store(ledger))


def outbox_in_task_state(url: str, context: Mapping[str, Any]) -> Callable[[], object]:
    """Return a function that sends one more message as an operator does, with the ledger in a task's state.

    :param context: of the running task.
    """
    from airflow_provider_apptoto.outbox.stores.task_state import TaskStateLedgerStore

    return _outbox(_client(url, None, UNLIMITED), TaskStateLedgerStore(context["task_state_store"]))


def guarded(
    conn_id: str,
    numbers: Iterator[str],
    settings: Mapping[str, Any],
    *,
    obeys_optouts: bool,
    recipient_timezone: str | None,
) -> Callable[[], object]:
    """Return a function that sends one more message through the hook, as a task does.

    :param numbers: the recipients, without end.
    :param settings: of the outbox; the age is not limited by default.
    :param obeys_optouts: whether recipients are looked up; outside this benchmark, they always are.
    """
    from airflow_provider_apptoto.client import Outcome
    from airflow_provider_apptoto.hooks.apptoto import ApptotoHook

    hook = ApptotoHook(conn_id)

    def send() -> object:
        context = {"ti": _origin(), "data_interval_end": datetime.now(UTC)}
        outbox = hook.outbox(context, **{"max_age": None, **settings})
        if not obeys_optouts:
            outbox.guards = dataclasses.replace(outbox.guards, optouts=None)
        delivery = outbox.send(type="sms", to=next(numbers), message=TEXT, recipient_timezone=recipient_timezone)
        if delivery.outcome is not Outcome.SENT:
            raise RuntimeError(f"Not sent ({delivery.outcome}), so the times mean nothing: {delivery.reason}")
        return delivery

    return send


def opt_out(conn_id: str, numbers: Iterable[str], lists: Iterable[str]) -> None:
    """Create the tables of the connection's state database, and let these numbers opt out of everything.

    :param lists: named lists; each gets the first of the numbers.
    """
    from airflow_provider_apptoto.hooks.apptoto import ApptotoHook

    everybody = list(numbers)
    for name, some in {"all": everybody, **dict.fromkeys(lists, everybody[:1])}.items():
        ApptotoHook(conn_id).optouts.add(name, some, by="benchmark")


def statements(send: Callable[[], object]) -> int:
    """Call a function, and return the number of SQL statements that it executes."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    executed: list[object] = []

    def note(*arguments: object) -> None:
        executed.append(arguments)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        send()
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    return len(executed)


def batch(
    url: str, *, ledger: URL | None, rate_limit: URL | None, requests_per_minute: float = UNLIMITED, concurrency: int
) -> Callable[[Sequence[str]], None]:
    """Return a function that sends to these phone numbers as the batch operator does, without Airflow.

    :param ledger: database of the ledger; ``None``: no ledger.
    :param rate_limit: database of a rate limit that processes share; ``None``: the rate limit of this process.
    :param concurrency: messages in flight at once.
    """
    from airflow_provider_apptoto.batch.options import BatchOptions
    from airflow_provider_apptoto.batch.plan import Plan, PlannedMessage
    from airflow_provider_apptoto.batch.results import BatchResults
    from airflow_provider_apptoto.batch.sending import Sender
    from airflow_provider_apptoto.client import Message, Outcome
    from airflow_provider_apptoto.outbox.outbox import Outbox

    store = _store(ledger)

    def send(numbers: Sequence[str]) -> None:
        with _client(url, rate_limit, requests_per_minute) as sender:
            outbox = Outbox(client=sender, build=Message, origin=_origin(), store=store, log_level=logging.DEBUG)
            messages = [Message(type="sms", to=number, message=TEXT) for number in numbers]
            planned = [
                PlannedMessage(index, message, outbox.key_of(message), None, None)
                for index, message in enumerate(messages)
            ]
            results = BatchResults(Plan(rows=len(planned), messages=planned), has_ledger=store is not None)
            Sender(planned, outbox, results, BatchOptions(concurrency=concurrency)).send(lambda: None)
        if results[Outcome.SENT] != len(numbers):
            raise RuntimeError(f"Not all messages were sent, so the times mean nothing:\n{results.table()}")

    return send


def connect(url: str, conn_id: str, state: URL | None = None) -> None:
    """Create an Apptoto connection without a limit of requests.

    :param url: base URL of the server.
    :param state: its state database.
    """
    extra: dict[str, object] = {"requests_per_minute": UNLIMITED}
    if state is not None:
        kind = "sqlite" if state.get_backend_name() == "sqlite" else "postgres"
        database = {
            "conn_type": kind,
            "host": state.host or state.database,
            "port": state.port,
            "login": state.username,
        }
        os.environ[f"AIRFLOW_CONN_STATE_{conn_id.upper()}"] = json.dumps({**database, "schema": state.database})
        extra["state_conn_id"] = f"state_{conn_id}"
    account = {"conn_type": "apptoto", "login": LOGIN, "password": API_KEY, "host": url, "extra": extra}
    os.environ[f"AIRFLOW_CONN_{conn_id.upper()}"] = json.dumps(account)


def lift_connection_limit() -> None:
    """Let a connection of this process have more requests per minute than its form allows."""
    from airflow_provider_apptoto.connection import EXTRA_FIELDS

    EXTRA_FIELDS["requests_per_minute"]["schema"]["maximum"] = UNLIMITED


def task_state_prefix() -> str:
    """Return what the names of ledger entries in a task's state begin with."""
    from airflow_provider_apptoto.outbox.instructions import TASK_STATE_PREFIX

    return TASK_STATE_PREFIX


def _outbox(sender: ApptotoClient, store: LedgerStore | None) -> Callable[[], object]:
    from airflow_provider_apptoto.client import Message
    from airflow_provider_apptoto.outbox.outbox import Outbox

    def send() -> object:
        outbox = Outbox(client=sender, build=Message, origin=_origin(), store=store)
        return outbox.send(type="sms", to=_next_number(), message=TEXT)

    return send


def _origin() -> Origin:
    """Return the first try of a new run."""
    from airflow_provider_apptoto.outbox.origin import Origin

    run_id = f"run {next(_numbers)}"
    return Origin(dag_id="bench", task_id="send", run_id=run_id, map_index=-1, try_number=1)


def _next_number() -> str:
    return f"+1650555{next(_numbers) % 10_000:04}"


def _client(url: str, rate_limit: URL | None, requests_per_minute: float) -> ApptotoClient:
    from airflow_provider_apptoto.client import ApptotoClient, InProcessRateLimiter, RateLimiter
    from airflow_provider_apptoto.outbox.database import state_database
    from airflow_provider_apptoto.outbox.rate_limit import SqlRateLimiter

    limiter: RateLimiter = (
        InProcessRateLimiter(requests_per_minute)
        if rate_limit is None
        else SqlRateLimiter(state_database(rate_limit), (url, LOGIN), requests_per_minute)
    )
    return ApptotoClient(base_url=url, login=LOGIN, api_key=API_KEY, rate_limiter=limiter)


def _store(ledger: URL | None) -> LedgerStore | None:
    from airflow_provider_apptoto.outbox.database import state_database
    from airflow_provider_apptoto.outbox.stores.sql import SqlLedgerStore

    return None if ledger is None else SqlLedgerStore(state_database(ledger))
