"""Print what the arms cost, where this provider is worse, and the versions of everything that was measured."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.arms import ARMS
from benchmarks.scenarios import SCENARIOS, Result, airflow
from benchmarks.settings import LATENCY, LIMIT, WINDOW, say

if TYPE_CHECKING:
    from benchmarks.server import Server

COLUMNS = {
    "duplicates": ("dup", "{:.0f}"),
    "lost": ("lost", "{:.0f}"),
    "false": ("false", "{:.0f}"),
    "flagged": ("flagged", "{:.0f}"),
    "named": ("named", "{:.0f}"),
    "refused": ("429s", "{:.0f}"),
    "seconds": ("s", "{:.1f}"),
    "bound": ("/ bound", "{:.1f}x"),
    "cpu": ("CPU s/k", "{:.0f}"),
    "instances": ("TI/k", "{:.0f}"),
    "tries": ("tries/k", "{:.0f}"),
    "megabytes": ("MB", "{:.0f}"),
}
"""Title and format of each figure of a result or its verdict."""
RULES = """\
dup: extra copies that people got. lost: people who got nothing and are reported as sent, or are not reported.
false: reported as sent and got nothing, or reported as not sent and got a copy. flagged: reported as "may have been
sent, check". named: reported as not sent (rightly or not). The reports are: our batch's XCom "report"; the states and
the task state of our mapped tasks; the states of HttpOperator's tasks (failed = not sent); the loops' states and their
XCom list of failures. A loop that is killed in its last try leaves no list.
429s: requests over the limit (faults not included). s: start to end of the DAG run. / bound: relative to the shortest
time that the limit allows. (The limit is scaled down, so Airflow's start-up weighs more than in a batch of minutes.)
CPU s/k: seconds per 1,000 messages of all Airflow processes, including ended ones, minus what they use when idle.
TI/k, tries/k: task instances and their tries per 1,000 messages. MB: peak resident memory of a task's process."""
MIN_DIFFERENCE = 0.1
"""Share by which another arm must be better to be listed; smaller differences are treated as chance."""
NOISE = 2
"""CPU seconds per 1,000 messages up to which a figure is noise, because the idle time that is subtracted varies."""


def show_arms(server: Server, home: Path, options: argparse.Namespace) -> None:
    """Print a table for each scenario, and the figures in which another arm is better than ours."""
    results: dict[str, dict[str, Result]] = {scenario: {} for scenario in options.scenarios}
    with airflow(server, home, options) as bench:
        for scenario in options.scenarios:
            for arm in options.arms:
                result = results[scenario][arm] = bench.measure(arm, scenario)
                say(f"{scenario}: {ARMS[arm].title}: {result}")
        idle = bench.meter.idle
    limit = f"{LIMIT} requests in any {WINDOW:g} s"
    print(f"{options.messages} messages by each arm; the server accepts {limit}; its latency is {LATENCY * 1000:g} ms")
    print(f"Seed of the faults: {options.seed}. Airflow: LocalExecutor with 2 slots, SQLite.")
    print(f"{RULES}\nAirflow used {idle:.2f} CPU seconds per second when idle.")
    for scenario, of_arms in results.items():
        print(f"\n{scenario}: {SCENARIOS[scenario]}")
        print(f"  {'':<22}" + "".join(f"{title:>8}" for title, _ in COLUMNS.values()))
        for arm, result in of_arms.items():
            cells = (_shown(column, _figure(result, column)) for column in COLUMNS)
            print(f"  {ARMS[arm].title:<22}" + "".join(f"{cell:>8}" for cell in cells))
    _show_losses(results)


def show_versions() -> None:
    """Print the versions of what was measured."""
    versions = [f"Python {sys.version.split()[0]}"]
    for name in ("apache-airflow", "airflow-provider-apptoto", "apache-airflow-providers-http", "requests", "aiohttp"):
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:  # not every benchmark needs all of them
            continue
    print(f"\n{', '.join(versions)}; {os.cpu_count()} cores")


def _figure(result: Result, column: str) -> float:
    figure: float = getattr(result.verdict if hasattr(result.verdict, column) else result, column)
    return max(figure, NOISE) if column == "cpu" else figure


def _shown(column: str, figure: float) -> str:
    if column == "cpu" and figure == NOISE:
        return f"< {NOISE}"
    return COLUMNS[column][1].format(figure)


def _show_losses(results: Mapping[str, Mapping[str, Result]]) -> None:
    print(f"\nWhere ours is worse (by more than {MIN_DIFFERENCE:.0%}; the best arm first)")
    for scenario, of_arms in results.items():
        others = {arm: result for arm, result in of_arms.items() if not ARMS[arm].is_ours}
        for arm, result in of_arms.items():
            if not ARMS[arm].is_ours:
                continue
            for column, (title, _) in COLUMNS.items():
                if column in {"bound", "tries"}:  # they repeat the columns beside them
                    continue
                mine = _figure(result, column)
                figures = sorted((_figure(other, column), ARMS[name].title) for name, other in others.items())
                better = [
                    f"{name} {_shown(column, figure)}"
                    for figure, name in figures
                    if figure < mine * (1 - MIN_DIFFERENCE)
                ]
                if better:
                    print(f"  {ARMS[arm].title}, {scenario}, {title} {_shown(column, mine)}: {', '.join(better)}")
