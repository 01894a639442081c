"""With ``apptoto_sandbox``, DAGs send to the sandbox, remember what was sent, and never wait for a window."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import task

from airflow_provider_apptoto.hooks.apptoto import ApptotoHook
from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageBatchOperator, ApptotoSendMessageOperator
from airflow_provider_apptoto.sandbox.testing import running_sandbox
from tests.support.dag_runs import run_dag
from tests.support.faults import FaultServer
from tests.support.printed_runs import run_by
from tests.support.windows import closed_window

if TYPE_CHECKING:
    from airflow_provider_apptoto.sandbox.testing import ApptotoSandbox

pytestmark = [pytest.mark.contract, pytest.mark.usefixtures("airflow_database")]

CHECKOUT = Path(__file__).parents[2]
SMS: dict[str, Any] = {"task_id": "send", "type": "sms", "to": "+16505550199", "message": "Hi Mary"}


def test_each_sandbox_has_a_state_database_and_airflow_takes_each_for_the_known_one(tmp_path: Path) -> None:
    fields = SMS | {"idempotency_key": "the same for each"}
    for number in ("1", "2"):
        with running_sandbox(tmp_path / number) as sandbox:
            runs = [run_dag(lambda: ApptotoSendMessageOperator(**fields))["send"] for _ in range(2)]
            assert [(run.xcom or {}).get("outcome") for run in runs] == ["sent", "deduplicated"]
            assert sandbox.wait_for_message("+16505550199")["message"] == "Hi Mary"
            assert len(sandbox.messages()) == 1


def test_every_connection_id_leads_to_the_sandbox_and_its_database(
    apptoto_sandbox: ApptotoSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FaultServer() as production:
        account = {"conn_type": "apptoto", "login": "a@clinic.example", "password": "key", "host": production.url}
        monkeypatch.setenv("AIRFLOW_CONN_CLINIC", json.dumps(account))
        monkeypatch.setenv("AIRFLOW__APPTOTO__HOST", production.url)
        for conn_id in ("clinic", "nowhere"):
            assert ApptotoHook(conn_id).state_database is ApptotoHook().state_database
            ApptotoHook(conn_id).send_message(type="sms", to="+16505550199", message=conn_id)
        assert production.connections == 0
    assert [message["message"] for message in apptoto_sandbox.messages()] == ["clinic", "nowhere"]


def test_a_connection_may_have_fields(apptoto_sandbox: ApptotoSandbox) -> None:
    apptoto_sandbox.connect("clinic", default_region="US")
    ApptotoHook("clinic").send_message(type="sms", to="650 555 0199", message="Hi")
    apptoto_sandbox.wait_for_message("+16505550199")


def test_a_fault_is_a_failure_that_the_dag_sees(apptoto_sandbox: ApptotoSandbox) -> None:
    apptoto_sandbox.fault(status=422)
    assert run_dag(lambda: ApptotoSendMessageOperator(**SMS))["send"].state == "failed"
    apptoto_sandbox.assert_no_message()


# --- holds


def build_single() -> None:
    ApptotoSendMessageOperator(**SMS, send_window=closed_window(), recipient_timezone="UTC")


def build_batch() -> None:
    rows = [{"to": SMS["to"], "zone": "UTC"}]
    defaults = {"type": "sms", "message": "Hi Mary"}
    ApptotoSendMessageBatchOperator(
        task_id="send", messages=rows, defaults=defaults, send_window=closed_window(), timezone_column="zone"
    )


def build_decorated() -> None:
    @task.apptoto_message(type="sms", to=SMS["to"], send_window=closed_window(), recipient_timezone="UTC")
    def send() -> str:
        return "Hi Mary"

    send()


@pytest.mark.parametrize("build", [build_single, build_batch, build_decorated])
def test_a_hold_ends_at_once_and_says_until_when_the_task_would_have_waited(
    apptoto_sandbox: ApptotoSandbox, build: Any
) -> None:
    opening = dt.datetime.now(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0) + dt.timedelta(days=2)
    assert run_dag(build, dag_id="held")["send"].state == "success"
    assert apptoto_sandbox.wait_for_message("+16505550199")["message"] == "Hi Mary"
    [hold] = apptoto_sandbox.holds()
    assert (hold["dag_id"], hold["task_id"], hold["map_index"]) == ("held", "send", -1)
    assert hold["run_id"].startswith("manual__")
    assert dt.datetime.fromisoformat(hold["held_until"]) == opening
    apptoto_sandbox.clear()
    assert apptoto_sandbox.holds() == []


def test_what_would_be_too_late_at_the_opening_is_not_sent(apptoto_sandbox: ApptotoSandbox) -> None:
    """A hold that ends at once must not turn a message that would never be sent into one that is."""
    today, later = ((dt.datetime.now(dt.UTC) + dt.timedelta(days=days)).isoformat() for days in (1, 3))
    rows = [{"to": "+16505550101", "until": today}, {"to": "+16505550102", "until": later}]
    defaults = {"type": "sms", "message": "Hi"}
    window: dict[str, Any] = {"send_window": closed_window(), "not_after_column": "until", "timezone_column": "zone"}

    def build() -> None:
        zoned = [{**row, "zone": "UTC"} for row in rows]
        ApptotoSendMessageBatchOperator(task_id="send", messages=zoned, defaults=defaults, **window)

    run = run_dag(build)["send"]
    assert (run.state, run.xcom["sent"], run.xcom["too_old"]) == ("success", 1, 1)
    assert [message["to"] for message in apptoto_sandbox.messages()] == ["+16505550102"]


def test_only_a_sandbox_ends_holds(apptoto_sandbox: ApptotoSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its URL, messages would reach people. The order matters: the variable returns before the sandbox ends."""
    from airflow.providers.common.compat.sdk import TaskDeferred

    monkeypatch.delenv("APPTOTO_SANDBOX_URL")
    operator = ApptotoSendMessageOperator(**SMS)
    opening = dt.datetime(2026, 1, 5, 9, tzinfo=dt.UTC)
    with pytest.raises(TaskDeferred) as raised:
        operator._hold({}, opening)
    assert raised.value.trigger.moment == opening
    assert apptoto_sandbox.holds() == []


