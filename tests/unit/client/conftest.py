"""Fixtures for the tests of the client."""

from __future__ import annotations

import pytest

from tests.support.clock import Clock


@pytest.fixture
def clock() -> Clock:
    """Provide a clock that only the test advances, so no wait takes real time."""
    return Clock()
