"""For every failure over real sockets, the outcome agrees with what the server received and accepted."""

from __future__ import annotations

import contextlib
import datetime as dt
import email.utils
import gzip
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from airflow_provider_apptoto.client import (
    ApptotoAuthError,
    ApptotoClient,
    ApptotoError,
    ApptotoNotSentError,
    ApptotoRejectedError,
    ApptotoUnknownOutcomeError,
    InProcessRateLimiter,
    Message,
    RetryPolicy,
)
from tests.support.faults import (
    Exchange,
    FaultServer,
    Script,
    accepting,
    answering,
    closing_after_the_answer,
    hanging,
    never_accepting,
    not_listening,
    resetting,
    sending_raw,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MESSAGE = Message("sms", to="+16505550199", message="Your results are in")


@contextlib.contextmanager
def client_of(
    url: str, *, timeout: float = 30, connect_timeout: float = 30, total_timeout: float | None = None
) -> Iterator[ApptotoClient]:
    with ApptotoClient(
        base_url=url,
        login="clinic@clinic.example",
        api_key="sekret",
        timeout=timeout,
        connect_timeout=connect_timeout,
        total_timeout=total_timeout,
        rate_limiter=InProcessRateLimiter(60_000),
        retry_policy=RetryPolicy(backoff=0.01),
    ) as client:
        yield client


def http_date(seconds: float) -> str:
    return email.utils.format_datetime(dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds), usegmt=True)


WHOLE = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n{"success":true}'
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n"
ZIPPED = gzip.compress(b'{"success": true}')
TWICE = b'{"success": false, "success": true}'
BUT = {"success": True, "error": "opted out", "sent": 0}
BUTS: dict[str, object] = {"success": True, "errors": ["opted out"]}
NOT_SENT, REJECTED, UNKNOWN = ApptotoNotSentError, ApptotoRejectedError, ApptotoUnknownOutcomeError


@dataclass
class Case:
    name: str
    script: Script
    error: type[ApptotoError]
    accepted: int = 0
    requests: int = 1
    status: int | None = None


