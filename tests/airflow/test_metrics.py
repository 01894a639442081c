"""Airflow emits the documented StatsD metrics, as a real socket receives them from another process."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import metered_dag
from tests.support.faults import Exchange, FaultServer, accepting, answering
from tests.support.metered_dag import NOT_SENT, REFUSED_ONCE, REJECTED, SENT, TEXT, UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.contract, pytest.mark.usefixtures("airflow_database")]

LOGIN = "doctor@clinic.example"
API_KEY = "sekret-api-key"
CONNECTION = "conn_id=apptoto_default"


class ByRecipient:
    """Accepts, asks for a retry, rejects or fails, depending on the recipient."""

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
    """Receive datagrams, and yield the port; on exit, all sent datagrams have been received."""
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


@dataclass
class Emitted:
    """The metrics received on the sockets.

    :param tagged: from the run of the DAG, with tags.
    :param plain: from a process without tags.
    """

    tagged: list[str]
    plain: list[str]


@pytest.fixture(scope="module")
def emitted(airflow_database: None, tmp_path_factory: pytest.TempPathFactory) -> Emitted:  # noqa: ARG001  is there
    """Run the program in a separate process whose Airflow emits metrics."""
    emitted = Emitted([], [])
    path = Path(metered_dag.__file__)
    state = {"conn_type": "sqlite", "host": str(tmp_path_factory.mktemp("metrics") / "state.db")}
    extra = {"requests_per_minute": 6000, "state_conn_id": "metrics_state"}  # of no other test: it is pinned
    with (
        FaultServer([ByRecipient()]) as server,
        statsd(emitted.tagged) as port,
        statsd(emitted.plain) as plain_port,
    ):
        account = {"conn_type": "apptoto", "login": LOGIN, "password": API_KEY, "host": server.url, "extra": extra}
        done = subprocess.run(
            [sys.executable, path, str(plain_port)],
            env=os.environ
            | {
                "AIRFLOW_CONN_APPTOTO_DEFAULT": json.dumps(account),
                "AIRFLOW_CONN_METRICS_STATE": json.dumps(state),
                "AIRFLOW__CORE__DAGS_FOLDER": str(path.parent),
                "AIRFLOW__METRICS__STATSD_ON": "True",
                "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
                "AIRFLOW__METRICS__STATSD_PORT": str(port),
                "AIRFLOW__METRICS__STATSD_INFLUXDB_ENABLED": "True",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout
    assert ours(emitted.tagged), done.stdout
    return emitted


def ours(got: list[str]) -> list[str]:
    """Return the provider's metrics, without Airflow's prefix."""
    return [line.removeprefix("airflow.") for line in got if "apptoto" in line]


def test_metrics_show_messages_requests_waits_and_what_is_unresolved_but_no_person(emitted: Emitted) -> None:
    tagged = ours(emitted.tagged)
    counted = sorted(line for line in tagged if line.endswith("|c"))
    assert counted == [
        f"apptoto.messages,channel=call,outcome=not_sent,{CONNECTION}:1|c",
        f"apptoto.messages,channel=call,outcome=sent,{CONNECTION}:1|c",
        f"apptoto.messages,channel=email,outcome=rejected,{CONNECTION}:1|c",
        f"apptoto.messages,channel=sms,outcome=deduplicated,{CONNECTION}:1|c",
        f"apptoto.messages,channel=sms,outcome=sent,{CONNECTION}:1|c",
        f"apptoto.messages,channel=sms,outcome=unknown,{CONNECTION}:1|c",
        f"apptoto.rate_limited,{CONNECTION}:1|c",
    ]
    gauges = [line for line in tagged if line.endswith("|g")]
    [unknown] = [line for line in gauges if "last_sent" not in line]
    assert unknown == f"apptoto.ledger.unknown,{CONNECTION}:1|g"
    last_sent = [re.fullmatch(rf"apptoto\.last_sent,{CONNECTION}:(\d+)\|g", line) for line in gauges if line != unknown]
    assert [found is not None and abs(int(found[1]) - time.time()) < 600 for found in last_sent] == [True] * 2
    timed = sorted(line.rpartition(":")[0] for line in tagged if line.endswith("|ms"))
    waits = [line for line in timed if line == f"apptoto.rate_limit.wait,{CONNECTION}"]
    assert len(waits) >= 6  # a slow machine may miss a slot, and wait for another one
    assert timed[len(waits) :] == [
        *[f"apptoto.request.duration,status=2xx,{CONNECTION}"] * 2,
        f"apptoto.request.duration,status=4xx,{CONNECTION}",
        *[f"apptoto.request.duration,status=5xx,{CONNECTION}"] * 2,
    ]
    assert len(tagged) == len(counted) + len(timed) + len(gauges)
    everything = "\n".join(emitted.tagged + emitted.plain)
    for secret in (SENT, REFUSED_ONCE, UNKNOWN, NOT_SENT, REJECTED, TEXT, LOGIN, API_KEY):
        assert secret not in everything
    for secret in ("1650555777", "wendolyn", "scan was", "clinic", "manual__", "metered"):
        assert secret not in "\n".join(tagged)


def test_without_tags_the_plain_names_count(emitted: Emitted) -> None:
    plain = ours(emitted.plain)
    assert sorted(line for line in plain if not line.endswith("|ms") and "last_sent" not in line) == [
        "apptoto.ledger.unknown:2|g",
        "apptoto.messages:1|c",
        "apptoto.rate_limited:1|c",
    ]
    durations = [line.split(":") for line in plain if line.endswith("|ms")]
    assert sorted(name for name, _ in durations) == ["apptoto.rate_limit.wait", "apptoto.request.duration"]
    assert float(dict(durations)["apptoto.request.duration"].removesuffix("|ms")) == 500
