"""A mistyped option of ``[apptoto]`` is an error, and options of other sections are ignored."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from airflow_provider_apptoto.client import ApptotoConfigurationError
from airflow_provider_apptoto.configuration import connection_defaults, option

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.contract


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("AIRFLOW__APPTOTO__TIME_OUT", "did you mean AIRFLOW__APPTOTO__TIMEOUT?"),
        ("AIRFLOW__APPTOTO__STATE_CONN", "did you mean AIRFLOW__APPTOTO__STATE_CONN_ID?"),
        ("AIRFLOW_APPTOTO_HOST", "did you mean AIRFLOW__APPTOTO__HOST?"),
        ("AIRFLOW__APTOTO__STATE_CONN_ID", "did you mean AIRFLOW__APPTOTO__STATE_CONN_ID?"),
        ("AIRFLOW__APPTOTTO__CA_BUNDLE", "did you mean AIRFLOW__APPTOTO__CA_BUNDLE?"),
        ("airflow__apptoto__allowed_regions", "did you mean AIRFLOW__APPTOTO__ALLOWED_REGIONS?"),
        ("AIRFLOW__APPTOTO__LOGIN", "valid names: AIRFLOW__APPTOTO__DELIVERY_MODE, AIRFLOW__APPTOTO__HOST, "),
        ("AIRFLOW__APPTOTO__PASSWORD", "valid names: "),
        ("AIRFLOW__APPTOTO__MODE", "valid names: "),
        ("AIRFLOW_VAR_APPTOTO_DELIVERY_MODE", "did you mean AIRFLOW__APPTOTO__DELIVERY_MODE?"),
    ],
)
def test_a_mistyped_variable_is_an_error_that_names_what_is_meant(
    variable: str, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "30")
    for _ in range(2):
        with pytest.raises(ApptotoConfigurationError) as raised:
            connection_defaults()
        assert str(raised.value).startswith(f"{variable}: is unknown; {meant}")


@pytest.mark.parametrize(
    "variable",
    [
        "AIRFLOW_CONN_APPTOTO_STATE",
        "AIRFLOW_CONN_APPTOTO_TIMEOUT",
        "AIRFLOW_VAR_APPTOTO_TIMEOUT",
        "AIRFLOW_VAR_APPTOTO_STATE_CONN_ID",
        "AIRFLOW__API__HOST",
        "AIRFLOW__APP__TIMEOUT",
        "AIRFLOW__APPFLOW__CONNECT_TIMEOUT",
        "AIRFLOW__ATLAS__HOST",
        "AIRFLOW__IMAP__REQUESTS_PER_MINUTE",
        "AIRFLOW__AUTO__STATE_CONN_ID",
        "AIRFLOW__PINOT__DEFAULT_REGION",
    ],
)
def test_what_others_call_alike_is_no_error(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "30")
    assert connection_defaults() == {}


def test_a_change_of_the_environment_is_noticed_by_the_next_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert connection_defaults() == {}
    monkeypatch.setenv("AIRFLOW__APPTOTO__TIMEOUT", "30")
    assert connection_defaults() == {"timeout": ("30", "AIRFLOW__APPTOTO__TIMEOUT")}
    monkeypatch.setenv("AIRFLOW__APPTOTO__TIMEOUT", "40")
    assert connection_defaults() == {"timeout": ("40", "AIRFLOW__APPTOTO__TIMEOUT")}
    monkeypatch.setenv("AIRFLOW__APPTOTO__DELIVERYMODE", "dry_run")
    for read in (connection_defaults, lambda: option("ledger_secret")):
        with pytest.raises(ApptotoConfigurationError):
            read()
    monkeypatch.delenv("AIRFLOW__APPTOTO__DELIVERYMODE")
    monkeypatch.delenv("AIRFLOW__APPTOTO__TIMEOUT")
    assert connection_defaults() == {}


def ask(question: str, folder: Path, **environment: str) -> str:
    """Ask a new process with a separate Airflow home, and return what it prints after ``answer:``."""
    done = subprocess.run(
        [sys.executable, "-c", f"from airflow_provider_apptoto.configuration import *\n{question}"],
        env={**os.environ, "AIRFLOW_HOME": str(folder), **environment},
        check=False,
        capture_output=True,
        text=True,
    )
    # Airflow 3.1 also logs to these streams
    [answer] = re.findall(r"answer: (.*)", done.stdout + done.stderr)
    return str(answer)


def test_a_file_sets_defaults_under_the_names_of_the_fields(tmp_path: Path) -> None:
    (tmp_path / "airflow.cfg").write_text("[apptoto]\nstate_conn_id = apptoto_state\ntimeout = 30\n")
    printed = ask("print('answer:', connection_defaults())", tmp_path, AIRFLOW__APPTOTO__TIMEOUT="40")
    expected = {
        "timeout": ("40", "AIRFLOW__APPTOTO__TIMEOUT"),
        "state_conn_id": ("apptoto_state", "[apptoto] state_conn_id"),
    }
    assert printed == str(expected)


def test_a_value_that_the_file_does_not_allow_is_named_and_not_shown(tmp_path: Path) -> None:
    (tmp_path / "airflow.cfg").write_text("[apptoto]\nredirect_email_to = somebody%@clinic.example\n")
    question = "try: connection_defaults()\nexcept Exception as error: print('answer:', error, error.__context__)"
    says = "[apptoto] redirect_email_to: can't be read; in a configuration file, write % as %%"
    assert ask(question, tmp_path) == f"{says} None"
