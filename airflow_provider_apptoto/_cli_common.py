"""What the groups of commands share."""

from __future__ import annotations

import argparse
import getpass
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from airflow_provider_apptoto._airflow import read_connections_from_database, without_logs
from airflow_provider_apptoto._cli_arguments import Option

if TYPE_CHECKING:
    from airflow_provider_apptoto.hooks.apptoto import ApptotoHook
    from airflow_provider_apptoto.outbox.database import StateDatabase

NOTHING, REFUSED = 1, 2
"""Exit codes: nothing matched or changed; the command line is invalid or the command failed."""
Commands = dict[str, tuple[str, Callable[[argparse.Namespace], None], list[Option]]]
"""The commands of a group: help, function and arguments, by name."""


def user_name() -> str:
    """Return the name of the current user."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container user may have no name
        end("The current user has no name. Add --by NAME.", REFUSED)


def connect(given: argparse.Namespace, advice: str) -> tuple[ApptotoHook, StateDatabase]:
    """Return the hook and the state database of the connection that ``--conn-id`` names.

    :param advice: what to do if there is no state database.
    """
    read_connections_from_database()
    from airflow_provider_apptoto.hooks.apptoto import ApptotoHook

    hook = ApptotoHook(given.conn_id)
    if hook.state_database is None:
        end(f"Connection {given.conn_id!r} has no state_conn_id, so there is no state database. {advice}", REFUSED)
    return hook, hook.state_database


def end(text: str, code: int) -> NoReturn:
    """Print a text, and end the command."""
    sys.stderr.write(f"{text}\n")
    raise SystemExit(code)


def command(function: Callable[[argparse.Namespace], None]) -> Callable[[argparse.Namespace], None]:
    """Wrap a command, so that it prints only its output, or one line if it fails."""

    def call(given: argparse.Namespace) -> None:
        from airflow.providers.common.compat.sdk import AirflowException

        from airflow_provider_apptoto.client.errors import ApptotoError
        from airflow_provider_apptoto.outbox.stores.base import LedgerStoreError

        try:
            without_logs(function)(given)
        except (AirflowException, ApptotoError, LedgerStoreError) as error:
            text = str(error)
            if isinstance(error, LedgerStoreError):  # its text is usually part of a sentence
                text = text[:1].upper() + text[1:]
            sys.stderr.write(f"{text}\n")
            raise SystemExit(REFUSED) from None

    return call
