"""The client sends the right requests and credentials over real sockets, and reads the answers."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import json
import logging
import math
import pickle
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests
import trustme

from airflow_provider_apptoto import __version__
from airflow_provider_apptoto import client as client_package
from airflow_provider_apptoto.client import (
    ApptotoAuthError,
    ApptotoClient,
    ApptotoConfigurationError,
    ApptotoError,
    ApptotoNotSentError,
    ApptotoRejectedError,
    ApptotoThrottledError,
    ApptotoUnknownOutcomeError,
    ApptotoValidationError,
    DeliveryMode,
    InProcessRateLimiter,
    Message,
    Outcome,
    RetryPolicy,
    Routing,
)
from tests.support.clock import Clock, ParallelClock
from tests.support.faults import (
    Exchange,
    FaultServer,
    Request,
    accepting,
    answering,
    not_listening,
    resetting,
    sending_raw,
)

LOGIN, KEY = "clinic@clinic.example", "sekret-key"
MESSAGE = Message("sms", to="+16505550199", message="Your results are in")
EMAIL = Message("email", to="mary@clinic.example", message="Your results are in", subject="Visit")


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ignore proxies, CA bundles and netrc of the machine."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "NETRC"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def client_of(url: str, **settings: Any) -> ApptotoClient:
    """Return a client whose waits take no time."""
    clock = settings.setdefault("clock", Clock())
    limiter = InProcessRateLimiter(60_000, clock)
    defaults: dict[str, Any] = {"login": LOGIN, "api_key": KEY, "rate_limiter": limiter, "timeout": 30}
    return ApptotoClient(base_url=url, **(defaults | settings))


def credentials(request: Request) -> bytes:
    scheme, _, encoded = request.headers["authorization"].partition(" ")
    assert scheme == "Basic"
    return base64.b64decode(encoded)


def failure_of(client: ApptotoClient, message: Message = MESSAGE) -> ApptotoError:
    with pytest.raises(ApptotoError) as raised:
        client.send(message)
    return raised.value


def test_what_is_missing_here_is_noticed_before_a_message_leaves() -> None:
    """Nothing is imported after the first byte, so a missing module can't fail a message in flight."""
    program = """
import json, sys
from airflow_provider_apptoto.client import ApptotoClient, Message
before = set()
client = ApptotoClient(login="a", api_key="b", base_url=sys.argv[1])
message = Message("email", to="mary@clinic.example", message="Hi")
result = client.send(message, last_check=lambda: before.update(sys.modules))
print(json.dumps([result.outcome, len(before), sorted(set(sys.modules) - before - sys.stdlib_module_names)]))
"""
    with FaultServer() as server:
        done = subprocess.run(
            [sys.executable, "-c", program, server.url], capture_output=True, text=True, check=True, timeout=60
        )
    outcome, imported_before, imported_after = json.loads(done.stdout.splitlines()[-1])
    assert (outcome, imported_after) == ("sent", [])
    assert imported_before > 100  # last_check ran


# --- what goes out


def test_a_message_goes_out_as_the_endpoints_page_says() -> None:
    with FaultServer() as server, client_of(server.url) as client:
        client.send(EMAIL)
    [request] = server.accepted
    assert (request.method, request.path) == ("POST", "/v1/send_message")
    assert request.json == {
        "type": "email",
        "to": "mary@clinic.example",
        "message": "Your results are in",
        "subject": "Visit",
    }
    assert request.headers["content-type"] == "application/json"
    assert request.headers["accept"] == "application/json"
    assert request.headers["host"] == f"127.0.0.1:{server.port}"
    assert "transfer-encoding" not in request.headers


def test_texts_in_any_script_arrive_to_the_letter() -> None:
    text = 'Gr\u00fc\u00dfe \u4f60\u597d \U0001f469\u200d\u2695\ufe0f { name } "quoted" \\ \u2028\n\tend '
    with FaultServer() as server, client_of(server.url) as client:
        client.send(Message("sms", event_id=12, message=text))
    assert server.accepted[0].json == {"type": "sms", "event_id": 12, "message": text}


@pytest.mark.parametrize(
    ("login", "key"),
    [
        (LOGIN, KEY),
        ("cl\u00ednica@clinic.example", "\u043a\u043b\u044e\u0447-\u5bc6-\U0001f511"),
        (LOGIN, "a:b: \u00fc%40\n"),
    ],
    ids=ascii,
)
def test_login_and_key_of_any_script_arrive_as_utf8_with_every_request(login: str, key: str) -> None:
    with FaultServer() as server, client_of(server.url, login=login, api_key=key) as client:
        client.send(MESSAGE)
        client.send(MESSAGE)
        with contextlib.suppress(ApptotoError):
            client.list_events()
    assert [credentials(request) for request in server.requests] == [f"{login}:{key}".encode()] * 3


SENDER: dict[str, str | int] = {"dag_id": "remind", "run_id": "manual__1", "task_id": "caf\u00e9\n", "try_number": 2}


def test_a_sandbox_is_told_which_task_sends() -> None:
    with FaultServer() as server, client_of(server.url, is_sandbox=True) as client:
        client.send(MESSAGE, sender=SENDER)
        client.send(MESSAGE)
    first, second = server.accepted
    assert json.loads(first.headers["x-apptoto-sandbox-sender"]) == SENDER
    assert first.json == second.json
    assert "x-apptoto-sandbox-sender" not in second.headers


def test_the_real_service_is_not_told_which_task_sends() -> None:
    with FaultServer() as server, client_of(server.url) as client:
        client.send(MESSAGE, sender=SENDER)
        client.send(MESSAGE)
    first, second = server.accepted
    assert first.headers == second.headers
    assert (first.path, first.body) == (second.path, second.body)


