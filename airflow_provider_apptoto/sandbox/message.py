"""Read a request to send a message: its fields, and the ids of its sender."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException

from airflow_provider_apptoto.client.settings import SENDER_HEADER
from airflow_provider_apptoto.sandbox.inbox import FIELDS, SENDER
from airflow_provider_apptoto.sandbox.web import parsed

if TYPE_CHECKING:
    from starlette.requests import Request

    from airflow_provider_apptoto.sandbox.inbox import Value

_TYPES = ("sms", "call", "email")
_TARGETS = ("to", "event_id", "participant_id")
_IDS = ("event_id", "participant_id")
_NUMBERS = ("map_index", "try_number")
_MAX_NUMBER = 10**9


def checked_message(request: Request, body: bytes) -> Mapping[str, Value]:
    """Return the fields of a valid message.

    :raises HTTPException: it is invalid; the error names the fields.
    """
    media_type = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise HTTPException(HTTPStatus.BAD_REQUEST, "The Content-Type must be application/json.")
    try:
        fields = parsed(body)
    except ValueError as error:
        raise HTTPException(HTTPStatus.BAD_REQUEST, str(error)) from error
    return _checked(fields)


def legible_fields(body: bytes) -> Mapping[str, Value]:
    """Return those fields of an invalid request that can be shown."""
    try:
        fields = parsed(body)
    except ValueError:
        return {}
    return {name: value for name, value in _given(fields).items() if _is_valid(name, value)}


def sender_of(request: Request) -> Mapping[str, Value]:
    """Return the ids of the task that sent a request, as the provider tells them to a sandbox."""
    try:
        ids = json.loads(request.headers.get(SENDER_HEADER, "{}"))
    except (ValueError, RecursionError):
        return {}
    if not isinstance(ids, Mapping):
        return {}
    return {
        name: ids[name]
        for name in SENDER
        if (_is_number(ids.get(name)) if name in _NUMBERS else _is_text(ids.get(name)))
    }


def _checked(body: object) -> Mapping[str, Value]:
    if not isinstance(body, dict):
        raise HTTPException(HTTPStatus.BAD_REQUEST, "The body must be a JSON object.")
    given = _given(body)
    problems = [
        f"{field} must be an integer or a string of digits, at most 18."
        if field in _IDS
        else f"{field} must be a string that can be encoded as UTF-8."
        for field, value in given.items()
        if not _is_valid(field, value)
    ]
    if given.get("type") not in _TYPES:
        problems.append('type must be "sms", "call" or "email".')
    if not given.keys() & set(_TARGETS):
        problems.append("One of to, event_id, participant_id is required.")
    if not given.keys() & {"message", "template_id"}:
        problems.append("message is required unless template_id is given.")
    if problems:
        raise HTTPException(HTTPStatus.BAD_REQUEST, " ".join(problems))
    return given


def _given(body: object) -> dict[str, Value]:
    if not isinstance(body, Mapping):
        return {}
    return {field: body[field] for field in FIELDS if not _absent(body.get(field))}


def _absent(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _is_valid(field: str, value: object) -> bool:
    return _is_id(value) if field in _IDS else _is_text(value)


def _is_id(value: object) -> bool:
    # Only JSON integers and strings can consist of digits. 18 digits fit SQLite's integers.
    return re.fullmatch("[0-9]{1,18}", str(value)) is not None


def _is_text(value: object) -> bool:
    # JSON can contain half of a surrogate pair, which UTF-8 can't encode.
    return isinstance(value, str) and not re.search("[\ud800-\udfff]", value)


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _MAX_NUMBER
