"""Measure how long a batch plans: it checks all rows before it sends the first message."""

from __future__ import annotations

import csv
import json
import os
import statistics
import time
from typing import TYPE_CHECKING

from benchmarks import in_process, reads, ways
from benchmarks.people import number_of
from benchmarks.settings import say

if TYPE_CHECKING:
    from pathlib import Path

BARE = "csv.DictReader and jinja2, nothing checked"
RULES = """\
{rows:,} rows of a file; medians of {rounds} rounds. Plan: from the first row to the last message: each row is read,
its text rendered, its recipient and text checked, its key computed. Nothing is sent before. Dry run: from the rendering
of the task's fields to the end of execute, which plans and goes through all messages without sending."""


def show(home: Path, *, rows: int, rounds: int) -> None:
    """Print the time of the plan by the format of the file, and its ratio to a loop that checks nothing."""
    from benchmarks.dags.in_process import batch

    in_process.migrate()
    ways.lift_connection_limit()
    ways.connect("http://127.0.0.1:9", "dry_run")  # nothing listens there, and a dry run sends nothing
    paths = _files(home, rows)
    times: dict[str, list[tuple[float, float | None]]] = {BARE: [], **{f"plan of {name}": [] for name in paths}}
    for number in range(rounds + 1):  # the first one imports, and is not counted
        start = time.perf_counter()
        _bare(paths["CSV"], batch.MESSAGE)
        times[BARE].append((time.perf_counter() - start, None))
        for name, path in paths.items():
            say(f"plan, round {number} of {rounds}: {name}")
            batch.spent.clear()
            with reads.plans() as made:
                in_process.run(batch.dags["dry_run"], {"path": str(path)})
            [plan] = made
            if plan.messages != rows:
                raise RuntimeError(f"{plan.messages} of {rows} rows were planned, so the times mean nothing")
            times[f"plan of {name}"].append((plan.seconds, sum(each.wall for each in batch.spent)))
    print(RULES.format(rows=rows, rounds=rounds))
    print(f"\n{'':<46}{'s':>7}{'ms per row':>12}{'to bare':>9}{'dry run s':>11}")
    bare = statistics.median(seconds for seconds, _ in times[BARE][1:])
    for name, each in times.items():
        median = statistics.median(seconds for seconds, _ in each[1:])
        runs = [run for _, run in each[1:] if run is not None]
        run = f"{statistics.median(runs):.1f}" if runs else "-"
        print(f"{name:<46}{median:>7.2f}{median / rows * 1000:>12.3f}{median / bare:>8.1f}x{run:>11}")
    print(f"Load of the machine: {os.getloadavg()[1]:.1f} (average of 5 minutes)")


def _files(home: Path, rows: int) -> dict[str, Path]:
    """Write the same rows in each format."""
    people = [{"to": number_of(person), "name": f"Person {person}"} for person in range(rows)]
    lines = home / "rows.jsonl"
    lines.write_text("".join(f"{json.dumps(each)}\n" for each in people))
    table = home / "rows.csv"
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["to", "name"])
        writer.writeheader()
        writer.writerows(people)
    return {"CSV": table, "JSON Lines": lines}


def _bare(path: Path, text: str) -> list[str]:
    """Render the text of each row."""
    import jinja2

    template = jinja2.Template(text)
    with path.open(newline="") as file:
        return [template.render(row=row) for row in csv.DictReader(file)]
