"""What may be shown of the path of a file of rows: imported by whatever renders it, so it imports next to nothing."""

from __future__ import annotations

import re

from airflow_provider_apptoto.privacy import AIRFLOW_MASK, MASK, is_one_line

SUFFIXES = (".csv", ".jsonl", ".ndjson")
"""Of files of rows."""
_USER_INFO = re.compile(r"(?<=://).*@")


def shown_path(path: str) -> str:
    """Return what may be shown of ``messages_path``, which may hold a file's content by mistake, or credentials."""
    if is_one_line(path) and path.lower().endswith(SUFFIXES):
        return _USER_INFO.sub(f"{MASK}@", path)
    return AIRFLOW_MASK
