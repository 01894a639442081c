"""Rows are read from lists, and from files as people and programs write them."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_apptoto.batch.rows import ROW, rows_of, rows_of_file
from airflow_provider_apptoto.client import ApptotoConfigurationError, ApptotoValidationError
from tests.support.planning import PHONE, SECRET

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def read(directory: Path, content: str | bytes, name: str = "people.csv") -> list[Any]:
    path = directory / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return [read.row for read in rows_of_file(str(path))]


def lines(directory: Path, content: str, name: str = "people.csv") -> list[int]:
    """Return the line of each row."""
    path = directory / name
    path.write_bytes(content.encode())
    return [read.line for read in rows_of_file(str(path))]


def refusal(call: Callable[..., Any], *arguments: Any) -> ApptotoConfigurationError:
    """Return the error, after checking that neither it nor anything attached to it shows the file's content."""
    with pytest.raises(ApptotoConfigurationError) as raised:
        call(*arguments)
    error: BaseException | None = raised.value
    while error is not None:
        assert SECRET not in f"{error} {error!r} {vars(error)}"
        assert error.__cause__ is None
        error = None if error.__suppress_context__ else error.__context__
    return raised.value


def malformed(row: object) -> str:
    """Return what is wrong with a row as a whole."""
    assert isinstance(row, ApptotoValidationError)
    assert row.field == ROW
    assert SECRET not in f"{row} {row!r} {vars(row)}"
    return row.problem


# --- lists


def test_a_lists_mappings_are_its_rows_in_order() -> None:
    rows = [{"to": PHONE}, {}, {"to": None, "n": 1}]
    assert list(rows_of(rows)) == rows
    assert list(rows_of(row for row in rows)) == rows
    assert list(rows_of([])) == []


@pytest.mark.parametrize("entry", [SECRET, None, [SECRET], 1, ApptotoValidationError("to", "x")])
def test_what_is_no_mapping_is_a_bad_row_among_good_ones(entry: object) -> None:
    first, bad, last = rows_of([{"a": 1}, entry, {"b": 2}])
    assert (first, last) == ({"a": 1}, {"b": 2})
    assert malformed(bad) == f"must be a mapping, not {type(entry).__name__}"


@pytest.mark.parametrize("values", [SECRET, SECRET.encode(), {"to": SECRET}, 5, True])
def test_messages_that_are_no_list_are_refused_by_their_type_alone(values: object) -> None:
    error = refusal(lambda: list(rows_of(values)))
    assert error.field == "messages"
    assert f", not {type(values).__name__}" in error.problem
    # the most common cause
    assert ("messages=other_task.output" in error.problem) is isinstance(values, str)


# --- CSV


def test_a_csv_file_gives_a_row_a_line_by_the_names_of_its_first(tmp_path: Path) -> None:
    assert read(tmp_path, 'to,first name,message\n+1650,Mary,"Hi, ""Mary""\nsee you"\n+1651,Bob,Hi\n') == [
        {"to": "+1650", "first name": "Mary", "message": 'Hi, "Mary"\nsee you'},
        {"to": "+1651", "first name": "Bob", "message": "Hi"},
    ]


def test_digits_and_words_of_a_csv_file_stay_the_text_they_are(tmp_path: Path) -> None:
    [row] = read(tmp_path, "a,b,c,d\n0015,1e5,None,true\n")
    assert row == {"a": "0015", "b": "1e5", "c": "None", "d": "true"}


def test_a_blank_cell_is_not_given_and_other_blanks_stay(tmp_path: Path) -> None:
    rows = read(tmp_path, 'a,b,c\n,"  ",x\n x ,"",\t\n0,,\n')
    assert rows == [
        {"a": None, "b": None, "c": "x"},
        {"a": " x ", "b": None, "c": None},
        {"a": "0", "b": None, "c": None},
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=ascii)
def test_blank_lines_are_no_rows_however_lines_end(tmp_path: Path, end: str) -> None:
    lines = ["a,b", "", "1,2", "   ", ",", "", "3,4", "", ""]
    assert read(tmp_path, end.join(lines)) == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]


def test_the_last_line_needs_no_end(tmp_path: Path) -> None:
    assert read(tmp_path, "a,b\n1,2") == [{"a": "1", "b": "2"}]


