"""The commands of ``optout``: the lists of people who opted out."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import sys
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TextIO

from airflow_provider_apptoto._cli_arguments import OPTOUT_ADD, OPTOUT_CHECK, OPTOUT_IMPORT, OPTOUT_REMOVE
from airflow_provider_apptoto._cli_common import NOTHING, REFUSED, Commands, command, connect, end, user_name
from airflow_provider_apptoto.privacy import mask_recipient

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from airflow_provider_apptoto.outbox.optouts import OptOuts

_STDIN = "-"
_DELIMITERS = ",;\t|"
_NO_DATABASE = "Set it: the lists of people who opted out are stored there."


class _Entry(NamedTuple):
    """A recipient, and where it stands."""

    place: str
    recipient: str


def _add(given: argparse.Namespace) -> None:
    _add_all(given, _entries(given))


def _import(given: argparse.Namespace) -> None:
    """Add the recipients of a CSV file."""
    name = "Standard input" if given.file == _STDIN else given.file
    try:
        with _opened(given.file) as file:
            entries = list(_rows(file, given.column))
    except UnicodeDecodeError:
        end(f"{name} is not encoded as UTF-8. Save it as UTF-8. Nothing was changed.", REFUSED)
    except OSError as error:
        end(f"{name} can't be read: {error.strerror}. Nothing was changed.", REFUSED)
    except (csv.Error, _FileError) as error:
        end(f"{name} can't be imported: {error}. Nothing was changed.", REFUSED)
    _add_all(given, entries)


def _add_all(given: argparse.Namespace, entries: list[_Entry]) -> None:
    by = user_name() if given.by is None else given.by
    recipients, places = [entry.recipient for entry in entries], [entry.place for entry in entries]
    added = _optouts(given).add(given.list, recipients, by=by, note=given.note, places=places)
    _finish(f"Added to list {given.list}: {added} of {len(entries)} entries.", added)


def _remove(given: argparse.Namespace) -> None:
    entries = _entries(given)
    recipients, places = [entry.recipient for entry in entries], [entry.place for entry in entries]
    removed = _optouts(given).remove(given.list, recipients, places=places)
    _finish(f"Removed from list {given.list}: {removed} of {len(entries)} entries.", removed)


def _check(given: argparse.Namespace) -> None:
    from airflow_provider_apptoto.client.errors import ApptotoValidationError

    optouts = _optouts(given)
    lines, is_on_a_list = [], False
    for place, recipient in _entries(given):
        try:
            lists = optouts.check(recipient)
        except ApptotoValidationError as error:
            end(f"{place}: {error.problem}.", REFUSED)
        is_on_a_list |= bool(lists)
        lines.append(f"{mask_recipient(recipient)}: {', '.join(lists) or 'on no list'}")
    sys.stdout.write("\n".join([*lines, ""]))
    if not is_on_a_list:
        raise SystemExit(NOTHING)


def _finish(text: str, changed: int) -> None:
    sys.stdout.write(f"{text}\n")
    if not changed:
        raise SystemExit(NOTHING)


def _optouts(given: argparse.Namespace) -> OptOuts:
    from airflow_provider_apptoto.hooks._state import optouts_outside_tasks

    return optouts_outside_tasks(*connect(given, _NO_DATABASE))


# --- recipients


def _entries(given: argparse.Namespace) -> list[_Entry]:
    """Return the recipients of the command line, or those of standard input, one per line."""
    if given.recipients != [_STDIN]:
        return [_Entry(f"recipient {number}", each) for number, each in enumerate(given.recipients, 1)]
    try:
        with _opened(_STDIN) as file:
            found = [_Entry(f"line {number}", line) for number, line in enumerate(file, 1) if line.strip()]
    except UnicodeDecodeError:
        end("Standard input is not encoded as UTF-8. Nothing was changed.", REFUSED)
    return found or end("Standard input has no recipients.", NOTHING)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[TextIO]:
    if path != _STDIN:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            yield file
        return
    text = io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig", newline="")
    try:
        yield text
    finally:
        text.detach()  # else standard input is closed


class _FileError(Exception):
    """A file has another form than expected."""


def _rows(file: TextIO, column: str | None) -> Iterator[_Entry]:
    """Yield the recipients of a CSV file. Blank cells are skipped.

    No content is shown in errors: it is personal data.

    :param column: the column to read, which the first line must name; ``None``: the file has one column.
    :raises _FileError: the file does not have that form.
    """
    blank, first = next(((number, line) for number, line in enumerate(file) if line.strip()), (0, ""))
    # spreadsheets of some locales write semicolons
    delimiter = max(_DELIMITERS, key=first.count)
    rows = csv.reader(itertools.chain([first], file), delimiter=delimiter, strict=True)
    index, size, is_first = 0, 1, True
    if column is not None:
        names = [name.strip() for name in next(rows, [])]
        if names.count(column.strip()) != 1:
            raise _FileError("the first line must name the column of --column, once")
        index, size, is_first = names.index(column.strip()), len(names), False
    line = blank + rows.line_num + 1
    for cells in rows:
        place, line = f"line {line}", blank + rows.line_num + 1
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != size:
            hint = "; choose one with --column" if column is None else f", but the first line names {size}"
            raise _FileError(f"{place} has {len(cells)} columns{hint}")
        is_header = is_first and _is_name(cells[index])
        is_first = False
        if cells[index].strip() and not is_header:
            yield _Entry(place, cells[index])


def _is_name(cell: str) -> bool:
    """Return whether a cell can't be meant as a recipient, because it has neither a digit nor an ``@``."""
    return not any(character == "@" or character.isdigit() for character in unicodedata.normalize("NFKC", cell))


COMMANDS: Commands = {
    "add": ("Add recipients to a list, so that senders that obey it skip them", command(_add), OPTOUT_ADD),
    "remove": ("Remove recipients who agreed to be messaged again from a list", command(_remove), OPTOUT_REMOVE),
    "check": ("Show which lists hold recipients", command(_check), OPTOUT_CHECK),
    "import": (
        "Add the recipients of a CSV file to a list; all, or none if one is invalid",
        command(_import),
        OPTOUT_IMPORT,
    ),
}
