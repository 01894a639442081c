"""Measure what an import of each public module adds to the parsing of a DAG file, compared with other providers.

Airflow parses each DAG file again and again, each time in a process that has imported Airflow and no provider. So each
import is timed in a fresh interpreter that has imported Airflow's authoring interface, as every DAG file does.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile

OURS = "airflow_provider_apptoto.operators.apptoto"
MODULES = (
    OURS,
    "airflow_provider_apptoto.sensors.apptoto",
    "airflow_provider_apptoto.triggers.apptoto",
    "airflow_provider_apptoto.notifications.apptoto",
    "airflow_provider_apptoto.decorators.apptoto",
    "airflow_provider_apptoto.hooks.apptoto",
    "airflow_provider_apptoto.outbox",
    "airflow_provider_apptoto.client",
    "airflow_provider_apptoto.links.apptoto",
    "airflow_provider_apptoto.plugins.apptoto",
    "airflow_provider_apptoto.get_provider_info",
    "airflow.providers.smtp.operators.smtp",
    "airflow.providers.telegram.operators.telegram",
    "airflow.providers.slack.operators.slack",
    "airflow.providers.http.operators.http",
    "airflow.providers.pagerduty.notifications.pagerduty",
)
HEAVY = ("requests", "phonenumbers", "sqlalchemy", "email_validator", "urllib3")

PROBE = f"""
import importlib, json, sys, time
import airflow.sdk
airflow.sdk.BaseOperator, airflow.sdk.BaseHook  # Airflow imports them when they are first used
before = set(sys.modules)
start = time.perf_counter()
importlib.import_module(sys.argv[1])
milliseconds = (time.perf_counter() - start) * 1000
new = sys.modules.keys() - before
print(json.dumps([milliseconds, len(new), [name for name in {HEAVY!r} if name in new]]))
"""


def show(rounds: int) -> None:
    """Print the median import time of each module, interleaved, so that other load affects all of them alike."""
    times: dict[str, list[float]] = {module: [] for module in MODULES}
    imported: dict[str, tuple[int, list[str]]] = {}
    with tempfile.TemporaryDirectory() as home:
        for module in MODULES:  # unmeasured: it writes the bytecode and fills the disk cache
            _, new, heavy = _measure(module, home)
            imported[module] = new, heavy
        for _ in range(rounds):
            for module in MODULES:
                times[module].append(_measure(module, home)[0])
    medians = {module: statistics.median(taken) for module, taken in times.items()}
    print(f"Import after airflow.sdk, median of {rounds} fresh interpreters\n")
    print(f"{'module':<53}{'ms':>8}{'min':>8}{'to ours':>9}{'modules':>9}  heavy ones")
    for module, median in sorted(medians.items(), key=lambda item: item[1]):
        new, heavy = imported[module]
        ratio = median / medians[OURS]
        print(f"{module:<53}{median:>8.1f}{min(times[module]):>8.1f}{ratio:>8.1f}x{new:>9}  {', '.join(heavy) or '-'}")


def _measure(module: str, home: str) -> tuple[float, int, list[str]]:
    """Return the time to import a module in milliseconds, how many modules it imports, and the heavy ones of them."""
    run = subprocess.run(
        [sys.executable, "-c", PROBE, module],
        env=os.environ | {"AIRFLOW_HOME": home},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    milliseconds, new, heavy = json.loads(run.stdout.splitlines()[-1])
    return milliseconds, new, heavy
