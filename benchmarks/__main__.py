"""Run one benchmark and print its tables.

The Python that runs it needs the packages of .ci/pins/bench.txt; for all but ``parse`` and ``arms``, those of any
development environment are enough. PostgreSQL is measured if it is installed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from benchmarks import batch, guards, in_process, message, page, parse, plan, polls, speed, tables
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
            parse.show(options.rounds)
        elif options.part == "message":
            message.show(server, home)
        elif options.part == "guards":
            guards.show(server, home, options.rounds)
        elif options.part == "batch":
            batch.show(server, home, messages=options.messages, rounds=options.rounds)
        elif options.part == "plan":
            plan.show(home, rows=options.rows, rounds=options.rounds)
        elif options.part == "page":
            page.show(home, messages=options.messages, rounds=options.rounds)
        elif options.part == "polls":
            polls.show(server, options.rounds)
        elif options.part == "speed":
            speed.show_shares(server, home, options.seconds)
            speed.show_speeds(server, home, options.rounds)
        else:
            tables.show_arms(server, home / "airflow", options)
    tables.show_versions()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parts = parser.add_subparsers(dest="part", required=True)
    part = parts.add_parser("parse", help="time to import each public module, compared with other providers")
    part.add_argument("--rounds", type=int, default=5, help="(5)")
    parts.add_parser("message", help="time of one message, by where its ledger and its rate limit are")
    part = parts.add_parser("guards", help="time that opt-outs, max_age, send_window and at_most add to a message")
    part.add_argument("--rounds", type=int, default=10, help="(10)")
    part = parts.add_parser("batch", help="CPU and time of a message in a batch, by the store of its ledger")
    part.add_argument("--messages", type=int, default=600, help="in a batch (600)")
    part.add_argument("--rounds", type=int, default=5, help="(5)")
    part = parts.add_parser("plan", help="time to plan a batch, before its first message is sent")
    part.add_argument("--rows", type=int, default=10_000, help="(10,000)")
    part.add_argument("--rounds", type=int, default=3, help="(3)")
    part = parts.add_parser("page", help="time of what the outbox page reads from a large ledger")
    part.add_argument("--messages", type=int, default=200_000, help="in the ledger (200,000)")
    part.add_argument("--rounds", type=int, default=20, help="(20)")
    part = parts.add_parser("polls", help="requests of a poll for answers, by the number of appointments")
    part.add_argument("--rounds", type=int, default=3, help="(3)")
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