@pytest.mark.parametrize("url", ["https://api.apptoto.com", "api.apptoto.com", "https://127.0.0.1:8025"])
def test_the_real_service_can_not_be_taken_for_a_sandbox(url: str) -> None:
    with pytest.raises(ApptotoConfigurationError, match="is_sandbox"):
        ApptotoClient(login=LOGIN, api_key=KEY, base_url=url, is_sandbox=True)


def test_the_user_agent_names_the_provider_unless_another_is_given() -> None:
    with FaultServer() as server:
        for settings in ({}, {"user_agent": "clinic/1.0"}):
            with client_of(server.url, **settings) as client:
                client.send(MESSAGE)
    agents = [request.headers["user-agent"] for request in server.requests]
    assert agents == [f"airflow-provider-apptoto/{__version__}", "clinic/1.0"]


def test_threads_of_a_client_reserve_a_slot_when_the_one_before_is_near_so_that_other_processes_get_theirs() -> None:
    class Limiter(InProcessRateLimiter):
        near: list[bool] = []  # noqa: RUF012  of this test alone
        last = 0.0

        def reserve(self, max_wait: float = math.inf, lead: float = 0.0) -> float:
            self.near.append(self.last - clock.now <= 0.1 + 1e-6)
            wait = super().reserve(max_wait, lead)
            self.last = clock.now + wait
            return wait

    clock = ParallelClock()
    limiter = Limiter(90, clock)
    with (
        FaultServer() as server,
        client_of(server.url, rate_limiter=limiter, clock=clock) as client,
        ThreadPoolExecutor(8) as pool,
    ):
        list(pool.map(lambda _: client.send(MESSAGE), range(16)))
    assert len(server.accepted) == 16
    assert len(limiter.near) >= 16
    assert all(limiter.near)


def test_a_long_wait_is_logged_when_it_begins(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "airflow_provider_apptoto")
    clock = Clock()
    scripts = [answering(429, Retry_After="30"), accepting]
    with (
        FaultServer(scripts) as server,
        ApptotoClient(
            base_url=server.url,
            login="a@clinic.example",
            api_key="k",
            rate_limiter=InProcessRateLimiter(60_000, clock),
            clock=clock,
        ) as client,
    ):
        client.send(MESSAGE)
    assert caplog.messages == ["Not sent (HTTP 429); attempt 2 starts in 30 s"]


