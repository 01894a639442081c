"""Invalid parameters of a batch are errors that name the parameter and the allowed values."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from airflow_provider_apptoto.batch.options import BatchOptions
from airflow_provider_apptoto.client import ApptotoConfigurationError

COUNT = "is not an integer of at least 1"
FAILED = "is not an integer of at least 0, nor a percentage such as '5%'"
PERCENTAGE = "is neither a count nor a percentage such as '5%'"
LABEL = "a name must be up to 64 letters, digits and _, such as clinic"


def test_the_defaults_are_those_that_are_documented() -> None:
    options = BatchOptions()
    assert (options.on_invalid, options.max_messages, options.max_failed) == ("fail", 1000, 0)
    assert (options.max_consecutive_failures, options.concurrency) == (5, 8)
    assert (options.id_column, options.reference_column, options.label_columns) == (None, None, ())


@pytest.mark.parametrize(
    "fields",
    [
        {"id_column": "appointment id"},
        {"reference_column": "Größe"},
        {"label_columns": ["clinic"]},
        {"label_columns": ("clinic", "campaign", "_region", "Größe")},
        {"label_columns": ("a" * 64,)},
        {"on_invalid": "send_others"},
        {"max_messages": None},
        {"max_messages": 1},
        {"max_messages": 10**9},
        {"max_failed": 10**9},
        {"max_consecutive_failures": 1},
        {"concurrency": 1},
        {"concurrency": 32},
    ],
    ids=ascii,
)
def test_what_is_allowed_is_kept_as_it_is(fields: dict[str, Any]) -> None:
    [(name, value)] = fields.items()
    assert getattr(BatchOptions(**fields), name) == value


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("id_column", "", "'' is not the name of a column"),
        ("id_column", " ", "' ' is not the name of a column"),
        ("id_column", 1, "1 is not the name of a column"),
        ("id_column", ["a", "b"], "['a', 'b'] is not the name of a column"),
        ("reference_column", "", "'' is not the name of a column"),
        ("reference_column", False, "False is not the name of a column"),
        ("label_columns", "clinic", "'clinic' is not a list of at most 4 columns"),
        ("label_columns", None, "None is not a list of at most 4 columns"),
        ("label_columns", {"clinic": 1}, "{'clinic': 1} is not a list of at most 4 columns"),
        ("label_columns", list("abcde"), "['a', 'b', 'c', 'd', 'e'] is not a list of at most 4 columns"),
        ("label_columns", [None], "None is not the name of a column"),
        ("label_columns", [["clinic"]], "['clinic'] is not the name of a column"),
        ("label_columns", ["a", ""], "'' is not the name of a column"),
        ("label_columns", ["first name"], f"'first name' is not a valid label name: {LABEL}"),
        ("label_columns", ["1st"], f"'1st' is not a valid label name: {LABEL}"),
        ("label_columns", ["a" * 65], f"'{'a' * 65}' is not a valid label name: {LABEL}"),
        ("on_invalid", "skip", "'skip' is not one of fail, send_others"),
        ("on_invalid", None, "None is not one of fail, send_others"),
        ("max_messages", 0, f"0 {COUNT}; None means no limit"),
        ("max_messages", "5", f"'5' {COUNT}; None means no limit"),
        ("max_messages", True, f"True {COUNT}; None means no limit"),
        ("max_messages", 5.0, f"5.0 {COUNT}; None means no limit"),
        ("max_failed", -1, f"-1 {FAILED}"),
        ("max_failed", 1.0, f"1.0 {FAILED}"),
        ("max_failed", 0.05, f"0.05 {FAILED}"),
        ("max_failed", True, f"True {FAILED}"),
        ("max_failed", None, f"None {FAILED}"),
        ("max_failed", "5", f"'5' {PERCENTAGE}"),
        ("max_failed", "", f"'' {PERCENTAGE}"),
        ("max_failed", "%", f"'%' {PERCENTAGE}"),
        ("max_failed", "-5%", f"'-5%' {PERCENTAGE}"),
        ("max_failed", "5 %", f"'5 %' {PERCENTAGE}"),
        ("max_failed", "5,5%", f"'5,5%' {PERCENTAGE}"),
        ("max_failed", "100.1%", f"'100.1%' {PERCENTAGE}"),
        ("max_failed", "\u0665%", f"'\u0665%' {PERCENTAGE}"),
        ("max_consecutive_failures", 0, f"0 {COUNT}"),
        ("max_consecutive_failures", None, f"None {COUNT}"),
        ("concurrency", 0, "0 is not an integer from 1 to 32"),
        ("concurrency", 33, "33 is not an integer from 1 to 32"),
        ("concurrency", "8", "'8' is not an integer from 1 to 32"),
        ("concurrency", True, "True is not an integer from 1 to 32"),
    ],
    ids=ascii,
)
def test_a_wrong_value_is_an_error_that_names_the_parameter_and_what_is_allowed(
    name: str, value: Any, problem: str
) -> None:
    with pytest.raises(ApptotoConfigurationError) as raised:
        BatchOptions(**{name: value})
    assert (raised.value.field, raised.value.problem) == (name, problem)


@pytest.mark.parametrize(
    ("max_failed", "rows", "most"),
    [
        (0, 100, 0),
        (1, 1000, 1),
        (7, 0, 7),
        ("0%", 1000, 0),
        ("5%", 100, 5),
        (" 5% ", 100, 5),
        ("5%", 30, Fraction("1.5")),
        ("2.5%", 40, 1),
        ("0.57%", 10_000, 57),  # in floats, 56.99999999999999
        ("100%", 3, 3),
        ("100.0%", 3, 3),
        ("5%", 0, 0),
    ],
)
def test_so_many_rows_may_fail_as_the_count_or_the_percentage_says(
    max_failed: int | str, rows: int, most: int | Fraction
) -> None:
    assert BatchOptions(max_failed=max_failed).most_failed(rows) == most
