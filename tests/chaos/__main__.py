"""Print the results of each way to send under faults; exit with 1 if a promise was broken."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import tempfile
import time
from pathlib import Path


def main() -> int:
    """Run all arms."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument(
        "--sends", type=int, help="messages an arm (default: 1000; short: as many as there are kills and faults)"
    )
    parser.add_argument("--seed", type=int, default=None, help="of an earlier run, to draw the same again")
    parser.add_argument("--short", action="store_true", help="few messages, with each kill and each fault")
    given = parser.parse_args()
    seed = secrets.randbelow(10**6) if given.seed is None else given.seed
    with tempfile.TemporaryDirectory(prefix="apptoto-chaos-") as name:
        home = Path(name)
        os.environ["AIRFLOW_HOME"] = str(home)  # before Airflow is imported
        from tests.chaos.arms import APPOINTMENTS, HTTP_OPERATOR, LEDGERS, NAIVE
        from tests.chaos.draws import ASSIGNED, Draws
        from tests.chaos.driver import workers
        from tests.chaos.report import report
        from tests.chaos.run import run_arm

        sends = given.sends or (ASSIGNED if given.short else 1000)
        draws = Draws(seed=seed, assigned=given.short)
        results = []
        began = time.monotonic()
        with workers() as pool:
            for number, arm in enumerate([*LEDGERS, APPOINTMENTS, NAIVE, HTTP_OPERATOR]):
                folder = home / str(number)
                folder.mkdir()
                results.append(run_arm(arm, draws, sends, folder, pool))
        rates = (
            f"{draws.faults:.0%} of the requests go wrong, {draws.kills:.0%} of the tries are killed, "
            f"{draws.freezes:.0%} are frozen, {draws.lives:.0%} run beside the next one, and the ledger fails "
            f"{draws.ledger_faults:.0%} of them"
        )
        took = f"{time.monotonic() - began:.0f} s"
        sys.stdout.write(f"{sends} messages an arm; {rates}; --seed {seed}; {took}\n\n{report(results)}\n")
    return int(any(result.broken for result in results))


if __name__ == "__main__":
    sys.exit(main())
