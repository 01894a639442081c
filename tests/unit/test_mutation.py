"""What `make mutation` takes for a change of wording: the words of a text alone, so that no change of a rule hides."""

from __future__ import annotations

import pytest

from tests.support.mutation import Mutant, is_wording, scores

LOG = 'log.info("Waiting for %s", key)'
ERROR = 'raise Error("to", f"{count / 60:.0f} of {total} were sent", code="too_many")'


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (LOG, LOG.replace("Waiting for", "XXWaiting for"), True),
        (LOG, LOG.replace("Waiting", "WAITING"), True),
        (LOG, LOG.upper().replace("LOG.INFO", "log.info").replace("KEY", "key"), True),
        (LOG, LOG.replace('"Waiting for %s"', "None"), False),
        (LOG, LOG.replace("key", "None"), False),
        (ERROR, ERROR.replace("were sent", "WERE SENT"), True),
        (ERROR, ERROR.replace("/ 60", "* 60"), False),
        (ERROR, ERROR.replace("too_many", "TOO_MANY"), False),
        (ERROR, ERROR.replace('"to"', '"XXtoXX"'), False),
        ("if sent and kept:", "if sent or kept:", False),
    ],
)
def test_only_the_words_of_a_text_are_wording(before: str, after: str, *, expected: bool) -> None:
    assert is_wording(f"--- a.py\n+++ b.py\n@@ -1 +1 @@\n def f():\n-    {before}\n+    {after}\n") is expected


def test_a_mutant_names_its_function_and_its_file() -> None:
    method = Mutant(name="airflow_provider_apptoto.outbox.stores.sql.xǁSqlLedgerStoreǁfind__mutmut_3", status="killed")
    function = Mutant(name="airflow_provider_apptoto.outbox.x___getattr____mutmut_1", status="survived")
    assert method.function == "outbox.stores.sql.SqlLedgerStore.find"
    assert method.path.as_posix() == "airflow_provider_apptoto/outbox/stores/sql.py"
    assert function.function == "outbox.__getattr__"
    assert function.path.as_posix() == "airflow_provider_apptoto/outbox/__init__.py"


def test_scores_are_those_of_modules_and_parts() -> None:
    names = {"outbox.stores.sql.x_find__mutmut_1": "killed", "outbox.pin.x_check__mutmut_1": "survived"}
    mutants = [Mutant(name=f"airflow_provider_apptoto.{name}", status=status) for name, status in names.items()]
    rows = [line.split() for line in scores(mutants).splitlines()[2:]]
    assert rows == [
        ["outbox", "2", "1", "50%"],
        ["outbox.pin", "1", "1", "0%"],
        ["outbox.stores.sql", "1", "0", "100%"],
    ]
