"""Set up a temporary Airflow home and its configuration before Airflow is imported."""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

_SHARED = "APPTOTO_TESTS_FOLDER"
_MEMORY = Path("/dev/shm")  # noqa: S108  what is made there is of names that nobody can guess
_ROOM = 2 * 2**30
"""Free bytes that are required: far more than all workers, their databases and a PostgreSQL use."""

# On an in-memory file system, thousands of durable commits need no disk.
if _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _ROOM:
    os.environ["TMPDIR"] = tempfile.tempdir = str(_MEMORY)

IS_WORKER = "PYTEST_XDIST_WORKER" in os.environ
SHARED = Path(os.environ[_SHARED] if IS_WORKER else tempfile.mkdtemp(prefix="apptoto-tests-"))
"""Created and removed by the process that starts the tests; shared with its workers."""
if not IS_WORKER:
    atexit.register(shutil.rmtree, SHARED, ignore_errors=True)
HOME = Path(tempfile.mkdtemp(prefix="home-", dir=SHARED))
"""``AIRFLOW_HOME`` of this process."""
DAGS = HOME / "dags"


def set_up() -> None:
    """Point this process and its children to a private Airflow home, without a developer's settings."""
    DAGS.mkdir(exist_ok=True)
    for name in [name for name in os.environ if name.startswith(("AIRFLOW_CONN_", "AIRFLOW__APPTOTO__"))]:
        del os.environ[name]
    os.environ |= {
        _SHARED: str(SHARED),
        "AIRFLOW_HOME": str(HOME),
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        # otherwise Airflow 2.11 warns about its own default at import
        "AIRFLOW__METRICS__TIMER_UNIT_CONSISTENCY": "True",
    }


def copy_database(home: Path) -> None:
    """Put a migrated metadata database into a home; the first worker creates it."""
    template = SHARED / "template" / "airflow.db"
    with (SHARED / "template.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not template.exists():
            migrate(template.parent, {})
    shutil.copy(template, home / "airflow.db")


def migrate(home: Path, environment: dict[str, str]) -> None:
    """Create or migrate the metadata database of an environment; by default a file in ``home``."""
    done = subprocess.run(
        [Path(sys.executable).with_name("airflow"), "db", "migrate"],
        env={**os.environ, "AIRFLOW_HOME": str(home), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
