"""Reject requests that a page of another site sends with the user's login cookie.

Airflow has no token against this for apps of plugins, and its cookie is sent from other ports of the same host.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from airflow.providers.common.compat.sdk import conf
from fastapi import HTTPException, status

# FastAPI reads the annotations when the routes are added
from starlette.requests import Request  # noqa: TC002
from starlette.responses import JSONResponse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_JSON = "application/json"
MAX_BODY = 256 * 1024
"""Maximum size of a request's body in bytes: several times what the page sends."""


def only_own_pages(request: Request) -> None:
    """Check that a request that may change something comes from a page of this server, or has a token.

    :raises HTTPException: it does not.
    """
    if request.method in _SAFE_METHODS:
        return
    if not is_own(request.headers, conf.get("api", "base_url", fallback=None)):
        raise HTTPException(status.HTTP_403_FORBIDDEN, "The request comes from a page of another site.")
    # a form of another site can't send this type
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _JSON:
        raise HTTPException(status.HTTP_415_UNSUPPORTED_MEDIA_TYPE, f"The content type must be {_JSON}.")


def is_own(headers: Mapping[str, str], base_url: str | None) -> bool:
    """Return whether a request is from a page of this server, or from a program that sends a token.

    :param headers: of the request, by lower-case name.
    :param base_url: ``[api] base_url``; a proxy may have changed the header ``Host``.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site not in {None, "same-origin"}:
        return False
    if origin is not None:
        hosts = {headers.get("host", "").lower(), urlsplit(base_url or "").netloc.lower()} - {""}
        return urlsplit(origin).netloc.lower() in hosts
    # Browsers send `Origin` with every POST.
    return site is not None or headers.get("authorization", "").lower().startswith("bearer ")


class BodyLimit:
    """Middleware that refuses large bodies; otherwise FastAPI reads a body before it checks who sends it.

    :param headers: of the answer.
    """

    def __init__(self, app: ASGIApp, headers: Mapping[str, str]) -> None:
        self._app = app
        self._headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length[:20]) > MAX_BODY:
            answer = JSONResponse({"detail": _TOO_LARGE}, _TOO_LARGE_STATUS, headers=self._headers)
            await answer(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_BODY:
                raise HTTPException(_TOO_LARGE_STATUS, _TOO_LARGE)
            return message

        await self._app(scope, counted, send)


_TOO_LARGE = "The request is too large."
_TOO_LARGE_STATUS = 413  # its name differs between versions of Starlette
