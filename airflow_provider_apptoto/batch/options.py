"""The parameters of a batch, checked when the DAG is parsed. The operator's docstring explains each of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

from airflow_provider_apptoto.client.errors import ApptotoConfigurationError
from airflow_provider_apptoto.client.settings import MAX_CONNECTIONS
from airflow_provider_apptoto.outbox.policy import MAX_LABELS, check_choice, check_count, checked_labels

if TYPE_CHECKING:
    from collections.abc import Sequence

OnInvalidName = Literal["fail", "send_others"]
_PERCENTAGE = re.compile(r"(\d{1,3}(?:\.\d+)?)%", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOptions:
    """The checked parameters of a batch.

    :raises ApptotoConfigurationError: a value is not allowed; the error names the parameter and the allowed values.
    """

    id_column: str | None = None
    reference_column: str | None = None
    label_columns: Sequence[str] = ()
    timezone_column: str | None = None
    not_after_column: str | None = None
    on_invalid: OnInvalidName = "fail"
    max_messages: int | None = 1000
    max_failed: int | str = 0
    max_consecutive_failures: int = 5
    concurrency: int = 8

    def __post_init__(self) -> None:
        """Check all values."""
        for name in ("id_column", "reference_column", "timezone_column", "not_after_column"):
            if getattr(self, name) is not None:
                _check_column(name, getattr(self, name))
        _check_label_columns(self.label_columns)
        check_choice("on_invalid", self.on_invalid, ("fail", "send_others"))
        if self.max_messages is not None:
            check_count("max_messages", self.max_messages, 1, hint="; None means no limit")
        check_count("max_consecutive_failures", self.max_consecutive_failures, 1)
        check_count("concurrency", self.concurrency, 1, MAX_CONNECTIONS)
        self.most_failed(0)

    def most_failed(self, rows: int) -> int | Fraction:
        """Return how many of ``rows`` may fail."""
        if isinstance(self.max_failed, str):
            found = _PERCENTAGE.fullmatch(self.max_failed.strip())
            if found is None or Fraction(found[1]) > 100:  # noqa: PLR2004
                msg = f"{self.max_failed!r} is neither a count nor a percentage such as '5%'"
                raise ApptotoConfigurationError("max_failed", msg)
            return rows * Fraction(found[1]) / 100
        check_count("max_failed", self.max_failed, 0, hint=", nor a percentage such as '5%'")
        return self.max_failed


def _check_label_columns(columns: object) -> None:
    if not isinstance(columns, list | tuple) or len(columns) > MAX_LABELS:
        raise ApptotoConfigurationError("label_columns", f"{columns!r} is not a list of at most {MAX_LABELS} columns")
    for column in columns:
        _check_column("label_columns", column)
        try:
            checked_labels({column: "-"})
        except ApptotoConfigurationError as error:
            msg = f"{column!r} is not a valid label name: {error.problem}"
            raise ApptotoConfigurationError("label_columns", msg) from None


def _check_column(name: str, column: object) -> None:
    if not isinstance(column, str) or not column.strip():
        raise ApptotoConfigurationError(name, f"{column!r} is not the name of a column")
