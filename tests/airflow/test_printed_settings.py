"""The settings that the documentation prints mean what its pages say: variables of a shell, and configuration files."""

from __future__ import annotations

import itertools
import json
import subprocess
from configparser import ConfigParser
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import conf

from airflow_provider_apptoto.client import ApptotoConfigurationError
from airflow_provider_apptoto.configuration import keep_days, outbox_conn_ids
from airflow_provider_apptoto.hooks._state import ledger_secret
from airflow_provider_apptoto.hooks.apptoto import ApptotoHook
from airflow_provider_apptoto.outbox.engine import database_url
from tests.support.printed import blocks
from tests.support.printed_runs import run_by

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.support.printed import Printed

pytestmark = [pytest.mark.contract, pytest.mark.usefixtures("airflow_database")]

BLOCKS = [list(found) for _, found in itertools.groupby(run_by(__name__, "sh"), key=str)]
FILES = run_by(__name__, "ini")
BEFORE = {
    "apptoto_default": {"conn_type": "apptoto", "login": "clinic@clinic.example", "password": "sekret-api-key"},
    "apptoto_state": {"conn_type": "sqlite", "host": "/nowhere/state.db"},
}
SQLITE = "sqlite:////nowhere/state.db"
POSTGRESQL = "postgresql+psycopg2://apptoto:...@db.clinic.example/airflow_state?sslmode=verify-full"
CLINIC = {"login": "name@clinic.example", "api_key": "YOUR-API-KEY", "base_url": "https://api.apptoto.com/v1"}
REDIRECT = {"mode": "redirect", "redirect_phone_to": "+16505550100"}
MEANINGS: list[dict[str, Any]] = [
    # connection.rst
    {**CLINIC, **REDIRECT, "default_region": "US"},
    {**CLINIC, "default_region": "US"},
    {"login": "sandbox@example.com", "base_url": "http://127.0.0.1:8025/v1", "is_sandbox": True},
    {"used": SQLITE},
    {"used": SQLITE, "default_region": "US"},
    {"stored": "sqlite:////var/lib/airflow/apptoto-state.db", "used": None},
    {"stored": POSTGRESQL, "used": None},
    {**CLINIC, "used": POSTGRESQL},
    # many-machines.rst
    {"stored": POSTGRESQL, "used": None},
    {"used": POSTGRESQL},
    # privacy.rst
    {"secrets": 0},
    {"secrets": 1},
    # staging.rst
    {"mode": "dry_run"},
    {"mode": "redirect"},
    REDIRECT,
    {**REDIRECT, "redirect_email_to": "staging@clinic.example"},
]
"""What is set after each command."""
FILE_MEANINGS: list[dict[str, Any]] = [
    {"used": SQLITE, "default_region": "US", "allowed_regions": ("US", "CA"), "requests_per_minute": 60},
    {"mode": "dry_run"},
    {"outbox_conn_ids": ["apptoto_north", "apptoto_south"]},
    {"keep_days": 400},
]


@pytest.fixture(autouse=True)
def connections(monkeypatch: pytest.MonkeyPatch) -> None:
    for conn_id, fields in BEFORE.items():
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(fields))


def settings() -> dict[str, Any]:
    """Return what is read from the connections and the configuration."""
    hook = ApptotoHook()
    found, database = hook._settings, hook.state_database
    urls = {
        "stored": database_url(hook.get_connection("apptoto_state")),
        "used": None if database is None else database._url,
    }
    return {
        **{name: getattr(found, name) for name in found.__slots__},
        **{name: url and url.render_as_string(hide_password=False) for name, url in urls.items()},
        "mode": hook.get_conn().mode.value,
        "keep_days": keep_days(),
        "outbox_conn_ids": outbox_conn_ids(),
        "secrets": len(ledger_secret().values),
    }


def check(meaning: Mapping[str, Any]) -> None:
    found = settings()
    assert {name: found[name] for name in meaning} == meaning


def shell(script: str) -> tuple[str, dict[str, str]]:
    """Run a script, and return what it printed, and the variables afterwards."""
    command = ["bash", "-euo", "pipefail", "-c", f"{script}\nprintf '\\0'; env -0"]
    printed, *variables = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
    return printed.strip(), dict(variable.split("=", 1) for variable in variables if "=" in variable)


def test_each_command_has_a_meaning() -> None:
    assert len(MEANINGS) == sum(map(len, BLOCKS))
    assert len(FILE_MEANINGS) == len(FILES)


@pytest.mark.parametrize("number", range(len(BLOCKS)), ids=lambda number: str(BLOCKS[number][0]))
def test_variables_of_a_shell_mean_what_the_page_says(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    first, script = sum(map(len, BLOCKS[:number])), ""
    for command, meaning in zip(BLOCKS[number], MEANINGS[first:], strict=False):
        printed, _ = shell(script)
        script += f"{command.text.replace('THE-SECRET', printed)}\n"
        for name, value in shell(script)[1].items():
            monkeypatch.setenv(name, value)
        check(meaning)


@pytest.mark.parametrize(("printed", "meaning"), list(zip(FILES, FILE_MEANINGS, strict=True)), ids=str)
def test_a_file_means_what_the_page_says(printed: Printed, meaning: dict[str, Any]) -> None:
    file = ConfigParser()
    file.read_string(printed.text)
    has_section = conf.has_section("apptoto")
    try:
        if not has_section:
            conf.add_section("apptoto")
        for name, value in file.items("apptoto"):
            ConfigParser.set(conf, "apptoto", name, value)  # as a file does
        check(meaning)
    finally:
        for name in file.options("apptoto"):
            ConfigParser.remove_option(conf, "apptoto", name)
        if not has_section:
            conf.remove_section("apptoto")


def test_a_wrong_option_is_refused_as_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    [says] = [block.text for block in blocks() if block.text.startswith("AIRFLOW__APPTOTO__TIMEOUT: ")]
    monkeypatch.setenv("AIRFLOW__APPTOTO__TIMEOUT", "soon")
    with pytest.raises(ApptotoConfigurationError) as raised:
        settings()
    assert str(raised.value).startswith(says)


def test_the_log_names_the_mode_as_printed(monkeypatch: pytest.MonkeyPatch, provider_log: list[str]) -> None:
    [says] = [block.text for block in blocks() if block.text.startswith("Delivery mode: ")]
    monkeypatch.setattr("airflow_provider_apptoto.hooks._state._told", set())
    monkeypatch.setenv("AIRFLOW__APPTOTO__DELIVERY_MODE", "dry_run")
    settings()
    assert says in provider_log
