"""What the tests of the client share."""

from __future__ import annotations

import pytest

from tests.support.clock import Clock


@pytest.fixture
def clock() -> Clock:
    """Give a clock that only the test moves, so no wait takes real time."""
    return Clock()