def test_a_thread_that_waits_too_long_behind_others_sends_nothing() -> None:
    entered, left = threading.Event(), threading.Event()

    def sleep(_: float) -> None:
        entered.set()
        left.wait()

    policy = RetryPolicy(window=0.05)
    with (
        FaultServer() as server,
        ApptotoClient(base_url=server.url, login="a@clinic.example", api_key="k", retry_policy=policy) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        first = pool.submit(client.send, MESSAGE, sleep=sleep)
        entered.wait()
        with pytest.raises(ApptotoThrottledError, match="Rate limited: this request waited") as raised:
            client.send(MESSAGE)
        left.set()
        first.result()
    assert (raised.value.retry_after, len(server.accepted)) == (0.05, 1)


def test_one_connection_serves_sends_reads_and_refusals() -> None:
    scripts = [accepting, answering(422, {"error": "no"}), answering(200, {"events": []}), answering(404), accepting]
    with FaultServer(scripts) as server, client_of(server.url) as client:
        client.send(MESSAGE)
        failure_of(client)
        client.list_events()
        failure_of(client)
        client.send(MESSAGE)
    assert (server.connections, len(server.requests)) == (1, 5)


def test_a_base_url_with_a_path_keeps_it() -> None:
    with FaultServer() as server, client_of(f"{server.url}/proxy/v2/") as client:
        client.send(MESSAGE)
    assert server.requests[0].path == "/proxy/v2/send_message"


# --- whose credentials


def test_a_netrc_file_does_not_replace_the_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login somebody password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    with FaultServer([answering(200, {"success": True})]) as server, client_of(server.url) as client:
        assert requests.get(server.url, timeout=30).ok
        client.send(MESSAGE)
    plain, ours = server.requests
    assert credentials(plain) == b"somebody:else"
    assert credentials(ours) == f"{LOGIN}:{KEY}".encode()


def test_a_cookie_does_not_replace_the_credentials() -> None:
    answer = answering(200, {"success": True}, Set_Cookie="session=somebody; Path=/")
    with FaultServer([answer]) as server, client_of(server.url) as client:
        client.send(MESSAGE)
        client.send(MESSAGE)
    assert [credentials(request) for request in server.requests] == [f"{LOGIN}:{KEY}".encode()] * 2


def test_clients_of_two_accounts_never_mix_their_credentials() -> None:
    with (
        FaultServer() as server,
        client_of(server.url, login="a", api_key="1") as first,
        client_of(server.url, login="b", api_key="2") as second,
    ):
        for client in (first, second, first, second):
            client.send(MESSAGE)
    assert [credentials(request) for request in server.requests] == [b"a:1", b"b:2"] * 2


def test_credentials_and_message_do_not_follow_a_redirect() -> None:
    with FaultServer() as elsewhere:
        for status in (301, 302, 307, 308):
            to = f"{elsewhere.url}/v1/send_message"
            with FaultServer([answering(status, Location=to)]) as server, client_of(server.url) as client:
                error = failure_of(client)
            assert type(error) is ApptotoRejectedError
            assert "127.0.0.1" in str(error)
            assert "send_message" not in str(error)
    assert (elsewhere.connections, elsewhere.requests) == (0, [])


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "ALL_PROXY"])
def test_what_is_meant_for_loopback_in_clear_is_shown_to_no_proxy(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FaultServer() as proxy, FaultServer() as server, client_of(server.url) as client:
        monkeypatch.setenv(variable.lower(), proxy.url)
        monkeypatch.setenv(variable, proxy.url)
        client.send(MESSAGE)
    assert (proxy.bytes_seen, len(server.accepted)) == (0, 1)


def test_a_cookie_of_one_answer_is_not_sent_with_the_next_message() -> None:
    answer = answering(200, {"success": True}, Set_Cookie="session=somebody; Path=/")
    with FaultServer([answer]) as server, client_of(server.url) as client:
        client.send(MESSAGE)
        client.send(MESSAGE)
    assert not any("cookie" in request.headers for request in server.requests)


# --- what comes back


def test_the_result_says_what_was_sent_to_whom_and_when() -> None:
    before = dt.datetime.now(dt.UTC)
    with FaultServer() as server, client_of(server.url) as client:
        result = client.send(MESSAGE)
    assert (result.outcome, result.type, result.target) == (Outcome.SENT, "sms", "+1•••0199")
    assert (result.http_status, result.response) == (200, {"success": True})
    assert result.sent_at is not None
    assert before <= result.sent_at <= dt.datetime.now(dt.UTC)
    assert result.sent_at.utcoffset() == dt.timedelta(0)


@pytest.mark.parametrize("status", [200, 201, 202])
def test_every_success_status_that_says_success_true_is_sent(status: int) -> None:
    with FaultServer([answering(status, {"success": True})]) as server, client_of(server.url) as client:
        assert client.send(MESSAGE).http_status == status


def test_of_the_answer_only_success_and_the_messages_own_id_are_kept() -> None:
    own = {"success": True, "id": 99, "message_id": "a1B2-c3"}
    dropped = {
        "recipient_id": "16505550199",
        "to_id": 16505550199,
        "contact_id": "Mary_Zebra",
        "event_id": 4711,
        "to": "+16505550199",
        "message": "Your results are in",
        "name": "Mary",
        "ids": [1, 2],
        "identity": "Mary",
        "paid": 5,
        "email_id": "mary@clinic.example",
        "phone_id": "+16505550199",
        "none_id": None,
        "flag_id": True,
        "share_id": 1.5,
        "empty_id": "",
        "letters_id": "m\u00fcnchen",
        "longer_id": "a" * 65,
        "list_id": [1],
        "object_id": {"id": 1},
    }
    with FaultServer([answering(200, {**dropped, **own})]) as server, client_of(server.url) as client:
        assert client.send(MESSAGE).response == {"success": True, "id": "99"}
    with FaultServer([answering(200, {**dropped, "success": True})]) as server, client_of(server.url) as client:
        assert client.send(MESSAGE).response == {"success": True}


@pytest.mark.parametrize(
    ("own", "kept"),
    [
        ({"id": 4711}, "4711"),
        ({"id": "a1B2-c3"}, "a1B2-c3"),
        ({"message_id": 7}, "7"),
        ({"id": None, "message_id": 7}, "7"),
    ],
)
def test_the_messages_own_id_is_kept_as_a_string(own: dict[str, Any], kept: str) -> None:
    with FaultServer([answering(200, {"success": True, **own})]) as server, client_of(server.url) as client:
        assert client.send(MESSAGE).response == {"success": True, "id": kept}


@pytest.mark.parametrize("own_id", ["16505550199", 16505550199, "m\u00fcnchen", "a" * 65, "Mary Jones", "", 1.5, True])
def test_an_id_that_is_none_or_is_the_recipients_number_is_not_kept(own_id: object) -> None:
    with FaultServer([answering(200, {"success": True, "id": own_id})]) as server, client_of(server.url) as client:
        assert client.send(MESSAGE).response == {"success": True}


ODD_LOGIN, ODD_KEY = "wilhelmina@clinic.example", "s3kr:et/api+key%"


def echoing(exchange: Exchange) -> None:
    """Contain the credentials, in all their forms."""
    header = exchange.request.headers["authorization"]
    forms = [
        f"Authorization: {header}",
        f"header={header}",
        header.split()[1],
        header.lower(),
        ODD_KEY,
        quote(ODD_KEY, safe=""),
    ]
    forms += [ODD_LOGIN, quote(ODD_LOGIN, safe=""), "Bearer some.token-1"]
    exchange.answer(422, {"error": " | ".join(forms)})


def test_no_error_shows_login_or_key_in_any_form_that_a_server_echoes() -> None:
    with (
        FaultServer([echoing]) as server,
        ApptotoClient(
            base_url=server.url, login=ODD_LOGIN, api_key=ODD_KEY, rate_limiter=InProcessRateLimiter(60_000)
        ) as client,
    ):
        shown = []
        for call in (lambda: client.send(MESSAGE), client.list_events):
            with pytest.raises(ApptotoError) as raised:
                call()
            shown.append(f"{raised.value} {raised.value.reason} {vars(raised.value)}")
    basic = base64.b64encode(f"{ODD_LOGIN}:{ODD_KEY}".encode()).decode()
    for text in shown:
        assert "HTTP 422" in text
        for secret in (basic, basic.lower(), basic[:12], ODD_KEY, "wilhelmina", "s3kr", "some.token"):
            assert secret.lower() not in text.lower()


def test_every_error_survives_pickling_with_all_that_it_knows() -> None:
    scripts = [answering(429, {"error": "slow"}, Retry_After="3600"), answering(401), answering(422), answering(500)]
    for script in scripts:
        with FaultServer([script]) as server, client_of(server.url) as client:
            error = failure_of(client)
        twin = pickle.loads(pickle.dumps(error))  # noqa: S301
        assert type(twin) is type(error)
        assert (str(twin), vars(twin)) == (str(error), vars(error))


def test_an_answer_that_can_not_be_read_for_its_depth_leaves_the_outcome_unknown() -> None:
    with FaultServer([answering(200, b"[" * 100_000, accepted=True)]) as server, client_of(server.url) as client:
        assert type(failure_of(client)) is ApptotoUnknownOutcomeError


def test_a_redirect_without_end_is_not_read_to_its_end() -> None:
    sent: list[int] = []

    def pour(exchange: Exchange) -> None:
        exchange.raw(b"HTTP/1.1 302 Found\r\nLocation: /login\r\n\r\n")
        while len(sent) < 64:
            exchange.raw(b" " * (1 << 20))
            sent.append(1)

    with FaultServer([pour]) as server, client_of(server.url) as client:
        assert isinstance(failure_of(client), ApptotoError)
    assert len(sent) < 32


@pytest.mark.parametrize("location", ["http://[", "http://[x]/", "//[", "http://a]b"])
def test_a_location_that_can_not_be_read_changes_no_outcome(location: str) -> None:
    with FaultServer([answering(302, Location=location)]) as server, client_of(server.url) as client:
        assert type(failure_of(client)) is ApptotoRejectedError
    with FaultServer([answering(200, {"success": True}, Location=location)]) as server, client_of(server.url) as client:
        assert client.send(MESSAGE).outcome == "sent"


@pytest.mark.parametrize(
    "location",
    [
        "http://evil\x1bc.example/",
        "http://evil\u202e.example/",
        f"http://{'a' * 5000}.example/",
        "http://+16505550199/",
        "http://your results are in/",
    ],
    ids=lambda location: ascii(location)[:30],
)
def test_a_location_is_shown_only_where_it_is_a_hosts_name(location: str) -> None:
    with FaultServer([answering(302, Location=location)]) as server, client_of(server.url) as client:
        text = str(failure_of(client))
    assert text.isprintable()
    assert len(text) < 300
    assert "5550199" not in text
    assert "results" not in text


# --- reading


EVENTS = [{"id": 1, "title": "Visit", "participants": []}, {"id": 2}]


def test_events_are_read_page_by_page() -> None:
    with FaultServer([answering(200, {"events": EVENTS})]) as server, client_of(server.url) as client:
        assert client.list_events() == EVENTS
        assert client.list_events(page=3, page_size=1) == EVENTS
    first, third = server.requests
    assert (first.method, first.path) == ("GET", "/v1/events?page=1&page_size=30")
    assert third.path == "/v1/events?page=3&page_size=1"
    assert (first.body, "content-type" in first.headers) == (b"", False)


def test_no_events_are_no_error() -> None:
    with FaultServer([answering(200, {"events": []})]) as server, client_of(server.url) as client:
        assert client.list_events() == []


@pytest.mark.parametrize("status", [401, 403])
def test_a_read_with_wrong_credentials_says_so_at_once(status: int) -> None:
    with (
        FaultServer([answering(status, {"error": "bad key"})]) as server,
        client_of(server.url) as client,
        pytest.raises(ApptotoAuthError, match=f"login or API key.*{status}.*bad key") as raised,
    ):
        client.list_events()
    assert (raised.value.status, len(server.requests)) == (status, 1)


@pytest.mark.parametrize(
    ("script", "status", "says"),
    [
        (answering(200, b"<html><title>Welcome</title></html>"), 200, "Welcome"),
        (answering(200, b"[]"), 200, ""),
        (answering(200, {"success": True}), 200, ""),
        (answering(200, {"events": {"1": "Visit"}}), 200, ""),
        (answering(204), 204, ""),
        (answering(404, b"<h1>Not Found</h1>"), 404, "Not Found"),
        (answering(302, Location="https://login.clinic.example/a?b=c"), 302, "login.clinic.example"),
    ],
    ids=["HTML", "a list", "no events", "events of another shape", "nothing", "404", "a redirect"],
)
def test_an_answer_that_is_not_apptotos_is_told_from_refusal_and_outage(script: Any, status: int, says: str) -> None:
    with (
        FaultServer([script]) as server,
        client_of(server.url) as client,
        pytest.raises(ApptotoError, match=f"not from Apptoto's API: HTTP {status}.*{says}") as raised,
    ):
        client.list_events()
    assert type(raised.value) is ApptotoError
    assert raised.value.status == status
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "script",
    [
        answering(408),
        answering(425),
        answering(429),
        answering(500),
        answering(502),
        answering(503),
        answering(504),
        resetting(accepted=False),
        sending_raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"),
    ],
    ids=["408", "425", "429", "500", "502", "503", "504", "a reset", "a cut"],
)
def test_a_read_is_repeated_where_that_may_help_three_times_at_the_most(script: Any) -> None:
    with FaultServer([script, script, answering(200, {"events": EVENTS})]) as server, client_of(server.url) as client:
        assert client.list_events() == EVENTS
    assert len(server.requests) == 3
    with (
        FaultServer([script]) as server,
        client_of(server.url) as client,
        pytest.raises(ApptotoNotSentError, match="The request to Apptoto failed"),
    ):
        client.list_events()
    assert len(server.requests) == 3


