"""One recipient gets as many notifications as the limit allows, and the next one says how many were held back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_provider_apptoto.client import Outcome
from airflow_provider_apptoto.outbox.guards import WithheldError
from airflow_provider_apptoto.outbox.limit import Limit
from airflow_provider_apptoto.outbox.storm import HeldBackChangedError, Storm

if TYPE_CHECKING:
    from airflow_provider_apptoto.outbox.database import StateDatabase

TO = "+16505550199"


def storm(database: StateDatabase, limit: str = "1/hour") -> Storm:
    account = ("https://api.apptoto.com/v1", "clinic@clinic.example")
    return Storm(database=database, hash_keys=[b"salt"], account=account, limit=Limit.parse(limit, "storm_limit"))


def held_back(database: StateDatabase) -> int:
    with pytest.raises(WithheldError, match="storm_limit='1/hour' is reached") as raised:
        storm(database).depart(TO, storm(database).held_back(TO))
    assert raised.value.outcome is Outcome.CAPPED
    return storm(database).held_back(TO)


def test_a_text_with_a_number_that_is_no_longer_right_is_written_anew(database: StateDatabase) -> None:
    storm(database).depart(TO, 0)
    assert [held_back(database) for _ in range(2)] == [1, 2]
    with pytest.raises(HeldBackChangedError):
        storm(database, "2/hour").depart(TO, 1)
    assert storm(database).held_back(TO) == 2
    storm(database, "2/hour").depart(TO, 2)
    assert storm(database).held_back(TO) == 0


def test_a_text_that_reports_nothing_leaves_the_number_for_the_next(database: StateDatabase) -> None:
    storm(database).depart(TO, 0)
    assert held_back(database) == 1
    storm(database, "2/hour").depart(TO, None)
    assert storm(database).held_back(TO) == 1
