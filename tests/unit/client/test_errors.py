"""The class of an error shows what is known about the message, and its code shows the cause."""

from __future__ import annotations

import copy
import pickle

import pytest

from airflow_provider_apptoto.client import (
    ApptotoAuthError,
    ApptotoConfigurationError,
    ApptotoError,
    ApptotoNotSentError,
    ApptotoRejectedError,
    ApptotoStoppedError,
    ApptotoThrottledError,
    ApptotoUnknownOutcomeError,
    ApptotoValidationError,
)

ERRORS: list[ApptotoError] = [
    ApptotoError("The answer is not from Apptoto's API", status=200, code="not_apptoto"),
    ApptotoConfigurationError("timeout", "must be at least 0 seconds, not -1", code="setting_invalid"),
    ApptotoNotSentError("The message was not sent", status=429, reason="slow down", retry_after=30),
    ApptotoThrottledError("Nothing was sent", retry_after=90),
    ApptotoStoppedError("The message was not sent"),
    ApptotoRejectedError("Apptoto rejected the message", status=422),
    ApptotoAuthError("Apptoto rejected the login or API key", status=401),
    ApptotoValidationError("message", "is empty", code="field_empty", column="first_name"),
    ApptotoUnknownOutcomeError("The message may have been sent", status=500),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_copy_of_an_error_and_one_from_another_process_know_all_that_it_knows(error: ApptotoError) -> None:
    for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):  # noqa: S301
        assert type(twin) is type(error)
        assert (str(twin), vars(twin)) == (str(error), vars(error))


def test_every_error_has_a_code_of_its_class_unless_it_is_given_a_more_specific_one() -> None:
    assert [error.code for error in ERRORS] == [
        "not_apptoto",
        "setting_invalid",
        "not_sent",
        "rate_limited",
        "stopped",
        "rejected",
        "credentials_refused",
        "field_empty",
        "outcome_unknown",
    ]
    assert ApptotoValidationError("message", "is empty").code == "field_invalid"
    assert ApptotoRejectedError("Apptoto rejected the message", code="opted_out").code == "opted_out"


@pytest.mark.parametrize("error", [ApptotoThrottledError("later"), ApptotoStoppedError("stopped")])
def test_a_message_whose_turn_did_not_come_was_not_sent(error: ApptotoError) -> None:
    assert isinstance(error, ApptotoNotSentError)


def test_the_field_the_problem_and_the_column_of_a_refused_message_can_be_read() -> None:
    error = ApptotoValidationError("message", "is empty", code="field_empty", column="first_name")
    assert isinstance(error, ApptotoRejectedError)
    assert (error.field, error.problem, error.reason, error.column) == (
        "message",
        "is empty",
        "is empty",
        "first_name",
    )
    assert str(error) == "message: is empty"
    assert ApptotoValidationError("to", "is blank").column is None