def test_a_read_carries_the_wait_that_the_server_asks_for() -> None:
    with (
        FaultServer([answering(429, Retry_After="3600")]) as server,
        client_of(server.url) as client,
        pytest.raises(ApptotoNotSentError) as raised,
    ):
        client.list_events()
    assert (len(server.requests), raised.value.status, raised.value.retry_after) == (1, 429, 3600)


def test_a_key_that_the_server_repeats_is_hidden() -> None:
    for status in (401, 422, 404):
        with (
            FaultServer([answering(status, {"error": f"no <{KEY.upper()}>"})]) as server,
            client_of(server.url) as client,
        ):
            error = failure_of(client)
            with pytest.raises(ApptotoError) as raised:
                client.list_events()
        for text in (str(error), str(raised.value)):
            assert "no <•••>" in text


def test_a_read_that_reaches_nobody_says_so() -> None:
    with (
        not_listening() as port,
        client_of(f"http://127.0.0.1:{port}") as client,
        pytest.raises(ApptotoNotSentError, match="refused") as raised,
    ):
        client.list_events()
    assert raised.value.status is None


# --- when it goes out


def test_an_attempt_waits_as_long_as_the_server_asks(clock: Clock) -> None:
    arrived: list[float] = []

    def noting(script: Any) -> Any:
        def noted(exchange: Exchange) -> None:
            arrived.append(clock.now)
            script(exchange)

        return noted

    scripts = [answering(429, Retry_After="7"), answering(503, Retry_After="20"), accepting]
    with FaultServer([noting(script) for script in scripts]) as server, client_of(server.url, clock=clock) as client:
        client.send(MESSAGE)
    assert arrived == [pytest.approx(1000), pytest.approx(1007), pytest.approx(1027, abs=0.01)]


