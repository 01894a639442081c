"""A real API server, under a base path, serves the page and its data (Airflow 3.1 and newer)."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest
import requests
from sqlalchemy.engine import URL

from airflow_provider_apptoto.outbox.database import StateDatabase
from tests.support import airflow_home
from tests.support.entries import filled
from tests.support.standalone import DEADLINE, free_ports, is_listening, running, settings, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.contract, pytest.mark.processes]

UNKNOWN_KEY, ABANDONED_KEY = "5" * 32, "6" * 32


@pytest.fixture(scope="module")
def server(dags: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:  # noqa: ARG001  it is needed
    """Run an API server, and yield its base URL."""
    home = tmp_path_factory.mktemp("server")
    [port] = free_ports(1)
    base = f"http://127.0.0.1:{port}/airflow"
    environment = {
        **settings(home, port),
        "AIRFLOW__API__BASE_URL": base,
        "AIRFLOW_CONN_APPTOTO_DEFAULT": json.dumps(
            {
                "conn_type": "apptoto",
                "login": "a@clinic.example",
                "password": "sekret",
                "extra": {"state_conn_id": "st"},
            }
        ),
        "AIRFLOW_CONN_ST": json.dumps({"conn_type": "sqlite", "host": str(home / "state.db")}),
    }
    with (
        contextlib.closing(sqlite3.connect(airflow_home.HOME / "airflow.db")) as source,
        contextlib.closing(sqlite3.connect(home / "airflow.db")) as copy,
    ):
        source.backup(copy)  # a copy of the file would lack what is in its log
    database = StateDatabase(URL.create("sqlite", database=str(home / "state.db")))
    filled(database)
    database._engine.dispose()
    with running("api-server", home, environment):
        wait_for(lambda: is_listening(port), home)
        yield base


@pytest.fixture(scope="module")
def user(server: str) -> requests.Session:
    """Provide the session of somebody who is logged in."""
    session = requests.Session()
    token = session.get(f"{server}/auth/token", timeout=DEADLINE).json()["access_token"]
    session.headers["Authorization"] = f"Bearer {token}"
    return session


def keys(answer: requests.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    rows: list[dict[str, Any]] = answer.json()["rows"]
    return [row["key"] for row in rows]


def test_the_page_is_in_the_menu_and_is_served_without_data(server: str, user: requests.Session) -> None:
    plugins = user.get(f"{server}/api/v2/plugins", timeout=DEADLINE).json()["plugins"]
    [view] = [view for plugin in plugins if plugin["name"] == "apptoto" for view in plugin["external_views"]]
    page = requests.get(f"{server}/{view['href']}", timeout=DEADLINE)
    assert page.status_code == 200
    assert "<title>Apptoto outbox</title>" in page.text
    assert requests.get(f"{server}/{view['icon']}", timeout=DEADLINE).headers["content-type"] == "image/svg+xml"


def test_the_link_of_a_task_keeps_the_base_path(server: str, user: requests.Session) -> None:
    answer = user.get(f"{server}/apptoto/go?dag=clinic", allow_redirects=False, timeout=DEADLINE)
    assert answer.headers["location"] == "/airflow/plugin/apptoto-outbox/airflow/apptoto/outbox?dag=clinic"


def test_messages_are_listed_exported_and_resolved(server: str, user: requests.Session) -> None:
    api = f"{server}/apptoto/api"
    assert keys(user.get(f"{api}/open", timeout=DEADLINE)) == [ABANDONED_KEY, UNKNOWN_KEY]
    assert len(keys(user.get(f"{api}/messages?dag=clinic&run=monday", timeout=DEADLINE))) == 7
    assert len(keys(user.post(f"{api}/search", json={"text": "4711"}, timeout=DEADLINE))) == 7
    assert len(user.post(f"{api}/export", json={}, timeout=DEADLINE).text.splitlines()) == 8
    body = {"keys": [UNKNOWN_KEY], "note": "seen", "outcome": "sent"}
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "same-site"}):
        refused = user.post(f"{api}/dags/clinic/resolve", json=body, headers=headers, timeout=DEADLINE)
        assert refused.status_code == 403
    own = {"Origin": server.removesuffix("/airflow")}
    assert keys(user.post(f"{api}/dags/clinic/resolve", json=body, headers=own, timeout=DEADLINE)) == [UNKNOWN_KEY]
    assert keys(user.get(f"{api}/open", timeout=DEADLINE)) == [ABANDONED_KEY]
