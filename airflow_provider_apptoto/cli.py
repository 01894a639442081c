"""``airflow apptoto`` (Airflow 3.2 and newer) and ``python -m airflow_provider_apptoto`` (all versions).

This module has the groups of commands, and the commands of ``ledger``.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from typing import TYPE_CHECKING

from airflow_provider_apptoto import _cli_optout
from airflow_provider_apptoto._airflow import Variables
from airflow_provider_apptoto._cli_arguments import FORGET, INIT, LIST, PURGE, RECONCILE, RESOLVE
from airflow_provider_apptoto._cli_common import NOTHING, REFUSED, Commands, command, connect, end, user_name
from airflow_provider_apptoto.configuration import keep_days
from airflow_provider_apptoto.outbox.entry import State
from airflow_provider_apptoto.outbox.instructions import ledger_command
from airflow_provider_apptoto.privacy import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from airflow.cli.cli_config import CLICommand

    from airflow_provider_apptoto.outbox.admin import Author, LedgerAdmin, Record, Selection

_DAY = 86_400
_NO_DATABASE = "On Airflow 3.3 and newer, find the entries in the task instance: Storage, Task State Store."
_KEY = re.compile(r"[0-9a-f]{8,32}")
_COLUMNS = (
    *("key", "state", "at", "channel", "target", "reference", "dag_id", "task_id", "run_id", "map_index"),
    *("try_number", "why"),
)


def get_cli_commands() -> list[CLICommand]:
    """Return the commands for Airflow's own command line."""
    from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand

    groups = []
    for group, (about, commands) in _GROUPS.items():
        actions = [
            ActionCommand(
                name=name, help=text, func=function, args=[Arg(flags, **settings) for flags, settings in options]
            )
            for name, (text, function, options) in commands.items()
        ]
        groups.append(GroupCommand(name=group, help=about, subcommands=actions))
    return [GroupCommand(name="apptoto", help="Manage the Apptoto provider", subcommands=groups)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command.

    :param arguments: the arguments; ``None``: those of the process.
    """
    parser = argparse.ArgumentParser(prog="python -m airflow_provider_apptoto", allow_abbrev=False)
    groups = parser.add_subparsers(required=True, metavar="GROUP")
    for group, (about, commands) in _GROUPS.items():
        names = groups.add_parser(group, help=about, description=about).add_subparsers(required=True, metavar="COMMAND")
        for name, (text, function, options) in commands.items():
            each = names.add_parser(name, help=text, description=text, allow_abbrev=False)
            each.set_defaults(function=function)
            for flags, settings in options:
                each.add_argument(*flags, **settings)
    given = parser.parse_args(arguments)
    given.function(given)


# --- commands


def _list(given: argparse.Namespace) -> None:
    if given.limit < 1:
        end("--limit must be at least 1.", REFUSED)
    found = _admin(given).select(_selection(given), limit=given.limit)
    _print(given.output, found)
    if len(found) == given.limit:
        print(f"Showing the newest {given.limit} entries. Use --limit to show more.", file=sys.stderr)


def _resolve(given: argparse.Namespace) -> None:
    selection, author, admin = _change_arguments(given)
    chosen = admin.resolvable(selection, force=given.force)
    summary = f"Resolved as {given.to}: {{}}."
    _change(given, admin, chosen, lambda: admin.resolve(chosen, State(given.to), author), summary)


def _reconcile(given: argparse.Namespace) -> None:
    from airflow_provider_apptoto._cli_reconcile import found_in_apptoto, reconcile
    from airflow_provider_apptoto.hooks._state import ledger_outside_tasks

    hook, database = connect(given, _NO_DATABASE)
    admin = _admin(given)
    given.by = given.by or user_name()
    store = ledger_outside_tasks(hook, database)
    reconcile(
        given,
        admin,
        _selection(given),
        lambda records: found_in_apptoto(given, records, hook.get_conn(), store),
        lambda chosen, change, summary: _change(given, admin, chosen, change, summary),
    )


def _forget(given: argparse.Namespace) -> None:
    selection, author, admin = _change_arguments(given)
    chosen = admin.forgettable(selection)
    summary = "Removed: {}. Clear their tasks to send the messages again."
    _change(given, admin, chosen, lambda: admin.forget(chosen, author), summary)


def _init(given: argparse.Namespace) -> None:
    from airflow_provider_apptoto.hooks._state import ledger_secret

    if given.from_version and not given.sql:
        end("--from needs --sql.", REFUSED)
    hook, database = connect(given, _NO_DATABASE)
    if given.sql:
        try:
            print(database.ddl(given.from_version), end="")
        except ValueError as error:
            end(f"--from: {error}.", REFUSED)
        return
    pin = hook.ledger_pin(Variables("airflow.models.variable"))
    (pin.accept if given.accept else pin.check)()
    database.check_secret(ledger_secret(), accept=given.accept)
    print("The state database is ready.")


def _purge(given: argparse.Namespace) -> None:
    days = keep_days() if given.older_than is None else given.older_than
    if not days >= 0:
        end("--older-than must be at least 0 days.", REFUSED)
    try:
        count = _admin(given).purge(days * _DAY, given.export)
    except (OSError, ValueError) as error:
        if given.export is None:
            raise
        cause = error.strerror if isinstance(error, OSError) else error
        end(f"--export {given.export}: {cause}. Nothing was removed.", REFUSED)
    what = "entry" if count == 1 else "entries"
    print(f"Removed {count} {what} finished more than {days:g} days ago.")


def _change_arguments(given: argparse.Namespace) -> tuple[Selection, Author, LedgerAdmin]:
    """Return the selection, the author, and the ledger.

    At least one filter is required. Blank values are rejected, because an unset shell variable is blank.
    """
    from airflow_provider_apptoto.outbox.admin import Author

    selection = _selection(given)
    if not (selection.keys or selection.dag_id or selection.task_id or selection.run_id or selection.reference):
        end("Select entries by KEY, --dag, --task, --run or --reference.", REFUSED)
    try:
        author = Author(by=user_name() if given.by is None else given.by, note=given.note)
    except ValueError as error:
        end(f"--{error}.", REFUSED)
    return selection, author, _admin(given)


def _change(
    given: argparse.Namespace,
    admin: LedgerAdmin,
    chosen: Sequence[Record],
    change: Callable[[], Sequence[Record]],
    summary: str,
) -> None:
    from airflow_provider_apptoto import metrics
    from airflow_provider_apptoto.outbox.admin import Selection

    if not chosen:
        end(f"No matching entry can be changed. List them with: {ledger_command('list', given.conn_id)}", NOTHING)
    if len(chosen) > 1 and not given.yes:
        _print("table", chosen)
        if not sys.stdin.isatty():
            end(f"Nothing was changed. Add --yes to change these {len(chosen)} entries.", REFUSED)
        if input(f"Change these {len(chosen)} entries? [y/N] ").strip().lower() not in {"y", "yes"}:
            end("Nothing was changed.", NOTHING)
    changed = change()
    _print(given.output, changed)
    if left := len(chosen) - len(changed):
        print(f"Skipped because they were changed in the meantime: {left}.", file=sys.stderr)
    if not changed:
        end("Nothing was changed.", NOTHING)
    print(summary.format(len(changed)), file=sys.stderr)
    metrics.unresolved(admin.count(Selection(states=(State.UNKNOWN,))), given.conn_id)


# --- arguments


def _selection(given: argparse.Namespace) -> Selection:
    from airflow_provider_apptoto.outbox.admin import Selection

    for key in given.keys:
        if not _KEY.fullmatch(key):
            end(f"{key!r} is not a KEY: use at least the first 8 of the 32 hex digits that `list` shows.", REFUSED)
    for option in ("dag", "task", "run", "reference"):
        if (value := getattr(given, option)) is not None and not value.strip():
            end(f"--{option} must not be blank.", REFUSED)
    return Selection(
        keys=given.keys,
        states=given.state or (),
        channel=given.channel,
        dag_id=given.dag,
        task_id=given.task,
        run_id=given.run,
        reference=given.reference,
        since=given.since,
        until=given.until,
    )


def _admin(given: argparse.Namespace) -> LedgerAdmin:
    from airflow_provider_apptoto.outbox.admin import LedgerAdmin

    return LedgerAdmin(connect(given, _NO_DATABASE)[1])


# --- output


def _print(output: str, records: Iterable[Record]) -> None:
    rows = [record.to_dict() for record in records]
    if output == "json":
        print(json.dumps(rows, indent=2))
    elif rows:
        from tabulate import tabulate

        lines = [["" if row[name] is None else printable(str(row[name])) for name in _COLUMNS] for row in rows]
        print(tabulate(lines, headers=_COLUMNS, disable_numparse=True))


_COMMANDS: Commands = {
    "list": ("List entries, newest first", command(_list), LIST),
    "resolve": (
        "Record whether messages with an unknown outcome were sent; then clear their tasks",
        command(_resolve),
        RESOLVE,
    ),
    "reconcile": (
        "Search Apptoto for messages to events and participants that may have been sent, and resolve those it finds",
        command(_reconcile),
        RECONCILE,
    ),
    "forget": (
        "Remove entries, so that their messages are sent again when the tasks are cleared",
        command(_forget),
        FORGET,
    ),
    "init": (
        "Create or migrate the tables of the state database (the first send does this too)",
        command(_init),
        INIT,
    ),
    "purge": (
        "Remove old finished entries, never those in flight or unresolved",
        command(_purge),
        PURGE,
    ),
}
_GROUPS: dict[str, tuple[str, Commands]] = {
    "ledger": ("Show and resolve ledger entries in the state database", _COMMANDS),
    "optout": ("Manage the lists of people who opted out, in the state database", _cli_optout.COMMANDS),
}
