"""Airflow's API server with the outbox page, a DAG that has run, and a state database to fill."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests
from sqlalchemy import delete, insert, select
from sqlalchemy.engine import URL

from airflow_provider_apptoto.outbox.database import StateDatabase
from airflow_provider_apptoto.outbox.ledger import recipient_hash
from airflow_provider_apptoto.outbox.schema import changes, ledger, optouts
from airflow_provider_apptoto.outbox.stores.sql import values_of
from airflow_provider_apptoto.sandbox import Sandbox
from tests.support.airflow_home import copy_database
from tests.support.standalone import DEADLINE, free_ports, process_environment, running, settings, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow_provider_apptoto.outbox.entry import Entry

USERS = {"ann": "admin", "vic": "viewer"}
"""Names and roles; each name is the password too."""
DAGS = """\
from airflow.sdk import DAG

from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageOperator

for dag_id in ("clinic_reminders", "lab_results"):
    with DAG(dag_id, schedule=None) as dag:
        ApptotoSendMessageOperator(
            task_id="remind", type="sms", to="+16505550142", message="Hi Mary", reference="4711"
        )
    globals()[dag_id] = dag
"""
"""The first one has run, and its message was sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxServer:
    """A running API server.

    :param root: its URL without a base path.
    :param base: its base path.
    :param database: the state database of ``apptoto_default``.
    :param sent: the entry of the message that the DAG sent.
    """

    home: Path
    root: str
    base: str
    database: StateDatabase
    sent: dict[str, Any]

    @property
    def url(self) -> str:
        """The URL of Airflow."""
        return f"{self.root}{self.base}"

    @property
    def log(self) -> str:
        """What the server has logged."""
        return (self.home / "api-server.log").read_text()

    def fill(self, entries: Sequence[Entry], *, keep_sent: bool = False) -> None:
        """Replace all entries, changes and opt-outs.

        :param keep_sent: whether to add the entry of the message that the DAG sent.
        """
        rows = [values_of(each) for each in entries] + ([self.sent] if keep_sent else [])
        with self.database.transaction() as connection:
            for table in (ledger, changes, optouts):
                connection.execute(delete(table))
            if rows:
                connection.execute(insert(ledger), rows)

    def states(self) -> dict[str, str]:
        """Return the state of each message, by reference."""
        with self.database.transaction() as connection:
            return {row.reference: row.state for row in connection.execute(select(ledger.c.reference, ledger.c.state))}

    def hash_of(self, recipient: str) -> str | None:
        """Return what an entry stores of a recipient."""
        return recipient_hash(self.database.salt(), recipient)

    def token(self, user: str, kind: str = "") -> str:
        """Log in.

        :param kind: ``/cli`` for a token that expires after a second.
        """
        body = {"username": user, "password": user}
        answer = requests.post(f"{self.url}/auth/token{kind}", json=body, timeout=DEADLINE)
        answer.raise_for_status()
        return str(answer.json()["access_token"])

    def set_state_connection(self, **fields: object) -> None:
        """Change the connection of the state database."""
        answer = requests.patch(
            f"{self.url}/api/v2/connections/state",
            json={"connection_id": "state", **fields},
            headers={"Authorization": f"Bearer {self.token('ann')}"},
            timeout=DEADLINE,
        )
        answer.raise_for_status()

    def restore_state_connection(self) -> None:
        """Undo :meth:`set_state_connection`."""
        self.set_state_connection(conn_type="sqlite", host=str(self.home / "state.db"), port=None)


@contextlib.contextmanager
def serving(home: Path, base: str = "") -> Iterator[OutboxServer]:
    """Run an API server.

    :param home: an empty folder.
    :param base: its base path, such as ``/airflow``.
    """
    [port] = free_ports(1)
    root = f"http://127.0.0.1:{port}"
    environment = {**settings(home, port), **_own_settings(home), "AIRFLOW__API__BASE_URL": f"{root}{base}"}
    copy_database(home)
    (home / "dags" / "clinic.py").write_text(DAGS)
    (home / "passwords.json").write_text(json.dumps({name: name for name in USERS}))
    database = StateDatabase(URL.create("sqlite", database=str(home / "state.db")))
    try:
        with running("api-server", home, environment):
            _run_dag(home, environment)
            with database.transaction() as connection:
                sent = dict(connection.execute(select(ledger)).mappings().one())
            wait_for(lambda: _answers(f"{root}{base}/api/v2/version"), home)
            yield OutboxServer(home=home, root=root, base=base, database=database, sent=sent)
    finally:
        database._engine.dispose()


def _own_settings(home: Path) -> dict[str, str]:
    account = {"conn_type": "apptoto", "login": "clinic@clinic.example", "password": "sekret-api-key"}
    return {
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{name}:{role}" for name, role in USERS.items()),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
        "AIRFLOW__API_AUTH__JWT_SECRET": "k" * 64,
        "AIRFLOW__API_AUTH__JWT_CLI_EXPIRATION_TIME": "1",
        "AIRFLOW__API_AUTH__JWT_LEEWAY": "0",
        "AIRFLOW_CONN_APPTOTO_DEFAULT": json.dumps({**account, "extra": {"state_conn_id": "state"}}),
    }


def _run_dag(home: Path, environment: dict[str, str]) -> None:
    with Sandbox() as sandbox:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "tests.support.airflow_commands"),
                f"connections add state --conn-type sqlite --conn-host {home / 'state.db'}",
                "dags reserialize",
                "dags test clinic_reminders",
            ],
            env={**process_environment(environment), "APPTOTO_SANDBOX_URL": sandbox.account_url},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout


def _answers(url: str) -> bool:
    with contextlib.suppress(requests.ConnectionError):
        return requests.get(url, timeout=DEADLINE).ok
    return False
