"""Draw the moving picture of the demo: ``python docs/demo.py`` from ``demo.cast``, ``--record`` to run it anew.

``demo.cast`` is a recording of ``make demo`` in the format of asciinema: the starts of its tasks, what the provider
logged, and the report. Lists are cut, and pauses are shortened.
"""

from __future__ import annotations

import argparse
import json
import os
import pty
import re
import time
from html import escape
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent
CAST = FOLDER / "demo.cast"
PICTURE = FOLDER / "_static" / "demo.svg"
COMMAND = "make demo"
COLUMNS, ROWS = 92, 24
MAX_PAUSE, MIN_PAUSE = 1.5, 0.2
"""Seconds between two lines of the picture."""
HOLD = 7.0
"""Seconds for which the last lines stay."""
LISTED = 6
"""Lines that are kept of a list of participants or appointments."""
LEFT, TOP, LINE, CHARACTER = 16, 44, 18, 7.83
FONT = "ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace"
BACKGROUND, TEXT, MUTED, ACCENT, GOOD = "#1a1e24", "#e6e9ef", "#8a94a6", "#7db2ff", "#5fcf95"

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_RECORD = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z \[\w+ *\] ")
_START = re.compile(r"\[DAG TEST\] starting task_id=(\w+)")
_LOGGER = re.compile(r" *\[(airflow[\w.]+)\](?: [\w.]+=.*)?$", re.DOTALL)
_SKIPPED = ("Messages of this task:", "Ledger: ", "Delivery mode:", "APPTOTO_SANDBOX_URL")
_LIST = re.compile(r"\d\d:\d\d  |    \d{4}-\d\d-\d\dT|    event \d")


class Line(NamedTuple):
    """A line of the recording.

    :param at: seconds since the start.
    """

    at: float
    text: str


def record() -> list[Line]:
    """Run the demo in a terminal, and return its lines."""
    start, lines, rest = time.monotonic(), [], ""

    def read(terminal: int) -> bytes:
        nonlocal rest
        data = os.read(terminal, 65536)
        *whole, rest = (rest + data.decode(errors="replace")).split("\n")
        lines.extend(Line(time.monotonic() - start, _COLOUR.sub("", text).rstrip()) for text in whole)
        return data

    if pty.spawn(["make", "demo"], read):
        raise SystemExit("The demo failed.")
    return lines


def story(lines: list[Line]) -> list[Line]:
    """Return what the picture shows of all lines."""
    records: list[list[Line]] = []
    is_report = False
    for line in lines:
        if _RECORD.match(line.text) or not records or is_report or line.text.startswith("Tomorrow's appointments"):
            records.append([])
        is_report |= "] DagRun Finished: " in line.text or "DagRun Finished: dag_id=" in line.text
        records[-1].append(line)
    shown: list[Line] = []
    for each in records:
        text = "\n".join(line.text for line in each)
        if not _RECORD.match(text):
            shown += [line for line in each if not line.text.startswith("Tomorrow's appointments")]
        elif start := _START.search(text):
            shown.append(Line(each[0].at, f"task {start[1]}"))
        elif (logger := _LOGGER.search(text)) and logger[1].startswith("airflow_provider_apptoto"):
            said = _RECORD.sub("", text[: logger.start()])
            if not said.startswith(_SKIPPED):
                shown += [Line(each[0].at, f"  {part}") for part in said.splitlines()]
    return cut(shown)


def cut(lines: list[Line]) -> list[Line]:
    """Shorten lists."""
    kept: list[Line] = []
    listed = 0
    for line in [*lines, Line(lines[-1].at, "")]:
        if _LIST.match(line.text):
            listed += 1
            if listed > LISTED:
                continue
        elif listed > LISTED:
            indent = "    " if kept[-1].text.startswith(" ") else ""
            kept.append(Line(line.at, f"{indent}... {listed - LISTED} more"))
        if not _LIST.match(line.text):
            listed = 0
        kept.append(line)
    return [line for line in kept[:-1] if not _RECORD.match(line.text)]


