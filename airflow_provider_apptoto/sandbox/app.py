"""The sandbox as an ASGI application: Apptoto's API, and the inbox page."""

from __future__ import annotations

import base64
import binascii
import json
import secrets
import sqlite3
from contextlib import asynccontextmanager
from http import HTTPStatus
from importlib.resources import files
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from airflow_provider_apptoto import __version__
from airflow_provider_apptoto.sandbox.behaviour import ASSUMED, DOCUMENTED, connection_command
from airflow_provider_apptoto.sandbox.controls import Controls
from airflow_provider_apptoto.sandbox.message import checked_message, legible_fields, sender_of
from airflow_provider_apptoto.sandbox.web import SameOriginMiddleware, failure, read_body

if TYPE_CHECKING:
    import threading
    from collections.abc import AsyncIterator

    from starlette.types import ASGIApp

    from airflow_provider_apptoto.sandbox.faults import Faults
    from airflow_provider_apptoto.sandbox.feed import Feed
    from airflow_provider_apptoto.sandbox.inbox import Inbox

_PAGE_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_STATIC = {"inbox.js": "text/javascript", "inbox.css": "text/css"}
# The faults that the page has a button for.
_SINGLE_FAULTS: tuple[tuple[str, dict[str, object]], ...] = (
    ("429, retry after 30 s", {"status": 429, "retry_after": 30}),
    ("503", {"status": 503}),
    ("500, stored", {"status": 500, "accepted": True}),
    ("422", {"status": 422}),
    ("Reset", {"kind": "reset"}),
    ("Reset, stored", {"kind": "reset", "accepted": True}),
    ("Hang for 5 s, stored", {"kind": "hang", "seconds": 5, "accepted": True}),
    ("Cut answer, stored", {"kind": "cut", "accepted": True}),
    ("Web page", {"kind": "html"}),
)


class SandboxApp:
    """Answers the requests to the sandbox.

    :param inbox: stores the messages.
    :param faults: the faults to simulate.
    :param feed: tells waiting clients about changes of both.
    :param login: the account's e-mail address.
    :param api_key: the account's API key.
    """

    def __init__(self, inbox: Inbox, faults: Faults, feed: Feed, *, login: str, api_key: str) -> None:
        self._inbox = inbox
        self._faults = faults
        self._feed = feed
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
            self._feed.open()
            yield {"stopping": stopping}

        app = Starlette(
            routes=[
                Route("/v1/send_message", self.send_message, methods=["POST"]),
                Route("/v1/events", self.events),
                Route("/", self.page),
                *(Route(f"/{name}", self.static) for name in _STATIC),
                *Controls(self._inbox, self._faults, self._feed).routes(),
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
            exception_handlers={HTTPException: failure, sqlite3.Error: failure},
            lifespan=lifespan,
        )
        # A wrong path must be an error, not a redirect.
        app.router.redirect_slashes = False
        return app

    async def send_message(self, request: Request) -> ASGIApp:
        """Accept a message, refuse it, or answer with a fault."""
        body = b""
        refusal: HTTPException | None = None
        try:
            body = await read_body(request)
            self._authenticate(request)
            message = checked_message(request, body)
        except ClientDisconnect:
            return Response()
        except HTTPException as error:
            refusal, message = error, legible_fields(body)
        fault, sender = self._faults.take(), sender_of(request)
        if fault is not None:
            self._inbox.add(
                message,
                outcome="fault",
                delivered=fault.accepted and refusal is None,
                status=fault.answered_status,
                error=fault.explanation,
                sender=sender,
            )
            return fault
        if refusal is not None:
            self._inbox.add(
                message,
                outcome="refused",
                delivered=False,
                status=refusal.status_code,
                error=refusal.detail,
                sender=sender,
            )
            raise refusal
        self._inbox.add(message, sender=sender)
        return JSONResponse({"success": True})

    async def events(self, request: Request) -> Response:
        """Return an empty list of events."""
        self._authenticate(request)
        return JSONResponse({"events": []})

    async def page(self, request: Request) -> Response:
        """Show the inbox."""
        html = self._page.render(
            faults=[(label, json.dumps(fault)) for label, fault in _SINGLE_FAULTS],
            documented=DOCUMENTED,
            assumed=ASSUMED,
            command=connection_command(*self._account, request.url.port or 0),
            keep=f"{self._inbox.keep:,}",
            version=__version__,
        )
        return HTMLResponse(html, headers=_PAGE_HEADERS)

    async def static(self, request: Request) -> Response:
        """Return a file of the page."""
        name = request.url.path[1:]
        text = (files(__package__) / "static" / name).read_text(encoding="utf-8")
        return Response(text, media_type=_STATIC[name], headers=_PAGE_HEADERS)

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
