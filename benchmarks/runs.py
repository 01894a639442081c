"""Read the run of a DAG from Airflow's metadata database."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import ways


def query(path: Path, text: str, *arguments: Any) -> list[Any]:
    """Run a statement on Airflow's SQLite database, and return its rows."""
    with contextlib.closing(sqlite3.connect(path, timeout=30)) as connection, connection:
        return connection.execute(text, arguments).fetchall()


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The only run of a DAG.

    :param database: path of Airflow's metadata database.
    :param tasks: state and number of tries of each task instance, by map index.
    :param seconds: from its start to its end.
    """

    dag_id: str
    database: Path
    tasks: dict[int, tuple[str, int]]
    seconds: float

    def xcom(self, key: str) -> Any:
        """Return the XCom that the unmapped task pushed, or ``None``."""
        rows = query(self.database, "select value from xcom where dag_id = ? and key = ?", self.dag_id, key)
        value = json.loads(rows[0][0]) if rows else None
        return json.loads(value) if isinstance(value, str) else value

    def entries(self) -> dict[int, str]:
        """Return the states of the ledger entries in the task state of the mapped tasks, by map index."""
        text = "select map_index, value from task_state_store where dag_id = ? and key like ?"
        rows = query(self.database, text, self.dag_id, f"{ways.task_state_prefix()}%")
        return {index: json.loads(value)["state"] for index, value in rows}
