"""The sandbox's own endpoints: read, await and delete messages, switch faults on, and follow changes."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from airflow_provider_apptoto.client.segments import estimate_segments, non_gsm_7_characters, split_segments
from airflow_provider_apptoto.sandbox.appointments.controls import AppointmentControls
from airflow_provider_apptoto.sandbox.faults import Fault
from airflow_provider_apptoto.sandbox.feed import EventStream
from airflow_provider_apptoto.sandbox.search import ANY, MAX_ID, Search, number
from airflow_provider_apptoto.sandbox.web import parsed, read_body

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp

    from airflow_provider_apptoto.sandbox.appointments.store import Appointments
    from airflow_provider_apptoto.sandbox.faults import Faults
    from airflow_provider_apptoto.sandbox.feed import Feed
    from airflow_provider_apptoto.sandbox.inbox import Entry, Inbox

_MAX_LIMIT = 10_000
_MAX_WAIT = 30.0
"""Seconds."""
_NO_STORE = {"Cache-Control": "no-store"}


class Controls:
    """Answers the requests to the sandbox's own endpoints, which need no account.

    :param inbox: the requests that the sandbox got.
    :param faults: the faults to simulate.
    :param appointments: the appointments, which have endpoints of their own.
    :param feed: tells about changes of all three.
    """

    def __init__(self, inbox: Inbox, faults: Faults, appointments: Appointments, feed: Feed) -> None:
        self._inbox = inbox
        self._faults = faults
        self._appointments = appointments
        self._feed = feed

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/readyz", self.ready),
            Route("/sandbox/messages", self.messages),
            Route("/sandbox/messages", self.delete_messages, methods=["DELETE"]),
            Route("/sandbox/messages/{id}", self.message),
            Route("/sandbox/messages/{id}", self.delete_message, methods=["DELETE"]),
            Route("/sandbox/summary", self.summary),
            Route("/sandbox/stream", self.stream),
            Route("/sandbox/faults", self.faults),
            Route("/sandbox/faults", self.switch_on_fault, methods=["POST"]),
            Route("/sandbox/faults", self.clear_faults, methods=["DELETE"]),
            *AppointmentControls(self._appointments).routes(),
        ]

    async def ready(self, _: Request) -> Response:
        """Say that the sandbox can take messages."""
        self._inbox.last_id()
        return JSONResponse({"ready": True}, headers=_NO_STORE)

    async def messages(self, request: Request) -> Response:
        """List the messages that a search finds; with ``wait``, as soon as there is one."""
        fields = _parameters(request)
        wait = _seconds(fields.pop("wait", "0"))
        try:
            limit = number(fields.pop("limit"), "limit", 1, _MAX_LIMIT) if "limit" in fields else None
        except ValueError as error:
            raise HTTPException(HTTPStatus.BAD_REQUEST, str(error)) from error
        search = _search(fields)
        found = await self._found(request, search, limit, wait)
        total = str(self._inbox.count(dataclasses.replace(search, since_id=None, before_id=None)))
        return JSONResponse(found, headers={**_NO_STORE, "X-Total-Count": total})

    async def delete_messages(self, request: Request) -> Response:
        """Delete the requests that a search finds; without an outcome, those of every outcome."""
        search = _search({"outcome": ANY, **_parameters(request)})
        return JSONResponse({"deleted": self._inbox.delete(search)})

    async def message(self, request: Request) -> Response:
        """Return one request, with the segments of a text message."""
        entry = self._inbox.get(_id(request))
        if entry is None:
            raise HTTPException(HTTPStatus.NOT_FOUND, "There is no request with this id.")
        return JSONResponse({**entry, "segments": _segments(entry)}, headers=_NO_STORE)

    async def delete_message(self, request: Request) -> Response:
        """Delete one request."""
        return JSONResponse({"deleted": self._inbox.delete_one(_id(request))})

    async def summary(self, _: Request) -> Response:
        """Return what a page needs beside the messages: the DAGs that sent one, and the active faults."""
        summary = {
            "total": self._inbox.count(Search(outcome=ANY)),
            "last_id": self._inbox.last_id(),
            "dags": self._inbox.dags(),
            "faults": [{**fault.as_dict(), "description": fault.description} for fault in self._faults.pending()],
        }
        return JSONResponse(summary, headers=_NO_STORE)

    async def stream(self, request: Request) -> ASGIApp:
        """Stream the ids of new requests, and tell about deletions, faults and appointments."""
        last_id = self._inbox.last_id()
        try:
            since = number(request.headers.get("Last-Event-ID", last_id), "Last-Event-ID", 0, MAX_ID)
        except ValueError:
            since = last_id
        # An id from before a restart with an empty inbox: all messages are new to this client.
        news = _News(self._inbox, self._faults, self._appointments, since if since <= last_id else 0)
        return EventStream(self._feed, news.take, lambda: news.since)

    async def faults(self, _: Request) -> Response:
        """List the active faults."""
        return JSONResponse([fault.as_dict() for fault in self._faults.pending()])

    async def switch_on_fault(self, request: Request) -> Response:
        """Add a fault."""
        try:
            fault = Fault.parse(parsed(await read_body(request)))
        except ClientDisconnect:
            return Response()
        except ValueError as error:
            raise HTTPException(HTTPStatus.BAD_REQUEST, str(error)) from error
        self._faults.switch_on(fault)
        return JSONResponse(fault.as_dict(), status_code=HTTPStatus.CREATED)

    async def clear_faults(self, _: Request) -> Response:
        """Remove all faults."""
        return JSONResponse({"deleted": self._faults.clear()})

    async def _found(self, request: Request, search: Search, limit: int | None, wait: float) -> list[Entry]:
        if wait == 0:
            return self._inbox.entries(search, limit)
        end = asyncio.get_running_loop().time() + wait
        with self._feed.reader(request.receive) as reader:
            while True:
                found = self._inbox.entries(search, limit)
                left = end - asyncio.get_running_loop().time()
                if found or left <= 0 or reader.is_gone:
                    return found
                await reader.wait(left)


class _News:
    """What changed since one client was told the last time."""

    def __init__(self, inbox: Inbox, faults: Faults, appointments: Appointments, since: int) -> None:
        self._inbox = inbox
        self._faults = faults
        self._appointments = appointments
        self.since = since
        self._told = self._counters()

    def take(self) -> list[tuple[str, dict[str, object]]]:
        """Return the events since the last call."""
        deletions, faults, appointments = self._told
        self._told = self._counters()
        events: list[tuple[str, dict[str, object]]] = []
        if ids := self._inbox.ids(self.since):
            self.since = ids[-1]
            events.append(("messages", {"ids": ids}))
        if self._told[0] != deletions:
            events.append(("deleted", {}))
        if self._told[1] != faults:
            events.append(("faults", {}))
        if self._told[2] != appointments:
            events.append(("appointments", {}))
        return events

    def _counters(self) -> tuple[int, int, int]:
        return self._inbox.deletions, self._faults.changes, self._appointments.database.changes


def _parameters(request: Request) -> dict[str, str]:
    fields = dict(request.query_params)
    if len(fields) < len(request.query_params.multi_items()):
        raise HTTPException(HTTPStatus.BAD_REQUEST, "Each parameter can be given only once.")
    return fields


def _search(fields: dict[str, str]) -> Search:
    try:
        return Search.parse(fields)
    except ValueError as error:
        raise HTTPException(HTTPStatus.BAD_REQUEST, str(error)) from error


def _seconds(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= _MAX_WAIT:
        raise HTTPException(HTTPStatus.BAD_REQUEST, f"wait must be from 0 to {_MAX_WAIT:.0f} seconds.")
    return seconds


def _id(request: Request) -> int:
    try:
        return number(request.path_params["id"], "id", 1, MAX_ID)
    except ValueError as error:
        raise HTTPException(HTTPStatus.NOT_FOUND, "There is no request with this id.") from error


def _segments(entry: Entry) -> dict[str, object] | None:
    text = entry["message"]
    if entry["type"] != "sms" or not isinstance(text, str):
        return None
    return {
        **dataclasses.asdict(estimate_segments(text)),
        "texts": split_segments(text),
        "not_gsm_7": "".join(sorted(non_gsm_7_characters(text))),
    }