def test_a_file_of_names_alone_has_no_rows(tmp_path: Path) -> None:
    assert read(tmp_path, "to,message\n") == []


@pytest.mark.parametrize("delimiter", [",", ";", "\t"], ids=ascii)
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "byte order mark"])
def test_what_spreadsheets_save_is_read(tmp_path: Path, delimiter: str, mark: str) -> None:
    lines = [("to", "first name", "message"), (PHONE, "Mary", "Hi; you, there")]
    text = "".join(delimiter.join(f'"{cell}"' for cell in line) + "\r\n" for line in lines)
    assert read(tmp_path, mark + text) == [{"to": PHONE, "first name": "Mary", "message": "Hi; you, there"}]


def test_what_a_quoted_name_holds_does_not_pass_for_the_delimiter(tmp_path: Path) -> None:
    assert read(tmp_path, f'"Name, first";to\nMary;{PHONE}\n') == [{"Name, first": "Mary", "to": PHONE}]


def test_blank_lines_before_the_names_are_left_out(tmp_path: Path) -> None:
    assert read(tmp_path, f"\n \nto\n{PHONE}\n") == [{"to": PHONE}]


def test_spaces_around_names_are_no_part_of_them(tmp_path: Path) -> None:
    assert read(tmp_path, "to , first name\n1,Mary\n") == [{"to": "1", "first name": "Mary"}]


def test_a_ragged_line_is_a_bad_row_and_hides_no_other(tmp_path: Path) -> None:
    rows = read(tmp_path, f"a,b\n1,2\n{SECRET}\n{SECRET},x,y\n3,4\n")
    assert (rows[0], rows[3]) == ({"a": "1", "b": "2"}, {"a": "3", "b": "4"})
    assert malformed(rows[1]) == "has 1 cells, but the first line names 2 columns"
    assert malformed(rows[2]) == "has 3 cells, but the first line names 2 columns"


@pytest.mark.parametrize("header", ["a,b,a", "a, a", "a,", ",a", "a,,b", "a; ;b", '"",a'])
def test_a_name_that_is_doubled_or_blank_is_an_error_that_says_so(tmp_path: Path, header: str) -> None:
    error = refusal(read, tmp_path, f"{header}\n1,2,3\n")
    assert error.field == "messages_path"
    assert "the first line must give each column a unique name" in error.problem


@pytest.mark.parametrize("first", [f"sms,{SECRET},Hi,", f"{SECRET},{SECRET},x"])
def test_a_file_without_a_line_of_names_shows_nobodys_data_in_the_error(tmp_path: Path, first: str) -> None:
    error = refusal(read, tmp_path, f"{first}\nsms,+16505550198,Hi,\n")
    assert "the first line must give each column a unique name" in error.problem


@pytest.mark.parametrize("content", ["", "\n", "\n\n", "\ufeff"], ids=ascii)
def test_a_file_whose_first_line_names_nothing_is_an_error_and_not_an_empty_batch(tmp_path: Path, content: str) -> None:
    error = refusal(read, tmp_path, content)
    assert "the first line must give each column a unique name" in error.problem


@pytest.mark.parametrize(
    "content",
    [
        f'to,message\n1,"{SECRET}\n2,Bob\n3,Eve\n',
        f'to,message\n1,"{SECRET}"x\n2,Bob\n',
        f'to,"message\n1,{SECRET}\n',
    ],
    ids=["never closed", "text after the closing one", "in the names"],
)
def test_a_quote_that_would_swallow_other_rows_is_an_error(tmp_path: Path, content: str) -> None:
    error = refusal(read, tmp_path, content)
    assert error.field == "messages_path"
    assert "people.csv is not CSV" in error.problem


@pytest.mark.parametrize("name", ["people.csv", "people.jsonl"])
@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "cp1252"])
def test_a_file_that_is_not_utf_8_is_an_error_that_says_what_to_do(tmp_path: Path, name: str, encoding: str) -> None:
    content = "to,message\n1,Grüße\n" if name.endswith(".csv") else '{"message": "Grüße"}\n'
    error = refusal(read, tmp_path, content.encode(encoding), name)
    assert error.problem.endswith(f"{name} is not encoded as UTF-8; save it as UTF-8")


def test_bytes_that_are_no_text_are_found_however_late_they_come(tmp_path: Path) -> None:
    refusal(read, tmp_path, b"a,b\n" + b"1,2\n" * 50_000 + b"\xff,2\n")


