"""The one road of a message from a task to Apptoto."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_apptoto.client.errors import (
    ApptotoNotSentError,
    ApptotoRejectedError,
    ApptotoUnknownOutcomeError,
)
from airflow_provider_apptoto.privacy import reveal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_apptoto.client import SendResult
    from airflow_provider_apptoto.hooks.apptoto import ApptotoHook


def deliver(fields: Mapping[str, Any], hook: ApptotoHook) -> SendResult:
    """Check a message and send it.

    What was certainly not sent raises as it is, and Airflow may try again. What was refused would be again, and what
    may have been sent must not be sent twice: both fail the task at once, whatever its ``retries``.

    Tracebacks end here: the frames below hold recipient and text, and some log handlers print what frames hold.

    :param fields: the parameters of :class:`~airflow_provider_apptoto.client.Message`, hidden or not.
    :param hook: sends it.
    :raises ApptotoNotSentError: certainly not sent.
    :raises AirflowFailException: refused, or it may have been sent; its cause is the error of the client.
    """
    try:
        return _send(fields, hook)
    except (ApptotoRejectedError, ApptotoUnknownOutcomeError) as error:
        raise AirflowFailException(str(error)) from error.with_traceback(None)
    except ApptotoNotSentError as error:
        raise error.with_traceback(None) from None


def _send(fields: Mapping[str, Any], hook: ApptotoHook) -> SendResult:
    return hook.get_conn().send(hook.build_message(**{name: reveal(value) for name, value in fields.items()}))
