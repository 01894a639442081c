"""Prints who got their message from a cluster that is broken on purpose; exits with 1 if a promise was broken."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from tabulate import tabulate

from tests.distributed.checker import broken, rows
from tests.support import postgres

LEAST = 40


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(prog="python -m tests.distributed", description=__doc__)
    parser.add_argument("--messages", type=int, default=600, help="half of them by a batch (default: %(default)s)")
    given = parser.parse_args()
    if given.messages < LEAST:
        parser.error(f"--messages is at least {LEAST}: a batch that is killed has to be in the middle of its work")
    if not shutil.which("redis-server") or postgres.programs() is None:
        sys.exit("This needs Redis and PostgreSQL. On Debian: apt-get install redis-server postgresql")
    # told to end, it ends all that it has started, as it does after Ctrl-C
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    from tests.distributed.run import run

    with tempfile.TemporaryDirectory(prefix="apptoto-distributed-") as name:
        result = run(given.messages, Path(name))
    lines = broken(result)
    end = "\n  ".join([f"{len(lines)} promises were broken:", *lines]) if lines else "All promises were kept."
    sys.stdout.write(f"\n{tabulate(rows(result), disable_numparse=True)}\n\n{end}\n")
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
