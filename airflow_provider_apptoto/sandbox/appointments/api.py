"""Apptoto's endpoints for events, contacts and address books."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from airflow_provider_apptoto.sandbox.appointments import contacts
from airflow_provider_apptoto.sandbox.appointments.reading import (
    MAX_PAGE_SIZE,
    PAGE_SIZE,
    EventSearch,
    events_by_id,
    found_event,
    found_events,
)
from airflow_provider_apptoto.sandbox.appointments.values import Given, moment, not_found, refusal
from airflow_provider_apptoto.sandbox.appointments.writing import delete_event, save_events
from airflow_provider_apptoto.sandbox.faults import READS
from airflow_provider_apptoto.sandbox.web import parsed, read_body

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.types import ASGIApp

    from airflow_provider_apptoto.sandbox.appointments.store import Appointments
    from airflow_provider_apptoto.sandbox.faults import Faults


_MOST = 1_000_000
"""The largest number of a page, or size of one."""


class EventsApi:
    """Answers the requests to ``/v1/events`` and its neighbours.

    :param appointments: the appointments.
    :param faults: the faults to simulate.
    :param authenticate: refuses a request without the account's credentials.
    """

    def __init__(self, appointments: Appointments, faults: Faults, authenticate: Callable[[Request], None]) -> None:
        self._faults = faults
        self._database = appointments.database
        self._conversations = appointments.conversations
        self._authenticate = authenticate

    def routes(self) -> list[Route]:
        """Return the routes."""
        handlers: tuple[tuple[str, str, Callable[[Given], object]], ...] = (
            ("GET", "/v1/events", self.events),
            ("GET", "/v1/event", self.event),
            ("DELETE", "/v1/events", self.delete_event),
            ("GET", "/v1/contacts", self.contacts),
            ("GET", "/v1/contact", self.contact),
            ("GET", "/v1/address_books", self.address_books),
            ("POST", "/v1/events", self.create_events),
            ("PUT", "/v1/events", self.save_events),
            ("POST", "/v1/contacts", self.create_contacts),
            ("PUT", "/v1/contacts", self.save_contacts),
            ("DELETE", "/v1/contacts", self.delete_contact),
        )
        return [Route(path, self._endpoint(handler), methods=[method]) for method, path, handler in handlers]

    def events(self, given: Given) -> object:
        """Return a page of events, or one of them as older clients ask for it."""
        if "id" in given or "external_id" in given:
            return {"events": [self.event(given)]}
        times = {name: moment(given.text(name), name).timestamp() for name in ("begin", "end") if given.text(name)}
        search = EventSearch(
            begin=times.get("begin"),
            end=times.get("end"),
            phone_number=given.text("phone_number"),
            email_address=given.text("email_address"),
            page=_count(given, "page", 1),
            page_size=_count(given, "page_size", PAGE_SIZE),
            include_deleted=bool(given.flag("include_deleted")),
            include_conversations=bool(given.flag("include_conversations")),
        )
        return {"events": found_events(self._database, search)}

    def event(self, given: Given) -> dict[str, Any]:
        """Return one event."""
        found = found_event(
            self._database,
            event_id=given.id("id"),
            external_id=_required(given, "id", "external_id"),
            include_conversations=bool(given.flag("include_conversations")),
        )
        return _there(found, "event")

    def delete_event(self, given: Given) -> object:
        """Delete one event. OBSERVED: it may be deleted already."""
        event_id = self.event(given)["id"]
        delete_event(self._database, event_id)
        return {"events": events_by_id(self._database, [event_id])}

    def create_events(self, given: Given) -> object:
        """Create events."""
        return {"events": events_by_id(self._database, save_events(self._database, given, may_update=False))}

    def save_events(self, given: Given) -> object:
        """Create or change events."""
        return {"events": events_by_id(self._database, save_events(self._database, given, may_update=True))}

    def contacts(self, given: Given) -> object:
        """Return a page of contacts."""
        page, page_size = _count(given, "page", 1), min(_count(given, "page_size", PAGE_SIZE), MAX_PAGE_SIZE)
        return {"contacts": contacts.found_contacts(self._database, page, page_size)}

    def contact(self, given: Given) -> dict[str, Any]:
        """Return one contact."""
        external_id = _required(given, "id", "external_id")
        return _there(contacts.found_contact(self._database, given.id("id"), external_id), "contact")

    def create_contacts(self, given: Given) -> object:
        """Create contacts."""
        return {"contacts": contacts.save_contacts(self._database, given, may_update=False)}

    def save_contacts(self, given: Given) -> object:
        """Create or change contacts."""
        return {"contacts": contacts.save_contacts(self._database, given, may_update=True)}

    def delete_contact(self, given: Given) -> object:
        """Delete one contact."""
        contact = self.contact(given)
        contacts.delete_contact(self._database, contact["id"])
        return {"contacts": [contact]}

    def address_books(self, _: Given) -> object:
        """Return all address books."""
        return {"address_books": contacts.address_books(self._database)}

    def _endpoint(self, handler: Callable[[Given], object]) -> Callable[[Request], Awaitable[ASGIApp]]:
        async def answer(request: Request) -> ASGIApp:
            try:
                body = await read_body(request)
            except ClientDisconnect:
                return Response()
            fault = self._faults.take(READS) if request.method == "GET" else None
            if fault is not None:
                return fault
            self._authenticate(request)
            fields: dict[str, object] = dict(request.query_params)
            if body.strip() and request.method != "GET":
                try:
                    fields |= Given(parsed(body), "The body").fields
                except ValueError as error:
                    raise refusal(str(error)) from error
            self._conversations.settle()
            return JSONResponse(handler(Given(fields)))

        return answer


def _there(found: dict[str, Any] | None, what: str) -> dict[str, Any]:
    if found is None:
        raise not_found(f"such {what}")
    return found


def _required(given: Given, *names: str) -> str | None:
    """Return the last of these parameters; one of them is required."""
    if not any(given.text(name) for name in names):
        raise refusal(f"{' or '.join(names)} is required.")
    return given.text(names[-1])


def _count(given: Given, name: str, default: int) -> int:
    number = given.id(name)
    if number is None:
        return default
    if not 1 <= number <= _MOST:
        raise refusal(f"{name} must be from 1 to {_MOST}.")
    return number
