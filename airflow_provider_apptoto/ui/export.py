"""Messages as a CSV file."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING

from airflow_provider_apptoto.outbox.export import cell_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_apptoto.outbox.admin import Record

MAX_EXPORTED = 20_000
"""Messages per file."""
_COLUMNS = (
    *("updated_at", "state", "channel", "target", "reference", "labels", "origin", "dag_id", "run_id", "task_id"),
    *("map_index", "try_number", "account", "http_status", "code", "why", "response_id", "segments", "created_at"),
    *("sent_at", "key"),
)
_NAMES = {"state": "outcome"}


def as_csv(records: Iterable[Record]) -> str:
    """Return a table with a line for each message."""
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow([_NAMES.get(name, name) for name in _COLUMNS])
    for record in records:
        row = record.to_dict()
        row["labels"] = json.dumps(row["labels"]) if row["labels"] else None
        writer.writerow([cell_of(row[name]) for name in _COLUMNS])
    return file.getvalue()
