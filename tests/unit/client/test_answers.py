"""The client reads the wait, the reason and the meaning from an HTTP answer."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_apptoto.client.outcomes import Answer, Outcome, classify_read, classify_send, parse_retry_after

if TYPE_CHECKING:
    from pytest_mock import MockerFixture

NOW = 1_795_363_200.0
"""Sun, 22 Nov 2026 16:00:00 GMT."""


@pytest.fixture
def _fixed_time(mocker: MockerFixture) -> None:
    mocker.patch.object(time, "time", return_value=NOW)


@pytest.fixture
def _new_york(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "America/New_York")
        time.tzset()
        yield
    time.tzset()


# --- Retry-After


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0),
        ("5", 5),
        ("3600", 3600),
        (" 7 ", 7),
        ("1.5", 1.5),
        ("-5", 0),
        ("Sun, 22 Nov 2026 16:01:30 GMT", 90),
        ("Sun, 22 Nov 2026 16:01:30 +0000", 90),
        ("Sun, 22 Nov 2026 11:01:30 -0500", 90),
        ("Sunday, 22-Nov-26 16:01:30 GMT", 90),
        ("Sun, 22 Nov 2026 16:00:00 GMT", 0),
        ("Sun, 22 Nov 2026 15:00:00 GMT", 0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        # at most a day: a mistake of the server must not stop an account for years
        ("86400", 86400),
        ("86401", 86400),
        ("9999999999", 86400),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86400),
    ],
)
@pytest.mark.usefixtures("_fixed_time", "_new_york")
def test_the_wait_is_read_from_seconds_and_dates_and_is_never_negative(header: str, seconds: float) -> None:
    assert parse_retry_after(header) == seconds


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        " ",
        "soon",
        "5 seconds",
        "5, 6",
        "0x10",
        "nan",
        "inf",
        "-inf",
        "1e400",
        "9" * 5000,
        "Sun",
        "Sun, 99 Nov 2026 16:01:30 GMT",
        "Sun, 22 Nov 2026 25:01:30 GMT",
        "Sun, 22 Nov 99999 16:01:30 GMT",
        "Sun, 22 Nov 2026 16:01:30 +9999",
    ],
    ids=lambda header: repr(header)[:20],
)
def test_a_wait_that_can_not_be_read_is_none(header: str | None) -> None:
    assert parse_retry_after(header) is None


_DATES = st.from_regex(
    r"(Mon, )?[0-3][0-9] (Jan|Dec) [0-9]{1,5} [0-2][0-9]:[0-9]{2}(:[0-9]{2})?( GMT| [+-][0-9]{4})?", fullmatch=True
)


@given(st.text() | _DATES)
def test_whatever_the_header_holds_it_never_breaks_anything(header: str) -> None:
    seconds = parse_retry_after(header)
    assert seconds is None or 0 <= seconds <= 86400


@pytest.mark.usefixtures("_fixed_time", "_new_york")
def test_a_date_of_the_oldest_form_is_gmt_as_well() -> None:
    # RFC 9110, 5.6.7: all three forms must be accepted, and all are in GMT
    assert parse_retry_after("Sun Nov 22 16:01:30 2026") == 90


# --- what the server said


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"error": "no credits"}', "no credits"),
        (b'{"message": "no credits"}', "no credits"),
        (b'{"errors": ["a", "b"]}', '["a", "b"]'),
        (b'{"error": {"code": 7, "text": "\xc3\xbc"}}', '{"code": 7, "text": "\u00fc"}'),
        (b'{"error": "first", "message": "second"}', "first"),
        (b'{"error": "", "message": "second"}', "second"),
        (b'{"error": null, "errors": {"to": ["is bad"]}}', '{"to": ["is bad"]}'),
        (b'{"success": true, "id": 5}', ""),
        (b"{}", ""),
        (b"", ""),
        (b"Bad Gateway", "Bad Gateway"),
        (b"<html><h1>502</h1>\r\n<p>Bad\tGateway</p></html>", "502 Bad Gateway"),
        (b'["a"]', '["a"]'),
        (b"caf\xe9", "caf\ufffd"),
    ],
)
def test_of_an_error_the_servers_own_words_are_kept(body: bytes, said: str) -> None:
    assert Answer(written=True, status=500, body=body).said(()) == said


def test_what_the_server_said_is_made_safe_in_every_shape() -> None:
    text = "cannot send 'Your results are in' to mary@clinic.example or +1 650 555 0199\x1b[2J"
    bodies: list[Any] = [{"error": text}, {"errors": [{"detail": text}]}, {"message": text}, [text], text]
    for body in (*(json.dumps(body).encode() for body in bodies), f"<p>{text}</p>".encode()):
        said = Answer(written=True, status=422, body=body).said(("Your results are in", "mary@clinic.example"))
        assert "cannot send" in said
        for private in ("results", "mary", "clinic", "555", "\x1b"):
            assert private not in said
        assert len(said) <= 200


# --- what it means


@pytest.mark.parametrize("status", [None, 408, 425, 429, 500, 502, 503, 504])
def test_a_read_is_worth_another_attempt_where_the_failure_may_pass(status: int | None) -> None:
    assert classify_read(Answer(written=True, status=status)) is Outcome.NOT_SENT


@pytest.mark.parametrize("status", [301, 302, 400, 401, 403, 404, 422, 501])
def test_a_read_that_was_refused_would_be_again(status: int) -> None:
    assert classify_read(Answer(written=True, status=status)) is Outcome.REJECTED


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'"events"', b"null"])
def test_a_read_that_is_no_json_object_is_not_one_of_apptotos(body: bytes) -> None:
    assert classify_read(Answer(written=True, status=200, body=body)) is Outcome.UNKNOWN


# Hypothesis also tries constants from this code, so the valid one must not appear in it.
@given(
    (st.binary() | st.text().map(lambda text: json.dumps(text).encode())).filter(lambda body: b"success" not in body)
)
def test_only_success_true_means_sent(body: bytes) -> None:
    assert classify_send(Answer(written=True, status=200, body=body)) is Outcome.UNKNOWN


@pytest.mark.parametrize("value", [1, "true", "yes", [True], {"success": True}, None, 0, "false"])
def test_nothing_that_only_resembles_success_means_sent_or_refused(value: object) -> None:
    body = json.dumps({"success": value}).encode()
    assert classify_send(Answer(written=True, status=200, body=body)) is Outcome.UNKNOWN


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"a":' * 100_000], ids=["lists", "objects"])
def test_an_answer_nested_too_deep_to_be_read_leaves_the_outcome_unknown(body: bytes) -> None:
    for status in (200, 500):
        answer = Answer(written=True, status=status, body=body)
        assert classify_send(answer) is Outcome.UNKNOWN
        assert len(answer.said(())) <= 200
