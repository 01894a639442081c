"""Instructions for resolving a message that may have been sent."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from airflow_provider_apptoto._airflow import clear_keeps_task_state, has_provider_cli
from airflow_provider_apptoto._defaults import DEFAULT_CONN_ID
from airflow_provider_apptoto.outbox.page_link import IN_MENU, is_on_page, page_url

if TYPE_CHECKING:
    from airflow_provider_apptoto.outbox.origin import Origin
    from airflow_provider_apptoto.outbox.stores.base import StoreKind

TASK_STATE_PREFIX = "apptoto-message-"
"""Prefix of ledger entries in Airflow's task state."""
_THEN = "then\n"


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


def how_to_resolve(kind: StoreKind, conn_id: str, key: str, origin: Origin) -> str:
    """Return instructions for recording whether a message was sent, to continue a sentence.

    :param kind: kind of the store that has the entry.
    :param conn_id: the Apptoto connection.
    :param key: key of the entry.
    :param origin: the task or callback that sends.
    """
    is_wiped = kind == "task_state" and not clear_keeps_task_state()
    if is_wiped:
        return (
            "if it was sent,\nmark the task as success, because a clear would send it again. Otherwise clear the task"
        )
    page = ""
    if is_on_page(kind, conn_id):
        where = page_url(origin, conn_id) or f"in Airflow: {IN_MENU}"
        page = f"then record it on the outbox page\n  {where}\nWithout the page, "
    if kind == "task_state":
        how = (
            f"{page or _THEN}open the task instance in Airflow, go to Storage, Task State Store, and edit\n"
            f"  {TASK_STATE_PREFIX}{key}\n"
            'Set its "state" to "sent" or "not_sent".\n'
        )
    else:
        command = f"{ledger_command('resolve', conn_id)} {key}"
        how = (
            f"{page}if it was sent, run\n"
            f"  {command} --to sent --note 'where you saw it'\n"
            "otherwise run\n"
            f"  {command} --to not_sent --note 'how you know'\n"
        )
    return f"{how}Then clear the task: a message that was sent is not sent again"


def where_to_look(kind: StoreKind, conn_id: str, origin: Origin) -> str | None:
    """Return where a person sees the messages of a task, even if its worker is killed; ``None``: not on a page."""
    if not is_on_page(kind, conn_id):
        return None
    return f"Messages of this task: {page_url(origin, conn_id) or f'in Airflow, {IN_MENU}'}"
