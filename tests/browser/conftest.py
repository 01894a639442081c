"""One Chromium for all tests in this folder, and one API server, because starting one takes as long as all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser

    from tests.support.outbox_page import OutboxPage, Visit
    from tests.support.outbox_server import OutboxServer


# Not of the session: it would stop other tests of this process from running an event loop.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    from tests.support.browser import chromium

    with chromium() as browser:
        yield browser


@pytest.fixture(scope="package")
def running_server(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OutboxServer]:  # noqa: ARG001  without a browser, it is not needed
    """Run an API server with a base path, which is harder than none."""
    from tests.support import outbox_server

    with outbox_server.serving(tmp_path_factory.mktemp("airflow"), "/airflow") as server:
        yield server


@pytest.fixture
def server(running_server: OutboxServer) -> OutboxServer:
    """Provide the API server. Its state database is empty."""
    running_server.fill([])
    return running_server


@pytest.fixture(scope="package")
def visit(browser: Browser, running_server: OutboxServer) -> Iterator[Visit]:
    """Provide the browser of a user who is logged in; pages share its cache."""
    from tests.support.outbox_page import Visit

    with Visit(browser, running_server, "ann") as visit:
        yield visit


@pytest.fixture
def page(visit: Visit, server: OutboxServer) -> Iterator[OutboxPage]:  # noqa: ARG001  it is emptied
    """Provide the outbox page, not opened yet. Afterwards, nothing may have failed on it."""
    with visit.page() as page:
        yield page
