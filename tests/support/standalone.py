"""Run a real Airflow: scheduler, executor, DAG processor and API server, in a temporary home."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import psycopg2
import pytest
import requests

from tests.support import postgres
from tests.support.airflow_home import migrate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.faults import Exchange, FaultServer

DEADLINE = 240
"""Timeout in seconds for a state; not a measure of speed."""
KEY = "Sekret-Api-Key-81d2"
"""API key of all its Apptoto connections."""
WARNING = re.compile(r"warning|error\b|critical|Traceback", re.IGNORECASE)
"""Is in the lines of a log that may say why something never happens."""
OVER = {"success", "failed", "skipped", "upstream_failed"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Airflow:
    """A running Airflow, on PostgreSQL as in production: on SQLite, its parts can lock each other out.

    :param environment: of its processes, as far as it is its own.
    :param database: the arguments with which ``psycopg2`` connects to its metadata database.
    :param server: answers the requests of all its connections; each test sets its scripts.
    """

    home: Path
    environment: dict[str, str]
    database: dict[str, Any]
    server: FaultServer

    def add_dag(self, name: str, source: str) -> None:
        """Put a file into the DAGs folder."""
        (self.home / "dags" / f"{name}.py").write_text(source)

    def query(self, text: str, *arguments: str) -> list[Any]:
        """Read the metadata database."""
        with contextlib.closing(psycopg2.connect(**self.database)) as connection, connection.cursor() as cursor:
            cursor.execute(text, arguments)
            return list(cursor.fetchall())

    def execute(self, text: str, *arguments: str) -> None:
        """Change the metadata database."""
        with (
            contextlib.closing(psycopg2.connect(**self.database)) as connection,
            connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(text, arguments)

    def dump(self) -> bytes:
        """Return all that the metadata database holds."""
        folder = postgres.programs()
        assert folder is not None
        location = ["--host", self.database["host"], "--port", str(self.database["port"])]
        dump = [folder / "pg_dump", *location, "--username", self.database["user"], self.database["dbname"]]
        return subprocess.run(dump, check=True, capture_output=True).stdout

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds. If it never does, show the tasks and Airflow's warnings."""
        try:
            wait_for(condition, self.home)
        except TimeoutError as error:
            runs = self.query("select dag_id, state from dag_run")
            tries = self.query(
                "select dag_id, task_id, map_index, try_number, state from task_instance "
                "where state is distinct from 'success'"
            )
            shown = ["Log:", *str(error).splitlines(), "Runs:", *runs, "Tasks:", *tries]
            shown += ["Messages:", *(request.body.decode() for request in self.server.accepted[-20:])]
            pytest.fail("\n".join(map(str, shown)))

    def clear(self, dag_id: str, *, only_failed: bool) -> None:
        """Clear the tasks of a DAG's run, like the button in the UI."""
        body = {"dag_run_id": self._run_id(dag_id), "only_failed": only_failed, "dry_run": False}
        self.call("POST", f"dags/{dag_id}/clearTaskInstances", body)

    def mark(self, dag_id: str, task_id: str, state: str) -> None:
        """Mark the task of a DAG's run as success or failed, like the button in the UI."""
        path = f"dags/{dag_id}/dagRuns/{self._run_id(dag_id)}/taskInstances/{task_id}"
        self.call("PATCH", path, {"new_state": state})

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Call Airflow's API."""
        return call(self.environment, method, path, body)

    def _run_id(self, dag_id: str) -> str:
        [[run_id]] = self.query("select run_id from dag_run where dag_id = %s", dag_id)
        return str(run_id)

    def kill(self, component: str) -> None:
        """Kill a component, such as the triggerer, with all its processes."""
        found = []
        for process in processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                if [Path(part).name for part in process.cmdline()[-2:]] == ["airflow", component]:
                    found += [process, *process.children(recursive=True)]
        assert found, f"no {component} runs"
        for process in found:
            process.kill()

    def workers(self) -> list[str]:
        """Return the processes that run tasks; Airflow names them after the tasks."""
        names = {f"airflow worker -- {task}" for [task] in self.query("select id from task_instance")}
        titles = []
        for process in processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                titles.append(" ".join(process.cmdline()).strip())
        return [title for title in titles if title in names]

    @contextlib.contextmanager
    def component(self, name: str) -> Iterator[None]:
        """Run a component, such as a triggerer in place of one that was killed."""
        with running(name, self.home, self.environment):
            yield


