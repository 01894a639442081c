"""Errors after which Airflow fails the task at once, whatever its ``retries``: a retry is useless or harmful."""

from __future__ import annotations

from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from typing import Any


class FinalRejectedError(ApptotoRejectedError, AirflowFailException):
    """Apptoto refused the message, and would refuse it again."""


class FinalAuthError(ApptotoAuthError, AirflowFailException):
    """Apptoto refused login or API key."""


class FinalValidationError(ApptotoValidationError, AirflowFailException):
    """The message is not one that Apptoto accepts."""


class FinalUnknownOutcomeError(ApptotoUnknownOutcomeError, AirflowFailException):
    """The message may have been sent."""


class FinalNotSentError(ApptotoNotSentError, AirflowFailException):
    """The message was not sent, and is too old by now to be sent by a retry."""


class FinalConfigurationError(ApptotoConfigurationError, AirflowFailException):
    """A parameter of a task is wrong."""


_FINAL: tuple[tuple[type[ApptotoError], type[ApptotoError]], ...] = (
    (ApptotoAuthError, FinalAuthError),
    (ApptotoRejectedError, FinalRejectedError),
    (ApptotoUnknownOutcomeError, FinalUnknownOutcomeError),
    (ApptotoNotSentError, FinalNotSentError),
)


def final(error: ApptotoError, text: str | None = None) -> ApptotoError:
    """Return an error as one after which Airflow does not retry.

    :param text: what it says, by default the same.
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