# --- the guide


CALLS = """
import pendulum
from airflow.providers.common.compat.sdk import DAG
from airflow_provider_apptoto.operators.apptoto import ApptotoListEventsOperator, ApptotoSendMessageBatchOperator

with DAG(dag_id="calls", schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC")) as dag:
    events = ApptotoListEventsOperator(
        task_id="events", begin="2026-12-01T08:00:00Z", end="2026-12-02T08:00:00Z", states=["initial"]
    )
    ApptotoSendMessageBatchOperator(
        task_id="call", messages=events.output, defaults={"type": "call", "message": "Are you coming?"}
    )
"""
"""A DAG that calls whoever has not confirmed."""
AROUND = {
    "test_who_confirmed_is_not_called": ("from calls import dag\n", ""),
    "test_numbers_without_plus": ("", ""),
    "def clinic(": ("", "\n\ndef test_the_clinic(clinic):\n    assert clinic.messages() == []\n"),
}
"""What the guide leaves to the reader, before and after a block without a file name."""


@pytest.mark.processes
def test_the_tests_of_the_guide_pass_as_they_are_printed(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    for number, block in enumerate(run_by(__name__, "python")):
        before, after = "", ""
        if not block.caption:
            [(before, after)] = [around for part, around in AROUND.items() if part in block.text]
        (tmp_path / (block.caption or f"tests/test_{number}.py")).write_text(f"{before}{block.text}\n{after}")
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "calls.py").write_text(CALLS)
    shutil.copy(CHECKOUT / "example_dags" / "example_apptoto_office_hours.py", tmp_path / "dags")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PYTEST", "COV"))}
    found = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")])),
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={tmp_path}", "tests"]
    done = subprocess.run(command, cwd=tmp_path, env=inherited | found, capture_output=True, text=True, check=False)
    assert re.search(r"^7 passed", done.stdout, re.MULTILINE), done.stdout + done.stderr
    assert sorted(path.name for path in (tmp_path / "tests").glob("*.py")) == [
        *("conftest.py", "test_2.py", "test_3.py", "test_4.py", "test_office_hours.py")
    ]