def test_an_attempt_waits_of_its_own_accord_where_the_server_names_no_time(clock: Clock) -> None:
    with FaultServer([answering(429)]) as server, client_of(server.url, clock=clock) as client:
        error = failure_of(client)
    assert isinstance(error, ApptotoNotSentError)
    assert error.retry_after is None
    # about 2 s, then about 6 s
    assert 1006 <= clock.now <= 1010


def test_a_wait_that_ends_after_a_minute_is_left_to_the_caller(clock: Clock) -> None:
    with FaultServer([answering(429, Retry_After="40")]) as server, client_of(server.url, clock=clock) as client:
        error = failure_of(client)
    assert isinstance(error, ApptotoNotSentError)
    assert (len(server.requests), error.status, error.retry_after) == (2, 429, 40)
    assert clock.now == pytest.approx(1040)


@pytest.mark.parametrize(
    ("policy", "requests", "seconds"),
    [
        (RetryPolicy(max_attempts=1), 1, 0),
        (RetryPolicy(max_attempts=5), 5, 40),
        (RetryPolicy(max_attempts=5, window=25), 3, 20),
        (RetryPolicy(window=0), 1, 0),
    ],
)
def test_attempts_are_as_many_and_as_late_as_the_policy_allows(
    policy: RetryPolicy, requests: int, seconds: float, clock: Clock
) -> None:
    with (
        FaultServer([answering(503, Retry_After="10")]) as server,
        client_of(server.url, clock=clock, retry_policy=policy) as client,
    ):
        failure_of(client)
    assert len(server.requests) == requests
    assert clock.now == pytest.approx(1000 + seconds, abs=0.1)


class _NotingLimiter:
    interval = 0.5

    def __init__(self, *waits: float) -> None:
        self.waits = list(waits)
        self.reserved = 0
        self.rests: list[float] = []

    def reserve(self, max_wait: float = math.inf, lead: float = 0.0) -> float:
        assert min(max_wait, lead) >= 0
        self.reserved += 1
        return self.waits.pop(0) if self.waits else 0.0

    def back_off(self, seconds: float) -> None:
        self.rests.append(seconds)


def test_every_request_of_every_kind_reserves_a_slot_and_waits_for_it(clock: Clock) -> None:
    limiter = _NotingLimiter(1, 2, 4, 8)
    scripts = [accepting, answering(500), answering(200, {"events": []}), accepting]
    with FaultServer(scripts) as server, client_of(server.url, rate_limiter=limiter, clock=clock) as client:
        client.send(MESSAGE)
        assert clock.now == 1001
        client.list_events()
        before = clock.now
        client.send(MESSAGE)
    assert (limiter.reserved, len(server.requests)) == (4, 4)
    assert clock.now == before + 8
    assert limiter.rests == []


@pytest.mark.parametrize(("seconds", "reserved"), [(0.4, 1), (0.6, 2), (30, 2)])
def test_a_slot_more_than_one_interval_late_is_not_used_and_another_one_is(
    seconds: float, reserved: int, clock: Clock
) -> None:
    """Recording the message before the first byte may take longer than the slot lasts."""
    limiter = _NotingLimiter(0, 7)
    calls: list[str] = []

    def record() -> None:
        calls.append("before_write")
        clock.now += seconds

    def check() -> None:
        calls.append("last_check")
        assert server.bytes_seen == 0

    with FaultServer() as server, client_of(server.url, rate_limiter=limiter, clock=clock) as client:
        client.send(MESSAGE, before_write=record, last_check=check)
    assert (limiter.reserved, calls) == (reserved, ["before_write", "last_check"])
    assert clock.now == 1000 + seconds + (7 if reserved == 2 else 0)


def test_a_slot_that_is_late_again_and_again_ends_before_the_first_byte_when_the_next_one_is_far_away() -> None:
    clock, limiter = Clock(), _NotingLimiter(0, 3600)

    def record() -> None:
        clock.now += 5

    with (
        FaultServer() as server,
        client_of(server.url, rate_limiter=limiter, clock=clock) as client,
        pytest.raises(ApptotoThrottledError) as raised,
    ):
        client.send(MESSAGE, before_write=record)
    assert (raised.value.retry_after, server.bytes_seen) == (3600, 0)


class _StopError(Exception):
    pass


def _stop() -> None:
    raise _StopError


@pytest.mark.parametrize("hook", ["before_write", "last_check"])
def test_a_slot_whose_message_was_stopped_before_its_first_byte_goes_to_the_next_message(hook: str) -> None:
    limiter = _NotingLimiter()
    hooks: Any = {hook: _stop}
    with FaultServer() as server, client_of(server.url, rate_limiter=limiter) as client:
        for _ in range(3):
            with pytest.raises(_StopError):
                client.send(MESSAGE, **hooks)
        client.send(MESSAGE)
        assert limiter.reserved == 1
        client.send(MESSAGE)
    assert (limiter.reserved, len(server.accepted)) == (2, 2)


