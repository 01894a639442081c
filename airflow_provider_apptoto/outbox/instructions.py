"""Instructions for resolving a message that may have been sent."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from airflow_provider_apptoto._airflow import has_provider_cli

if TYPE_CHECKING:
    from airflow_provider_apptoto.outbox.stores.base import StoreKind

DEFAULT_CONN_ID = "apptoto_default"
TASK_STATE_PREFIX = "apptoto-message-"
"""Prefix of ledger entries in Airflow's task state."""


def ledger_command(command: str, conn_id: str) -> str:
    """Return the command line of a ledger command, without its arguments."""
    return _command("ledger", command, conn_id)


def optout_command(command: str, conn_id: str) -> str:
    """Return the command line of an opt-out command, without its arguments."""
    return _command("optout", command, conn_id)


def _command(group: str, command: str, conn_id: str) -> str:
    program = "airflow apptoto" if has_provider_cli() else "python -m airflow_provider_apptoto"
    connection = "" if conn_id == DEFAULT_CONN_ID else f" --conn-id {shlex.quote(conn_id)}"
    return f"{program} {group} {command}{connection}"


def how_to_resolve(kind: StoreKind, conn_id: str, key: str) -> str:
    """Return instructions for recording whether a message was sent, to continue a sentence.

    :param kind: kind of the store that has the entry.
    :param conn_id: the Apptoto connection.
    :param key: key of the entry.
    """
    if kind == "task_state":
        return (
            "then\nopen the task instance in Airflow, go to Storage, Task State Store, and edit\n"
            f"  {TASK_STATE_PREFIX}{key}\n"
            'Set its "state" to "sent" or "not_sent".\n'
            "Then clear the task: a message that was sent is not sent again"
        )
    command = f"{ledger_command('resolve', conn_id)} {key}"
    return (
        "if it was sent, run\n"
        f"  {command} --to sent --note 'where you saw it'\n"
        "otherwise run\n"
        f"  {command} --to not_sent --note 'how you know'\n"
        "Then clear the task: a message that was sent is not sent again"
    )
