"""A task removes old entries of the ledger through the hook."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from airflow_provider_apptoto.client import ApptotoConfigurationError
from airflow_provider_apptoto.hooks.apptoto import ApptotoHook
from tests.support.entries import filled

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.contract


@pytest.mark.usefixtures("apptoto_sandbox")
def test_the_age_is_that_of_the_call_or_of_the_configuration(tmp_path: Path) -> None:
    hook = ApptotoHook()
    assert hook.state_database is not None
    filled(hook.state_database)
    assert hook.purge(export=tmp_path / "none.csv") == 0
    assert (tmp_path / "none.csv").read_text() == ""
    with pytest.raises(ApptotoConfigurationError, match="older_than: must not be negative"):
        hook.purge(older_than=timedelta(seconds=-1))
    with pytest.raises(ValueError, match="already exists"):
        hook.purge(older_than=timedelta(0), export=tmp_path / "none.csv")
    assert hook.purge(older_than=timedelta(0)) == 4


def test_without_a_state_database_there_is_nothing_to_purge(connection: Callable[..., None]) -> None:
    connection("http://127.0.0.1:9")
    with pytest.raises(ApptotoConfigurationError, match="state_conn_id: is required for a purge") as raised:
        ApptotoHook().purge()
    assert raised.value.code == "state_database_needed"