def test_a_slot_whose_message_found_nobody_to_connect_to_goes_to_the_next_message() -> None:
    limiter = _NotingLimiter()
    once = RetryPolicy(max_attempts=1)
    with not_listening() as port:
        url = f"http://127.0.0.1:{port}"
        with client_of(url, rate_limiter=limiter, retry_policy=once) as client:
            for call in (lambda: client.send(MESSAGE), client.list_events, lambda: client.send(MESSAGE)):
                with pytest.raises(ApptotoNotSentError, match="refused"):
                    call()
    assert limiter.reserved == 1


@pytest.mark.parametrize(
    "script", [answering(422), answering(500), resetting(accepted=False)], ids=["422", "500", "reset"]
)
def test_a_slot_in_which_a_byte_was_written_is_used_up_whatever_comes_back(script: Any) -> None:
    limiter = _NotingLimiter()
    with FaultServer([script]) as server, client_of(server.url, rate_limiter=limiter) as client:
        failure_of(client)
        failure_of(client)
    assert (limiter.reserved, len(server.requests)) == (2, 2)


def test_a_429_lets_everybody_rest_for_as_long_as_the_server_asks() -> None:
    limiter = _NotingLimiter()
    scripts = [answering(429, Retry_After="9"), answering(503, Retry_After="1"), accepting]
    with FaultServer(scripts) as server, client_of(server.url, rate_limiter=limiter) as client:
        client.send(MESSAGE)
    assert limiter.rests == [9]


def test_after_a_long_429_the_account_leaves_the_server_alone_and_others_go_on() -> None:
    calls: list[None] = []
    with FaultServer([answering(429, Retry_After="3600"), accepting]) as server:
        with (
            client_of(server.url, rate_limiter=None) as client,
            client_of(server.url, rate_limiter=None) as same_account,
        ):
            assert failure_of(client).status == 429
            for refused in (client, same_account):
                with pytest.raises(ApptotoNotSentError) as raised:
                    refused.send(MESSAGE, before_write=lambda: calls.append(None))
                assert raised.value.retry_after == pytest.approx(3600, abs=60)
                assert isinstance(raised.value, ApptotoThrottledError)
                assert raised.value.status is None  # there was no request
            with pytest.raises(ApptotoNotSentError):
                same_account.list_events()
        assert (len(server.requests), server.connections, calls) == (1, 1, [])
        with client_of(server.url, rate_limiter=None, login="other@clinic.example") as other_account:
            assert other_account.send(MESSAGE).outcome == "sent"


def test_an_hours_wait_that_another_thread_was_told_ends_the_attempts_here_too() -> None:
    limiter = _NotingLimiter(0, 3600)
    with (
        FaultServer([answering(503, Retry_After="1")]) as server,
        client_of(server.url, rate_limiter=limiter) as client,
    ):
        error = failure_of(client)
    assert isinstance(error, ApptotoThrottledError)
    assert (len(server.requests), error.retry_after) == (1, 3600)


def test_sends_that_are_refused_for_the_wait_do_not_make_it_longer() -> None:
    clock = Clock()
    limiter = InProcessRateLimiter(90, clock)
    limiter.back_off(3600)
    with client_of("https://clinic.example", rate_limiter=limiter, clock=clock) as client:
        errors = [failure_of(client) for _ in range(100)]
    assert {error.retry_after for error in errors if isinstance(error, ApptotoThrottledError)} == {3600}


# --- where it goes


REDIRECT = Routing(DeliveryMode.REDIRECT, redirect_phone_to="+61491570156", redirect_email_to="tester@clinic.example")
DRY_RUN = Routing(DeliveryMode.DRY_RUN, redirect_phone_to="+61491570156", redirect_email_to="tester@clinic.example")


def test_dry_run_contacts_nobody_and_says_so() -> None:
    calls: list[None] = []
    with FaultServer() as server, client_of(server.url, routing=DRY_RUN) as client:
        results = [
            client.send(message, before_write=lambda: calls.append(None))
            for message in (MESSAGE, EMAIL, Message("sms", event_id=12, message="Hi"))
        ]
    assert (server.connections, server.bytes_seen, calls) == (0, 0, [])
    assert [(result.outcome, result.type, result.target) for result in results] == [
        ("dry_run", "sms", "+1•••0199"),
        ("dry_run", "email", "m•••@•••.example"),
        ("dry_run", "sms", "event 12"),
    ]
    for result in results:
        assert (result.http_status, result.sent_at, result.response) == (None, None, {})


def test_redirect_sends_to_the_stand_in_alone_and_says_who_it_was_for() -> None:
    calls: list[None] = []
    with FaultServer() as server, client_of(server.url, routing=REDIRECT) as client:
        results = [client.send(message, before_write=lambda: calls.append(None)) for message in (MESSAGE, EMAIL)]
    assert [request.json for request in server.accepted] == [
        {
            "type": "sms",
            "to": "+61491570156",
            "message": "[Redirected, was for +1•••0199]\nYour results are in",
        },
        {
            "type": "email",
            "to": "tester@clinic.example",
            "message": "[Redirected, was for m•••@•••.example]\nYour results are in",
            "subject": "Visit",
        },
    ]
    assert not any(b"5550199" in request.body or b"mary" in request.body for request in server.requests)
    assert [(result.outcome, result.target) for result in results] == [
        ("redirected", "+1•••0199"),
        ("redirected", "m•••@•••.example"),
    ]
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("message", "routing"),
    [
        (Message("sms", event_id=12, message="Hi"), REDIRECT),
        (Message("call", participant_id=34, message="Hi"), REDIRECT),
        (MESSAGE, Routing(DeliveryMode.REDIRECT, redirect_email_to="tester@clinic.example")),
        (EMAIL, Routing(DeliveryMode.REDIRECT, redirect_phone_to="+61491570156")),
    ],
)
def test_what_can_not_be_redirected_contacts_nobody(message: Message, routing: Routing) -> None:
    with FaultServer() as server, client_of(server.url, routing=routing) as client:
        assert isinstance(failure_of(client, message), ApptotoValidationError)
    assert server.connections == 0


