"""Turn an HTTP answer into an error, or into the parts that may be stored."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from airflow_provider_apptoto.client.errors import (
    ApptotoAuthError,
    ApptotoError,
    ApptotoNotSentError,
    ApptotoRejectedError,
    ApptotoUnknownOutcomeError,
)
from airflow_provider_apptoto.client.outcomes import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_apptoto.client.messages import Message
    from airflow_provider_apptoto.client.outcomes import Answer

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_REFUSED_CREDENTIALS = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}


def describe_status(status: int | None) -> str:
    """Return the status of an answer in words."""
    return "no complete answer" if status is None else f"HTTP {status}"


def send_error(outcome: Outcome, answer: Answer, private: tuple[str, ...]) -> ApptotoError:
    """Return the error for a message that was not sent, or that may have been sent.

    :param outcome: ``not_sent``, ``rejected`` or ``unknown``.
    :param private: texts that the server may have echoed and that the error must not show.
    """
    reason = answer.failure or answer.said(private)
    what = _with_status(answer, reason)
    if outcome is Outcome.NOT_SENT:
        msg = f"The message was not sent: {what}"
        return ApptotoNotSentError(msg, status=answer.status, reason=reason, retry_after=answer.retry_after)
    if outcome is Outcome.UNKNOWN:
        msg = f"The message may have been sent: {what}. Check in Apptoto before you send it again"
        return ApptotoUnknownOutcomeError(msg, status=answer.status, reason=reason)
    if answer.status in _REFUSED_CREDENTIALS:
        return _auth_error(answer, reason)
    return ApptotoRejectedError(f"Apptoto rejected the message: {what}", status=answer.status, reason=reason)


def read_error(outcome: Outcome, answer: Answer, private: tuple[str, ...]) -> ApptotoError:
    """Return the error for a failed read.

    :param outcome: ``not_sent`` if another attempt may help.
    :param private: texts that the server may have echoed and that the error must not show.
    """
    # JSON that can't be used may be people's data, cut or in another shape; a page is that of a wrong URL
    is_data = outcome is Outcome.UNKNOWN and not answer.body.lstrip().startswith(b"<")
    reason = answer.failure or ("" if is_data else answer.said(private))
    if outcome is Outcome.NOT_SENT:
        msg = f"The request to Apptoto failed: {_with_status(answer, reason)}"
        return ApptotoNotSentError(msg, status=answer.status, reason=reason, retry_after=answer.retry_after)
    if answer.status in _REFUSED_CREDENTIALS:
        return _auth_error(answer, reason)
    msg = f"The answer is not from Apptoto's API: {_with_status(answer, reason)}. Check the base URL"
    return ApptotoError(msg, status=answer.status, reason=reason, code="not_apptoto")


def kept_response(body: Mapping[str, Any], message: Message) -> dict[str, Any]:
    """Return the parts of the answer to a sent message that may be stored.

    These are ``success`` and the message's own id (assumed: none is documented). Other ids may be phone numbers.
    """
    recipient = re.sub(r"\D", "", message.to or "")
    own = next((body[name] for name in ("id", "message_id") if _is_id(body.get(name))), None)
    if own is None or (recipient and recipient in str(own)):
        return {"success": True}
    return {"success": True, "id": str(own)}


def _with_status(answer: Answer, reason: str) -> str:
    where = f" to {answer.location}" if answer.location else ""
    return f"{describe_status(answer.status)}{where}" + (f" ({reason})" if reason else "")


def _auth_error(answer: Answer, reason: str) -> ApptotoAuthError:
    what = _with_status(answer, reason)
    msg = f"Apptoto rejected the login or API key: {what}. Check both, and that the key is enabled"
    return ApptotoAuthError(msg, status=answer.status, reason=reason)


def _is_id(value: object) -> bool:
    if isinstance(value, str):
        return _ID.fullmatch(value) is not None
    return isinstance(value, int) and not isinstance(value, bool)
