"""The endpoints."""

from __future__ import annotations

import base64
import dataclasses
import logging
import re
import threading
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Self

from airflow_provider_apptoto import __version__
from airflow_provider_apptoto.client.errors import (
    ApptotoAuthError,
    ApptotoConfigurationError,
    ApptotoError,
    ApptotoNotSentError,
    ApptotoRejectedError,
    ApptotoUnknownOutcomeError,
)
from airflow_provider_apptoto.client.outcomes import Answer, Outcome, judge_read, judge_send
from airflow_provider_apptoto.client.pacing import DEFAULT_REQUESTS_PER_MINUTE, Clock, Pacer, account_pacer
from airflow_provider_apptoto.client.retry import RetryPolicy
from airflow_provider_apptoto.client.routing import DeliveryMode, Routing
from airflow_provider_apptoto.client.segments import estimate_segments
from airflow_provider_apptoto.privacy import remove_frames

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pendulum

    from airflow_provider_apptoto.client.messages import Message

log = logging.getLogger(__name__)

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_REFUSED_CREDENTIALS = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}

DEFAULT_BASE_URL = "https://api.apptoto.com"
DEFAULT_TIMEOUT = 120.0
DEFAULT_CONNECT_TIMEOUT = 5.0
DEFAULT_MAX_RETRY_AFTER = 3600.0
MOST_TIMEOUT = 86_400.0
_SLOTS_AHEAD = 0.1
"""Seconds: slots that are further away are left to others."""
_WORTH_A_LINE = 2.0
"""Seconds: of a longer wait, the log tells when it begins."""
_BESIDE_TIMEOUT = 30.0
"""Seconds that an exchange may last beside the longest silence."""


@dataclass(frozen=True, slots=True)
class SendResult:
    """A message that was sent, or that ``redirect`` or ``dry_run`` held back.

    :param outcome: ``sent`` (Apptoto accepted it: not yet that it was delivered), ``redirected`` (accepted for the
        stand-in), or ``dry_run`` (nothing left).
    :param type: ``sms``, ``call`` or ``email``.
    :param target: who it was meant for, masked; ids in clear.
    :param http_status: status of Apptoto's answer; ``None`` in ``dry_run``.
    :param sent_at: when the answer came (UTC); ``None`` in ``dry_run``.
    :param response: what of the answer may be kept: ``success`` and id-like values.
    """

    outcome: str
    type: str
    target: str
    http_status: int | None = None
    sent_at: pendulum.DateTime | None = None
    response: Mapping[str, Any] = field(default_factory=dict)