def test_a_redirected_message_that_fails_is_classified_and_hides_both_recipients() -> None:
    echo = {"error": "refused: SURGERY.example, +61491570156, tester@: Your results are in"}
    original = Message("email", to="mary@surgery.example", message="Your results are in")
    with FaultServer([answering(500, echo)]) as server, client_of(server.url, routing=REDIRECT) as client:
        error = failure_of(client, original)
    assert type(error) is ApptotoUnknownOutcomeError
    assert error.reason.startswith("refused:")
    for private in ("surgery", "91570156", "results"):
        assert private not in f"{error} {error.reason}".lower()


# --- threads


def test_threads_that_share_a_client_never_mix_up_their_messages_or_callbacks() -> None:
    journal: list[tuple[str, str]] = []
    threads_of_callbacks: dict[str, int] = {}

    def noting(exchange: Exchange) -> None:
        journal.append(("arrived", exchange.request.json["message"]))
        # every third one is refused once before it is accepted, so that attempts interleave too
        text = exchange.request.json["message"]
        if text.endswith("0") and journal.count(("arrived", text)) == 1:
            exchange.answer(503, b"", Retry_After="0")
        else:
            accepting(exchange)

    together = threading.Barrier(8)
    with FaultServer([noting]) as server, client_of(server.url) as client:

        def send_many(thread: int) -> int:
            together.wait()
            for number in range(20):
                text = f"{thread}-{number}"

                def written(text: str = text) -> None:
                    journal.append(("written", text))
                    threads_of_callbacks[text] = threading.get_ident()

                result = client.send(Message("sms", to="+16505550199", message=text), before_write=written)
                assert result.outcome == "sent"
                assert threads_of_callbacks[text] == threading.get_ident()
            return threading.get_ident()

        with ThreadPoolExecutor(8) as pool:
            assert len(set(pool.map(send_many, range(8)))) == 8
    assert len(server.accepted) == 160
    for thread in range(8):
        for number in range(20):
            text = f"{thread}-{number}"
            steps = [step for step, of in journal if of == text]
            assert steps == ["written", "arrived"] * (2 if text.endswith("0") else 1)


def test_a_callback_may_use_the_client_itself() -> None:
    order: list[str] = []

    def look_first() -> None:
        order.append("outer")
        client.send(EMAIL, before_write=lambda: order.append("inner"))

    with FaultServer() as server, client_of(server.url) as client:
        client.send(MESSAGE, before_write=look_first)
    assert order == ["outer", "inner"]
    assert [request.json["type"] for request in server.accepted] == ["email", "sms"]


def test_a_callback_may_use_another_client_that_fails() -> None:
    calls: list[str] = []

    def look_first() -> None:
        calls.append("outer")
        with (
            not_listening() as port,
            client_of(f"http://127.0.0.1:{port}") as dead,
            pytest.raises(ApptotoNotSentError),
        ):
            dead.send(EMAIL, before_write=lambda: calls.append("inner"))

    with FaultServer() as server, client_of(server.url) as client:
        client.send(MESSAGE, before_write=look_first)
    assert (calls, len(server.accepted)) == (["outer"], 1)


# --- what is logged


def test_nothing_private_is_logged_at_any_level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    echo = {"error": "not to +16505550199, mary@clinic.example: Your results are in"}
    for routing in (None, REDIRECT, DRY_RUN):
        for script in (accepting, answering(422, echo), answering(500, echo), answering(302, Location="/x")):
            for message in (MESSAGE, EMAIL):
                with (
                    FaultServer([script]) as server,
                    client_of(server.url, routing=routing) as client,
                    contextlib.suppress(ApptotoError),
                ):
                    client.send(message)
    assert "/v1/send_message" in caplog.text  # urllib3 logs every request
    encoded = base64.b64encode(f"{LOGIN}:{KEY}".encode()).decode()
    for private in ("5550199", "91570156", "mary", "tester", "results", "Visit", KEY, LOGIN, encoded):
        assert private not in caplog.text


def test_the_client_leaves_the_log_line_about_a_message_to_whoever_sends_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="airflow_provider_apptoto")
    for routing in (None, REDIRECT, DRY_RUN):
        for script in (accepting, answering(422), answering(500), resetting(accepted=True)):
            with (
                FaultServer([script]) as server,
                client_of(server.url, routing=routing) as client,
                contextlib.suppress(ApptotoError),
            ):
                client.send(MESSAGE)
    assert caplog.records == []


# --- how long it is


@pytest.mark.parametrize(
    ("message", "segments"),
    [
        (MESSAGE, 1),
        (Message("sms", to="+16505550199", message="x" * 161), 2),
        (Message("sms", event_id=12, message="x" * 161), 2),
        (Message("sms", to="+16505550199", template_id=7), None),
        (Message("call", to="+16505550199", message="Hi"), None),
        (EMAIL, None),
    ],
    ids=repr,
)
def test_the_segments_of_a_message_are_those_of_its_text(message: Message, segments: int | None) -> None:
    for routing in (None, DRY_RUN):
        with client_of("https://clinic.example", routing=routing) as client:
            assert client.segments(message) == segments


def test_the_segments_of_a_redirected_message_are_those_of_what_is_sent() -> None:
    message = Message("sms", to="+16505550199", message="x" * 60)
    with client_of("https://clinic.example") as live, client_of("https://clinic.example", routing=REDIRECT) as client:
        assert (live.segments(message), client.segments(message)) == (1, 2)


# --- TLS


