"""Export ledger entries to a file that is on disk before they are removed."""

from __future__ import annotations

import csv
import json
import os
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

SUFFIXES = (".csv", ".jsonl")
"""Of the files that can be written."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""First characters of cells that a spreadsheet would calculate."""


def check_export(path: Path) -> None:
    """Check that a file can be written.

    :raises ValueError: its suffix is not known, or it exists.
    """
    if path.suffix not in SUFFIXES:
        raise ValueError(f"the name of the file must end with {' or '.join(SUFFIXES)}")
    if path.exists():
        raise ValueError("the file already exists")


def write_export(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows to a new file, which only its owner can read, and return when it is on disk.

    If anything fails, the file is removed.

    :param path: the suffix decides: ``.csv`` has a header and one line per row, ``.jsonl`` one JSON object per line.
    :raises ValueError: the suffix is not known, or the file exists.
    :raises OSError: the file can't be written.
    """
    check_export(path)
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8", newline="") as file:  # noqa: PTH123  a descriptor
            (_write_csv if path.suffix == ".csv" else _write_json_lines)(file, rows)
            file.flush()
            os.fsync(descriptor)
        _sync(path.parent)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _write_json_lines(file: IO[str], rows: Iterable[Mapping[str, Any]]) -> None:
    for row in rows:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _write_csv(file: IO[str], rows: Iterable[Mapping[str, Any]]) -> None:
    writer = csv.writer(file)
    for number, row in enumerate(rows):
        if number == 0:
            writer.writerow(row)
        writer.writerow(map(cell_of, row.values()))


def cell_of(value: object) -> object:
    """Return a value as a cell that a spreadsheet does not run as a formula."""
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _sync(folder: Path) -> None:
    """Write the name of a new file to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
