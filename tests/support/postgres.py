"""A PostgreSQL of the tests' own, on a free port, where its programs are installed (Debian: package postgresql)."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

DEADLINE = 60
USER = "postgres"


def programs() -> Path | None:
    """Return the folder of PostgreSQL's programs; Debian keeps them off the PATH."""
    found = [shutil.which("initdb"), *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")))]
    return next((Path(path).resolve().parent for path in found if path), None)


def run_as() -> dict[str, Any]:
    """Return arguments for ``subprocess``: PostgreSQL refuses to run as root."""
    return {"user": USER, "group": USER, "extra_groups": []} if os.geteuid() == 0 else {}


class Server:
    """A server, which anybody may log in to as ``postgres``, without a password.

    :param home: a folder of its own, which :func:`run_as` may use.
    """

    def __init__(self, home: Path) -> None:
        folder = programs()
        assert folder is not None
        self._folder = folder
        self._home = home
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        options = ["-U", USER, "--auth=trust", "--no-sync", "--encoding=UTF8"]
        initdb: list[str | Path] = [folder / "initdb", "-D", home / "data", *options]
        subprocess.run(initdb, check=True, capture_output=True, cwd=home, **run_as())

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = {"port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": self._home}
        options = [text for name, value in {**settings, "fsync": "off"}.items() for text in ("-c", f"{name}={value}")]
        command: list[str | Path] = [self._folder / "postgres", "-D", self._home / "data", *options]
        with (self._home / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._home, **run_as())
        deadline = time.monotonic() + DEADLINE
        ready: list[str | Path] = [self._folder / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        while subprocess.run(ready, check=False).returncode:
            is_alive = self._process.poll() is None and time.monotonic() < deadline
            assert is_alive, (self._home / "log").read_text()
            time.sleep(0.1)

    def stop(self, number: signal.Signals) -> None:
        """Send its first process a signal, and wait for its end."""
        self._process.send_signal(number)
        self._process.wait(DEADLINE)


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """Run a server."""
    if programs() is None:
        assert "CI" not in os.environ, "CI has to install PostgreSQL"
        pytest.skip("PostgreSQL is not installed")
    home = Path(tempfile.mkdtemp(prefix="apptoto-postgres-"))
    if os.geteuid() == 0:
        shutil.chown(home, USER, USER)
    try:
        server = Server(home)
        try:
            server.start()
            yield server
        finally:
            server.stop(signal.SIGQUIT)  # nothing of it is kept
    finally:
        shutil.rmtree(home)


@contextlib.contextmanager
def running() -> Iterator[int]:
    """Run a server, and give its port."""
    with serving() as server:
        yield server.port


def new_database(port: int) -> str:
    """Make an empty database, and return its name."""
    import psycopg2

    name = f"db{time.monotonic_ns()}"
    with contextlib.closing(psycopg2.connect(host="127.0.0.1", port=port, user=USER, dbname=USER)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name}")
    return name
