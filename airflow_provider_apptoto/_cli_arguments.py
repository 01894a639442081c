"""The arguments of the commands in :mod:`airflow_provider_apptoto.cli`."""

from __future__ import annotations

import argparse
import contextlib
from datetime import datetime
from pathlib import Path
from typing import Any

from airflow_provider_apptoto._defaults import DEFAULT_CONN_ID
from airflow_provider_apptoto.outbox.entry import State
from airflow_provider_apptoto.outbox.optout_lists import ALL

Option = tuple[tuple[str, ...], dict[str, Any]]
"""Flags and settings, as argparse and Airflow expect them."""


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
    help="Apptoto connection; its state_conn_id names the state database (default: %(default)s)",
)
_OUTPUT = _option("--output", "-o", choices=["table", "json"], default="table")
_SELECTION = [
    _option("keys", nargs="*", metavar="KEY", help="message key, or at least its first 8 characters"),
    _option("--dag", metavar="DAG_ID"),
    _option("--task", metavar="TASK_ID"),
    _option("--run", metavar="RUN_ID"),
    _option("--reference", help="reference of the message, such as an appointment id"),
    _option("--channel", choices=["sms", "call", "email"]),
    _option(
        "--state",
        action="append",
        choices=[state.value for state in State],
        help="can be repeated; unknown includes entries that killed tasks left in sending",
    ),
    _option("--since", type=_time, metavar="TIME", help="entries whose state was set at or after this time (ISO 8601)"),
    _option("--until", type=_time, metavar="TIME", help="entries whose state was set before this time"),
]
_AUTHOR = [
    _option("--note", required=True, help="reason for the change; one line, stored with the entry"),
    _option("--by", help="who makes the change (default: the current user)"),
    _option("--yes", "-y", action="store_true", help="change several entries without confirmation"),
]
LIST = [
    *_SELECTION,
    _option("--limit", type=int, default=100, help="maximum number of entries (default: %(default)s)"),
    _CONN_ID,
    _OUTPUT,
]
RESOLVE = [
    *_SELECTION,
    _option("--to", choices=["sent", "not_sent"], required=True),
    *_AUTHOR,
    _option("--force", action="store_true", help="include entries that a person has already resolved"),
    _CONN_ID,
    _OUTPUT,
]
RECONCILE = [
    *_SELECTION,
    _option("--begin", type=_time, metavar="TIME", help="earliest start of the events to search (ISO 8601)"),
    _option("--end", type=_time, metavar="TIME", help="latest start of the events to search (default: in 60 days)"),
    _option(
        "--message",
        metavar="TEXT",
        help="text of the messages with its dynamic fields, as in the DAG; without it, only texts without such fields "
        "can be recognized",
    ),
    _option("--by", help="who makes the change (default: the current user)"),
    _option("--yes", "-y", action="store_true", help="change several entries without confirmation"),
    _CONN_ID,
    _OUTPUT,
]
FORGET = [*_SELECTION, *_AUTHOR, _CONN_ID, _OUTPUT]
INIT = [
    _option("--sql", action="store_true", help="print the SQL statements instead of running them"),
    _option(
        "--from",
        dest="from_version",
        type=int,
        default=0,
        metavar="VERSION",
        help="with --sql: schema version of the existing tables (default: %(default)s, no tables)",
    ),
    _option(
        "--accept",
        action="store_true",
        help="accept a state database that earlier tasks did not use; messages may be sent again",
    ),
    _CONN_ID,
]
PURGE = [
    _option(
        "--older-than",
        type=float,
        metavar="DAYS",
        help="remove entries finished more than this many days ago (default: [apptoto] keep_days, or 35)",
    ),
    _option(
        "--export",
        type=Path,
        metavar="FILE",
        help="first write these entries to a new file, .csv or .jsonl",
    ),
    _CONN_ID,
]
_LIST_NAME = _option(
    "--list",
    default=ALL,
    metavar="NAME",
    help="name of the list: all, which every sender obeys (default), or one that tasks name in optout_lists",
)
_RECIPIENTS = _option(
    "recipients",
    nargs="+",
    metavar="RECIPIENT",
    help="phone number or e-mail address. The shell's history keeps it: use - to read one per line from standard input",
)
_ADDED_BY = [
    _option("--by", help="who adds them; stored (default: the current user)"),
    _option("--note", default="", help="where they opted out; one line without personal data; stored"),
]
OPTOUT_ADD = [_RECIPIENTS, _LIST_NAME, *_ADDED_BY, _CONN_ID]
OPTOUT_REMOVE = [_RECIPIENTS, _LIST_NAME, _CONN_ID]
OPTOUT_CHECK = [_RECIPIENTS, _CONN_ID]
OPTOUT_IMPORT = [
    _option("file", metavar="FILE", help="CSV file in UTF-8; - for standard input"),
    _option("--column", metavar="NAME", help="column with the recipients, if the file has several"),
    _LIST_NAME,
    *_ADDED_BY,
    _CONN_ID,
]
