"""Run one benchmark and print its tables.

The Python that runs it needs the packages of .ci/pins/bench.txt; for ``cpu``, those of any development environment are
enough. PostgreSQL is measured if it is installed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from benchmarks import cpu, guards, in_process, message, parse, speed, tables
from benchmarks.arms import ARMS
from benchmarks.scenarios import SCENARIOS
from benchmarks.server import Server


def main() -> None:
    """Measure and print."""
    options = _parser().parse_args()
    # Without bytecode, each process would compile what it imports, and that would be measured.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    with tempfile.TemporaryDirectory(prefix="apptoto-bench-") as folder, Server() as server:
        home = Path(folder)
        in_process.set_up(home)
        if options.part == "parse":
            parse.show()
        elif options.part == "message":
            message.show(server, home)
        elif options.part == "guards":
            guards.show(server, home, options.rounds)
        elif options.part == "cpu":
            cpu.show(server, home, messages=options.messages, rounds=options.rounds)
        elif options.part == "speed":
            speed.show_shares(server, home, options.seconds)
            speed.show_speeds(server, home, options.rounds)
        else:
            tables.show_arms(server, home / "airflow", options)
    tables.show_versions()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parts = parser.add_subparsers(dest="part", required=True)
    parts.add_parser("parse", help="time to import the operators, compared with other providers")
    parts.add_parser("message", help="time of one message, by where its ledger and its rate limit are")
    part = parts.add_parser("guards", help="time that opt-outs, max_age, send_window and at_most add to a message")
    part.add_argument("--rounds", type=int, default=10, help="(10)")
    part = parts.add_parser("cpu", help="CPU time of a message in a batch, compared with a bare requests call")
    part.add_argument("--messages", type=int, default=600, help="in a batch (600)")
    part.add_argument("--rounds", type=int, default=5, help="(5)")
    part = parts.add_parser("speed", help="messages per second of a batch, without Airflow")
    part.add_argument("--seconds", type=float, default=12, help="length of each measurement with a rate limit (12)")
    part.add_argument("--rounds", type=int, default=5, help="without a rate limit (5)")
    part = parts.add_parser(
        "arms", help="copies, losses, time, CPU and memory, compared with other ways to send many messages"
    )
    part.add_argument("--messages", type=int, default=600, help="that each arm sends in a scenario (600)")
    part.add_argument("--seed", type=int, default=1, help="of the faults (1)")
    part.add_argument("--idle", type=float, default=40, help="seconds to measure what an idle Airflow takes (40)")
    part.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    part.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    return parser


if __name__ == "__main__":
    main()
