"""``airflow apptoto ledger`` (Airflow 3.2 and newer), ``python -m airflow_provider_apptoto ledger`` (everywhere)."""

from __future__ import annotations

import argparse
import getpass
import json
import re
import shlex
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_provider_apptoto._airflow import Variables, has_provider_cli, read_connections_from_database, without_logs
from airflow_provider_apptoto.privacy import LONGEST_LINE, is_one_line, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow.cli.cli_config import CLICommand

    from airflow_provider_apptoto.hooks.apptoto import ApptotoHook
    from airflow_provider_apptoto.state.database import StateDatabase
    from airflow_provider_apptoto.state.sql_ledger import Selection, SqlLedgerStore
    from airflow_provider_apptoto.state.store import Entry

    Option = tuple[tuple[str, ...], dict[str, Any]]

_CONNECTION = "apptoto_default"
_DAY = 86_400
_NO_DATABASE = (
    "Connection {conn_id!r} has no state_conn_id. Without it, sends are remembered in Airflow's task state (3.3 and "
    "newer): see Storage, Task State Store of the task instance."
)
_KEY = re.compile(r"[0-9a-f]{8,32}")
_NOTHING, _REFUSED = 1, 2
"""Exit codes: nothing matched, or nothing was changed; a mistake of the command line, or what can't be done."""
_STATES = ("claimed", "sending", "sent", "not_sent", "rejected", "unknown")

_CONN_ID: Option = (
    ("--conn-id",),
    {"default": _CONNECTION, "help": "the Apptoto connection, whose state_conn_id is used (default: %(default)s)"},
)
_OUTPUT: Option = (("--output", "-o"), {"choices": ["table", "json"], "default": "table"})
_SELECTION: list[Option] = [
    (("keys",), {"nargs": "*", "metavar": "KEY", "help": "key of a message; its first 8 characters are enough"}),
    (("--dag",), {"metavar": "DAG_ID"}),
    (("--task",), {"metavar": "TASK_ID"}),
    (("--run",), {"metavar": "RUN_ID"}),
    (("--reference",), {"help": "the operator's reference, such as an appointment's id"}),
    (
        ("--state",),
        {
            "action": "append",
            "choices": _STATES,
            "help": "unknown includes what killed tasks left as sending; repeatable",
        },
    ),
]
_WHY: list[Option] = [
    (("--note",), {"required": True, "help": "why; one line, which is kept"}),
    (("--by",), {"help": "who (default: the user of this process)"}),
    (("--yes", "-y"), {"action": "store_true", "help": "change more than one entry without being asked"}),
]
_FORCE: Option = (("--force",), {"action": "store_true", "help": "also entries that a person has resolved before"})


def ledger_command(command: str, conn_id: str) -> str:
    """Return the command line of a command of the ledger, up to its arguments."""
    program = "airflow apptoto" if has_provider_cli() else "python -m airflow_provider_apptoto"
    connection = "" if conn_id == _CONNECTION else f" --conn-id {shlex.quote(conn_id)}"
    return f"{program} ledger {command}{connection}"


