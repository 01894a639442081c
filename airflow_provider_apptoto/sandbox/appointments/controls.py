"""The sandbox's own endpoints for appointments: list them, let their people answer, and load a day."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from airflow_provider_apptoto.sandbox.appointments.overview import entries, entry
from airflow_provider_apptoto.sandbox.appointments.values import Given, not_found, refusal
from airflow_provider_apptoto.sandbox.search import MAX_ID, number
from airflow_provider_apptoto.sandbox.web import parsed, read_body

if TYPE_CHECKING:
    from starlette.requests import Request

    from airflow_provider_apptoto.sandbox.appointments.store import Appointments

_LIMIT = 500
_MAX_LIMIT = 10_000
_MAX_AFTER = 86_400
"""Seconds."""
_NO_STORE = {"Cache-Control": "no-store"}


class AppointmentControls:
    """Answers the requests to the sandbox's own endpoints for appointments, which need no account.

    :param appointments: the appointments.
    """

    def __init__(self, appointments: Appointments) -> None:
        self._appointments = appointments

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/sandbox/appointments", self.entries),
            Route("/sandbox/appointments", self.delete, methods=["DELETE"]),
            Route("/sandbox/appointments/clinic-day", self.add_clinic_day, methods=["POST"]),
            Route("/sandbox/participants/{id}", self.participant),
            Route("/sandbox/participants/{id}/answer", self.answer, methods=["POST"]),
            Route("/sandbox/opt-outs", self.opt_outs),
            Route("/sandbox/opt-outs", self.forget_opt_outs, methods=["DELETE"]),
        ]

    async def entries(self, request: Request) -> Response:
        """List the participants of appointments, by start time."""
        fields = dict(request.query_params)
        if unknown := [repr(name) for name in fields if name not in ("state", "text", "limit")]:
            raise refusal(f"Unknown parameters: {', '.join(unknown)}. Allowed: state, text, limit.")
        try:
            limit = number(fields.get("limit", _LIMIT), "limit", 1, _MAX_LIMIT)
        except ValueError as error:
            raise refusal(str(error)) from error
        self._appointments.conversations.settle()
        state, text = fields.get("state"), fields.get("text")
        found, total = entries(self._appointments.database, state=state, text=text, limit=limit)
        return JSONResponse(found, headers={**_NO_STORE, "X-Total-Count": str(total)})

    async def delete(self, _: Request) -> Response:
        """Delete all appointments, contacts and opt-outs."""
        return JSONResponse({"deleted": self._appointments.clear()})

    async def add_clinic_day(self, request: Request) -> Response:
        """Add a clinic's day."""
        given = await _given(request)
        if given is None:
            return Response()
        try:
            day = date.fromisoformat(given.text("day") or "") if "day" in given else None
        except ValueError as error:
            raise refusal("day must be a date, such as 2026-12-01.") from error
        return JSONResponse({"event_ids": self._appointments.add_clinic_day(day)})

    async def participant(self, request: Request) -> Response:
        """Return one participant with all messages."""
        self._appointments.conversations.settle()
        found = entry(self._appointments.database, _id(request))
        if found is None:
            raise not_found("participant with this id")
        return JSONResponse(found, headers=_NO_STORE)

    async def answer(self, request: Request) -> Response:
        """Let a participant answer."""
        given = await _given(request)
        if given is None:
            return Response()
        if unknown := [repr(name) for name in given.fields if name not in ("answer", "text", "channel", "after")]:
            raise refusal(f"Unknown fields: {', '.join(unknown)}. Allowed: answer, text, channel, after.")
        self._appointments.conversations.answer(
            _id(request),
            given.text("answer") or "",
            text=given.text("text"),
            channel=given.text("channel"),
            after=given.seconds("after", _MAX_AFTER),
        )
        return JSONResponse(entry(self._appointments.database, _id(request)))

    async def opt_outs(self, _: Request) -> Response:
        """List who has opted out."""
        return JSONResponse(self._appointments.opt_outs(), headers=_NO_STORE)

    async def forget_opt_outs(self, _: Request) -> Response:
        """Forget who has opted out."""
        return JSONResponse({"deleted": self._appointments.forget_opt_outs()})


async def _given(request: Request) -> Given | None:
    """Return the fields of a request's body; None if the client left."""
    try:
        body = await read_body(request)
        return Given(parsed(body) if body.strip() else {})
    except ClientDisconnect:
        return None
    except ValueError as error:
        raise refusal(str(error)) from error


def _id(request: Request) -> int:
    try:
        return number(request.path_params["id"], "id", 1, MAX_ID)
    except ValueError as error:
        raise not_found("participant with this id") from error
