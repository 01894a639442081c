"""What a person is told to do about a message that may have been sent."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from airflow_provider_apptoto._airflow import has_provider_cli

if TYPE_CHECKING:
    from airflow_provider_apptoto.outbox.stores.base import StoreKind

DEFAULT_CONN_ID = "apptoto_default"
TASK_STATE_PREFIX = "apptoto-message-"
"""Begins the names of ledger entries in Airflow's task state."""


def ledger_command(command: str, conn_id: str) -> str:
    """Return the command line of a command of the ledger, up to its arguments."""
    program = "airflow apptoto" if has_provider_cli() else "python -m airflow_provider_apptoto"
    connection = "" if conn_id == DEFAULT_CONN_ID else f" --conn-id {shlex.quote(conn_id)}"
    return f"{program} ledger {command}{connection}"


def how_to_resolve(kind: StoreKind, conn_id: str, key: str) -> str:
    """Say how to record whether a message was sent.

    :param kind: of the store that keeps the entry.
    :param conn_id: the Apptoto connection.
    :param key: of the entry.
    """
    if kind == "task_state":
        return (
            "then,\nin Airflow, open the task instance, Storage, Task State Store, and edit\n"
            f"  {TASK_STATE_PREFIX}{key}\n"
            'Set its "state" to "sent" if Apptoto has the message, else to "not_sent".\n'
            "Then clear the task: it succeeds without sending, or sends"
        )
    command = f"{ledger_command('resolve', conn_id)} {key}"
    return (
        "if Apptoto has it, run\n"
        f"  {command} --to sent --note 'where you saw it'\n"
        "else\n"
        f"  {command} --to not_sent --note 'how you know'\n"
        "and then clear the task: it succeeds without sending, or sends"
    )