NAMES = st.text(st.characters(codec="utf-8", exclude_characters=',;\t|"\r\n\ufeff'), min_size=1, max_size=8)
CELLS = (
    st.none() | st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from([",", ";", '"', "\r\n", "a\rb"])
)


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], list[list[str | None]]]:
    names = draw(st.lists(NAMES.filter(str.strip), min_size=1, max_size=5, unique_by=str.strip))
    rows = draw(st.lists(st.lists(CELLS, min_size=len(names), max_size=len(names)), max_size=5))
    return names, rows


@given(tables(), st.sampled_from(",;\t|"), st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]), st.booleans())
def test_what_pythons_csv_writes_reads_back_the_same_and_blank_cells_as_not_given(
    tmp_path_factory: pytest.TempPathFactory,
    table: tuple[list[str], list[list[str | None]]],
    delimiter: str,
    quoting: Any,
    mark: bool,
) -> None:
    names, rows = table
    if len(names) == 1:
        delimiter = ","
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, quoting=quoting).writerows([names, *rows])
    content = text.getvalue().encode("utf-8-sig" if mark else "utf-8")
    expected = [
        {
            name.strip(): cell if cell is not None and cell.strip() else None
            for name, cell in zip(names, row, strict=True)
        }
        for row in rows
    ]
    found = read(tmp_path_factory.getbasetemp(), content)
    assert found == [row for row in expected if any(row.values())]


# --- lines


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=ascii)
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "byte order mark"])
def test_a_csv_row_has_the_line_of_the_file_where_it_begins(tmp_path: Path, end: str, mark: str) -> None:
    content = ["a,b", "1,2", "", '3,"x', "y", 'z"', ",", "ragged", "5,6"]
    assert lines(tmp_path, mark + end.join(content)) == [2, 4, 8, 9]


def test_blank_lines_before_the_names_and_lines_of_a_long_name_count_as_lines(tmp_path: Path) -> None:
    assert lines(tmp_path, '\n \na,"b\nc"\n1,2\n3,4\n') == [5, 6]


def test_a_json_row_has_its_line_of_the_file(tmp_path: Path) -> None:
    assert lines(tmp_path, '\n{"a": "x\u2028y"}\n\nbroken\n[]\n{"b": 2}', "people.jsonl") == [2, 4, 5, 6]


def test_a_quote_that_is_never_closed_is_refused_with_the_line_where_its_row_begins(tmp_path: Path) -> None:
    error = refusal(read, tmp_path, f'to,message\n1,Hi\n\n2,"{SECRET}\n3,Bob\n4,Eve\n')
    assert error.problem.endswith("is not CSV: unexpected end of data in the row that starts on line 4")


# --- JSON Lines


@pytest.mark.parametrize("name", ["people.jsonl", "people.ndjson", "PEOPLE.JSONL"])
def test_a_json_lines_file_gives_a_row_an_object(tmp_path: Path, name: str) -> None:
    content = '\ufeff{"to": "+1650", "n": null, "event_id": 12}\r\n\n   \n{"message": "a\\nb \u2028 c"}'
    assert read(tmp_path, content, name) == [
        {"to": "+1650", "n": None, "event_id": 12},
        {"message": "a\nb \u2028 c"},
    ]


def test_a_blank_string_in_json_stays_what_it_is_so_that_it_can_be_refused(tmp_path: Path) -> None:
    assert read(tmp_path, '{"to": "", "message": " "}\n', "people.jsonl") == [{"to": "", "message": " "}]


@pytest.mark.parametrize(
    "line",
    [f'{{"to": "{SECRET}"', SECRET, f"{{'to': '{SECRET}'}}", '{"a": 1} {"b": 2}', "[" * 100_000, "1" * 5000],
    ids=["cut off", "no JSON", "Python", "two in a line", "deep", "long number"],
)
def test_a_broken_json_line_is_a_bad_row_and_hides_no_other(tmp_path: Path, line: str) -> None:
    first, bad, last = read(tmp_path, f'{{"a": 1}}\n{line}\n{{"b": 2}}\n', "people.jsonl")
    assert (first, last) == ({"a": 1}, {"b": 2})
    assert malformed(bad) == "is not JSON"


