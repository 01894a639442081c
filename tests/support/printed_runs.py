"""Which test runs what the documentation prints, and what no test can run."""

from __future__ import annotations

from tests.support.printed import Printed, blocks, commands, sentence_commands

_AIRFLOW, _COMMANDS, _SETTINGS, _PYTHON, _RESULTS = (
    f"tests.airflow.test_printed_{name}" for name in ("airflow", "commands", "settings", "python", "results")
)
_QUICK_START, _GUIDE = "tests.airflow.test_quick_start", "tests.airflow.test_testing"
_DOCS, _SHELL, _SCRIPTS = (f"tests.unit.{name}" for name in ("test_docs", "test_printed_shell", "test_printed_python"))
_VIEW = "tests.unit.outbox.test_messages_view"

COMMANDS = {
    "airflow apptoto ": _COMMANDS,
    "psql ": _COMMANDS,
    "airflow ": _AIRFLOW,
    "AIRFLOW__CORE__TEST_CONNECTION=Enabled airflow connections test ": _AIRFLOW,
    "export ": _SETTINGS,
    "openssl ": _SETTINGS,
    "python -m airflow_provider_apptoto.sandbox -- airflow ": _QUICK_START,
    "python -m airflow_provider_apptoto.sandbox": _SHELL,
    "curl ": _SHELL,
    "make ": _SHELL,
}
"""Module by the start of the command; the longest start decides."""
PAGES_OF_COMMANDS = {"index.rst": _QUICK_START}
"""Module that runs a whole page, with a terminal that keeps what the commands before have done."""
SENTENCES = {
    "airflow apptoto": _DOCS,
    "python -m airflow_provider_apptoto": _DOCS,
    "make": _SHELL,
    "airflow config ": _AIRFLOW,
    "airflow connections test apptoto_default": _AIRFLOW,
    "airflow dags list-import-errors": _AIRFLOW,
}
"""The same for commands in sentences."""
BLOCKS = {
    "sql": _VIEW,
    "ini": _SETTINGS,
    "python": _PYTHON,
    "python client.rst": _SCRIPTS,
    "python error-codes.rst": _SCRIPTS,
    "python sandbox.rst": _SCRIPTS,
    "python test-your-dag.rst": _GUIDE,
    "python answers.rst": _RESULTS,
    "python batch.rst": _RESULTS,
    "python operators.rst": _RESULTS,
}
"""Module by the language of the block, or by language and page."""
NOT_RUN = {
    "pip install 'airflow-provider-apptoto[sandbox]'": "needs a package index; make release-check installs the wheel",
    "pip install 'airflow-provider-apptoto[sandbox]' pytest": "needs a package index",
    ".ci/run": "runs these tests",
    "pre-commit install": "changes the checkout; tests/unit/test_repository.py reads its configuration",
    "airflow connections test": "names the command without its argument",
    "airflow triggerer": "never ends; tests/scheduler runs one",
    "airflow standalone": "never ends; tests/scheduler runs one",
    "sqlite3 -bail FILE < migrate.sql": "needs the program sqlite3; tests/unit/outbox run these statements in Python",
    "dbt test": "needs dbt; the view's columns are compared with the file",
    "dbt source freshness": "needs dbt; the view's columns are compared with the file",
    "pytest": "tests.airflow.test_testing runs it by its module",
    "pytest -n auto": "an option of pytest-xdist",
    "pytest -p no:apptoto": "an option of pytest",
    ".venv/bin/python -m pytest tests/unit/outbox/test_guards.py::test_NAME": "starts pytest, with a test to choose",
    ".venv/bin/python -m tests.support.texts": "writes into the checkout; tests/unit/test_texts.py tests it",
}
"""Commands that no test runs as printed, and why."""


def module_of(printed: Printed) -> str | None:
    """Return the module of the test that runs it, or ``None``."""
    if printed.text in NOT_RUN:
        return None
    if printed.language == "sh" and printed.page in PAGES_OF_COMMANDS:
        return PAGES_OF_COMMANDS[printed.page]
    if printed.language in {"sh", "sentence"}:
        starts = COMMANDS if printed.language == "sh" else SENTENCES
        found = max((start for start in starts if printed.text.startswith(start)), key=len, default="")
        return starts.get(found)
    return BLOCKS.get(f"{printed.language} {printed.page}") or BLOCKS.get(printed.language)


def run_by(module: str, *languages: str) -> list[Printed]:
    """Return what a module runs.

    :param languages: ``sh`` and ``sentence`` are single commands; others are blocks.
    """
    printed = [*commands(), *sentence_commands(), *(block for block in blocks() if block.language != "sh")]
    return [each for each in printed if each.language in languages and module_of(each) == module]
