"""What Airflow's StatsD metrics show of messages, as a real socket gets it from a run of its own process."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.airflow_runs import HEAD
from tests.conftest import DAGS
from tests.faults import Exchange, FaultServer, accepting, answering

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.contract, pytest.mark.usefixtures("airflow_database")]

LOGIN = "doctor@clinic.example"
API_KEY = "sekret-api-key"
TEXT = "Gwendolyn, your scan was fine"
SENT, REFUSED_ONCE, UNKNOWN, NOT_SENT = (f"+1650555777{digit}" for digit in range(4))
REJECTED = "gwendolyn@patient.example"

TASKS = f"""
text = {{"message": "{TEXT}", "retries": 0}}
send = ApptotoSendMessageOperator(task_id="send", type="sms", to="{SENT}", **text, **occasion)
again = ApptotoSendMessageOperator(task_id="again", type="sms", to="{SENT}", **text, **occasion)
ApptotoSendMessageOperator(task_id="wait", type="call", to="{REFUSED_ONCE}", **text)
ApptotoSendMessageOperator(task_id="lose", type="sms", to="{UNKNOWN}", **text)
ApptotoSendMessageOperator(task_id="off", type="call", to="{NOT_SENT}", **text)
ApptotoSendMessageOperator(task_id="refuse", type="email", subject="News", to="{REJECTED}", **text)
send >> again
"""


class ByRecipient:
    """Accepts, refuses for now, refuses for good or breaks down, by who the message is for."""

    def __init__(self) -> None:
        self._refused = False

    def __call__(self, exchange: Exchange) -> None:
        to = exchange.request.json["to"]
        if to == REFUSED_ONCE and not self._refused:
            self._refused = True
            answering(429, Retry_After="0")(exchange)
        elif to == UNKNOWN:
            answering(500, {"error": f"{to} {TEXT}"}, accepted=True)(exchange)
        elif to == NOT_SENT:
            answering(503, Retry_After="3600")(exchange)
        elif to == REJECTED:
            answering(422, {"error": f"{to} {TEXT}"})(exchange)
        else:
            accepting(exchange)


@contextlib.contextmanager
def statsd(got: list[str]) -> Iterator[int]:
    """Receive datagrams, and give the port; at its end all that were sent have been received."""
    end = b"end"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))

        def receive() -> None:
            while (data := listener.recv(65536)) != end:
                got.append(data.decode())

        thread = threading.Thread(target=receive)
        thread.start()
        port = listener.getsockname()[1]
        try:
            yield port
        finally:
            listener.sendto(end, ("127.0.0.1", port))
            thread.join()


def datagrams(occasion: str, environment: dict[str, str], **extra: Any) -> list[str]:
    """Run the tasks in a process of their own, and return what came over the socket.

    :param occasion: arguments of the two tasks that send the same message, as Python text.
    """
    path = DAGS / "metered.py"
    tasks = textwrap.indent(f"occasion = {occasion}\n{TASKS}", "    ")
    path.write_text(
        HEAD.format(dag_id="metered", arguments="") + tasks + '\nif __name__ == "__main__":\n    dag.test()\n'
    )
    got: list[str] = []
    try:
        with FaultServer([ByRecipient()]) as server, statsd(got) as port:
            connection = {"conn_type": "apptoto", "login": LOGIN, "password": API_KEY, "host": server.url}
            done = subprocess.run(
                [sys.executable, path],
                env=os.environ
                | {
                    "AIRFLOW_CONN_APPTOTO_DEFAULT": json.dumps(
                        {**connection, "extra": {"requests_per_minute": 6000, **extra}}
                    ),
                    "AIRFLOW__METRICS__STATSD_ON": "True",
                    "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
                    "AIRFLOW__METRICS__STATSD_PORT": str(port),
                }
                | environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
    finally:
        path.unlink()
    assert [line for line in got if "apptoto" in line], done.stdout
    return got


def test_metrics_show_messages_requests_waits_and_what_is_unresolved_but_no_person(tmp_path: Path) -> None:
    state = {"conn_type": "sqlite", "host": str(tmp_path / "state.db")}
    got = datagrams(
        '{"idempotency_key": "scan-of-gwendolyn"}',
        {"AIRFLOW_CONN_STATE": json.dumps(state), "AIRFLOW__METRICS__STATSD_INFLUXDB_ENABLED": "True"},
        state_conn_id="state",
    )
    ours = [line.removeprefix("airflow.") for line in got if "apptoto" in line]
    counted = sorted(line for line in ours if line.endswith("|c"))
    assert counted == [
        "apptoto.messages,channel=call,outcome=not_sent:1|c",
        "apptoto.messages,channel=call,outcome=sent:1|c",
        "apptoto.messages,channel=email,outcome=rejected:1|c",
        "apptoto.messages,channel=sms,outcome=deduplicated:1|c",
        "apptoto.messages,channel=sms,outcome=sent:1|c",
        "apptoto.messages,channel=sms,outcome=unknown:1|c",
        "apptoto.rate_limited:1|c",
    ]
    assert [line for line in ours if line.endswith("|g")] == ["apptoto.ledger.unknown:1|g"]
    timed = sorted(line.rpartition(":")[0] for line in ours if line.endswith("|ms"))
    assert timed == [
        *["apptoto.pace.wait"] * 6,
        *["apptoto.request.duration,status=2xx"] * 2,
        "apptoto.request.duration,status=4xx",
        *["apptoto.request.duration,status=5xx"] * 2,
    ]
    assert len(ours) == len(counted) + len(timed) + 1
    everything = "\n".join(got)
    for secret in (SENT, REFUSED_ONCE, UNKNOWN, NOT_SENT, REJECTED, TEXT, LOGIN, API_KEY):
        assert secret not in everything
    for secret in ("1650555777", "wendolyn", "scan was", "clinic", "manual__", "metered"):
        assert secret not in "\n".join(ours)


def test_without_tags_and_state_database_the_plain_names_count() -> None:
    got = datagrams("{}", {})
    ours = [line.removeprefix("airflow.") for line in got if "apptoto" in line]
    assert sorted(line for line in ours if not line.endswith("|ms")) == [
        *["apptoto.messages:1|c"] * 6,
        "apptoto.rate_limited:1|c",
    ]
    assert {line.partition(":")[0] for line in ours if line.endswith("|ms")} == {
        "apptoto.pace.wait",
        "apptoto.request.duration",
    }
