"""The Python that the documentation prints for DAG files does what its pages say, against the sandbox."""

from __future__ import annotations

import datetime as dt
import importlib
import re
import textwrap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_apptoto.hooks.apptoto import ApptotoHook
from airflow_provider_apptoto.notifications.apptoto import ApptotoNotifier
from tests.support.dag_runs import run_file
from tests.support.printed import blocks
from tests.support.printed_runs import run_by

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_apptoto.sandbox.testing import ApptotoSandbox
    from tests.support.printed import Printed

pytestmark = pytest.mark.usefixtures("airflow_database")

PRINTED = run_by(__name__, "python")
HEAD = """
from datetime import timedelta

import pendulum
from airflow.providers.common.compat.sdk import DAG, task
from airflow.sdk import get_current_context

from airflow_provider_apptoto.hooks.apptoto import ApptotoHook
from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageBatchOperator, ApptotoSendMessageOperator

with DAG(
    dag_id="printed",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    params={"name": "Mary", "phone": "+16505550199", "url": "https://clinic.example/a.mp3"},
) as dag:
"""
"""How a DAG file begins."""
DATABASE = """
class PostgresHook:
    def __init__(self, conn_id):
        assert conn_id == "clinic"

    def get_records(self, query):
        return [("+16505550198",), ("ann@clinic.example",)]

"""


@dataclass(frozen=True)
class Case:
    """A DAG around a block, and what people get.

    :param part: a part of the block.
    :param dag: the tasks of the DAG; ``BLOCK`` stands for the block.
    :param texts: by recipient.
    :param left_out: what the page leaves out for brevity, and what stands for it.
    :param state: of the run.
    """

    part: str
    dag: str = "BLOCK"
    texts: dict[str | int, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    state: str = "success"

    def source(self, block: str) -> str:
        """Return the DAG file."""
        for shortened, whole in self.left_out.items():
            assert shortened in block
            block = block.replace(shortened, whole)
        if block.startswith("from datetime"):
            return block
        tasks = textwrap.dedent(self.dag).strip("\n")
        whole = re.sub(r"^( *)BLOCK$", lambda line: textwrap.indent(block, line[1]), tasks, flags=re.MULTILINE)
        return HEAD + textwrap.indent(whole.replace("BLOCK", block), "    ")


CASES = [
    Case(
        "flu_campaign",
        left_out={"...": 'messages=[{"to": "+16505550199"}], defaults={"type": "sms", "message": "Get a flu shot."}'},
        texts={"+16505550199": "Get a flu shot."},
    ),
    Case("refresh_optouts", f"{DATABASE}BLOCK\nrefresh_optouts()"),
    Case(
        "suppression=opted_out()",
        """
        @task
        def opted_out():
            return ["+16505550198"]

        BLOCK
        """,
        {"+16505550199": "Your appointment is confirmed."},
    ),
    Case("def text_mary", "BLOCK\ntext_mary()", {"+16505550199": "Hi Mary, your results are in."}),
    Case(
        'idempotency_key="reminder-4711"',
        """
        @task
        def remind():
            BLOCK
            outbox.send(type="sms", to="+16505550199", message="See you tomorrow.")

        remind()
        """,
        {"+16505550199": "See you tomorrow."},
    ),
    Case(
        "on_failure_callback=text_on_call",
        "BLOCK\nload()",
        {"+16505550100": "Task load failed."},
        left_out={"def load(): ...": "def load(): raise ValueError"},
        state="failed",
    ),
    Case(
        "ti.try_number",
        """
        def text_on_call(context):
            BLOCK
            outbox.send(type="sms", to="+16505550100", message="A try failed.")

        @task(on_failure_callback=text_on_call)
        def load():
            raise ValueError

        load()
        """,
        {"+16505550100": "A try failed."},
        state="failed",
    ),
    Case(
        "context['dag'].dag_id",
        """
        BLOCK

        @task
        def as_airflow_calls_it():
            context = get_current_context()
            text_on_call({name: context[name] for name in ("dag", "dag_run", "run_id")})

        as_airflow_calls_it()
        """,
        {"+16505550100": "A DAG run failed."},
    ),
    Case(
        "timezone_column",
        texts={"+16505550199": "Hi Mary, we see you at 2 pm.", "+12125550100": "Hi John, we see you at 4 pm."},
    ),
    Case(
        "capture url",
        'ApptotoSendMessageOperator(task_id="call", type="call", event_id=7, BLOCK)',
        {7: "{% capture url %}https://clinic.example/a.mp3{% endcapture %}{{ url | play_mp3 }}"},
    ),
    Case(
        'task_id="text_mary"',
        texts={"+16505550199": "Hi Mary, your results are in. Please call us."},
    ),
]
DEADLINE = Case("DeadlineAlert", left_out={"):\n    ...": ") as dag:\n    pass"})


def block_of(case: Case) -> Printed:
    [found] = [printed for printed in PRINTED if case.part in printed.text]
    return found


def test_each_block_has_a_case() -> None:
    assert {block_of(case) for case in [*CASES, DEADLINE]} == set(PRINTED)


def reminders(folder: Path) -> Path:
    """Write the file of the page about sending windows, for days to come, and return its path."""
    [rows] = [block.text for block in blocks() if block.text.startswith("appointment,to,")]
    today = dt.datetime.now(dt.UTC).date()
    wednesday = today + dt.timedelta(days=9 - today.weekday())
    path = folder / "reminders.csv"
    path.write_text(rows.replace("2026-03-02", str(wednesday)))
    return path


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.part)
def test_a_block_in_a_dag_sends_what_its_page_says(case: Case, apptoto_sandbox: ApptotoSandbox, tmp_path: Path) -> None:
    apptoto_sandbox.connect("apptoto_north")
    source = case.source(block_of(case).text)
    run = run_file("printed", source.replace("/var/lib/clinic/reminders.csv", str(reminders(tmp_path))))
    assert run.state == case.state
    got = {message["to"] or message["event_id"]: message["message"] for message in apptoto_sandbox.messages()}
    assert got == case.texts
    if case.part == "refresh_optouts":
        assert run["refresh_optouts"].xcom == {"total": 2, "added": 2, "removed": 0}
        people = ("+16505550198", "ann@clinic.example", "+16505550199")
        assert [list(ApptotoHook().optouts.check(person)) for person in people] == [["campaigns"], ["campaigns"], []]


def test_the_callback_of_a_deadline_is_a_notifier_that_can_be_made() -> None:
    """``dag.test`` of Airflow 3.3.2 fails for every DAG that has a deadline."""
    names: dict[str, Any] = {}
    exec(DEADLINE.source(block_of(DEADLINE).text), names)  # noqa: S102  a page of this project
    [alert] = names["dag"].deadline
    path, _, name = alert.callback.path.rpartition(".")
    notifier = getattr(importlib.import_module(path), name)(**alert.callback.kwargs)
    assert isinstance(notifier, ApptotoNotifier)
    assert notifier.to == "+16505550199"
