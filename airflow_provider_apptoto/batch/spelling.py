"""Whether the phone numbers of a batch are written in one way, so that equal numbers can be told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_apptoto.client.errors import ApptotoConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_apptoto.batch.plan import PlannedMessage

_FEWEST_DIGITS = 7
"""Of a number without any prefix."""


def check_spelling(messages: Iterable[PlannedMessage]) -> None:
    """Refuse phone numbers that are written in several ways: two of them may be one person's, who would get both.

    Numbers with ``+`` are known. Of those without, Apptoto completes what is missing (as the page of its events says),
    so that ``650-555-0100``, ``1 650 555 0100`` and ``011 1 650 555 0100`` may be one.

    :raises ApptotoConfigurationError: names two rows, and what to set.
    """
    international: int | None = None
    local: dict[str, tuple[str, int]] = {}  # what was dialled, and the row, by the digits without leading zeros
    for planned in messages:
        to = planned.message.to
        if to is None or planned.message.type == "email":
            continue
        if to.startswith("+"):
            international = planned.index if international is None else international
            continue
        digits = "".join(character for character in to if character.isdigit())
        dialled, row = local.setdefault(digits.lstrip("0"), (digits, planned.index))
        if dialled != digits:
            raise _refusal(row, planned.index, "with and without a prefix")
    if local and international is not None:
        first = next(row for _, row in local.values())
        raise _refusal(min(first, international), max(first, international), "with and without +")
    for digits, (_, row) in local.items():
        for start in range(1, len(digits) - _FEWEST_DIGITS + 1):
            if (shorter := local.get(digits[start:])) is not None:
                raise _refusal(min(shorter[1], row), max(shorter[1], row), "with and without a prefix")


def _refusal(row: int, other: int, how: str) -> ApptotoConfigurationError:
    return ApptotoConfigurationError(
        "default_region",
        f"rows {row} and {other} write phone numbers {how}, and may mean one person, who would get both. "
        "Nothing was sent. Set default_region on the connection (like US), or write all with + and country code",
    )