def get_cli_commands() -> list[CLICommand]:
    """Return the commands for Airflow's own command line."""
    from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand

    commands = [
        ActionCommand(name=name, help=text, func=function, args=[Arg(flags, **settings) for flags, settings in options])
        for name, (text, function, options) in _COMMANDS.items()
    ]
    ledger = GroupCommand(name="ledger", help=_LEDGER_HELP, subcommands=commands)
    return [GroupCommand(name="apptoto", help="Manage what the Apptoto provider remembers", subcommands=[ledger])]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command.

    :param arguments: the command line; ``None`` takes the process's own.
    """
    parser = argparse.ArgumentParser(prog="python -m airflow_provider_apptoto", allow_abbrev=False)
    groups = parser.add_subparsers(required=True, metavar="GROUP")
    ledger = groups.add_parser("ledger", help=_LEDGER_HELP, description=_LEDGER_HELP)
    commands = ledger.add_subparsers(required=True, metavar="COMMAND")
    for name, (text, function, options) in _COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        command.set_defaults(function=function)
        for flags, settings in options:
            command.add_argument(*flags, **settings)
    given = parser.parse_args(arguments)
    given.function(given)


def _list(given: argparse.Namespace) -> None:
    if given.limit < 1:
        _end("--limit is at least 1.", _REFUSED)
    found = _store(given).entries(_selection(given), limit=given.limit)
    _print(given.output, [_shown(entry, changes) for entry, changes in found])
    if len(found) == given.limit:
        print(f"These are the newest {given.limit}; --limit shows more.", file=sys.stderr)


def _resolve(given: argparse.Namespace) -> None:
    from airflow_provider_apptoto.state.store import State

    store = _store(given)
    chosen = store.resolvable(_chosen(given), force=given.force)
    _change(given, store, chosen, lambda who: store.resolve(chosen, State(given.to), **who), f"resolved as {given.to}")


def _forget(given: argparse.Namespace) -> None:
    store = _store(given)
    chosen = store.forgettable(_chosen(given))
    what = "forgotten: when their tasks are cleared, they send again"
    _change(given, store, chosen, lambda who: store.forget(chosen, **who), what)


def _init(given: argparse.Namespace) -> None:
    from airflow_provider_apptoto.hooks.apptoto import ledger_secret

    hook = _hook(given)
    pin = hook.ledger_pin(Variables("airflow.models.variable"))
    if hook.state_database is None or pin is None:
        _end(_NO_DATABASE.format(conn_id=given.conn_id), _REFUSED)
    if given.sql:
        print(hook.state_database.ddl(), end="")
        return
    if given.accept:
        pin.accept()
    else:
        pin.check()
    hook.state_database.check_secret(ledger_secret(), accept=given.accept)
    print("The state database is ready.")


def _purge(given: argparse.Namespace) -> None:
    count = _store(given).purge(given.older_than * _DAY)
    print(f"Removed {count} entries that came to their end more than {given.older_than:g} days ago.")


def _chosen(given: argparse.Namespace) -> Selection:
    """Return what a command that changes entries was told to change.

    An option that is blank is an unset variable of a shell: it would mean all.
    """
    chosen = _selection(given)
    if not (chosen.keys or chosen.dag_id or chosen.task_id or chosen.run_id or chosen.reference):
        _end("Say which entries: by KEY, --dag, --task, --run or --reference.", _REFUSED)
    for name, value in {"--note": given.note, "--by": given.by}.items():
        if value is not None and not is_one_line(value):
            _end(f"{name} has to be one line of text, 1 to {LONGEST_LINE} characters.", _REFUSED)
    return chosen


def _change(
    given: argparse.Namespace,
    store: SqlLedgerStore,
    chosen: Sequence[Entry],
    change: Callable[[dict[str, str]], list[Entry]],
    what: str,
) -> None:
    from airflow_provider_apptoto import metrics

    if not chosen:
        _end(f"No matching entry can be changed. List them with: {ledger_command('list', given.conn_id)}", _NOTHING)
    if len(chosen) > 1 and not given.yes:
        _print("table", [_shown(entry) for entry in chosen])
        if not sys.stdin.isatty():
            _end(f"These are {len(chosen)} entries. Add --yes to change them all; nothing was changed.", _REFUSED)
        if input(f"Change these {len(chosen)} entries? [y/N] ").strip().lower() not in {"y", "yes"}:
            _end("Nothing was changed.", _NOTHING)
    changed = change({"by": given.by or getpass.getuser(), "note": given.note})
    metrics.unresolved(store.unresolved())
    _print(given.output, [_shown(entry) for entry in changed])
    print(f"{len(changed)} {what}", file=sys.stderr)
    if not changed:
        _end("They were changed by somebody else meanwhile.", _NOTHING)


def _end(text: str, code: int) -> NoReturn:
    print(text, file=sys.stderr)
    raise SystemExit(code)


def _selection(given: argparse.Namespace) -> Selection:
    from airflow_provider_apptoto.state.sql_ledger import Selection

    for key in given.keys:
        if not _KEY.fullmatch(key):
            _end(f"{key!r} is not a KEY: it has at least 8 of the 32 hex digits that `list` shows.", _REFUSED)
    for option in ("dag", "task", "run", "reference"):
        if (value := getattr(given, option)) is not None and not value.strip():
            _end(f"--{option} is blank.", _REFUSED)
    return Selection(
        keys=given.keys,
        states=given.state or (),
        dag_id=given.dag,
        task_id=given.task,
        run_id=given.run,
        reference=given.reference,
    )


def _store(given: argparse.Namespace) -> SqlLedgerStore:
    from airflow_provider_apptoto.state.sql_ledger import SqlLedgerStore

    return SqlLedgerStore(_database(given), "")


def _database(given: argparse.Namespace) -> StateDatabase:
    database = _hook(given).state_database
    if database is None:
        _end(_NO_DATABASE.format(conn_id=given.conn_id), _REFUSED)
    return database


def _hook(given: argparse.Namespace) -> ApptotoHook:
    read_connections_from_database()
    from airflow_provider_apptoto.hooks.apptoto import ApptotoHook

    return ApptotoHook(given.conn_id)


def _shown(entry: Entry, changes: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    hidden = ("version", "fingerprint", "lease", "updated_at", "sent_at")
    shown = {name: value for name, value in entry.to_dict().items() if name not in hidden}
    return {**shown, "at": entry.at, "changes": list(changes)}


def _print(output: str, rows: list[dict[str, Any]]) -> None:
    if output == "json":
        print(json.dumps(rows, indent=2))
    elif rows:
        from tabulate import tabulate

        columns = ("key", "state", "at", "type", "reference", "dag_id", "task_id", "run_id", "map_index", "try_number")
        lines = [
            {
                name: printable(str(value))
                for name, value in {**{name: row[name] for name in columns}, "why": _why(row)}.items()
            }
            for row in rows
        ]
        print(tabulate(lines, headers="keys", disable_numparse=True))


def _why(row: dict[str, Any]) -> str:
    """Say by what it came to its state: a person, or an answer."""
    if row["changes"] and (last := row["changes"][-1])["to_state"] == row["state"]:
        return f"{last['changed_by']}: {last['note']}"
    return ", ".join(str(part) for part in (row["http_status"], row["reason"]) if part)


def _reporting(function: Callable[[argparse.Namespace], None]) -> Callable[[argparse.Namespace], None]:
    """Have a command end with one line where it can't be done, and print nothing but its answer."""

    def command(given: argparse.Namespace) -> None:
        from airflow.providers.common.compat.sdk import AirflowException

        from airflow_provider_apptoto.client.errors import ApptotoError
        from airflow_provider_apptoto.state.store import LedgerStoreError

        try:
            without_logs(function)(given)
        except (AirflowException, ApptotoError, LedgerStoreError) as error:
            print(error, file=sys.stderr)
            raise SystemExit(_REFUSED) from None

    return command


