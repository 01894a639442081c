"""Read events from Apptoto: paced like sends, and retried freely, because a read changes nothing."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from airflow_provider_apptoto.client.answers import read_error
from airflow_provider_apptoto.client.appointments import Event, read_id
from airflow_provider_apptoto.client.errors import ApptotoError, ApptotoValidationError
from airflow_provider_apptoto.client.outcomes import Outcome, classify_read
from airflow_provider_apptoto.privacy import remove_frames

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_apptoto.client.appointments import Id
    from airflow_provider_apptoto.client.attempts import Attempts
    from airflow_provider_apptoto.client.outcomes import Answer
    from airflow_provider_apptoto.client.transport import Transport

log = logging.getLogger(__name__)

MAX_PAGE_BYTES = 64 * 1024 * 1024
"""A larger answer is not read. A page of 200 events with long conversations has some megabytes."""
MAX_PAGE_SIZE = 1000


class EventReads:
    """Reads events; thread-safe.

    :param transport: makes the requests.
    :param attempts: paces and retries them.
    :param credentials: texts that no error may show.
    :param on_read: called after each request, with the status of its answer or ``None``.
    """

    def __init__(
        self,
        transport: Transport,
        attempts: Attempts,
        credentials: tuple[str, ...],
        on_read: Callable[[int | None], None] | None,
    ) -> None:
        self._transport = transport
        self._attempts = attempts
        self._credentials = credentials
        self._on_read = on_read

    def page(self, params: Mapping[str, Any], last_check: Callable[[], None] | None = None) -> list[Any]:
        """Return one page of events as JSON.

        :param params: parameters of the request; those that are ``None`` are left out.
        :param last_check: called in every attempt, right before the first byte.
        """
        outcome, answer = self._get("/events", params, last_check)
        found = _list_in(answer) if outcome is Outcome.SENT else None
        if found is None:
            raise read_error(outcome, answer, self._private(params))
        return found

    def event(
        self,
        event_id: Id | None,
        external_id: str | None,
        *,
        include_conversations: bool,
        last_check: Callable[[], None] | None,
    ) -> Event | None:
        """Return one event; see :meth:`.ApptotoClient.get_event`."""
        asked = {"id": event_id, "external_id": external_id}
        given = {name: value for name, value in asked.items() if value is not None}
        if len(given) != 1 or not str(next(iter(given.values()))).strip():
            msg = "exactly one of id and external_id is required, and it must not be blank"
            raise ApptotoValidationError("id", msg, code="id_invalid")
        params = {**given, **_conversations(include_conversations)}
        outcome, answer = self._get("/event", params, last_check)
        if answer.status in {HTTPStatus.NOT_FOUND, HTTPStatus.GONE}:
            return None
        if answer.status == HTTPStatus.NO_CONTENT or (answer.status == HTTPStatus.OK and _is_empty(answer)):
            return None
        event = Event.read(answer.json()) if outcome is Outcome.SENT else None
        if event is None:
            raise read_error(outcome, answer, self._private(params))
        if (event_id is not None and event.id != read_id(event_id)) or (
            external_id is not None and _differs(event, external_id)
        ):
            msg = "Apptoto answered with another event than the one that was asked for"
            raise ApptotoError(msg, status=answer.status, reason="another event", code="other_event")
        return event

    def events(
        self,
        begin: datetime | str | None,
        end: datetime | str | None,
        *,
        phone_number: str | None,
        email_address: str | None,
        include_conversations: bool,
        page_size: int,
    ) -> Iterator[Event]:
        """Return an iterator over events; see :meth:`.ApptotoClient.iter_events`."""
        if isinstance(page_size, bool) or not 1 <= page_size <= MAX_PAGE_SIZE:
            msg = f"must be an integer from 1 to {MAX_PAGE_SIZE}"
            raise ApptotoValidationError("page_size", msg, code="page_size_invalid")
        earliest, latest = moment("begin", begin), moment("end", end)
        if earliest is not None and latest is not None and earliest > latest:
            raise ApptotoValidationError("end", "must not be before begin", code="time_invalid")
        params = {
            "begin": None if earliest is None else earliest.isoformat(),
            "end": None if latest is None else latest.isoformat(),
            "phone_number": phone_number,
            "email_address": email_address,
            **_conversations(include_conversations),
            "page_size": page_size,
        }
        return self._in_window(self._pages(params), earliest, latest)

    def _in_window(
        self, events: Iterator[Event], earliest: datetime | None, latest: datetime | None
    ) -> Iterator[Event]:
        try:
            for event in events:
                start = event.start_time
                is_outside = start is not None and (
                    (earliest is not None and start < earliest) or (latest is not None and start > latest)
                )
                if not is_outside:
                    yield event
        except BaseException as error:
            # the frames below hold pages with names, numbers and texts
            remove_frames(error)
            raise

    def _pages(self, params: Mapping[str, Any]) -> Iterator[Event]:
        """Yield the events of all pages, except exact repetitions of those on the same page or the page before.

        :raises ApptotoError: a full page is repeated, so events may be missing.
        """
        before: set[tuple[Any, ...]] = set()
        seen: set[int] = set()
        number = unreadable = people = with_conversations = 0
        while True:
            number += 1
            page = self.page({**params, "page": number})
            if not page:
                break
            found = [Event.read(each) for each in page]
            unreadable += found.count(None)
            events = [each for each in found if each is not None]
            shown = [(event.id, *(each.id for each in event.participants)) for event in events]
            fingerprint = hash((len(page), *shown))
            if fingerprint in seen:
                # a server that ignores the page, or repeats its last one, would be read for ever
                if len(page) >= params["page_size"]:
                    msg = f"Apptoto returned the same {len(page)} events again as page {number}; others may be missing"
                    raise ApptotoError(msg, reason="a page was repeated", code="page_repeated")
                log.warning("Apptoto returned the same events again as page %d; reading ends there", number)
                break
            seen.add(fingerprint)
            current: set[tuple[Any, ...]] = set()
            for event, identity in zip(events, shown, strict=True):
                if identity not in before and identity not in current:
                    people += len(event.participants)
                    with_conversations += sum(each.messages is not None for each in event.participants)
                    yield event
                current.add(identity)
            before = current
        if unreadable:
            log.warning("Left out %d entries without an id from Apptoto's list of events", unreadable)
        if params.get("include_conversations") and people and not with_conversations:
            log.warning("Apptoto returned no conversations: replies and failed deliveries can't be seen, only states")

    def _get(
        self, path: str, params: Mapping[str, Any], last_check: Callable[[], None] | None
    ) -> tuple[Outcome, Answer]:
        given = {name: value for name, value in params.items() if value is not None}

        def exchange(begin: Callable[[], None]) -> Answer:
            answer = self._transport.exchange("GET", path, params=given, before_write=begin, max_bytes=MAX_PAGE_BYTES)
            if self._on_read is not None:
                self._on_read(answer.status)
            return answer

        try:
            return self._attempts.make(exchange, classify_read, last_check=last_check)
        except BaseException as error:
            # this frame may hold a number or an address
            remove_frames(error)
            raise

    def _private(self, params: Mapping[str, Any]) -> tuple[str, ...]:
        asked = (params.get(name) for name in ("phone_number", "email_address"))
        return (*self._credentials, *(each for each in asked if isinstance(each, str) and each))


def moment(name: str, value: object) -> datetime | None:
    """Return a time with its offset, from a ``datetime`` or ISO 8601 text; ``None`` if there is none.

    :param name: name of the parameter, or the column, in the error.
    :raises ApptotoValidationError: it is no time, or has no zone.
    """
    if value is None:
        return None
    found = value
    if isinstance(value, str):
        try:
            found = datetime.fromisoformat(value.strip())
        except ValueError:
            found = None
    if isinstance(found, datetime) and found.tzinfo is not None:
        return found
    msg = "must be a time with a zone, such as 2026-03-02T18:00-05:00, or a datetime with tzinfo"
    raise ApptotoValidationError(name, msg, code="time_invalid")


def _conversations(included: bool) -> dict[str, str]:  # noqa: FBT001  private
    return {"include_conversations": "true"} if included else {}


def _list_in(answer: Answer) -> list[Any] | None:
    """Return the list of events in an answer. The frame that raises an error must not hold it: it is personal."""
    body = answer.json()
    found = body.get("events") if isinstance(body, Mapping) else None
    return found if isinstance(found, list) else None


def _is_empty(answer: Answer) -> bool:
    """Return whether an answer says that there is no event."""
    return answer.body.strip() in {b"null", b"{}"}


def _differs(event: Event, external_id: str) -> bool:
    return event.external_id is not None and event.external_id != external_id.strip()
