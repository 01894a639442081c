"""Run a DAG in this process with ``dag.test()``, in a temporary Airflow home."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from pathlib import Path
from typing import Any

DAGS = Path(__file__).parent / "dags" / "in_process"


def set_up(home: Path) -> None:
    """Point this process to an empty Airflow home.

    :raises RuntimeError: Airflow was imported before, and has read its settings.
    """
    if "airflow" in sys.modules:
        raise RuntimeError("Airflow was imported before its home was set, so it would use another one")
    for name in [name for name in os.environ if name.startswith(("AIRFLOW", "APPTOTO_"))]:
        del os.environ[name]
    os.environ |= {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "300",  # on a loaded machine, 30 s may be too short
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
    }
    logging.disable(logging.INFO)  # a log line per message costs the same in every way


def migrate() -> None:
    """Create Airflow's metadata database."""
    from airflow.utils import db

    db.initdb()


def run(dag: Any, conf: dict[str, Any]) -> None:
    """Run a DAG once.

    :param conf: configuration of the run.
    :raises RuntimeError: the run failed; the message has what Airflow printed.
    """
    path = Path(os.environ["AIRFLOW_HOME"]) / "dag-test.log"
    with path.open("w") as log, contextlib.redirect_stdout(log):
        state = dag.test(run_conf=conf).state
    if state != "success":
        raise RuntimeError(f"The run of {dag.dag_id} ended as {state}:\n{path.read_text()}")
