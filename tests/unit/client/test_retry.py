"""A retry policy applies its values, and invalid values are refused when it is created."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_apptoto.client import ApptotoConfigurationError, RetryPolicy


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"max_attempts": 0}, "max_attempts: must be at least 1, not 0"),
        ({"window": -1}, "window: must be at least 0 seconds, not -1"),
        ({"backoff": -0.5}, r"backoff: must be at least 0 seconds, not -0\.5"),
        ({"backoff": float("nan")}, "backoff: must be at least 0 seconds, not nan"),
    ],
)
def test_a_value_out_of_bounds_is_refused(values: dict[str, Any], problem: str) -> None:
    with pytest.raises(ApptotoConfigurationError, match=problem):
        RetryPolicy(**values)


def test_each_pause_is_three_times_the_one_before_give_or_take_a_quarter() -> None:
    policy = RetryPolicy(backoff=4)
    for attempt, seconds in {1: 4, 2: 12, 3: 36}.items():
        pauses = {policy.pause(attempt) for _ in range(200)}
        assert 0.75 * seconds <= min(pauses) < 0.85 * seconds
        assert 1.15 * seconds < max(pauses) <= 1.25 * seconds