CASES = [
    Case("reset before acceptance", resetting(accepted=False), UNKNOWN),
    Case("reset after acceptance", resetting(accepted=True), UNKNOWN, accepted=1),
    Case("close after acceptance", sending_raw(b""), UNKNOWN, accepted=1),
    Case("cut in the status line", sending_raw(WHOLE[:12]), UNKNOWN, accepted=1),
    Case("cut in the headers", sending_raw(WHOLE[:40]), UNKNOWN, accepted=1),
    Case("cut between the headers", sending_raw(WHOLE[:49]), UNKNOWN, accepted=1),
    Case("cut in the body", sending_raw(WHOLE[:-1]), UNKNOWN, accepted=1),
    Case("a refusal cut in the headers", sending_raw(b"HTTP/1.1 429 Slow\r\nRetry-Af"), UNKNOWN, accepted=1),
    Case(
        "cut in a chunk",
        sending_raw(WHOLE[:17] + b"Transfer-Encoding: chunked\r\n\r\n10\r\n{"),
        UNKNOWN,
        accepted=1,
    ),
    Case("not HTTP", sending_raw(b"SSH-2.0-OpenSSH_9.6\r\n"), UNKNOWN, accepted=1),
    Case("not the encoding it says", answering(200, b"{}", accepted=True, Content_Encoding="gzip"), UNKNOWN, 1),
    Case("an encoding that is not known", answering(200, b"{}", accepted=True, Content_Encoding="br"), UNKNOWN, 1),
    Case("cut where it is compressed", answering(200, ZIPPED[:-8], accepted=True, Content_Encoding="gzip"), UNKNOWN, 1),
    Case("200 with success twice", answering(200, TWICE, accepted=True), UNKNOWN, 1, status=200),
    Case("200 with success and an error", answering(200, BUT, accepted=True), UNKNOWN, 1, status=200),
    Case("200 with success and errors", answering(200, BUTS, accepted=True), UNKNOWN, 1, status=200),
    Case("200 with HTML", answering(200, b"<html>Welcome</html>", accepted=True), UNKNOWN, 1, status=200),
    Case("200 with success: false", answering(200, {"success": False, "error": "no"}), REJECTED, status=200),
    Case("200 without success", answering(200, {"ok": True}, accepted=True), UNKNOWN, 1, status=200),
    Case("200 with success as text", answering(200, {"success": "true"}, accepted=True), UNKNOWN, 1, status=200),
    Case("200 with a list", answering(200, b"[true]", accepted=True), UNKNOWN, 1, status=200),
    Case("200 too large", answering(200, b" " * (5 << 20), accepted=True), UNKNOWN, 1),
    Case("204", answering(204, accepted=True), UNKNOWN, 1, status=204),
    Case("302", answering(302, Location="http://127.0.0.1:9/login"), REJECTED, status=302),
    Case("303", answering(303, accepted=True, Location="/sent"), UNKNOWN, 1, status=303),
    Case("307", answering(307, Location="http://127.0.0.1:9/v2"), REJECTED, status=307),
    Case("400", answering(400, {"error": "bad"}), REJECTED, status=400),
    Case("401", answering(401), ApptotoAuthError, status=401),
    Case("402", answering(402), REJECTED, status=402),
    Case("403", answering(403), ApptotoAuthError, status=403),
    Case("404", answering(404), REJECTED, status=404),
    Case("408", answering(408), UNKNOWN, status=408),
    Case("409", answering(409), REJECTED, status=409),
    Case("422", answering(422), REJECTED, status=422),
    Case("425", answering(425), NOT_SENT, requests=3, status=425),
    Case("429 with seconds", answering(429, Retry_After="0"), NOT_SENT, requests=3, status=429),
    Case("429 with a date", answering(429, Retry_After=http_date(-60)), NOT_SENT, requests=3, status=429),
    Case("429 with nothing", answering(429), NOT_SENT, requests=3, status=429),
    Case("429 with a wait beyond the minute", answering(429, Retry_After="3600"), NOT_SENT, status=429),
    Case("500", answering(500, accepted=True), UNKNOWN, 1, status=500),
    Case("502", answering(502, accepted=True), UNKNOWN, 1, status=502),
    Case("503 with Retry-After", answering(503, Retry_After="0"), NOT_SENT, requests=3, status=503),
    Case("503 with a Retry-After that says nothing", answering(503, Retry_After="soon"), UNKNOWN, status=503),
    Case("503 without Retry-After", answering(503, accepted=True), UNKNOWN, 1, status=503),
    Case("504", answering(504, accepted=True), UNKNOWN, 1, status=504),
    Case("103 and no more", sending_raw(HINTS), UNKNOWN, accepted=1),
    Case("103 and a refusal", sending_raw(HINTS + b"HTTP/1.1 422 No\r\n\r\n", accepted=False), REJECTED, status=422),
    Case("cut in an interim answer", sending_raw(HINTS[:-2]), UNKNOWN, accepted=1),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_failure_is_known_for_what_it_is_and_nothing_is_sent_again_that_may_have_been(case: Case) -> None:
    seen_before: list[int] = []
    with FaultServer([case.script]) as server, client_of(server.url) as client:
        with pytest.raises(ApptotoError) as raised:
            client.send(MESSAGE, before_write=lambda: seen_before.append(server.bytes_seen))
        first_connection_was_silent = seen_before[0] == 0
    assert type(raised.value) is case.error
    assert raised.value.status == case.status
    assert (len(server.requests), len(server.accepted)) == (case.requests, case.accepted)
    assert len(seen_before) == case.requests
    assert first_connection_was_silent


def test_a_read_timeout_leaves_the_outcome_unknown() -> None:
    with FaultServer([hanging]) as server, client_of(server.url, timeout=0.2) as client:
        with pytest.raises(ApptotoUnknownOutcomeError, match="timed out"):
            client.send(MESSAGE)
        assert (len(server.requests), len(server.accepted)) == (1, 1)


@pytest.mark.parametrize(
    "interim",
    [[HINTS], [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 102 Processing\r\n\r\n", HINTS * 20]],
    ids=["one", "many"],
)
@pytest.mark.parametrize("body", [b'{"success": true, "errors": []}', ZIPPED], ids=["plain", "compressed"])
def test_interim_answers_are_no_answers_and_the_next_message_gets_its_own(interim: list[bytes], body: bytes) -> None:
    def answering_later(exchange: Exchange) -> None:
        exchange.accept()
        for answer in interim:
            exchange.raw(answer)
        time.sleep(0.1)  # a client that treats the interim answer as final continues with the next message
        exchange.answer(200, body, **({"Content_Encoding": "gzip"} if body == ZIPPED else {}))

    refusing = answering(422)
    with (
        FaultServer([answering_later, refusing, answering_later, accepting]) as server,
        client_of(server.url) as client,
    ):
        assert client.send(MESSAGE).outcome == "sent"
        with pytest.raises(ApptotoRejectedError):
            client.send(MESSAGE)
        assert client.send(MESSAGE).outcome == "sent"
        assert client.send(MESSAGE).outcome == "sent"
    assert (len(server.requests), len(server.accepted)) == (4, 3)


@pytest.mark.parametrize("status", [302, 408, 429, 500, 504])
def test_an_answer_that_comes_after_the_server_gave_up_is_not_the_next_messages(status: int) -> None:
    def giving_up_too_early(exchange: Exchange) -> None:
        exchange.answer(status, Retry_After="0")
        time.sleep(0.1)
        exchange.accept()
        exchange.raw(WHOLE)

    with FaultServer([giving_up_too_early, answering(409)]) as server, client_of(server.url) as client:
        with pytest.raises(ApptotoError) as raised:
            client.send(MESSAGE)
        if raised.value.status == status:  # 429 is tried again by the client itself
            with pytest.raises(ApptotoError) as raised:
                client.send(MESSAGE)
    assert raised.value.status == 409
    assert len(server.requests) == 2


def drip(exchange: Exchange, before: bytes) -> None:
    """Send a byte from time to time, forever."""
    exchange.accept()
    exchange.raw(before)
    while not exchange.server.released.wait(0.02):
        exchange.raw(b"x")


@pytest.mark.parametrize(
    "before",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nX: ",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n{",
        HINTS + b"HTTP/1.1 200 OK\r\nX:",
    ],
    ids=["status line", "headers", "body", "after an interim answer"],
)
def test_an_exchange_ends_however_slowly_its_answer_drips(before: bytes) -> None:
    with (
        FaultServer([lambda exchange: drip(exchange, before)]) as server,
        client_of(server.url, total_timeout=0.3) as client,
        pytest.raises(ApptotoUnknownOutcomeError, match=r"not complete after 0\.3 s"),
    ):
        client.send(MESSAGE)
    assert (len(server.requests), len(server.accepted)) == (1, 1)


def test_interim_answers_without_end_end_the_exchange_all_the_same() -> None:
    def hinting(exchange: Exchange) -> None:
        while not exchange.server.released.wait(0.02):
            exchange.raw(HINTS)

    with (
        FaultServer([hinting]) as server,
        client_of(server.url, total_timeout=0.3) as client,
        pytest.raises(ApptotoUnknownOutcomeError, match=r"not complete after 0\.3 s"),
    ):
        client.send(MESSAGE)


@contextlib.contextmanager
def _refused() -> Iterator[str]:
    with not_listening() as port:
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def _connect_timeout() -> Iterator[str]:
    with never_accepting() as port:
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def _unknown_host() -> Iterator[str]:
    yield "https://apptoto.invalid"


@contextlib.contextmanager
def _untrusted_tls() -> Iterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with FaultServer(tls=context) as server:
        yield server.url
        assert server.requests == []


@contextlib.contextmanager
def _not_tls() -> Iterator[str]:
    with FaultServer() as server:
        yield f"https://127.0.0.1:{server.port}"
        assert server.requests == []


@pytest.mark.parametrize(
    ("unreachable", "says"),
    [
        (_refused, "refused"),
        (_connect_timeout, "timed out"),
        (_unknown_host, "gaierror|Name or service|resolve"),
        (_untrusted_tls, "certificate|self-signed|issuer"),
        (_not_tls, "SSL|record|version"),
    ],
)
def test_what_can_not_be_reached_was_not_sent_and_before_write_never_ran(
    unreachable: Callable[[], contextlib.AbstractContextManager[str]], says: str
) -> None:
    calls: list[None] = []
    with (
        unreachable() as url,
        client_of(url, connect_timeout=0.2) as client,
        pytest.raises(ApptotoNotSentError, match=says) as raised,
    ):
        client.send(MESSAGE, before_write=lambda: calls.append(None))
    assert calls == []
    assert raised.value.status is None


@pytest.mark.parametrize("status", [407, 502])
def test_a_proxy_that_refuses_was_not_given_the_message(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[None] = []
    with FaultServer([sending_raw(f"HTTP/1.1 {status} No\r\n\r\n".encode(), accepted=False)]) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        with (
            client_of("https://api.clinic.example") as client,
            pytest.raises(ApptotoNotSentError, match=str(status)),
        ):
            client.send(MESSAGE, before_write=lambda: calls.append(None))
    assert {request.method for request in proxy.requests} == {"CONNECT"}
    assert not any(b"results" in request.body for request in proxy.requests)
    assert calls == []


def test_a_message_goes_through_a_proxy_and_tls_and_is_watched_there_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("api.clinic.example").configure_cert(context)
    seen: list[int] = []

    def tunnel(exchange: object) -> None:
        from tests.support.faults import Exchange

        assert isinstance(exchange, Exchange)
        exchange.raw(b"HTTP/1.1 200 Connected\r\n\r\n")
        with context.wrap_socket(exchange.socket, server_side=True) as stream:
            request = inner._read(stream)
            assert request is not None
            inner.requests.append(request)
            inner_exchange = Exchange(inner, stream, request)
            accepting(inner_exchange)

    inner = FaultServer()
    with FaultServer([tunnel]) as proxy, authority.cert_pem.tempfile() as pem:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", pem)
        with client_of("https://api.clinic.example") as client:
            result = client.send(MESSAGE, before_write=lambda: seen.append(inner.bytes_seen))
    assert result.outcome == "sent"
    assert seen == [0]
    assert [request.path for request in inner.accepted] == ["/v1/send_message"]


def test_an_idle_connection_that_the_server_closed_costs_nothing() -> None:
    with FaultServer([closing_after_the_answer]) as server, client_of(server.url) as client:
        for number in range(3):
            assert client.send(MESSAGE).outcome == "sent"
            while server.closed <= number:
                time.sleep(0.01)
    assert (len(server.requests), len(server.accepted)) == (3, 3)


@pytest.mark.parametrize("is_encrypted", [False, True])
def test_a_connection_that_the_server_closes_while_the_message_waits_is_not_written_to(
    monkeypatch: pytest.MonkeyPatch, *, is_encrypted: bool
) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    waits: list[int] = []

    def wait() -> None:
        waits.append(server.connections)
        while not server.closed:
            time.sleep(0.01)

    with FaultServer(tls=context if is_encrypted else None, idle=0.5) as server, authority.cert_pem.tempfile() as pem:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", pem)
        with client_of(server.url) as client:
            result = client.send(MESSAGE, before_write=wait)
    assert (result.outcome, len(server.accepted)) == ("sent", 1)
    assert len(waits) >= 2


def test_one_connection_serves_many_messages() -> None:
    with FaultServer() as server, client_of(server.url) as client:
        for _ in range(5):
            client.send(MESSAGE)
    assert (server.connections, len(server.accepted)) == (1, 5)


def test_what_was_not_sent_is_sent_by_the_next_attempt_and_once() -> None:
    scripts = [answering(429, Retry_After="0"), answering(503, Retry_After="0"), accepting]
    with FaultServer(scripts) as server, client_of(server.url) as client:
        assert client.send(MESSAGE).outcome == "sent"
    assert (len(server.requests), len(server.accepted)) == (3, 1)


def test_the_wait_that_the_server_asks_for_is_carried_by_the_error() -> None:
    for header, seconds in {"3600": 3600, http_date(3600): 3600}.items():
        with (
            FaultServer([answering(429, Retry_After=header)]) as server,
            client_of(server.url) as client,
            pytest.raises(ApptotoNotSentError) as raised,
        ):
            client.send(MESSAGE)
        assert raised.value.retry_after == pytest.approx(seconds, abs=10)


def test_a_server_that_asks_to_wait_a_day_is_obeyed_for_an_hour_and_the_log_says_so(provider_log: list[str]) -> None:
    limiter = InProcessRateLimiter(60_000)
    with (
        FaultServer([answering(429, Retry_After="86400")]) as server,
        ApptotoClient(base_url=server.url, login="a@clinic.example", api_key="k", rate_limiter=limiter) as client,
        pytest.raises(ApptotoNotSentError) as raised,
    ):
        client.send(MESSAGE)
    assert raised.value.retry_after == 3600
    assert 3590 < limiter.reserve(max_wait=0) <= 3600
    assert "Apptoto sent Retry-After: 86400 s; waiting 3600 s instead (max_retry_after)" in provider_log


class _RefusalError(Exception):
    pass


@pytest.mark.parametrize("hook", ["before_write", "last_check"])
@pytest.mark.parametrize(
    "error", [_RefusalError(), OSError("store"), TimeoutError("store"), KeyboardInterrupt()], ids=repr
)
def test_nothing_is_sent_when_before_write_or_last_check_raises(error: BaseException, hook: str) -> None:
    def refuse() -> None:
        raise error

    hooks: Any = {hook: refuse}
    with FaultServer() as server, client_of(server.url) as client, pytest.raises(type(error)) as raised:
        client.send(MESSAGE, **hooks)
    assert raised.value is error
    assert (server.bytes_seen, server.accepted) == (0, [])


def test_before_write_comes_after_connecting_and_last_check_right_before_the_first_byte() -> None:
    steps: list[tuple[str, int, int]] = []

    def note(step: str) -> None:
        while not server.connections:  # the server's thread counts them
            time.sleep(0.001)
        steps.append((step, server.connections, server.bytes_seen))

    with FaultServer() as server, client_of(server.url) as client:
        client.send(MESSAGE, before_write=lambda: note("before_write"), last_check=lambda: note("last_check"))
    assert steps == [("before_write", 1, 0), ("last_check", 1, 0)]


def test_before_write_and_last_check_are_called_in_every_attempt() -> None:
    steps: list[str] = []
    scripts = [answering(429, Retry_After="0"), answering(503, Retry_After="0"), accepting]
    with FaultServer(scripts) as server, client_of(server.url) as client:
        client.send(MESSAGE, before_write=lambda: steps.append("before"), last_check=lambda: steps.append("last"))
    assert steps == ["before", "last"] * 3


class _Interrupt(BaseException):
    """Like Airflow's task timeout: raised anywhere, and no ``Exception``."""


def test_an_interrupt_after_the_first_byte_leaves_the_outcome_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(*_: object) -> None:
        raise _Interrupt

    with FaultServer() as server, client_of(server.url) as client:
        monkeypatch.setattr("http.client.HTTPConnection.getresponse", interrupt)
        with pytest.raises(ApptotoUnknownOutcomeError, match="_Interrupt"):
            client.send(MESSAGE)


def test_an_interrupt_before_the_first_byte_goes_on_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise _Interrupt

    monkeypatch.setattr("urllib3.util.connection.create_connection", interrupt)
    with FaultServer() as server, client_of(server.url) as client, pytest.raises(_Interrupt):
        client.send(MESSAGE)
    assert server.requests == []


def test_no_error_shows_recipient_text_or_key_not_even_where_the_server_echoes_them() -> None:
    echo = {
        "error": "could not send 'Your results are in' to +16505550199 (650 555 0199) of clinic@clinic.example\x1b[2J"
    }
    with (
        FaultServer([answering(422, echo)]) as server,
        client_of(server.url) as client,
        pytest.raises(ApptotoRejectedError) as raised,
    ):
        client.send(MESSAGE)
    shown = f"{raised.value} {raised.value.reason}"
    assert "could not send" in shown
    for private in ("results", "5550199", "555 0199", "clinic@", "sekret", "\x1b"):
        assert private not in shown