@contextlib.contextmanager
def _tls_server(authority: trustme.CA, name: str = "127.0.0.1") -> Iterator[FaultServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    with FaultServer(tls=context) as server:
        yield server


@pytest.fixture
def trusted(tmp_path: Path) -> Iterator[tuple[FaultServer, str, str]]:
    """Provide a server, a CA file that verifies its certificate, and one that does not."""
    authority, stranger = trustme.CA(), trustme.CA()
    ours, other = tmp_path / "ours.pem", tmp_path / "other.pem"
    authority.cert_pem.write_to_path(str(ours))
    stranger.cert_pem.write_to_path(str(other))
    with _tls_server(authority) as server:
        yield server, str(ours), str(other)


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_a_ca_bundle_of_the_environment_is_honoured(
    trusted: tuple[FaultServer, str, str], variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, ours, other = trusted
    monkeypatch.setenv(variable, ours)
    with client_of(server.url) as client:
        assert client.send(MESSAGE).outcome == "sent"
    monkeypatch.setenv(variable, other)
    with client_of(server.url) as client:
        assert isinstance(failure_of(client), ApptotoNotSentError)
    assert len(server.requests) == 1


def test_the_clients_own_ca_bundle_wins_over_the_environments(
    trusted: tuple[FaultServer, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, ours, other = trusted
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(variable, other)
    with client_of(server.url, ca_bundle=ours) as client:
        assert client.send(MESSAGE).outcome == "sent"
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(variable, ours)
    with client_of(server.url, ca_bundle=other) as client:
        assert isinstance(failure_of(client), ApptotoNotSentError)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("REQUESTS_CA_BUNDLE", ""),
        ("CURL_CA_BUNDLE", ""),
        ("PYTHONHTTPSVERIFY", "0"),
        ("GIT_SSL_NO_VERIFY", "1"),
        ("NODE_TLS_REJECT_UNAUTHORIZED", "0"),
    ],
)
def test_no_variable_of_the_environment_switches_verification_off(
    trusted: tuple[FaultServer, str, str], variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, _, _ = trusted
    monkeypatch.setenv(variable, value)
    with client_of(server.url) as client:
        assert isinstance(failure_of(client), ApptotoNotSentError)
    assert server.requests == []


def test_a_certificate_for_another_host_is_refused(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with (
        _tls_server(authority, "api.clinic.example") as server,
        client_of(server.url, ca_bundle=str(tmp_path / "ca.pem")) as client,
    ):
        assert isinstance(failure_of(client), ApptotoNotSentError)
    assert server.requests == []


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
@pytest.mark.parametrize("nothing", ["", False], ids=repr)
def test_no_ca_bundle_switches_verification_off(trusted: tuple[FaultServer, str, str], nothing: Any) -> None:
    server, _, _ = trusted
    with contextlib.suppress(ApptotoError), client_of(server.url, ca_bundle=nothing) as client:
        client.send(MESSAGE)
    assert server.requests == []


# --- settings


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("login", ""),
        ("login", None),
        ("api_key", ""),
        ("api_key", None),
        ("timeout", 0),
        ("timeout", -1),
        ("timeout", float("nan")),
        ("connect_timeout", 0),
        ("connect_timeout", -0.5),
        ("connect_timeout", float("nan")),
    ],
)
def test_a_setting_that_is_missing_or_senseless_is_named(setting: str, value: object) -> None:
    with pytest.raises(ApptotoConfigurationError) as raised:
        client_of("https://clinic.example", **{setting: value})
    assert raised.value.field == setting
    assert KEY not in str(raised.value)


@pytest.mark.parametrize("setting", ["timeout", "connect_timeout"])
@pytest.mark.parametrize("seconds", [float("inf"), 1e10])
def test_a_timeout_that_no_socket_takes_is_refused_at_once(setting: str, seconds: float) -> None:
    with pytest.raises(ApptotoConfigurationError) as raised:
        client_of("https://clinic.example", **{setting: seconds})
    assert raised.value.field == setting


# --- what it costs to import


def modules_after(program: str, *arguments: str) -> list[set[str]]:
    """Run a program that prints lists of modules as JSON, and return them as sets."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True, timeout=60
    )
    return [set(modules) for modules in json.loads(done.stdout.splitlines()[-1])]


def test_importing_the_client_loads_nothing_heavy_and_using_it_nothing_of_airflow() -> None:
    program = """
import json, sys
from airflow_provider_apptoto.client import ApptotoClient, DeliveryMode, Message, Routing
imported = sorted(sys.modules)
client = ApptotoClient(login="a", api_key="b", routing=Routing(DeliveryMode.DRY_RUN))
client.send(Message("sms", to="+16505550199", message="Hi"))
client.send(Message("email", to="mary@clinic.example", message="Hi"))
print(json.dumps([imported, sorted(sys.modules)]))
"""
    imported, used = ({module.partition(".")[0] for module in modules} for modules in modules_after(program))
    heavy = {"requests", "urllib3", "phonenumbers", "email_validator", "sqlalchemy", "pendulum", "airflow"}
    assert not imported & heavy
    # to show that the check can find them
    assert {"requests", "phonenumbers", "email_validator"} <= used
    assert not used & {"airflow", "sqlalchemy"}


def test_what_a_dag_imports_of_the_client_when_it_is_parsed_loads_no_more_than_its_own_module() -> None:
    program = """
import json, sys
import airflow_provider_apptoto.client.errors, airflow_provider_apptoto.client.settings
print(json.dumps([[name for name in sys.modules if name.startswith("airflow_provider_apptoto")]]))
"""
    [modules] = modules_after(program)
    package = "airflow_provider_apptoto"
    assert modules == {package, f"{package}.client", f"{package}.client.errors", f"{package}.client.settings"}


def test_every_name_that_the_package_exports_is_there_and_no_other() -> None:
    assert dir(client_package) == sorted(client_package.__all__)
    for name in client_package.__all__:
        assert getattr(client_package, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'Pacer'"):
        client_package.Pacer  # noqa: B018