def paced(lines: list[Line]) -> list[Line]:
    """Return the lines with shorter pauses."""
    now, before, found = 1.0, lines[0].at, []
    for at, text in lines:
        now += min(max(at - before, MIN_PAUSE), MAX_PAUSE)
        before = at
        found.append(Line(round(now, 2), text))
    return found


def as_cast(lines: list[Line]) -> str:
    """Return lines as a recording of asciinema."""
    header = {"version": 2, "width": COLUMNS, "height": ROWS, "title": COMMAND}
    events = [[at, "o", f"{text}\r\n"] for at, text in lines]
    return "".join(f"{json.dumps(each, ensure_ascii=False)}\n" for each in (header, *events))


def lines_of(cast: str) -> list[Line]:
    """Return the lines of a recording."""
    _, *events = map(json.loads, cast.splitlines())
    return [Line(at, text.rstrip()) for at, _, text in events]


def picture(lines: list[Line]) -> str:
    """Return the moving picture: lines appear, and scroll up. It stands still for who prefers that."""
    shown = [Line(0.0, f"$ {COMMAND}"), *lines]
    length = shown[-1].at + HOLD
    height = TOP + ROWS * LINE + 12
    width = round(2 * LEFT + COLUMNS * CHARACTER)
    curtain, scroll = [], []
    for number, (at, _) in enumerate(shown):
        share = f"{at / length:.2%}"
        curtain.append(f"{share}{{transform:translateY({(number + 1) * LINE}px)}}")
        if number >= ROWS:
            scroll.append(f"{share}{{transform:translateY({(ROWS - number - 1) * LINE}px)}}")
    end = max(len(shown) - ROWS, 0) * -LINE
    texts = "\n".join(
        f'<text y="{number * LINE + 13}" fill="{_colour(text)}">{escape(_fitted(text), quote=False)}</text>'
        for number, (_, text) in enumerate(shown)
        if text
    )
    full = len(shown) * LINE
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">
<title>make demo: a DAG texts the clients of a clinic, calls those who do not answer, and e-mails the front desk</title>
<style>
text{{font:13px {FONT};white-space:pre}}
.c{{animation:c {length:.2f}s step-end infinite}}
.s{{animation:s {length:.2f}s step-end infinite}}
@keyframes c{{{"".join(curtain)}}}
@keyframes s{{0%{{transform:none}}{"".join(scroll)}}}
@media (prefers-reduced-motion:reduce){{
.c{{animation:none;transform:translateY({full}px)}}
.s{{animation:none;transform:translateY({end}px)}}
}}
</style>
<rect width="{width}" height="{height}" rx="8" fill="{BACKGROUND}"/>
<circle cx="20" cy="20" r="6" fill="#ff5f57"/><circle cx="40" cy="20" r="6" fill="#febc2e"/>
<circle cx="60" cy="20" r="6" fill="#28c840"/>
<svg x="{LEFT}" y="{TOP}" width="{width - 2 * LEFT}" height="{ROWS * LINE}">
<g class="s">
{texts}
<rect class="c" width="{width}" height="{full}" fill="{BACKGROUND}"/>
</g>
</svg>
</svg>
"""


def _colour(text: str) -> str:
    if text.startswith("$ "):
        return GOOD
    if text.startswith("task ") or re.match(r"\d+ participants:|What others got", text):
        return ACCENT
    return MUTED if text.startswith(("... ", "    ... ", "Start ")) else TEXT


def _fitted(text: str) -> str:
    return text if len(text) <= COLUMNS else f"{text[: COLUMNS - 1]}…"


def main() -> None:
    """Record if that is asked for, and draw."""
    parser = argparse.ArgumentParser(prog="python docs/demo.py", description=__doc__)
    parser.add_argument("--record", action="store_true", help="run the demo anew (two minutes)")
    if parser.parse_args().record:
        CAST.write_text(as_cast(paced(story(record()))))
    PICTURE.write_text(picture(lines_of(CAST.read_text())))


if __name__ == "__main__":
    main()
