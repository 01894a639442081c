"""The sandbox as an ASGI application: Apptoto's API, the inbox page, and the sandbox's own controls."""

from __future__ import annotations

import base64
import binascii
import json
import re
import secrets
import sqlite3
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from airflow_provider_apptoto import __version__
from airflow_provider_apptoto.sandbox.behaviour import ASSUMED, DOCUMENTED, connection_command
from airflow_provider_apptoto.sandbox.faults import Fault, Faults
from airflow_provider_apptoto.sandbox.inbox import FIELDS, Inbox, Value, by_recipient

if TYPE_CHECKING:
    import threading
    from collections.abc import AsyncIterator, Mapping

    from starlette.types import ASGIApp, Receive, Scope, Send

MAX_BODY = 1024 * 1024
#: Messages on the page, so that it stays fast; ``GET /sandbox/messages`` returns all.
MAX_SHOWN = 500

_TYPES = ("sms", "call", "email")
_TARGETS = ("to", "event_id", "participant_id")
_IDS = ("event_id", "participant_id")
_PAGE_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class SandboxApp:
    """Answers the requests to the sandbox.

    :param inbox: stores the messages.
    :param faults: the faults to simulate.
    :param login: the account's e-mail address.
    :param api_key: the account's API key.
    """

    def __init__(self, inbox: Inbox, faults: Faults, *, login: str, api_key: str) -> None:
        self._inbox = inbox
        self._faults = faults
        self._account = login, api_key
        self._credentials = f"{login}:{api_key}".encode()
        pages = Environment(
            loader=PackageLoader(__package__), autoescape=True, undefined=StrictUndefined, trim_blocks=True
        )
        self._page = pages.get_template("inbox.html")

    def asgi(self, stopping: threading.Event) -> Starlette:
        """Build the application.

        :param stopping: passed to the server's connections, which refuse new ones once it is set.
        """

        @asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[dict[str, threading.Event]]:
            yield {"stopping": stopping}

        app = Starlette(
            routes=[
                Route("/v1/send_message", self.send_message, methods=["POST"]),
                Route("/v1/events", self.events),
                Route("/", self.page),
                Route("/sandbox/messages", self.messages),
                Route("/sandbox/messages", self.clear_messages, methods=["DELETE"]),
                Route("/sandbox/faults", self.faults),
                Route("/sandbox/faults", self.switch_on_fault, methods=["POST"]),
                Route("/sandbox/faults", self.clear_faults, methods=["DELETE"]),
            ],
            middleware=[
                # Against DNS rebinding: a foreign page whose name resolves to 127.0.0.1 sends its name as Host.
                Middleware(
                    TrustedHostMiddleware,
                    allowed_hosts=["127.0.0.1", "localhost", "[::1]"],
                    www_redirect=False,
                ),
                Middleware(SameOriginMiddleware),
            ],
            exception_handlers={HTTPException: _failure, sqlite3.Error: _failure},
            lifespan=lifespan,
        )
        # A wrong path must be an error, not a redirect.
        app.router.redirect_slashes = False
        return app

    async def send_message(self, request: Request) -> ASGIApp:
        """Accept a message, refuse it, or answer with a fault."""
        message: Mapping[str, Value] | None = None
        refusal: HTTPException | None = None
        try:
            body = await _body(request)
            self._authenticate(request)
            message = _message(_json(request, body))
        except ClientDisconnect:
            return Response()
        except HTTPException as error:
            refusal = error
        fault = self._faults.take()
        if message is not None and (fault is None or fault.accepted):
            self._inbox.add(message)
        if fault is not None:
            return fault
        if refusal is not None:
            raise refusal
        return JSONResponse({"success": True})

    async def events(self, request: Request) -> Response:
        """Return an empty list of events."""
        self._authenticate(request)
        return JSONResponse({"events": []})

    async def page(self, request: Request) -> Response:
        """Show what each person got."""
        shown = self._inbox.entries(newest=MAX_SHOWN)
        html = self._page.render(
            people=by_recipient(reversed(shown)),
            shown=len(shown),
            total=len(self._inbox),
            faults=self._faults.pending(),
            documented=DOCUMENTED,
            assumed=ASSUMED,
            refresh="refresh" in request.query_params,
            command=connection_command(*self._account, request.url.port or 0),
            version=__version__,
        )
        return HTMLResponse(html, headers=_PAGE_HEADERS)

    async def messages(self, _: Request) -> Response:
        """List all messages."""
        return JSONResponse(self._inbox.entries())

    async def clear_messages(self, _: Request) -> Response:
        """Empty the inbox."""
        return JSONResponse({"deleted": self._inbox.clear()})

    async def faults(self, _: Request) -> Response:
        """List the active faults."""
        return JSONResponse([fault.as_dict() for fault in self._faults.pending()])

    async def switch_on_fault(self, request: Request) -> Response:
        """Add a fault."""
        try:
            fault = Fault.parse(_parsed(await _body(request)))
        except ClientDisconnect:
            return Response()
        except ValueError as error:
            raise HTTPException(HTTPStatus.BAD_REQUEST, str(error)) from error
        self._faults.switch_on(fault)
        return JSONResponse(fault.as_dict(), status_code=HTTPStatus.CREATED)

    async def clear_faults(self, _: Request) -> Response:
        """Remove all faults."""
        return JSONResponse({"deleted": self._faults.clear()})

    def _authenticate(self, request: Request) -> None:
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


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body is larger than {MAX_BODY} bytes.")
    return bytes(body)


def _json(request: Request, body: bytes) -> object:
    media_type = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise HTTPException(HTTPStatus.BAD_REQUEST, "The Content-Type must be application/json.")
    try:
        return _parsed(body)
    except ValueError as error:
        raise HTTPException(HTTPStatus.BAD_REQUEST, str(error)) from error


def _parsed(body: bytes) -> object:
    try:
        return json.loads(body.decode())
    except (ValueError, RecursionError) as error:
        # The original error may quote the body, which contains a message.
        msg = "The body is not JSON in UTF-8."
        raise ValueError(msg) from error


def _message(body: object) -> Mapping[str, Value]:
    if not isinstance(body, dict):
        raise HTTPException(HTTPStatus.BAD_REQUEST, "The body must be a JSON object.")
    given = {field: body[field] for field in FIELDS if not _absent(body.get(field))}
    problems = [
        f"{field} must be an integer or a string of digits, at most 18."
        if field in _IDS
        else f"{field} must be a string that can be encoded as UTF-8."
        for field, value in given.items()
        if not (_is_id(value) if field in _IDS else _is_text(value))
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


def _absent(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _is_id(value: object) -> bool:
    # Only JSON integers and strings can consist of digits. 18 digits fit SQLite's integers.
    return re.fullmatch("[0-9]{1,18}", str(value)) is not None


def _is_text(value: object) -> bool:
    # JSON can contain half of a surrogate pair, which UTF-8 can't encode.
    return isinstance(value, str) and not re.search("[\ud800-\udfff]", value)


def _error(status: int, text: str, headers: Mapping[str, str] | None = None) -> Response:
    # ASSUMED: Apptoto documents only the success answer.
    return JSONResponse({"success": False, "error": text}, status_code=status, headers=headers)


async def _failure(_: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        return _error(error.status_code, error.detail, error.headers)
    return _error(HTTPStatus.INTERNAL_SERVER_ERROR, f"The sandbox can't use its database: {error}")
