"""The pages of the documentation say what the package has: commands, options, metrics, states."""

from __future__ import annotations

import re
import runpy
from typing import Any

import pytest

from airflow_provider_apptoto import _cli_arguments as arguments
from airflow_provider_apptoto.outbox.entry import State
from airflow_provider_apptoto.sandbox import __main__ as sandbox
from tests.support.printed import ROOT
from tests.support.printed_runs import run_by

DOCS = ROOT / "docs"
COMMANDS = {
    "ledger list": arguments.LIST,
    "ledger resolve": arguments.RESOLVE,
    "ledger reconcile": arguments.RECONCILE,
    "ledger forget": arguments.FORGET,
    "ledger init": arguments.INIT,
    "ledger purge": arguments.PURGE,
    "optout add": arguments.OPTOUT_ADD,
    "optout remove": arguments.OPTOUT_REMOVE,
    "optout check": arguments.OPTOUT_CHECK,
    "optout import": arguments.OPTOUT_IMPORT,
}

MAX_PICTURE = 300_000
"""Bytes of a picture in the README."""


@pytest.mark.parametrize("command", COMMANDS)
def test_the_page_of_the_command_line_shows_a_command_with_all_its_options(command: str) -> None:
    page = (DOCS / "command-line.rst").read_text()
    assert f"airflow apptoto {command}" in page
    documented = set(re.findall(r"--[a-z][a-z-]*", page))
    flags = {flag for option, _ in COMMANDS[command] for flag in option if flag.startswith("--")}
    assert flags
    assert flags <= documented


def test_the_page_of_the_command_line_shows_all_options_of_the_sandbox() -> None:
    page = (DOCS / "command-line.rst").read_text().partition("\nThe sandbox\n")[2]
    found = {flag for action in sandbox._parser()._actions for flag in action.option_strings if flag.startswith("--")}
    assert found - {"--help"} == set(re.findall(r"--[a-z][a-z-]*", page))


def test_the_page_of_metrics_lists_all_metrics_and_no_others() -> None:
    source = (ROOT / "airflow_provider_apptoto" / "metrics.py").read_text()
    emitted = set(re.findall(r'"(apptoto\.[a-z_.]+)"', source))
    assert emitted
    assert emitted == set(re.findall(r"\* - ``(apptoto\.[a-z_.]+)``", (DOCS / "metrics.rst").read_text()))


@pytest.mark.parametrize("text", sorted({each.text for each in run_by(__name__, "sentence")}))
def test_a_command_that_a_sentence_names_has_these_options(text: str) -> None:
    start = next(start for start in ("airflow apptoto", "python -m airflow_provider_apptoto") if text.startswith(start))
    words = text.removeprefix(start).split()
    options = COMMANDS[" ".join(words[:2])] if words else []
    flags = {word for word in words if word.startswith("--")}
    assert flags <= {flag for option, _ in options for flag in option}


def diagrams() -> dict[str, Any]:
    return runpy.run_path(str(DOCS / "diagrams.py"))


def test_the_diagrams_are_those_that_the_script_draws() -> None:
    for name, picture in diagrams()["pictures"]().items():
        assert (DOCS / "_static" / name).read_text() == picture, f"run: python docs/diagrams.py ({name})"


def test_the_moving_picture_shows_the_recorded_demo_and_nothing_of_the_machine_that_recorded_it() -> None:
    demo = runpy.run_path(str(DOCS / "demo.py"))
    cast = (DOCS / "demo.cast").read_text()
    drawn = (DOCS / "_static" / "demo.svg").read_text()
    assert drawn == demo["picture"](demo["lines_of"](cast)), "run: python docs/demo.py"
    assert "40 participants" in drawn
    assert len(drawn) < MAX_PICTURE
    assert not re.search(r"/home|/root|/tmp|127\.0\.0\.1", cast)


def test_the_moving_picture_shows_what_the_provider_logs_and_cuts_long_lists() -> None:
    demo = runpy.run_path(str(DOCS / "demo.py"))
    people = [f"{9 + number // 4:02}:{number % 4 * 15:02}  Ann  sms" for number in range(20)]
    output = [
        "Setting up a temporary Airflow",
        "2026-11-29T16:15:42Z [info] Filling up the DagBag from /home/ann/dags [airflow.dag_processing] loc=a.py:1",
        "2026-11-29T16:15:45Z [info] [DAG TEST] starting task_id=text map_index=-1 [airflow.sdk] loc=dag.py:1501",
        "2026-11-29T16:16:17.9Z [info     ] Rows by outcome:",
        "  sent                 38 [airflow_provider_apptoto.batch.run] loc=run.py:106",
        "2026-11-29T16:16:33Z [info] DagRun Finished: dag_id=a [airflow.models.dagrun.DagRun] loc=dagrun.py:1315",
        *people,
    ]
    shown = [line.text for line in demo["story"]([demo["Line"](float(at), text) for at, text in enumerate(output)])]
    start = ["Setting up a temporary Airflow", "task text", "  Rows by outcome:", "    sent                 38"]
    assert shown == [*start, *people[:6], "... 14 more"]


def test_the_diagram_of_states_has_all_states_of_the_ledger() -> None:
    drawn = (DOCS / "_static" / "states-light.svg").read_text()
    assert all(state.value in drawn for state in State)


def test_every_page_is_in_the_table_of_contents() -> None:
    index = (DOCS / "index.rst").read_text()
    pages = {path.stem for path in DOCS.glob("*.rst")} - {"index"}
    assert pages == {name.strip() for name in re.findall(r"^   ([a-z-]+)$", index, re.MULTILINE)}
