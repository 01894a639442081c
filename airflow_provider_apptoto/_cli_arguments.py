"""The arguments of the commands in :mod:`airflow_provider_apptoto.cli`."""

from __future__ import annotations

import argparse
import contextlib
from datetime import datetime
from typing import Any

from airflow_provider_apptoto.outbox.entry import State
from airflow_provider_apptoto.outbox.instructions import DEFAULT_CONN_ID

Option = tuple[tuple[str, ...], dict[str, Any]]
"""Flags and settings, as argparse and Airflow have them."""


def _option(*flags: str, **settings: Any) -> Option:
    return flags, settings


def _time(text: str) -> float:
    with contextlib.suppress(ValueError):
        found = datetime.fromisoformat(text)
        if found.tzinfo is not None:
            return found.timestamp()
    raise argparse.ArgumentTypeError(f"{text!r} is not an ISO 8601 time with zone, such as 2026-11-28T08:00Z")


_CONN_ID = _option(
    "--conn-id",
    default=DEFAULT_CONN_ID,
    help="the Apptoto connection, whose state_conn_id is used (default: %(default)s)",
)
_OUTPUT = _option("--output", "-o", choices=["table", "json"], default="table")
_SELECTION = [
    _option("keys", nargs="*", metavar="KEY", help="key of a message, or at least the first 8 characters of it"),
    _option("--dag", metavar="DAG_ID"),
    _option("--task", metavar="TASK_ID"),
    _option("--run", metavar="RUN_ID"),
    _option("--reference", help="the operator's reference, such as the id of an appointment"),
    _option("--channel", choices=["sms", "call", "email"]),
    _option(
        "--state",
        action="append",
        choices=[state.value for state in State],
        help="repeatable; unknown includes entries that killed tasks left as sending",
    ),
    _option(
        "--since", type=_time, metavar="TIME", help="entries that got their state at this time (ISO 8601) or later"
    ),
    _option("--until", type=_time, metavar="TIME", help="entries that got their state before this time"),
]
_AUTHOR = [
    _option("--note", required=True, help="why; one line, which is kept"),
    _option("--by", help="who (default: the user of this process)"),
    _option("--yes", "-y", action="store_true", help="change more than one entry without being asked"),
]
LIST = [
    *_SELECTION,
    _option("--limit", type=int, default=100, help="at most this many (default: %(default)s)"),
    _CONN_ID,
    _OUTPUT,
]
RESOLVE = [
    *_SELECTION,
    _option("--to", choices=["sent", "not_sent"], required=True),
    *_AUTHOR,
    _option("--force", action="store_true", help="also entries that a person has resolved before"),
    _CONN_ID,
    _OUTPUT,
]
FORGET = [*_SELECTION, *_AUTHOR, _CONN_ID, _OUTPUT]
INIT = [
    _option("--sql", action="store_true", help="print the statements instead"),
    _option(
        "--from",
        dest="from_version",
        type=int,
        default=0,
        metavar="VERSION",
        help="with --sql: the version of the tables that exist (default: %(default)s, none)",
    ),
    _option(
        "--accept",
        action="store_true",
        help="use it although earlier tasks used another one, so that messages may be sent again",
    ),
    _CONN_ID,
]
PURGE = [
    _option(
        "--older-than",
        type=float,
        default=35.0,
        metavar="DAYS",
        help="finished more than this many days ago (default: %(default)s)",
    ),
    _CONN_ID,
]
