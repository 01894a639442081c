"""The command ``python -m airflow_provider_apptoto.sandbox``."""

from __future__ import annotations

import argparse
import io
import os
import shlex
import signal
import subprocess
import sys
import textwrap
import threading
from typing import TYPE_CHECKING

import airflow_provider_apptoto.sandbox
from airflow_provider_apptoto.sandbox.behaviour import API_KEY, ASSUMED, DOCUMENTED, LOGIN, OBSERVED
from airflow_provider_apptoto.sandbox.inbox import KEEP
from airflow_provider_apptoto.sandbox.report import report
from airflow_provider_apptoto.sandbox_account import SANDBOX_URL, direct_connections

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow_provider_apptoto.sandbox.server import Sandbox

CONNECTION = "AIRFLOW_CONN_APPTOTO_DEFAULT"
DEFAULT_PORT = 8025

# Exit codes of a shell for a command that can't be run, and for one that a signal ended.
_CANNOT_EXECUTE = 126
_NOT_FOUND = 127
_SIGNALLED = 128


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sandbox until Ctrl-C, or while a command runs.

    :param arguments: the command line; None takes that of the process.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    end = given.index("--") if "--" in given else len(given)
    options, command = _parser().parse_args(given[:end]), given[end + 1 :]
    if end < len(given) and not command:
        _parser().error("-- must be followed by a command")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A message may contain characters that the terminal's encoding lacks.
        sys.stdout.reconfigure(errors="backslashreplace")
    port = options.port if options.port is not None else 0 if command else DEFAULT_PORT
    try:
        sandbox = airflow_provider_apptoto.sandbox.Sandbox(
            port=port,
            login=options.login,
            api_key=options.api_key,
            database=options.database,
            keep=options.keep,
        )
        with sandbox:
            if options.demo_data:
                sandbox.appointments.add_clinic_day()
                print(f"Tomorrow's appointments: {sandbox.url}/#appointments")
            return _run(sandbox, command) if command else _serve(sandbox)
    except (ImportError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    documented, observed, assumed = ("\n".join(_wrapped(lines)) for lines in (DOCUMENTED, OBSERVED, ASSUMED))
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_apptoto.sandbox",
        usage="%(prog)s [--port PORT] [--login LOGIN] [--api-key KEY] [--database FILE] [--keep N] [--demo-data]\n"
        "       [-- COMMAND ...]",
        description=(
            "Run a local Apptoto with a page that shows what each person got. With a COMMAND, run it against\n"
            "the sandbox, print what each person got, and exit with the command's exit code."
        ),
        epilog=(
            f"documented by Apptoto:\n{documented}\n\nobserved, in programs that others wrote for it:\n{observed}\n\n"
            f"assumed, because Apptoto does not document it:\n{assumed}"
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--port", type=int, help=f"default: {DEFAULT_PORT}, or a free one with a COMMAND")
    parser.add_argument("--login", default=LOGIN, help="default: %(default)s")
    parser.add_argument("--api-key", default=API_KEY, metavar="KEY", help="default: %(default)s")
    parser.add_argument(
        "--database", metavar="FILE", help="SQLite file for messages and appointments; default: in memory"
    )
    parser.add_argument(
        "--keep", type=int, default=KEEP, metavar="N", help="keep the newest N requests; default: %(default)s"
    )
    parser.add_argument(
        "--demo-data",
        action="store_true",
        help="add 40 invented appointments of a clinic for tomorrow",
    )
    return parser


def _wrapped(lines: Sequence[str]) -> Iterator[str]:
    for line in lines:
        yield textwrap.fill(line, 100, initial_indent="  - ", subsequent_indent="    ")


def _serve(sandbox: Sandbox) -> int:
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: stop.set())
    print(f"Apptoto sandbox: {sandbox.url}")
    print("To use the sandbox for every Apptoto connection in this shell:")
    print(f"  export {SANDBOX_URL}={shlex.quote(sandbox.account_url)}")
    print("To use it for one connection, in this shell or in a running Airflow:")
    print(f"  export {CONNECTION}={shlex.quote(sandbox.connection())}")
    print(f"  {sandbox.connection_command()}")
    print("Press Ctrl-C to stop.", flush=True)
    stop.wait()
    return 0


def _run(sandbox: Sandbox, command: Sequence[str]) -> int:
    try:
        with subprocess.Popen(command, env=_environment(sandbox)) as process:  # noqa: S603  the user's command
            # The terminal sends Ctrl-C to the command too; SIGTERM reaches only this process.
            interrupt = signal.signal(signal.SIGINT, lambda _number, _frame: None)
            terminate = signal.signal(signal.SIGTERM, lambda number, _frame: process.send_signal(number))
            try:
                code = process.wait()
            finally:
                signal.signal(signal.SIGINT, interrupt)
                signal.signal(signal.SIGTERM, terminate)
    except OSError as error:
        print(f"Can't run {command[0]}: {error.strerror}", file=sys.stderr)
        return _NOT_FOUND if isinstance(error, FileNotFoundError) else _CANNOT_EXECUTE
    print(report(sandbox.messages(), sandbox.appointments.people()), flush=True)
    return code if code >= 0 else _SIGNALLED - code


def _environment(sandbox: Sandbox) -> dict[str, str]:
    return {
        **os.environ,
        **direct_connections(),
        CONNECTION: sandbox.connection(),
        SANDBOX_URL: sandbox.account_url,
    }


if __name__ == "__main__":
    sys.exit(main())
