"""A dry run of a batch says in its report and its log what a live run would do, in a DAG that Airflow runs."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageBatchOperator
from tests.support.dag_runs import run_dag
from tests.support.faults import FaultServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.contract, pytest.mark.usefixtures("airflow_database", "quick_retries")]

PHONE, CANADIAN, OPTED_OUT, ADDRESS = "+16505550199", "+14165550123", "+16505550198", "mary@clinic.com"
NAME = "Zoraida"


@pytest.fixture
def server(connection: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultServer]:
    """Provide the server of a connection with a state database."""
    monkeypatch.setenv("AIRFLOW_CONN_STATE", json.dumps({"conn_type": "sqlite", "host": str(tmp_path / "state.db")}))
    with FaultServer() as server:
        connection(server.url, state_conn_id="state", delivery_mode="dry_run")
        yield server


def zone_at(hour: int, moment: dt.datetime) -> str:
    """Return a zone in which a moment has this hour. POSIX signs are reversed: Etc/GMT+5 is UTC-5."""
    ahead = (hour - moment.hour + 11) % 24 - 11
    return "Etc/GMT" if ahead == 0 else f"Etc/GMT{-ahead:+d}"


def test_a_dry_run_says_what_a_live_run_would_do(server: FaultServer, provider_log: list[str]) -> None:
    hour = dt.datetime.now(dt.UTC).replace(minute=0, second=0, microsecond=0)
    noon, afternoon, later = (zone_at(at, hour) for at in (12, 15, 16))
    rows: list[dict[str, Any]] = [
        {"message": f"á{'x' * 70} {NAME}"},
        {"to": CANADIAN, "clinic": "south"},
        {},
        {},  # the third to this number
        {"to": CANADIAN, "clinic": "south", "zone": afternoon},
        {"to": CANADIAN, "clinic": "south", "zone": later},
        {"to": CANADIAN, "until": "2026-01-01T00:00Z"},
        {"to": OPTED_OUT},
        {"to": "12"},
        {"to": ADDRESS, "type": "email", "clinic": None},
    ]
    usual = {"type": "sms", "to": PHONE, "message": f"Hi {NAME}", "clinic": "north", "zone": noon, "until": None}
    given = [{**usual, "id": index, **row} for index, row in enumerate(rows)]
    run = run_dag(
        lambda: ApptotoSendMessageBatchOperator(
            task_id="send",
            messages=given,
            suppression=[OPTED_OUT],
            id_column="id",
            label_columns=["clinic"],
            timezone_column="zone",
            not_after_column="until",
            send_window="11:00-14:00",
            at_most="2/day",
            on_invalid="send_others",
            max_failed=1,
            concurrency=1,
        )
    )["send"]
    assert (run.state, server.requests) == ("success", [])
    counts = {name: count for name, count in run.xcom.items() if isinstance(count, int) and count}
    assert counts == {"total": 10, "dry_run": 4, "held": 2, "capped": 1, "too_old": 1, "suppressed": 1, "invalid": 1}
    # the next 11:00 where it is 16:00 and 15:00
    openings = [f"{hour + dt.timedelta(hours=hours):%Y-%m-%dT%H:%MZ}" for hours in (19, 20)]
    assert run.xcom["rehearsal"] == {
        "segments": 6,
        "unknown_length": 0,
        "held_until": dict(zip(("first", "last"), openings, strict=True)),
        "by_country": {
            "CA": {"dry_run": 1, "held": 2, "capped": 0, "too_old": 1, "segments": 3},
            "US": {"dry_run": 2, "held": 0, "capped": 1, "too_old": 0, "segments": 3},
            "email": {"dry_run": 1, "held": 0, "capped": 0, "too_old": 0, "segments": 0},
        },
        "by_label": {
            "clinic": {
                "north": {"dry_run": 2, "held": 0, "capped": 1, "too_old": 1, "segments": 3},
                "south": {"dry_run": 1, "held": 2, "capped": 0, "too_old": 0, "segments": 3},
                "(none)": {"dry_run": 1, "held": 0, "capped": 0, "too_old": 0, "segments": 0},
            }
        },
        "ucs_2": {
            "messages": 1,
            "segments": 2,
            "extra_segments": 1,
            "characters": {"á U+00E1 LATIN SMALL LETTER A WITH ACUTE": 1},
            "other_characters": 0,
        },
    }
    [table] = [line for line in provider_log if line.startswith("Rehearsal of a live run; nothing was sent:\n")]
    lines = [line.split() for line in table.splitlines()]
    assert ["CA", "1", "2", "0", "1", "3"] in lines
    assert f"Held until {openings[0]} (first opening) to {openings[1]} (last opening)" in table
    for shown in (json.dumps(run.xcom["rehearsal"]), table):
        assert not any(private in shown for private in (NAME, PHONE[-4:], CANADIAN[-4:], ADDRESS))


@pytest.mark.parametrize("mode", ["live", "dry_run"])
def test_only_a_dry_run_is_a_rehearsal(
    server: FaultServer, connection: Callable[..., None], provider_log: list[str], mode: str
) -> None:
    connection(server.url, state_conn_id="state", delivery_mode=mode)
    messages = [{"type": "sms", "to": PHONE, "message": "Hi"}]
    run = run_dag(lambda: ApptotoSendMessageBatchOperator(task_id="send", messages=messages))["send"]
    is_logged = any(line.startswith("Rehearsal") for line in provider_log)
    assert (run.state, "rehearsal" in run.xcom, is_logged) == ("success", mode == "dry_run", mode == "dry_run")
