"""Whatever the documentation prints is run by a test, or has a reason why not."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from tests.support.printed import PAGES, ROOT, Printed, blocks, commands, sentence_commands, split
from tests.support.printed_runs import BLOCKS, COMMANDS, NOT_RUN, PAGES_OF_COMMANDS, SENTENCES, module_of

OUTPUT = "text"
"""Language of blocks that show what a command prints."""
PRINTED = [*commands(), *sentence_commands(), *(block for block in blocks() if block.language not in {"sh", OUTPUT})]
INCLUDED = {"apptoto_sources.yml"}
"""Included files other than examples; ``test_messages_view.py`` reads it."""


def test_each_command_and_block_is_run_by_a_test_or_listed_with_a_reason() -> None:
    missing = [f"{each}: {each.text}" for each in PRINTED if module_of(each) is None and each.text not in NOT_RUN]
    assert missing == []
    assert len(commands()) > 90
    assert len(blocks()) > 110


def test_the_lists_name_nothing_that_no_page_prints() -> None:
    assert NOT_RUN.keys() - {each.text for each in PRINTED} == set()
    by_start = [*((start, commands()) for start in COMMANDS), *((start, sentence_commands()) for start in SENTENCES)]
    assert [start for start, found in by_start if not any(each.text.startswith(start) for each in found)] == []
    kinds = {name for each in blocks() for name in (each.language, f"{each.language} {each.page}")}
    assert BLOCKS.keys() <= kinds
    assert all(NOT_RUN.values())


MODULES = {*COMMANDS.values(), *SENTENCES.values(), *BLOCKS.values(), *PAGES_OF_COMMANDS.values()}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_named_module_runs_what_it_is_given(module: str) -> None:
    path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
    assert re.search(r"run_by\(\s*__name__", path.read_text())


def test_all_included_code_is_that_of_examples_which_are_run() -> None:
    included = Counter(
        name
        for page in PAGES
        for name in re.findall(r"^ *\.\. literalinclude:: (\S+)$", page.read_text(), re.MULTILINE)
    )
    examples = {f"../example_dags/{path.name}" for path in (ROOT / "example_dags").glob("*.py")}
    assert included.keys() - examples == INCLUDED
    assert included.total() >= 30


def test_a_block_in_a_list_has_its_own_indent_and_options_are_no_part_of_it() -> None:
    [block] = [each for each in blocks() if each.text.startswith("import os\nimport subprocess")]
    assert (block.page, block.language) == ("test-your-dag.rst", "python")
    nested = next(each for each in blocks() if each.page == "many-machines.rst")
    assert nested.text.startswith("export AIRFLOW_CONN_APPTOTO_STATE=")


def test_files_of_the_checkout_that_commands_name_exist() -> None:
    named = {path for each in PRINTED for path in re.findall(r"\btests/[\w/]+\.py", each.text)}
    assert len(named) > 1
    assert [path for path in named if not (ROOT / path).is_file()] == []


def test_a_script_is_split_into_its_commands() -> None:
    script = "# why\na 'b # b'  # c\nd \\\n  -e  # f\n\ng '{\n h}'\n"
    assert split(script) == ["a 'b # b'", "d \\\n  -e", "g '{\n h}'"]


def test_a_command_that_nobody_runs_is_found() -> None:
    assert module_of(Printed("batch.rst", "sh", "rm -rf /", 1)) is None
    assert module_of(Printed("batch.rst", "sentence", "airflow triggerer", 1)) is None
    assert module_of(Printed("batch.rst", "yaml", "a: b", 1)) is None
