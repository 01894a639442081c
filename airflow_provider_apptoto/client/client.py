"""The client for Apptoto's endpoints."""

from __future__ import annotations

import base64
import dataclasses
import json
import logging
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Self

from airflow_provider_apptoto import __version__
from airflow_provider_apptoto.client.answers import describe_status, kept_response, read_error, send_error
from airflow_provider_apptoto.client.base_url import check_base_url
from airflow_provider_apptoto.client.errors import ApptotoConfigurationError
from airflow_provider_apptoto.client.outcomes import Answer, Outcome, classify_read, classify_send
from airflow_provider_apptoto.client.rate_limit import (
    DEFAULT_REQUESTS_PER_MINUTE,
    LOGGED_WAIT,
    Clock,
    RateLimiter,
    SlotQueue,
    account_rate_limiter,
)
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
from airflow_provider_apptoto.privacy import remove_frames

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_provider_apptoto.client.messages import Message

log = logging.getLogger(__name__)

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
        self._max_retry_after = max_retry_after
        self._routing = routing or Routing()
        self._retry_policy = retry_policy or RetryPolicy()
        self._limiter = rate_limiter or account_rate_limiter(base_url, login, DEFAULT_REQUESTS_PER_MINUTE)
        self._slots = SlotQueue(self._limiter, clock, self._retry_policy.window)
        self._clock = clock
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

    @property
    def mode(self) -> DeliveryMode:
        """The delivery mode."""
        return self._routing.mode

    def send(
        self,
        message: Message,
        *,
        before_write: Callable[[], None] | None = None,
        last_check: Callable[[], None] | None = None,
        sleep: Callable[[float], None] | None = None,
        sender: Mapping[str, str | int] | None = None,
    ) -> SendResult:
        """Send one message (``POST /v1/send_message``).

        A message that was not sent is retried according to the retry policy, after the delay that the server asks for.

        :param message: the message.
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
        outcome, answer = self._attempts(
            lambda begin: self._transport.exchange(
                "POST", "/send_message", json_body=routed.payload(), headers=headers, before_write=begin
            ),
            classify_send,
            sleep or self._clock.sleep,
            before_write,
            last_check,
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

    def list_events(self, *, page: int = 1, page_size: int = 30) -> list[dict[str, Any]]:
        """Return one page of the account's events (``GET /v1/events``, apidocs.apptoto.com/reference/v1events).

        :param page: number of the page, from 1.
        :param page_size: events per page, at least 1.
        :raises ApptotoAuthError: Apptoto rejected the login or API key.
        :raises ApptotoNotSentError: all attempts failed; a retry may succeed.
        :raises ApptotoError: the answer is not from Apptoto's API.
        """
        events: list[dict[str, Any]] = self._read("/events", {"page": page, "page_size": page_size}, "events")
        return events

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def __enter__(self) -> Self:
        """Return the client itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections."""
        self.close()

    def _read(self, path: str, params: Mapping[str, Any], expected: str) -> list[Any]:
        """Return the list from the answer of a read endpoint.

        :param expected: name of the list in the answer.
        """
        outcome, answer = self._attempts(
            lambda begin: self._transport.exchange("GET", path, params=params, before_write=begin),
            classify_read,
            self._clock.sleep,
        )
        found = answer.json().get(expected) if outcome is Outcome.SENT else None
        if not isinstance(found, list):
            raise read_error(outcome, answer, self._credentials)
        return found

    def _attempts(
        self,
        exchange: Callable[[Callable[[], None]], Answer],
        classify: Callable[[Answer], Outcome],
        sleep: Callable[[float], None],
        before_write: Callable[[], None] | None = None,
        last_check: Callable[[], None] | None = None,
    ) -> tuple[Outcome, Answer]:
        deadline = self._clock.monotonic() + self._retry_policy.window
        attempt = 0
        while True:
            attempt += 1
            answer = self._with_bounded_wait(self._attempt(exchange, sleep, before_write, last_check))
            outcome = classify(answer)
            if outcome is not Outcome.NOT_SENT:
                return outcome, answer
            wait = answer.retry_after
            if wait is None:
                wait = self._retry_policy.pause(attempt)
            if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
                self._limiter.back_off(wait)
            if attempt == self._retry_policy.max_attempts or self._clock.monotonic() + wait > deadline:
                return outcome, answer
            if wait > LOGGED_WAIT:
                log.info("Not sent (%s); attempt %d starts in %.0f s", describe_status(answer), attempt + 1, wait)
            sleep(wait)

    def _attempt(
        self,
        exchange: Callable[[Callable[[], None]], Answer],
        sleep: Callable[[float], None],
        before_write: Callable[[], None] | None,
        last_check: Callable[[], None] | None,
    ) -> Answer:
        """Make one request in its own slot. If nothing was written, the next request gets the slot."""
        slot = self._slots.take(sleep)

        def begin() -> None:
            nonlocal slot
            if before_write is not None:
                before_write()
            while self._slots.is_late(slot):
                slot = self._slots.take(sleep)
            if last_check is not None:
                last_check()

        try:
            answer = exchange(begin)
        except BaseException as error:
            self._slots.give_back(slot)
            # the frames below hold the body and the headers of the request
            remove_frames(error)
            raise
        if not answer.written:
            self._slots.give_back(slot)
        return answer

    def _with_bounded_wait(self, answer: Answer) -> Answer:
        """Limit ``Retry-After`` to ``max_retry_after``: one refusal must not stop all messages for a day."""
        if answer.retry_after is None or answer.retry_after <= self._max_retry_after:
            return answer
        log.warning(
            "Apptoto sent Retry-After: %.0f s; waiting %.0f s instead (max_retry_after)",
            answer.retry_after,
            self._max_retry_after,
        )
        return dataclasses.replace(answer, retry_after=self._max_retry_after)
