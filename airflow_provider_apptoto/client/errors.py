"""Exceptions, grouped by what is known about the message."""

from __future__ import annotations

from typing import Any, ClassVar


class ApptotoError(Exception):
    """Base class of all errors in this package.

    :param message: one sentence for the user, without recipient, text or key.
    :param status: HTTP status of the answer, or ``None`` without a complete answer.
    :param reason: error text of the server or the network, masked.
    :param code: stable name of the cause, for programs; listed on the page "Error codes" of the documentation.
    """

    default_code: ClassVar[str] = "error"

    def __init__(self, message: str, *, status: int | None = None, reason: str = "", code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.code = code or self.default_code


class _FieldError(ApptotoError, ValueError):
    def __init__(self, field: str, problem: str, *, code: str | None = None, column: str | None = None) -> None:
        super().__init__(f"{field}: {problem}", reason=problem, code=code)
        self.field = field
        self.problem = problem
        self.column = column

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.field, self.problem), self.__dict__


class ApptotoConfigurationError(_FieldError):
    """A setting is missing or wrong. Nothing was sent.

    :param field: name of the setting.
    :param problem: the value that was given, what is allowed, and what to do.
    """

    default_code = "setting_invalid"


class ApptotoNotSentError(ApptotoError):
    """The message was not sent. A retry is safe.

    :param retry_after: seconds to wait before a retry, as the server asked, or ``None``.
    """

    default_code = "not_sent"

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        reason: str = "",
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, status=status, reason=reason, code=code)
        self.retry_after = retry_after


class ApptotoThrottledError(ApptotoNotSentError):
    """The message was not sent: the wait for a slot in the rate limit would be too long."""

    default_code = "rate_limited"


class ApptotoStoppedError(ApptotoNotSentError):
    """The message was not sent: sending was cancelled first."""

    default_code = "stopped"


class ApptotoRejectedError(ApptotoError):
    """The message was rejected and not sent. A retry would be rejected too."""

    default_code = "rejected"


class ApptotoAuthError(ApptotoRejectedError):
    """Apptoto rejected the login or API key (HTTP 401 or 403)."""

    default_code = "credentials_refused"


class ApptotoValidationError(_FieldError, ApptotoRejectedError):
    """The message is invalid. It was rejected before any byte was written.

    :param field: name of the invalid field.
    :param problem: the value that was given (masked), what is allowed, and what to do.
    :param column: the column of the batch row that caused it, if known.
    """

    default_code = "field_invalid"


class ApptotoUnknownOutcomeError(ApptotoError):
    """The message may have been sent. A retry could send it twice."""

    default_code = "outcome_unknown"
