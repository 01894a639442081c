"""What the tests of the client share."""

from __future__ import annotations

import pytest

from tests.support.clock import Clock


@pytest.fixture
def clock() -> Clock:
    """Give a clock of the test's own, so that nothing really waits."""
    return Clock()
