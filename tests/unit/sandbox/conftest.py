"""Fixtures for the tests of the sandbox."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_provider_apptoto.sandbox import Sandbox
from tests.support.sandbox_caller import Caller

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="package")
def running() -> Iterator[Sandbox]:
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running: Sandbox) -> Sandbox:
    running.clear()
    return running


@pytest.fixture
def caller(sandbox: Sandbox) -> Iterator[Caller]:
    with Caller(sandbox) as caller:
        yield caller
