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


@contextlib.contextmanager
def running() -> Iterator[int]:
    """Run a server, and give its port; anybody may log in as ``postgres``, without a password."""
    folder = programs()
    if folder is None:
        assert "CI" not in os.environ, "CI has to install PostgreSQL"
        pytest.skip("PostgreSQL is not installed")
    home = Path(tempfile.mkdtemp(prefix="apptoto-postgres-"))
    if os.geteuid() == 0:
        shutil.chown(home, USER, USER)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    initdb: list[str | Path] = [
        folder / "initdb",
        "-D",
        home / "data",
        "-U",
        USER,
        "--auth=trust",
        "--no-sync",
        "--encoding=UTF8",
    ]
    subprocess.run(initdb, check=True, capture_output=True, cwd=home, **run_as())
    settings = {"port": port, "listen_addresses": "127.0.0.1", "unix_socket_directories": home, "fsync": "off"}
    options = [text for name, value in settings.items() for text in ("-c", f"{name}={value}")]
    with (home / "log").open("wb") as log:
        server = subprocess.Popen(
            [folder / "postgres", "-D", home / "data", *options], stdout=log, stderr=log, cwd=home, **run_as()
        )
        try:
            deadline = time.monotonic() + DEADLINE
            ready: list[str | Path] = [folder / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
            while subprocess.run(ready, check=False).returncode:
                assert time.monotonic() < deadline, (home / "log").read_text()
                time.sleep(0.1)
            yield port
        finally:
            server.send_signal(signal.SIGQUIT)  # nothing of it is kept
            server.wait(DEADLINE)
            shutil.rmtree(home)


def new_database(port: int) -> str:
    """Make an empty database, and return its name."""
    import psycopg2

    name = f"db{time.monotonic_ns()}"
    with contextlib.closing(psycopg2.connect(host="127.0.0.1", port=port, user=USER, dbname=USER)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name}")
    return name
