"""What can go wrong, by what is known about the message afterwards."""

from __future__ import annotations

from typing import Any, ClassVar


class ApptotoError(Exception):
    """Base of all errors of this package.

    :param message: one sentence for the user; holds no recipient, text or key.
    :param status: HTTP status of the answer, or ``None`` if no complete answer came.
    :param reason: what the server or the network said, made safe to show.
    :param code: stable name of the cause, for programs; the page "Error codes" of the documentation lists them.
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

    :param field: the setting's name.
    :param problem: what was given, what is allowed, what to do.
    """

    default_code = "setting_invalid"


class ApptotoNotSentError(ApptotoError):
    """The message was not sent. A retry is safe.

    :param retry_after: seconds after which the server asked to be tried again, or ``None``.
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
    """The message was not sent: the next slot in the rate limit is further away than a sender waits for."""

    default_code = "rate_limited"


class ApptotoStoppedError(ApptotoNotSentError):
    """The message was not sent: sending was stopped before its turn."""

    default_code = "stopped"


class ApptotoRejectedError(ApptotoError):
    """Apptoto refused the message, and would refuse it again. It was not sent."""

    default_code = "rejected"


class ApptotoAuthError(ApptotoRejectedError):
    """Apptoto refused login or API key (HTTP 401 or 403)."""

    default_code = "credentials_refused"


class ApptotoValidationError(_FieldError, ApptotoRejectedError):
    """The message is not one that Apptoto accepts. It was refused before a byte was written.

    :param field: the field that is wrong.
    :param problem: what was given (masked), what is allowed, what to do.
    :param column: the column of a batch's row that is to blame, if it is known.
    """

    default_code = "field_invalid"


class ApptotoUnknownOutcomeError(ApptotoError):
    """The message may have been sent. A retry could send it twice."""

    default_code = "outcome_unknown"
