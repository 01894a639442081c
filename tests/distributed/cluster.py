"""An Airflow with Celery workers, Redis and PostgreSQL: each worker has a home of its own, as on a host of its own."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from tests.support import postgres
from tests.support.airflow_home import migrate
from tests.support.standalone import Airflow, free_ports, is_listening, process_environment, settings, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.faults import FaultServer

DEADLINE = 1800
"""Seconds after which a state is taken never to come; not a measure of speed."""
AWAY = 10.0
"""Seconds until PostgreSQL is started again."""
SHORT = {
    # by default, Airflow notices in five minutes that a worker is dead, and in ten that it held queued tasks
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "60",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "10",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "20",
}


@dataclass(slots=True)
class Component:
    """A program; it leads a session, which all its processes belong to."""

    command: list[str]
    environment: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env=process_environment(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill(self) -> None:
        """Kill all processes of the session."""
        while pids := [pid for pid in psutil.pids() if _is_alive_in(self.process.pid, pid)]:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        self.process.wait()


def _is_alive_in(session: int, pid: int) -> bool:
    with contextlib.suppress(OSError, psutil.Error):
        return os.getsid(pid) == session and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


@dataclass(slots=True)
class Cluster:
    """What runs.

    :param restarts: programs that ended by themselves, and were started again.
    :param sessions: names of programs, by their sessions.
    """

    airflow: Airflow
    database: postgres.Server
    components: dict[str, Component] = field(default_factory=dict)
    restarts: Counter[str] = field(default_factory=Counter)
    sessions: dict[int, str] = field(default_factory=dict)

    def start(self, name: str, *command: str, **environment: str) -> None:
        """Start a program, which is kept running."""
        folder = Path(sys.executable).parent
        own = {**self.airflow.environment, **environment}
        program = str(folder / command[0]) if command[0] == "airflow" else command[0]
        self.components[name] = Component([program, *command[1:]], own, self.airflow.home / f"{name}.log")
        self._start(name)

    def _start(self, name: str) -> None:
        self.components[name].start()
        self.sessions[self.components[name].process.pid] = name

    def start_worker(self, name: str) -> None:
        """Start a worker."""
        home = self.airflow.home / name
        home.mkdir()
        options = ["-H", f"{name}@127.0.0.1", "--pid", str(home / "pid"), "--skip-serve-logs"]
        quiet = ["--without-gossip", "--without-mingle"]
        self.start(name, "airflow", "celery", "worker", *options, *quiet, AIRFLOW_HOME=str(home))

    def is_ready(self, worker: str) -> bool:
        """Tell whether a worker takes tasks."""
        return f"{worker}@127.0.0.1 ready" in (self.airflow.home / f"{worker}.log").read_text()

    def kill(self, session: int) -> None:
        """Kill a worker and all its tasks, for good."""
        name = self.sessions[session]
        self.components[name].kill()
        del self.components[name]

    def restart_database(self) -> float:
        """Kill PostgreSQL, start it again some time later, and return for how many seconds it was away."""
        began = time.monotonic()
        self.database.stop(signal.SIGKILL)
        time.sleep(AWAY)
        self.database.start()
        return time.monotonic() - began

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Keep all programs running until a condition holds."""

        def holds() -> bool:
            for name, component in self.components.items():
                if component.process.poll() is not None:
                    self.restarts[name] += 1
                    self._start(name)
            return condition()

        wait_for(holds, self.airflow.home, DEADLINE)

    def command(self, *arguments: str) -> str:
        """Run an ``airflow`` command, and return what it prints."""
        return subprocess.run(
            [Path(sys.executable).with_name("airflow"), *arguments],
            env=process_environment(self.airflow.environment),
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout


@contextlib.contextmanager
def running(home: Path, server: FaultServer, **environment: str) -> Iterator[Cluster]:
    """Run a cluster with two workers, and end all of it, whatever happens.

    :param server: answers the requests of its Apptoto connection, whose state is on PostgreSQL.
    :param environment: of all its processes, besides its settings.
    """
    with postgres.serving() as database:
        metadata, ledger = (postgres.new_database(database.port) for _ in range(2))
        api, redis = free_ports(2)
        location = f"{postgres.USER}@127.0.0.1:{database.port}/{metadata}"
        account = {"conn_type": "apptoto", "login": "clinic@clinic.example", "password": "api-key", "host": server.url}
        state = {"conn_type": "postgres", "host": "127.0.0.1", "port": database.port, "login": postgres.USER}
        extra = {"timeout": 10, "state_conn_id": "apptoto_state"}
        own = {
            **settings(home, api),
            **SHORT,
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__CORE__PARALLELISM": "8",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://{location}",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": f"postgresql+asyncpg://{location}",
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
            "AIRFLOW__CELERY__BROKER_URL": f"redis://127.0.0.1:{redis}/0",
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+postgresql+psycopg2://{location}",
            "AIRFLOW__CELERY__WORKER_CONCURRENCY": "2",
            "AIRFLOW_CONN_APPTOTO_DEFAULT": json.dumps({**account, "extra": extra}),
            "AIRFLOW_CONN_APPTOTO_STATE": json.dumps({**state, "schema": ledger}),
            **environment,
        }
        migrate(home, own)
        arguments = {"host": "127.0.0.1", "port": database.port, "user": postgres.USER, "dbname": metadata}
        cluster = Cluster(Airflow(home=home, environment=own, database=arguments, server=server), database)
        try:
            files = ["--save", "", "--appendonly", "no", "--dir", str(home)]
            cluster.start("redis", "redis-server", "--port", str(redis), "--bind", "127.0.0.1", *files)
            for name in ("api-server", "scheduler", "dag-processor"):
                cluster.start(name, "airflow", name)
            cluster.wait_for(lambda: is_listening(api))
            for name in ("w1", "w2"):
                cluster.start_worker(name)
            cluster.wait_for(lambda: cluster.is_ready("w1") and cluster.is_ready("w2"))
            yield cluster
        finally:
            for component in cluster.components.values():
                component.kill()
