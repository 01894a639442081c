"""While a sandbox is set, every connection uses it, and nobody outside gets a message."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import Connection

from airflow_provider_apptoto.client import ApptotoConfigurationError
from airflow_provider_apptoto.connection import ConnectionSettings
from airflow_provider_apptoto.hooks.apptoto import ApptotoHook
from airflow_provider_apptoto.sandbox import Sandbox
from tests.support import airflow_home
from tests.support.faults import FaultServer

pytestmark = pytest.mark.contract

DAG = """
import pendulum
from airflow.providers.common.compat.sdk import DAG
from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageOperator

with DAG(dag_id="rehearsed", schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC")):
    for conn_id in ("apptoto_default", "clinic", "nowhere"):
        ApptotoSendMessageOperator(
            task_id=conn_id, apptoto_conn_id=conn_id, type="sms", to="+16505550199", message="Hi", max_age=None
        )
"""


def test_a_dag_that_is_rehearsed_reaches_nobody_whatever_connections_and_secrets_backend_say(tmp_path: Path) -> None:
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "rehearsed.py").write_text(DAG)
    airflow_home.copy_database(tmp_path)
    with FaultServer() as production:
        account = {"conn_type": "apptoto", "login": "clinic@clinic.example", "password": "key", "host": production.url}
        secrets = tmp_path / "connections.json"
        secrets.write_text(json.dumps({"apptoto_default": account, "clinic": account}))
        environment = {
            "AIRFLOW_HOME": str(tmp_path),
            "AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path / "dags"),
            "AIRFLOW__SECRETS__BACKEND": "airflow.secrets.local_filesystem.LocalFilesystemBackend",
            "AIRFLOW__SECRETS__BACKEND_KWARGS": json.dumps({"connections_file_path": str(secrets)}),
            "AIRFLOW_CONN_CLINIC": json.dumps(account),
        }
        airflow = str(Path(sys.executable).with_name("airflow"))
        command = [sys.executable, "-m", "airflow_provider_apptoto.sandbox", "--", airflow, "dags", "test", "rehearsed"]
        done = subprocess.run(
            command, env={**os.environ, **environment}, capture_output=True, text=True, check=False, cwd=tmp_path
        )
        assert (production.connections, done.returncode) == (0, 0), done.stdout + done.stderr
    assert re.search(r"What each person got \(3 messages\):\n\n\+16505550199\n", done.stdout)


@pytest.fixture
def production(connection: Callable[..., None]) -> FaultServer:
    """Provide the server of a connection, which must not receive anything."""
    connection("http://127.0.0.1:9", default_region="US")
    return FaultServer()


def test_the_fields_of_a_connection_hold_and_its_account_does_not(
    production: FaultServer, monkeypatch: pytest.MonkeyPatch, provider_log: list[str]
) -> None:
    del production
    with Sandbox(login="a@b.example", api_key="it's/") as sandbox:
        monkeypatch.setenv("APPTOTO_SANDBOX_URL", sandbox.account_url)
        sent = ApptotoHook().send_message(type="sms", to="650-555-0199", message="Hi")
        assert ApptotoHook("nowhere").test_connection()[0]
        [message] = sandbox.messages()
    assert (sent.outcome, message["to"]) == ("sent", "+16505550199")
    assert any("all connections use the sandbox at http://127.0.0.1:" in line for line in provider_log)
    assert not any("it's" in line for line in provider_log)


def send_as_a_task(conn_id: str) -> None:
    ids = {"dag_id": "remind", "task_id": "text", "run_id": "manual__1", "map_index": -1, "try_number": 2}
    context = {"ti": SimpleNamespace(**ids, max_tries=1, state="success"), "task": SimpleNamespace(retries=1)}
    ApptotoHook(conn_id).outbox(context, max_age=None).send(type="sms", to="+16505550199", message="Hi")


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Provide the connection ``state`` to a state database."""
    monkeypatch.setenv("AIRFLOW_CONN_STATE", json.dumps({"conn_type": "sqlite", "host": str(tmp_path / "state.db")}))


@pytest.mark.usefixtures("airflow_database", "state")
@pytest.mark.parametrize("way", ["everything", "one connection"])
def test_a_sandbox_shows_which_task_sent_a_message(
    connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    with Sandbox(login="a@b.example") if way == "everything" else Sandbox() as sandbox:
        connection(sandbox.url, login=sandbox.login, password=sandbox.api_key, state_conn_id="state")
        if way == "everything":
            monkeypatch.setenv("APPTOTO_SANDBOX_URL", sandbox.account_url)
        send_as_a_task("apptoto_default")
        [message] = sandbox.messages()
    sender = [message[name] for name in ("origin", "dag_id", "run_id", "task_id", "map_index", "try_number")]
    assert sender == ["callback:success", "remind", "manual__1", "text", -1, 2]


@pytest.mark.usefixtures("airflow_database", "state")
def test_an_account_that_is_no_sandbox_does_not_learn_which_task_sends(connection: Callable[..., None]) -> None:
    with FaultServer() as service:
        connection(service.url, state_conn_id="state")
        send_as_a_task("apptoto_default")
        [request] = service.accepted
    assert "remind" not in str(request)


@pytest.mark.parametrize(
    ("account", "is_sandbox"),
    [
        ({"login": "sandbox@example.com", "host": "http://127.0.0.1:8025"}, True),
        ({"login": "sandbox@example.com", "host": "http://127.0.0.1", "port": 8025}, True),
        ({"login": "sandbox@example.com"}, False),
        ({"login": "sandbox@example.com", "host": "https://127.0.0.1:8025"}, False),
        ({"login": "clinic@clinic.example", "host": "http://127.0.0.1:8025"}, False),
        ({"login": "clinic@clinic.example"}, False),
    ],
)
def test_only_loopback_with_the_login_of_a_sandbox_is_a_sandbox(account: dict[str, Any], is_sandbox: bool) -> None:
    connection = Connection(conn_id="clinic", conn_type="apptoto", password="key", **account)
    assert ConnectionSettings.read(connection, {}).is_sandbox is is_sandbox


@pytest.mark.parametrize(
    "url",
    [
        "",
        " ",
        "http://127.0.0.1:8025",
        "http://a:b@127.0.0.1",
        "http://a:b@127.0.0.1:port",
        "http://a:b@[::1:8025",
        "http://a:b@localhost:8025",
        "http://a:b@127.0.0.1.example:8025",
        "http://a:b@127.0.0.1:80@api.apptoto.com:443",
        "https://a:b@api.apptoto.com:443",
        "a:b@127.0.0.1:8025",
    ],
)
@pytest.mark.usefixtures("production")
def test_what_names_no_sandbox_sends_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPTOTO_SANDBOX_URL", url)
    with pytest.raises(ApptotoConfigurationError, match="APPTOTO_SANDBOX_URL: is not a sandbox URL like"):
        ApptotoHook().get_conn()
