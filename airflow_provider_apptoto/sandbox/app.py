"""The sandbox as an ASGI application: Apptoto's API, and the inbox page."""

from __future__ import annotations

import asyncio
import json
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
from airflow_provider_apptoto.client.appointments import STATES
from airflow_provider_apptoto.sandbox.appointments.api import EventsApi
from airflow_provider_apptoto.sandbox.appointments.sending import Copy, copies_of, record
from airflow_provider_apptoto.sandbox.behaviour import ASSUMED, DOCUMENTED, OBSERVED, connection_command
from airflow_provider_apptoto.sandbox.controls import Controls
from airflow_provider_apptoto.sandbox.message import checked_message, legible_fields, sender_of
from airflow_provider_apptoto.sandbox.web import SameOriginMiddleware, failure, read_body

if TYPE_CHECKING:
    import threading
    from collections.abc import AsyncIterator, Mapping

    from starlette.types import ASGIApp

    from airflow_provider_apptoto.sandbox.appointments.store import Appointments
    from airflow_provider_apptoto.sandbox.faults import Faults
    from airflow_provider_apptoto.sandbox.feed import Feed
    from airflow_provider_apptoto.sandbox.inbox import Inbox, Value
    from airflow_provider_apptoto.sandbox.web import Account

_PAGE_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_SETTLE = 0.2
"""Seconds between two looks at what is due."""
_STATIC = {
    "inbox.js": "text/javascript",
    "appointments.js": "text/javascript",
    "inbox.css": "text/css",
    "appointments.css": "text/css",
}
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
    :param appointments: stores the events and what was said about them.
    :param feed: tells waiting clients about changes of all three.
    :param account: the only account.
    """

    def __init__(
        self, inbox: Inbox, faults: Faults, appointments: Appointments, feed: Feed, *, account: Account
    ) -> None:
        self._inbox = inbox
        self._faults = faults
        self._appointments = appointments
        self._feed = feed
        self._account = account
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
            settling = asyncio.create_task(self._settle())
            yield {"stopping": stopping}
            settling.cancel()

        app = Starlette(
            routes=[
                Route("/v1/send_message", self.send_message, methods=["POST"]),
                *EventsApi(self._appointments, self._faults, self._account.authenticate).routes(),
                Route("/", self.page),
                *(Route(f"/{name}", self.static) for name in _STATIC),
                *Controls(self._inbox, self._faults, self._appointments, self._feed).routes(),
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
            self._account.authenticate(request)
            message = checked_message(request, body)
            copies = copies_of(self._appointments, message)
        except ClientDisconnect:
            return Response()
        except HTTPException as error:
            refusal, message, copies = error, legible_fields(body), []
        fault, sender = self._faults.take(), sender_of(request)
        if fault is not None and not (fault.accepted and refusal is None):
            self._keep([Copy(message, fault.explanation)], sender, outcome="fault", status=fault.answered_status)
            return fault
        if refusal is not None:
            self._keep([Copy(message, refusal.detail)], sender, outcome="refused", status=refusal.status_code)
            raise refusal
        if fault is not None:
            self._keep(copies, sender, outcome="fault", status=fault.answered_status, error=fault.explanation)
            record(self._appointments, copies)
            return fault
        self._keep(copies, sender, outcome="accepted", status=HTTPStatus.OK)
        record(self._appointments, copies)
        return JSONResponse({"success": True})

    def _keep(
        self,
        copies: list[Copy],
        sender: Mapping[str, Value],
        *,
        outcome: str,
        status: int | None,
        error: str | None = None,
    ) -> None:
        """Store what each person gets, or what nobody gets: a copy with an error."""
        for copy in copies:
            self._inbox.add(
                copy.fields,
                outcome=outcome,
                delivered=copy.error is None,
                status=None if status is None else int(status),
                error=copy.error or error or copy.warning,
                sender=sender,
            )

    async def _settle(self) -> None:
        """Let people answer when their time has come, also while nobody asks."""
        while True:
            await asyncio.sleep(_SETTLE)
            self._appointments.conversations.settle()

    async def page(self, request: Request) -> Response:
        """Show the inbox."""
        html = self._page.render(
            faults=[(label, json.dumps(fault)) for label, fault in _SINGLE_FAULTS],
            documented=DOCUMENTED,
            observed=OBSERVED,
            states=STATES,
            assumed=ASSUMED,
            command=connection_command(self._account.login, self._account.api_key, request.url.port or 0),
            keep=f"{self._inbox.keep:,}",
            version=__version__,
        )
        return HTMLResponse(html, headers=_PAGE_HEADERS)

    async def static(self, request: Request) -> Response:
        """Return a file of the page."""
        name = request.url.path[1:]
        text = (files(__package__) / "static" / name).read_text(encoding="utf-8")
        return Response(text, media_type=_STATIC[name], headers=_PAGE_HEADERS)