@pytest.mark.parametrize("line", ["1", "null", f'"{SECRET}"', f'["{SECRET}"]', "true", '[{"to": "+1650"}]'])
def test_json_that_is_no_object_is_a_bad_row(tmp_path: Path, line: str) -> None:
    [bad] = read(tmp_path, line, "people.jsonl")
    assert malformed(bad) == "is not a JSON object"


def test_an_object_that_says_a_thing_twice_is_a_bad_row_as_doubled_columns_are_an_error(tmp_path: Path) -> None:
    [bad] = read(tmp_path, f'{{"to": "{PHONE}", "to": "{SECRET}"}}\n', "people.jsonl")
    assert malformed(bad)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(), values, max_size=3),
    max_leaves=5,
)


@given(
    st.lists(st.dictionaries(st.text(), JSON, max_size=5), max_size=5), st.booleans(), st.sampled_from(["\n", "\r\n"])
)
def test_what_pythons_json_writes_reads_back_the_same(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[dict[str, Any]],
    ascii_only: bool,
    end: str,
) -> None:
    content = "".join(json.dumps(row, ensure_ascii=ascii_only) + end for row in rows)
    found = read(tmp_path_factory.getbasetemp(), content, "people.jsonl")
    # as text, because True == 1 and 1.0 == 1
    assert [json.dumps(row) for row in found] == [json.dumps(row) for row in rows]


# --- where files are


@pytest.mark.contract
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("people.csv", 'to,message\r\n1,"Grüße,\r\nMary"\r\n'),
        ("people.jsonl", '{"to": "1", "message": "Grüße,\\r\\nMary"}'),
    ],
)
def test_a_uri_is_read_through_airflows_object_storage_as_a_path_is(tmp_path: Path, name: str, content: str) -> None:
    rows = read(tmp_path, content, name)
    assert rows == [{"to": "1", "message": "Grüße,\r\nMary"}]
    assert [read.row for read in rows_of_file((tmp_path / name).as_uri())] == rows


@pytest.mark.contract
@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_file_that_is_missing_or_a_folder_is_an_error_that_names_it(tmp_path: Path, scheme: str) -> None:
    (tmp_path / "folder.csv").mkdir()
    for name, problem in (("none.csv", "No such file"), ("folder.csv", "Is a directory")):
        path = f"{scheme}{tmp_path / name}"
        error = refusal(lambda path=path: list(rows_of_file(path)))
        assert error.field == "messages_path"
        assert error.problem.startswith(f"{path} can't be read")
        assert problem in error.problem


@pytest.mark.contract
@pytest.mark.parametrize("path", ["nosuchstore://bucket/people.csv", "/tmp/\0.csv"])  # noqa: S108
def test_a_place_that_nothing_can_read_is_a_configuration_error_too(path: str) -> None:
    error = refusal(lambda: list(rows_of_file(path)))
    assert error.field == "messages_path"


@pytest.mark.parametrize("path", ["people.csv", "./people.csv", "data/people.jsonl", "~/people.csv"])
def test_a_relative_path_is_an_error_since_workers_start_anywhere(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "people.csv").write_text("a,b\n1,2\n")
    error = refusal(lambda: list(rows_of_file(path)))
    assert "neither an absolute path nor a URI" in error.problem


@pytest.mark.parametrize("name", ["people", "people.txt", "people.xlsx", "people.json", "people.csv.gz", "people.csv "])
def test_a_suffix_that_does_not_tell_the_format_is_an_error_with_those_that_do(tmp_path: Path, name: str) -> None:
    error = refusal(read, tmp_path, "a,b\n1,2\n", name)
    assert error.field == "messages_path"
    assert ".csv, .jsonl, .ndjson" in error.problem


@pytest.mark.parametrize("name", ["people.csv", "people.jsonl"])
def test_a_file_is_streamed_so_that_its_first_row_is_there_before_its_last_is_read(tmp_path: Path, name: str) -> None:
    good, head = (b"1,2\n", b"a,b\n") if name.endswith(".csv") else (b'{"a": "1", "b": "2"}\n', b"")
    path = tmp_path / name
    path.write_bytes(head + good * 100_000 + b"\xff\n")
    rows: Iterator[Any] = iter(rows_of_file(str(path)))
    assert next(rows).row == {"a": "1", "b": "2"}
    refusal(lambda: list(rows))
