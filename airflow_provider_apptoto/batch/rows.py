"""Read the rows of a batch from a list, or stream them from a file."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from airflow_provider_apptoto.batch.paths import SUFFIXES, shown_path
from airflow_provider_apptoto.client.errors import ApptotoConfigurationError, ApptotoValidationError

if TYPE_CHECKING:
    from collections.abc import Callable

ROW = "row"
"""The name by which templates read the columns of a row."""
_DELIMITERS = ",;\t|"
_QUOTED = re.compile(r'"[^"]*"')

Row = Mapping[str, Any]
ReadRow = Row | ApptotoValidationError
"""A row, or the error that makes it invalid."""


class FileRow(NamedTuple):
    """A row of a file.

    :param line: the line on which the row starts; the first line of the file is 1.
    """

    line: int
    row: ReadRow


def rows_of(values: object) -> Iterator[ReadRow]:
    """Return the rows of a list.

    :raises ApptotoConfigurationError: the value is not a list.
    """
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        hint = ""
        if isinstance(values, str):
            hint = "; a template renders to text: pass the other task's output itself, messages=other_task.output"
        msg = f"must be a list of mappings, one per message, not {type(values).__name__}{hint}"
        raise ApptotoConfigurationError("messages", msg)
    for value in values:
        yield value if isinstance(value, Mapping) else _malformed(f"must be a mapping, not {type(value).__name__}")


def rows_of_file(path: str) -> Iterator[FileRow]:
    """Return the rows of a CSV file (``.csv``) or of JSON Lines (``.jsonl``, ``.ndjson``), one at a time.

    A blank cell in a CSV file counts as not given, and so does ``null`` in JSON. Blank lines are ignored.

    :param path: an absolute path, or a URI that Airflow's object storage supports.
    :raises ApptotoConfigurationError: the file can't be read, or is in neither format.
    """
    shown = shown_path(path)
    read = next((read for suffix, read in _FORMATS.items() if path.lower().endswith(suffix)), None)
    if read is None:
        msg = f"{shown} must end in one of {', '.join(_FORMATS)}; the suffix decides how the file is read"
        raise ApptotoConfigurationError("messages_path", msg, code="file_invalid")
    try:
        with _open(path) as file, io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
            yield from read(text)
    except UnicodeDecodeError:
        msg = f"{shown} is not encoded as UTF-8; save it as UTF-8"
        raise ApptotoConfigurationError("messages_path", msg, code="file_invalid") from None
    except OSError as error:
        raise _unreadable(path, error) from None
    except csv.Error as error:
        msg = f"{shown} is not CSV: {error}"
        raise ApptotoConfigurationError("messages_path", msg, code="file_invalid") from None


def _open(path: str) -> IO[bytes]:
    if "://" not in path:
        if not Path(path).is_absolute():
            msg = f"{shown_path(path)} is neither an absolute path nor a URI"
            raise ApptotoConfigurationError("messages_path", msg)
        if "\0" in path:
            raise ApptotoConfigurationError("messages_path", "contains a NUL character, which no path may contain")
        return Path(path).open("rb")
    from airflow.providers.common.compat.sdk import AirflowException, ObjectStoragePath

    try:
        file: IO[bytes] = ObjectStoragePath(path).open("rb")
    except (ValueError, AirflowException) as error:  # no such kind of storage, or no such connection
        raise _unreadable(path, error) from None
    return file


def _unreadable(path: str, error: Exception) -> ApptotoConfigurationError:
    shown = shown_path(path)
    said = getattr(error, "strerror", None) or (
        error if shown == path else "the details may quote hidden values, so they are not shown"
    )
    msg = f"{shown} can't be read: {type(error).__name__}: {said}"
    return ApptotoConfigurationError("messages_path", msg, code="file_unreadable")


def _read_csv(text: IO[str]) -> Iterator[FileRow]:
    blank_lines, first = next(((number, line) for number, line in enumerate(text) if line.strip()), (0, ""))
    # spreadsheets of some locales write semicolons
    delimiter = max(_DELIMITERS, key=_QUOTED.sub("", first).count)
    # strict: a quote that is never closed would swallow the rest of the file
    lines = csv.reader(itertools.chain([first], text), delimiter=delimiter, strict=True)
    names = [name.strip() for name in next(lines, [])]
    # the names are never shown: if the header line is missing, they are personal data
    problem = "it is empty" if not names else ""
    if not all(names):
        problem = f"column {names.index('') + 1} has no name"
    elif len(set(names)) < len(names):
        twice = next(number for number, name in enumerate(names, 1) if name in names[: number - 1])
        problem = f"column {twice} has the same name as an earlier one"
    if problem:
        msg = f"the first line must give each column a unique name, but {problem}"
        raise ApptotoConfigurationError("messages_path", msg, code="file_invalid")
    line = blank_lines + lines.line_num + 1
    try:
        for cells in lines:
            values = [cell if cell.strip() else None for cell in cells]
            if any(values):
                row: ReadRow = dict(zip(names, values, strict=False))
                if len(cells) != len(names):
                    row = _malformed(f"has {len(cells)} cells, but the first line names {len(names)} columns")
                yield FileRow(line, row)
            line = blank_lines + lines.line_num + 1
    except csv.Error as error:
        raise csv.Error(f"{error} in the row that starts on line {line}") from None


def _read_json_lines(text: IO[str]) -> Iterator[FileRow]:
    for number, line in enumerate(text, 1):
        if line.strip():
            yield FileRow(number, _json_row(line))


def _json_row(line: str) -> ReadRow:
    try:
        value = json.loads(line, object_pairs_hook=_object)
    except ApptotoValidationError as error:
        return error
    except (ValueError, RecursionError):
        return _malformed("is not JSON")
    return value if isinstance(value, dict) else _malformed("is not a JSON object")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _malformed("has a duplicate key")
    return found


def _malformed(problem: str) -> ApptotoValidationError:
    return ApptotoValidationError(ROW, problem, code="row_malformed")


_FORMATS: dict[str, Callable[[IO[str]], Iterator[FileRow]]] = dict(
    zip(SUFFIXES, (_read_csv, _read_json_lines, _read_json_lines), strict=True)
)
