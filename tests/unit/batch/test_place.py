"""People find a row by its line in a file, or by its position in a list, and by their own reference."""

from __future__ import annotations

import pytest

from airflow_provider_apptoto.batch.plan import place


@pytest.mark.parametrize(
    ("position", "expected"),
    [
        ((3, None), "row 3"),
        ((3, 5), "line 5"),
        ((3, None, "4711"), "row 3 (reference 4711)"),
        ((3, 5, "4711"), "line 5 (reference 4711)"),
    ],
)
def test_a_place_names_line_or_row_and_reference(position: tuple[int, int | None], expected: str) -> None:
    assert place(*position) == expected
