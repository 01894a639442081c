"""The displayable form of ``messages_path``. Every renderer imports this module, so it imports almost nothing."""

from __future__ import annotations

import re

from airflow_provider_apptoto.privacy import AIRFLOW_MASK, MASK, is_one_line

SUFFIXES = (".csv", ".jsonl", ".ndjson")
"""Suffixes of the file formats that a batch reads."""
_USER_INFO = re.compile(r"(?<=://).*@")


def shown_path(path: str) -> str:
    """Return ``messages_path`` without credentials, or a mask if it may be a file's content passed by mistake."""
    if is_one_line(path) and path.lower().endswith(SUFFIXES):
        return _USER_INFO.sub(f"{MASK}@", path)
    return AIRFLOW_MASK
