"""The client for Apptoto's endpoints."""

from __future__ import annotations

import base64
import json
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from airflow_provider_apptoto import __version__
from airflow_provider_apptoto.client.answers import kept_response, send_error
from airflow_provider_apptoto.client.attempts import Attempts
from airflow_provider_apptoto.client.base_url import check_base_url
from airflow_provider_apptoto.client.errors import ApptotoConfigurationError
from airflow_provider_apptoto.client.outcomes import Outcome, classify_send
from airflow_provider_apptoto.client.rate_limit import (
    DEFAULT_REQUESTS_PER_MINUTE,
    Clock,
    RateLimiter,
    account_rate_limiter,
)
from airflow_provider_apptoto.client.reads import EventReads
from airflow_provider_apptoto.client.retry import RetryPolicy
from airflow_provider_apptoto.client.routing import DeliveryMode, Routing
from airflow_provider_apptoto.client.segments import estimate_segments
from airflow_provider_apptoto.client.settings import (
    DEFAULT_BASE_URL,
    DEFAULT_CONNECT_TIMEOUT,
    DEFAULT_MAX_RETRY_AFTER,
    DEFAULT_TIMEOUT,
    MAX_TIMEOUT,
    SENDER_HEADER,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from airflow_provider_apptoto.client.appointments import Event, Id
    from airflow_provider_apptoto.client.messages import Message

_EXTRA_TIME = 30.0
"""Seconds that an exchange may last in addition to ``timeout``, by default."""


@dataclass(frozen=True, slots=True)
class SendResult:
    """The result of sending a message.

    :param outcome: ``sent`` (Apptoto accepted it; delivery is not confirmed), ``redirected`` (accepted for the redirect
        recipient), or ``dry_run`` (nothing was sent).
    :param type: ``sms``, ``call`` or ``email``.
    :param target: the original recipient, masked; ids in clear.
    :param http_status: status of Apptoto's answer; ``None`` in ``dry_run``.
    :param sent_at: when the answer arrived (UTC); ``None`` in ``dry_run``.
    :param response: the stored part of the answer: ``success``, and the message's ``id`` as a string, if it has one.
    """

    outcome: Outcome
    type: str
    target: str
    http_status: int | None = None
    sent_at: datetime | None = None
    response: Mapping[str, Any] = field(default_factory=dict)


class ApptotoClient:
    """A thread-safe client for Apptoto's HTTP API. It does not import Airflow, so any Python program can use it.

    :param login: e-mail address of the Apptoto account.
    :param api_key: an API key of the account (Settings, Integrations, Developer Tools, API Keys).
    :param base_url: ``/v1`` is added if it has no path.
    :param timeout: seconds to wait for the next byte of the answer, more than 0, at most a day. Too short a timeout
        causes unknown outcomes.
    :param connect_timeout: seconds, more than 0.
    :param total_timeout: seconds from the first byte of a request to the last byte of its answer, more than 0; after
        that, the outcome is unknown. Default: ``timeout`` + 30.
    :param max_retry_after: seconds, more than 0; a longer ``Retry-After`` is reduced to this.
    :param rate_limiter: assigns slots to requests; by default all clients of the account in this process share one, at
        90 requests a minute.
    :param routing: whether messages go to their recipients, to the redirect recipients, or nowhere.
    :param ca_bundle: path of a PEM file to verify the server with; by default the environment's, else certifi's.
    :param user_agent: value of the ``User-Agent`` header.
    :param retry_policy: when a message that was not sent is retried; by default three attempts within 60 seconds.
    :param is_sandbox: whether ``base_url`` is a sandbox, which is told which task sends. Plain http only.
    :param clock: source of time and sleep; by default the module ``time``.
    :param on_read: called after each request that reads, with the status of its answer or ``None``.
    :raises ApptotoConfigurationError: a setting is missing or wrong.
    """

    def __init__(
        self,
        *,
        login: str,
        api_key: str,
        base_url: str = DEFAULT_BASE_URL,
        timeout: float = DEFAULT_TIMEOUT,
        connect_timeout: float = DEFAULT_CONNECT_TIMEOUT,
        total_timeout: float | None = None,
        max_retry_after: float = DEFAULT_MAX_RETRY_AFTER,
        rate_limiter: RateLimiter | None = None,
        routing: Routing | None = None,
        ca_bundle: str | None = None,
        user_agent: str = f"airflow-provider-apptoto/{__version__}",
        retry_policy: RetryPolicy | None = None,
        is_sandbox: bool = False,
        clock: Clock = time,
        on_read: Callable[[int | None], None] | None = None,
    ) -> None:
        from airflow_provider_apptoto.client.transport import Transport

        for name, value in {"login": login, "api_key": api_key}.items():
            if not value:
                raise ApptotoConfigurationError(name, "is missing", code="setting_missing")
        durations = {
            "timeout": timeout,
            "connect_timeout": connect_timeout,
            "total_timeout": timeout if total_timeout is None else total_timeout,
            "max_retry_after": max_retry_after,
        }
        for name, seconds in durations.items():
            if not 0 < seconds <= MAX_TIMEOUT:
                problem = f"must be more than 0 and at most {MAX_TIMEOUT:.0f} seconds, not {seconds!r}"
                raise ApptotoConfigurationError(name, problem)
        base_url = check_base_url(base_url)
        if is_sandbox and not base_url.startswith("http://"):
            raise ApptotoConfigurationError("is_sandbox", "is set, but base_url is not the http URL of a sandbox")
        self._is_sandbox = is_sandbox
        self.account = base_url, login
        self.total_timeout = timeout + _EXTRA_TIME if total_timeout is None else total_timeout
        self._routing = routing or Routing()
        self._attempts = Attempts(
            rate_limiter or account_rate_limiter(base_url, login, DEFAULT_REQUESTS_PER_MINUTE),
            retry_policy or RetryPolicy(),
            max_retry_after,
            clock,
        )
        basic = base64.b64encode(f"{login}:{api_key}".encode()).decode()
        self._credentials = (api_key, login, basic)
        self._transport = Transport(
            base_url=base_url,
            login=login,
            api_key=api_key,
            connect_timeout=connect_timeout,
            read_timeout=timeout,
            total_timeout=self.total_timeout,
            ca_bundle=ca_bundle,
            user_agent=user_agent,
        )
        self._reads = EventReads(self._transport, self._attempts, self._credentials, on_read)

    @property
    def mode(self) -> DeliveryMode:
        """The delivery mode."""
        return self._routing.mode

    def send(
        self,
        message: Message,
        *,
        prepare: Callable[[], None] | None = None,
        before_write: Callable[[], None] | None = None,
        last_check: Callable[[], None] | None = None,
        sleep: Callable[[float], None] | None = None,
        sender: Mapping[str, str | int] | None = None,
    ) -> SendResult:
        """Send one message (``POST /v1/send_message``).

        A message that was not sent is retried according to the retry policy, after the delay that the server asks for.

        :param message: the message.
        :param prepare: called in every attempt, after connecting and before ``before_write``; may make requests. If it
            raises, nothing was sent.
        :param before_write: called in every attempt, after connecting and before the first byte; may be slow. If it
            raises, nothing was sent.
        :param last_check: called right before the first byte; if it raises, nothing was sent.
        :param sleep: function that waits for a number of seconds, by default the clock's ``sleep``; if it raises,
            nothing was sent.
        :param sender: ids of the sending task for the inbox of a sandbox. The real service doesn't get them.
        :raises ApptotoNotSentError: the message was not sent; a retry is safe.
        :raises ApptotoRejectedError: Apptoto rejected it, or (:class:`ApptotoAuthError`) the login or API key.
        :raises ApptotoUnknownOutcomeError: the message may have been sent; a retry could send it twice.
        """
        routed = self._routing.route(message)
        if routed is None:
            return SendResult(outcome=Outcome.DRY_RUN, type=message.type, target=message.target)
        headers = {SENDER_HEADER: json.dumps(dict(sender))} if sender is not None and self._is_sandbox else None
        outcome, answer = self._attempts.make(
            lambda begin: self._transport.exchange(
                "POST", "/send_message", json_body=routed.payload(), headers=headers, before_write=begin
            ),
            classify_send,
            sleep,
            before_write,
            last_check,
            prepare=prepare,
        )
        if outcome is not Outcome.SENT:
            raise send_error(outcome, answer, (*self._credentials, *message.private, *routed.private))
        return SendResult(
            outcome=Outcome.REDIRECTED if self.mode is DeliveryMode.REDIRECT else outcome,
            type=message.type,
            target=message.target,
            http_status=answer.status,
            sent_at=datetime.now(UTC),
            response=kept_response(answer.json(), message),
        )

    def segments(self, message: Message) -> int | None:
        """Estimate the SMS segments of a message as sent; ``None`` for other channels and stored templates."""
        routed = self._routing.route(message) or message
        if routed.type != "sms" or routed.message is None:
            return None
        return estimate_segments(routed.message).parts

    def list_events(
        self,
        *,
        page: int = 1,
        page_size: int = 30,
        last_check: Callable[[], None] | None = None,
        **filters: Any,
    ) -> list[dict[str, Any]]:
        """Return one page of the account's events as JSON (``GET /v1/events``).

        Source: apidocs.apptoto.com/reference/v1events.

        :param page: number of the page, from 1.
        :param page_size: events per page, at least 1.
        :param last_check: called in every attempt, right before the first byte.
        :param filters: further parameters of the request; those that are ``None`` are left out.
        :raises ApptotoAuthError: Apptoto rejected the login or API key.
        :raises ApptotoNotSentError: all attempts failed; a retry may succeed.
        :raises ApptotoError: the answer is not from Apptoto's API.
        """
        params = {"page": page, "page_size": page_size, **filters}
        events: list[dict[str, Any]] = self._reads.page(params, last_check)
        return events

    def get_event(
        self,
        *,
        id: Id | None = None,  # noqa: A002  the endpoint's own name
        external_id: str | None = None,
        include_conversations: bool = False,
        last_check: Callable[[], None] | None = None,
    ) -> Event | None:
        """Return one event (``GET /v1/event``); ``None`` if Apptoto has none with this id.

        Source: apidocs.apptoto.com/reference/v1event. How a missing event is answered is not documented: HTTP 404 and
        an empty answer count as missing. ``include_conversations`` was observed to work here, but is not documented.

        :param id: id of the event; exactly one of this and ``external_id`` is required.
        :param external_id: the id that the caller gave the event when it was created.
        :param include_conversations: whether participants have their messages.
        :param last_check: called in every attempt, right before the first byte.
        :raises ApptotoValidationError: not exactly one id was given.
        :raises ApptotoAuthError: Apptoto rejected the login or API key.
        :raises ApptotoNotSentError: all attempts failed; a retry may succeed.
        :raises ApptotoError: the answer is not from Apptoto's API, or is another event.
        """
        return self._reads.event(id, external_id, include_conversations=include_conversations, last_check=last_check)

    def iter_events(
        self,
        begin: datetime | str | None = None,
        end: datetime | str | None = None,
        *,
        phone_number: str | None = None,
        email_address: str | None = None,
        include_conversations: bool = False,
        page_size: int = 200,
    ) -> Iterator[Event]:
        """Yield the account's events, one page in memory at a time (``GET /v1/events``).

        Pages are read until an empty one, so ``n`` pages take ``n + 1`` requests. Events outside ``begin`` and ``end``
        are left out here too: Apptoto ignores parameters that it does not know, and the name ``end`` is assumed.
        With a filter, an event can come several times, each time with the participants that match (documented).
        An event that is created, moved or deleted while pages are read can be missing.

        :param begin: earliest start: an aware ``datetime``, or ISO 8601 with a zone.
        :param end: latest start, included.
        :param phone_number: only events that have a participant with this number; write it with ``+``. It is part of
            the URL, which urllib3 logs at level DEBUG.
        :param email_address: as ``phone_number``, by address.
        :param include_conversations: whether participants have their messages.
        :param page_size: events per page, 1 to 1000. Apptoto documents no maximum.
        :raises ApptotoValidationError: a parameter is invalid.
        :raises ApptotoAuthError: Apptoto rejected the login or API key.
        :raises ApptotoNotSentError: all attempts for a page failed; a retry may succeed.
        :raises ApptotoError: an answer is not from Apptoto's API.
        """
        return self._reads.events(
            begin,
            end,
            phone_number=phone_number,
            email_address=email_address,
            include_conversations=include_conversations,
            page_size=page_size,
        )

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def __enter__(self) -> Self:
        """Return the client itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections."""
        self.close()