_LEDGER_HELP = "See and resolve what the state database remembers of sent messages"
_COMMANDS: dict[str, tuple[str, Callable[[argparse.Namespace], None], list[Option]]] = {
    "list": (
        "List messages, the newest first",
        _reporting(_list),
        [
            *_SELECTION,
            (("--limit",), {"type": int, "default": 100, "help": "how many at the most (default: %(default)s)"}),
            _CONN_ID,
            _OUTPUT,
        ],
    ),
    "resolve": (
        "Say of messages of which nobody could tell whether they were sent; then clear their tasks",
        _reporting(_resolve),
        [
            *_SELECTION,
            (("--to",), {"choices": ["sent", "not_sent"], "required": True}),
            *_WHY,
            _FORCE,
            _CONN_ID,
            _OUTPUT,
        ],
    ),
    "forget": (
        "Remove messages from the ledger, so that their tasks, when cleared, send them again",
        _reporting(_forget),
        [*_SELECTION, *_WHY, _CONN_ID, _OUTPUT],
    ),
    "init": (
        "Make the tables in the state database (else the first send does)",
        _reporting(_init),
        [
            (("--sql",), {"action": "store_true", "help": "print the statements instead"}),
            (
                ("--accept",),
                {
                    "action": "store_true",
                    "help": "use it though earlier tasks used another one: what those sent may be sent again",
                },
            ),
            _CONN_ID,
        ],
    ),
    "purge": (
        "Remove old messages that were sent, not sent or rejected; never those that nobody has resolved",
        _reporting(_purge),
        [
            (
                ("--older-than",),
                {"type": float, "default": 35.0, "metavar": "DAYS", "help": "days (default: %(default)s)"},
            ),
            _CONN_ID,
        ],
    ),
}
