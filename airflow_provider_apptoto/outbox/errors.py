"""Errors that fail the task without a retry, because a retry would be useless or harmful."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_apptoto.client.errors import (
    ApptotoAuthError,
    ApptotoConfigurationError,
    ApptotoError,
    ApptotoNotSentError,
    ApptotoRejectedError,
    ApptotoUnknownOutcomeError,
    ApptotoValidationError,
)


class FinalRejectedError(ApptotoRejectedError, AirflowFailException):
    """The message was rejected, and a retry would be rejected too."""


class FinalAuthError(ApptotoAuthError, AirflowFailException):
    """Apptoto rejected the login or API key."""


class FinalValidationError(ApptotoValidationError, AirflowFailException):
    """The message is invalid."""


class FinalUnknownOutcomeError(ApptotoUnknownOutcomeError, AirflowFailException):
    """The message may have been sent."""


class FinalNotSentError(ApptotoNotSentError, AirflowFailException):
    """The message was not sent, and is now too old to be sent by a retry."""


class FinalConfigurationError(ApptotoConfigurationError, AirflowFailException):
    """A parameter of the task is invalid."""


_FINAL: tuple[tuple[type[ApptotoError], type[ApptotoError]], ...] = (
    (ApptotoAuthError, FinalAuthError),
    (ApptotoRejectedError, FinalRejectedError),
    (ApptotoUnknownOutcomeError, FinalUnknownOutcomeError),
    (ApptotoNotSentError, FinalNotSentError),
)


def final(error: ApptotoError, text: str | None = None) -> ApptotoError:
    """Return the variant of an error that Airflow does not retry.

    :param text: error text; by default unchanged.
    """
    if isinstance(error, AirflowFailException):
        return error
    if isinstance(error, ApptotoValidationError):
        return FinalValidationError(error.field, error.problem, code=error.code, column=error.column)
    if isinstance(error, ApptotoConfigurationError):
        return FinalConfigurationError(error.field, error.problem, code=error.code)
    known: dict[str, Any] = {"status": error.status, "reason": error.reason, "code": error.code}
    made = next(made for kind, made in _FINAL if isinstance(error, kind))
    return made(text or str(error), **known)
