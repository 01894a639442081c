"""What can go wrong, by what is known of the message afterwards."""

from __future__ import annotations


class ApptotoError(Exception):
    """Base of all errors of this package.

    :param message: one sentence for the user; holds no recipient, text or key.
    :param status: HTTP status of the answer, or ``None`` where no complete answer came.
    :param reason: what the server or the network said, made safe to show.
    """

    def __init__(self, message: str, *, status: int | None = None, reason: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class _FieldError(ApptotoError, ValueError):
    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}", reason=problem)
        self.field = field
        self.problem = problem

    def __reduce__(self) -> tuple[type[_FieldError], tuple[str, str]]:
        return type(self), (self.field, self.problem)


class ApptotoConfigurationError(_FieldError):
    """A setting is missing or wrong: nothing was sent.

    :param field: the setting's name.
    :param problem: what was given, what is allowed, what to do.
    """


class ApptotoNotSentError(ApptotoError):
    """The message was certainly not sent: it is safe to try again.

    :param retry_after: seconds after which the server asked to be tried again, or ``None``.
    """

    def __init__(
        self, message: str, *, status: int | None = None, reason: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(message, status=status, reason=reason)
        self.retry_after = retry_after


class ApptotoRejectedError(ApptotoError):
    """The message was refused, and would be again: it was not sent."""


class ApptotoAuthError(ApptotoRejectedError):
    """Apptoto refused login or API key (HTTP 401 or 403)."""


class ApptotoValidationError(_FieldError, ApptotoRejectedError):
    """The message is not one that Apptoto takes: it was refused before a byte left.

    :param field: the field that is wrong.
    :param problem: what was given (masked), what is allowed, what to do.
    """


class ApptotoUnknownOutcomeError(ApptotoError):
    """The message may have been sent, or not: nobody can tell from here, so it must not simply be tried again."""