class ApptotoClient:
    """Apptoto over HTTP; imports nothing of Airflow, for use in any Python program and from any number of threads.

    :param login: e-mail address of the Apptoto account.
    :param api_key: an API key of the account (Settings, Integrations, Developer Tools, API Keys).
    :param base_url: ``/v1`` is added where it has no path.
    :param timeout: seconds without a byte of the answer, more than 0, a day at the most. A short one manufactures
        unknown outcomes.
    :param connect_timeout: seconds, more than 0.
    :param total_timeout: seconds from the first byte of a request to the last one of its answer, more than 0; then the
        outcome is unknown. By default 30 more than ``timeout``.
    :param max_retry_after: seconds, more than 0: a ``Retry-After`` that asks for more counts as this.
    :param pacer: gives the departure times; by default the one that all clients of the account share in this process,
        at 90 requests a minute.
    :param routing: whether messages go to their recipients, to a stand-in, or nowhere.
    :param ca_bundle: path of a PEM file to verify the server with; by default the environment's, else certifi's.
    :param user_agent: the ``User-Agent``.
    :param retry_policy: when a request that was certainly not sent is repeated; by default three attempts within 60
        seconds.
    :param clock: tells the time and waits; by default the module ``time``.
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
        pacer: Pacer | None = None,
        routing: Routing | None = None,
        ca_bundle: str | None = None,
        user_agent: str = f"airflow-provider-apptoto/{__version__}",
        retry_policy: RetryPolicy | None = None,
        clock: Clock = time,
    ) -> None:
        from airflow_provider_apptoto.client.transport import Transport, check_base_url

        for name, value in {"login": login, "api_key": api_key}.items():
            if not value:
                raise ApptotoConfigurationError(name, "is missing")
        durations = {
            "timeout": timeout,
            "connect_timeout": connect_timeout,
            "total_timeout": timeout if total_timeout is None else total_timeout,
            "max_retry_after": max_retry_after,
        }
        for name, seconds in durations.items():
            if not 0 < seconds <= MOST_TIMEOUT:
                raise ApptotoConfigurationError(
                    name, f"{seconds!r} is not a number of seconds up to {MOST_TIMEOUT:.0f}"
                )
        base_url = check_base_url(base_url)
        self.account = base_url, login
        self.total_timeout = timeout + _BESIDE_TIMEOUT if total_timeout is None else total_timeout
        self._max_retry_after = max_retry_after
        self._pacer = pacer or account_pacer(base_url, login, DEFAULT_REQUESTS_PER_MINUTE)
        self._routing = routing or Routing()
        self._retry_policy = retry_policy or RetryPolicy()
        self._clock = clock
        basic = base64.b64encode(f"{login}:{api_key}".encode()).decode()
        self._credentials = (api_key, login, basic)
        self._queue = threading.Lock()
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
        """Where messages go."""
        return self._routing.mode

    def send(
        self,
        message: Message,
        before_write: Callable[[], None] | None = None,
        *,
        sleep: Callable[[float], None] | None = None,
        log_level: int = logging.INFO,
    ) -> SendResult:
        """Send one message (``POST /v1/send_message``).

        Where it was certainly not sent, it is tried again as the retry policy says, each time after the wait that the
        server asks for.

        :param message: what to send, and to whom.
        :param before_write: called in every attempt, after connecting and before the first byte; if it raises, nothing
            was sent.
        :param sleep: waits this many seconds for the message's turn, by default the clock's
            ``sleep``; if it raises, nothing was sent.
        :param log_level: of the line that says that it was sent; what went wrong is always a warning.
        :raises ApptotoNotSentError: certainly not sent; another try is safe.
        :raises ApptotoRejectedError: refused; :class:`ApptotoAuthError` where login or key are.
        :raises ApptotoUnknownOutcomeError: nobody can tell; another try might send it twice.
        """
        import pendulum  # what is missing here has to be noticed before a message leaves

        routed = self._routing.route(message)
        if routed is None:
            shown = "" if message.redact or message.message is None else f": {message.message!r}"
            line = "%s to %s: dry_run, nothing was sent%s%s"
            log.log(log_level, line, message.type, message.target, _size(message), shown)
            return SendResult(outcome=DeliveryMode.DRY_RUN, type=message.type, target=message.target)
        started = self._clock.monotonic()
        outcome, answer = self._attempts(
            lambda: self._transport.exchange(
                "POST", "/send_message", json_body=routed.payload(), before_write=before_write
            ),
            judge_send,
            sleep or self._clock.sleep,
        )
        shown = outcome.value
        if outcome is Outcome.SENT and self._routing.mode is DeliveryMode.REDIRECT:
            shown = "redirected"
        log.log(
            log_level if outcome is Outcome.SENT else logging.WARNING,
            "%s to %s: %s, %s, %d ms%s",
            message.type,
            message.target,
            shown,
            _status(answer),
            (self._clock.monotonic() - started) * 1000,
            _size(routed),
        )
        if outcome is not Outcome.SENT:
            raise _send_error(outcome, answer, (*self._credentials, *message.private, *routed.private))
        return SendResult(
            outcome=shown,
            type=message.type,
            target=message.target,
            http_status=answer.status,
            sent_at=pendulum.now("UTC"),
            response=_own_id(answer.json(), message),
        )

    def list_events(self, *, page: int = 1, page_size: int = 30) -> list[dict[str, Any]]:
        """Return one page of the account's events (``GET /v1/events``, apidocs.apptoto.com/reference/v1events).

        :param page: number of the page, from 1.
        :param page_size: events a page, at least 1.
        :raises ApptotoAuthError: login or key were refused.
        :raises ApptotoNotSentError: no answer, or one that says "later", three times.
        :raises ApptotoError: the answer is not one of Apptoto's.
        """
        outcome, answer = self._attempts(
            lambda: self._transport.exchange("GET", "/events", params={"page": page, "page_size": page_size}),
            judge_read,
            self._clock.sleep,
        )
        reason = answer.failure or answer.said(self._credentials)
        if outcome is Outcome.NOT_SENT:
            msg = f"Apptoto could not be read: {_with_status(answer, reason)}"
            raise ApptotoNotSentError(msg, status=answer.status, reason=reason, retry_after=answer.retry_after)
        if answer.status in _REFUSED_CREDENTIALS:
            raise _auth_error(answer, reason)
        events = answer.json().get("events") if outcome is Outcome.SENT else None
        if not isinstance(events, list):
            msg = f"what answered is not Apptoto's API: {_with_status(answer, reason)}"
            raise ApptotoError(msg, status=answer.status, reason=reason)
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

    def _attempts(
        self, exchange: Callable[[], Answer], judge: Callable[[Answer], Outcome], sleep: Callable[[float], None]
    ) -> tuple[Outcome, Answer]:
        window = self._retry_policy.window
        deadline = self._clock.monotonic() + window
        attempt = 0
        while True:
            attempt += 1
            self._wait_for_slot(sleep)
            try:
                answer = self._with_bounded_wait(exchange())
            except BaseException as error:
                # the frames below hold the body and the headers of the request
                remove_frames(error)
                raise
            outcome = judge(answer)
            if outcome is not Outcome.NOT_SENT:
                return outcome, answer
            wait = answer.retry_after
            if wait is None:
                wait = self._retry_policy.pause(attempt)
            if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
                self._pacer.push_back(wait)
            if attempt == self._retry_policy.max_attempts or self._clock.monotonic() + wait > deadline:
                return outcome, answer
            if wait > _WORTH_A_LINE:
                log.info("Not sent (%s): attempt %d follows in %.0f s", _status(answer), attempt + 1, wait)
            sleep(wait)

    def _wait_for_slot(self, sleep: Callable[[float], None]) -> None:
        """Wait until the rate limit lets a request depart.

        Of many threads, one reserves a slot at a time, shortly before it: else a batch would hold the slots of the next
        minute, and a task with one message would have to wait behind them.
        """
        window = self._retry_policy.window
        if not self._queue.acquire(timeout=min(window, threading.TIMEOUT_MAX)):
            msg = f"Rate limited: this message waited {window:.0f} s behind others of its process"
            raise ApptotoNotSentError(msg, reason=msg, retry_after=window)
        try:
            sleep(0.0)  # the task may have been told to end meanwhile
            pause = self._pacer.reserve(patience=window)
            if pause > window:
                # a worker is not held for an hour because an earlier request was told to come back then
                msg = (
                    f"Rate limited: the next slot is in {pause:.0f} s (Apptoto sent Retry-After, or many requests wait)"
                )
                raise ApptotoNotSentError(msg, reason=msg, retry_after=pause)
            if pause > _WORTH_A_LINE:
                log.info("Rate limited: the next slot is in %.0f s", pause)
            sleep(max(pause - _SLOTS_AHEAD, 0.0))
        finally:
            self._queue.release()
        sleep(min(pause, _SLOTS_AHEAD))

    def _with_bounded_wait(self, answer: Answer) -> Answer:
        """Wait no longer than the user wants to, whatever the server asks for: one refusal would stop all for a day."""
        if answer.retry_after is None or answer.retry_after <= self._max_retry_after:
            return answer
        log.warning(
            "Apptoto asks to wait %.0f s (Retry-After); max_retry_after makes it %.0f s",
            answer.retry_after,
            self._max_retry_after,
        )
        return dataclasses.replace(answer, retry_after=self._max_retry_after)


def _size(message: Message) -> str:
    return f", {estimate_segments(message.message)}" if message.type == "sms" and message.message is not None else ""


def _status(answer: Answer) -> str:
    return "no complete answer" if answer.status is None else f"HTTP {answer.status}"


def _with_status(answer: Answer, reason: str) -> str:
    where = f" to {answer.location}" if answer.location else ""
    return f"{_status(answer)}{where}" + (f" ({reason})" if reason else "")


def _auth_error(answer: Answer, reason: str) -> ApptotoAuthError:
    msg = f"Apptoto refused login or API key: {_with_status(answer, reason)}; check both, and that the key is enabled"
    return ApptotoAuthError(msg, status=answer.status, reason=reason)


def _send_error(outcome: Outcome, answer: Answer, private: tuple[str, ...]) -> ApptotoError:
    reason = answer.failure or answer.said(private)
    what = _with_status(answer, reason)
    if outcome is Outcome.NOT_SENT:
        msg = f"the message was not sent: {what}"
        return ApptotoNotSentError(msg, status=answer.status, reason=reason, retry_after=answer.retry_after)
    if outcome is Outcome.UNKNOWN:
        msg = (
            f"it is not known whether the message was sent: {what}. "
            "It may have reached its recipient: look in Apptoto before you send it again"
        )
        return ApptotoUnknownOutcomeError(msg, status=answer.status, reason=reason)
    if answer.status in _REFUSED_CREDENTIALS:
        return _auth_error(answer, reason)
    return ApptotoRejectedError(f"Apptoto refused the message: {what}", status=answer.status, reason=reason)


def _own_id(body: Mapping[str, Any], message: Message) -> dict[str, Any]:
    """Keep ``success``, and the message's own id (assumed: none is documented); other ids may be somebody's number."""
    recipient = re.sub(r"\D", "", message.to or "")
    return {
        key: value
        for key, value in body.items()
        if key == "success"
        or (key in {"id", "message_id"} and _is_id(value) and (not recipient or recipient not in str(value)))
    }


def _is_id(value: object) -> bool:
    if isinstance(value, str):
        return _ID.fullmatch(value) is not None
    return isinstance(value, int) and not isinstance(value, bool)
