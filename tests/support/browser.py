"""Chromium, driven by Playwright, where both are installed (Debian: package chromium; PyPI: playwright)."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Locator

PATIENCE = 60_000
"""Milliseconds to wait for something on a page; not a measure of speed."""


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Run Chromium. Until it ends, this thread has an event loop, so no other can run in it."""
    program = shutil.which("chromium")
    if program is None or importlib.util.find_spec("playwright") is None:
        assert "CI" not in os.environ, "CI has to install Chromium and Playwright"
        pytest.skip("Chromium or Playwright is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        # its own sandbox does not work for root and in containers
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


def expect(locator: Locator) -> Any:
    """Return assertions about an element, which wait until they hold."""
    from playwright.sync_api import expect

    expect.set_options(timeout=PATIENCE)
    return expect(locator)
