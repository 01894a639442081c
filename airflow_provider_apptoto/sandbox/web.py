"""What all endpoints of the sandbox share: the account, bodies, errors, and the refusal of other sites' pages."""

from __future__ import annotations

import base64
import binascii
import json
import secrets
from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

MAX_BODY = 1024 * 1024


class SameOriginMiddleware:
    """Refuse changes that a page of another site makes through a browser.

    :param app: the protected application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 403 to a request that changes something and whose Origin is not its Host."""
        if scope["type"] == "http" and scope["method"] not in ("GET", "HEAD", "OPTIONS"):
            headers = Headers(scope=scope)
            if headers.get("Origin") not in (None, f"http://{headers.get('Host')}"):
                answer = _error(HTTPStatus.FORBIDDEN, "Requests from pages of other sites are refused.")
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)


class Account:
    """The only account.

    :param login: its e-mail address.
    :param api_key: its API key.
    """

    def __init__(self, login: str, api_key: str) -> None:
        self.login = login
        self.api_key = api_key
        self._credentials = f"{login}:{api_key}".encode()

    def authenticate(self, request: Request) -> None:
        """Check the credentials of a request.

        :raises HTTPException: they are missing or wrong.
        """
        scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
        try:
            given = base64.b64decode(encoded.encode(), validate=True)
        except (binascii.Error, ValueError):
            given = b""
        if scheme.lower() != "basic" or not secrets.compare_digest(given, self._credentials):
            raise HTTPException(
                HTTPStatus.UNAUTHORIZED,
                "HTTP Basic authentication with the sandbox's login and API key is required.",
                {"WWW-Authenticate": 'Basic realm="Apptoto sandbox"'},
            )


async def read_body(request: Request) -> bytes:
    """Return the body of a request.

    :raises HTTPException: it is larger than ``MAX_BODY``.
    :raises ClientDisconnect: the client left.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body is larger than {MAX_BODY} bytes.")
    return bytes(body)


def parsed(body: bytes) -> object:
    """Return the JSON value of a body.

    :raises ValueError: it is not JSON.
    """
    try:
        return json.loads(body.decode())
    except (ValueError, RecursionError) as error:
        # The original error may quote the body, which contains a message.
        msg = "The body is not JSON in UTF-8."
        raise ValueError(msg) from error


async def failure(_: Request, error: Exception) -> Response:
    """Answer a request that raised an error."""
    if isinstance(error, HTTPException):
        return _error(error.status_code, error.detail, error.headers)
    return _error(HTTPStatus.INTERNAL_SERVER_ERROR, f"The sandbox can't use its database: {error}")


def _error(status: int, text: str, headers: Mapping[str, str] | None = None) -> Response:
    # ASSUMED: Apptoto documents only the success answer.
    return JSONResponse({"success": False, "error": text}, status_code=status, headers=headers)
