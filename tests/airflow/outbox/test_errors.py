"""An error that Airflow must not retry says all that the error said which it stands for."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_apptoto.client import (
    ApptotoAuthError,
    ApptotoConfigurationError,
    ApptotoError,
    ApptotoNotSentError,
    ApptotoRejectedError,
    ApptotoUnknownOutcomeError,
    ApptotoValidationError,
)
from airflow_provider_apptoto.outbox.errors import final

SAID: dict[str, Any] = {"status": 422, "reason": "no", "code": "a_code"}
ERRORS = [
    ApptotoRejectedError("refused", **SAID),
    ApptotoAuthError("refused", **SAID),
    ApptotoUnknownOutcomeError("perhaps", **SAID),
    ApptotoNotSentError("later", **SAID),
    ApptotoValidationError("to", "is blank", code="a_code", column="phone"),
    ApptotoConfigurationError("max_age", "is blank", code="a_code"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_final_error_is_the_same_error_for_airflow_and_for_whoever_reads_it(error: ApptotoError) -> None:
    made = final(error)
    assert isinstance(made, AirflowFailException)
    assert isinstance(made, type(error))
    names = ("status", "reason", "code", "field", "problem", "column")
    assert [getattr(made, name, None) for name in names] == [getattr(error, name, None) for name in names]
    assert str(made) == str(error)
    assert final(made) is made


def test_a_final_error_may_say_more() -> None:
    assert str(final(ERRORS[0], "refused; correct it")) == "refused; correct it"
