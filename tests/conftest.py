"""An Airflow of the tests' own: its home, SQLite database and folder of DAGs, set before Airflow is imported."""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

HOME = Path(tempfile.mkdtemp(prefix="apptoto-tests-"))
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
DAGS = HOME / "dags"
DAGS.mkdir()

os.environ.update(
    {
        "AIRFLOW_HOME": str(HOME),
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        # else Airflow 2.11 warns of its own default at import
        "AIRFLOW__METRICS__TIMER_UNIT_CONSISTENCY": "True",
    }
)
for name in [name for name in os.environ if name.startswith(("AIRFLOW_CONN_", "AIRFLOW__APPTOTO__"))]:
    del os.environ[name]

# Airflow 2.11's web libraries warn when they are imported; done once, here, all other warnings can be errors.
with contextlib.suppress(ImportError), warnings.catch_warnings():
    warnings.simplefilter("ignore")
    importlib.import_module("flask_appbuilder.fieldwidgets")


@pytest.fixture(scope="session")
def airflow_database() -> Iterator[None]:
    """Make the metadata database, as an administrator does, and take from runs what costs a second a task."""
    done = subprocess.run(
        [Path(sys.executable).with_name("airflow"), "db", "migrate"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    with pytest.MonkeyPatch.context() as patch:
        with contextlib.suppress(ImportError):
            # 3.3 makes its API server once; 3.0 to 3.2 do so for every task
            supervisor: Any = importlib.import_module("airflow.sdk.execution_time.supervisor")
            patch.setattr(supervisor, "in_process_api_server", functools.cache(supervisor.in_process_api_server))
        with contextlib.suppress(ImportError):
            # 3.0 colours its tracebacks, and the locals of each frame
            structlog: Any = importlib.import_module("structlog.dev")
            patch.setattr(
                structlog.RichTracebackFormatter,
                "__call__",
                lambda _, *arguments: structlog.plain_traceback(*arguments),
            )
        yield


pytest_plugins = ["tests.airflow_runs"]