def call(environment: dict[str, str], method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """Call the API of the Airflow with this environment, in which everybody is an administrator."""
    url = f"http://127.0.0.1:{environment['AIRFLOW__API__PORT']}"
    token = requests.get(f"{url}/auth/token", timeout=DEADLINE).json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    answer = requests.request(method, f"{url}/api/v2/{path}", headers=headers, json=body, timeout=DEADLINE)
    answer.raise_for_status()
    return answer.json()


@contextlib.contextmanager
def standalone(home: Path, **environment: str) -> Iterator[dict[str, str]]:
    """Run ``airflow standalone``, and yield its environment once its API answers.

    A task that starts earlier would use up a try.

    :param environment: of its processes; by default its metadata database is a SQLite file in ``home``.
    """
    port, *log_ports = free_ports(3)
    environment = {
        **settings(home, port),
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(log_ports[0]),
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(log_ports[1]),
        **environment,
    }
    migrate(home, environment)
    with running("standalone", home, environment):
        wait_for(lambda: is_listening(port), home)
        yield environment


@contextlib.contextmanager
def running(component: str, home: Path, environment: dict[str, str]) -> Iterator[None]:
    """Run a command of Airflow that goes on until it is killed, with all its processes. Its log is in ``home``.

    :param environment: its settings.
    """
    with (home / f"{component}.log").open("wb") as log:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("airflow"), component],
            env=process_environment(environment),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def settings(home: Path, port: int) -> dict[str, str]:
    """Return the settings of an Airflow in a home, and make its DAGs folder.

    :param port: of its API server.
    """
    (home / "dags").mkdir(parents=True, exist_ok=True)
    return {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        # Else the processes that start together in a new home each write a file of settings, with different keys.
        "AIRFLOW__CORE__FERNET_KEY": "a" * 43 + "=",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "2",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__WORKERS": "1",
        # A busy machine may need longer than Airflow allows: five seconds to start a task, or it costs a try; 20 for a
        # callback after the end of a task, or it is killed; 30 and 50 to read a file of DAGs and for what follows.
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
        "AIRFLOW__CORE__TASK_SUCCESS_OVERTIME": str(DEADLINE),
        "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": str(DEADLINE),
        "AIRFLOW__DAG_PROCESSOR__DAG_FILE_PROCESSOR_TIMEOUT": str(DEADLINE),
    }


def free_ports(count: int) -> list[int]:
    """Return loopback ports on which nothing listens."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def process_environment(own: dict[str, str]) -> dict[str, str]:
    """Return the environment of an Airflow process: that of this process, without settings of another Airflow."""
    # coverage would slow down each process, and see nothing that tests/airflow does not reach
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "COV"))}
    # standalone starts its components by name
    inherited["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**inherited, **own}


def is_listening(port: int) -> bool:
    """Return whether something listens on a loopback port."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def wait_for(condition: Callable[[], bool], home: Path, seconds: float = DEADLINE) -> None:
    """Wait until a condition holds.

    :raises TimeoutError: it never does; the text has Airflow's warnings, and those of the processes that read DAGs.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            logs = [*sorted(home.glob("*.log")), *sorted(home.glob("logs/dag_processor/**/*.log"))]
            lines = [line for log in logs for line in log.read_text().splitlines()]
            warnings = [line[:300] for line in lines if WARNING.search(line)]
            raise TimeoutError("\n".join(warnings[-50:]))
        time.sleep(0.2)


def processes() -> list[psutil.Process]:
    """Return all processes that this one has started, and those that they have."""
    return psutil.Process().children(recursive=True)


def sender(exchange: Exchange) -> psutil.Process:
    """Return the process that sent a request: it owns the other end of the socket.

    This reads Linux's own lists: on a busy machine ``psutil`` takes seconds, and the request may time out meanwhile.

    :raises ProcessLookupError: it has ended.
    """
    (_, port), (_, own_port) = exchange.socket.getpeername(), exchange.socket.getsockname()
    ends = [f"0100007F:{port:04X}", f"0100007F:{own_port:04X}"]
    sockets = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    links = {f"socket:[{fields[9]}]" for fields in sockets if fields[1:3] == ends}
    for process in reversed(processes()):
        with contextlib.suppress(OSError):  # the process has ended
            for file in Path(f"/proc/{process.pid}/fd").iterdir():
                with contextlib.suppress(OSError):  # the file was closed
                    if str(file.readlink()) in links:
                        return process
    raise ProcessLookupError("the process that sent this request has ended")
