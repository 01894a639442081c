"""The inbox page shows what each person got, and executes nothing that a message contains."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

from airflow_provider_apptoto.sandbox import app
from airflow_provider_apptoto.sandbox.behaviour import ASSUMED, DOCUMENTED
from tests.support.sandbox_caller import SMS, Caller

if TYPE_CHECKING:
    import pytest

    from airflow_provider_apptoto.sandbox import Sandbox


def page(caller: Caller, path: str = "/") -> str:
    # The page needs no account, because the sandbox listens only on this computer.
    caller.session.auth = None
    answer = caller.call("GET", path)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    caller.session.auth = (caller.sandbox.login, caller.sandbox.api_key)
    return answer.text


def test_an_empty_inbox_says_so(sandbox: Sandbox, caller: Caller) -> None:
    assert sandbox.messages() == []
    assert "No messages yet" in page(caller)


def test_each_person_is_shown_once_with_what_they_got_newest_first(caller: Caller) -> None:
    caller.send({"type": "sms", "to": "+16505550101", "message": "first"})
    caller.send({"type": "email", "to": "ana@example.com", "subject": "Visit", "message": "second"})
    caller.send({"type": "call", "to": "+16505550101", "template_id": "4711"})
    caller.send({"type": "sms", "participant_id": "123456", "message": "fourth"})
    caller.send({"type": "sms", "event_id": 77, "message": "fifth"})
    caller.send({"type": "sms", "to": "ana@example.com", "message": "sixth"})

    people = re.findall(r'<section class="person".*?</section>', page(caller), re.DOTALL)
    shown = [re.sub(r"\s+", " ", re.sub("<[^>]+>", " ", person)).strip() for person in people]
    shown = [re.sub(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC", "@", person) for person in shown]
    assert shown == [
        "ana@example.com 2 messages SMS @ sixth E-mail Visit @ second",
        "Everybody at event 77 1 message SMS @ fifth",
        "Participant 123456 1 message SMS @ fourth",
        "+16505550101 2 messages Call Template 4711 @ SMS @ first",
    ]


def test_a_message_to_several_targets_is_shown_under_each(caller: Caller) -> None:
    caller.send({**SMS, "participant_id": 5, "event_id": 77})

    assert re.findall("<bdi>(.*?)</bdi></h2>", page(caller)) == [
        "+16505550101",
        "Participant 5",
        "Everybody at event 77",
    ]


def test_nothing_that_was_sent_becomes_part_of_the_page(caller: Caller) -> None:
    attack = "<script>alert('\"')</script>"
    caller.send({"type": "email", "to": attack, "subject": attack, "template_id": attack, "message": attack})
    caller.call("POST", "/sandbox/faults", json={"status": 429, "retry_after": attack})

    text = page(caller)
    assert "<script" not in text
    assert text.count("&lt;script&gt;") == 5


def test_the_page_needs_nothing_from_elsewhere_and_lets_nothing_in(caller: Caller) -> None:
    caller.send()
    answer = caller.call("GET", "/")

    assert not re.search(r"(src|action)=|https?://|@import|url\(|<script|<form", answer.text)
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; ")
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["Cache-Control"] == "no-store"


def test_the_page_says_what_is_documented_and_what_is_assumed(caller: Caller) -> None:
    text = html.unescape(page(caller))

    documented = text.index("Documented by Apptoto")
    assumed = text.index("Assumed, because")
    assert all(documented < text.index(line) < assumed for line in DOCUMENTED)
    assert all(assumed < text.index(line) for line in ASSUMED)


def test_the_page_shows_the_faults_that_are_switched_on(sandbox: Sandbox, caller: Caller) -> None:
    assert "Active faults" not in page(caller)
    sandbox.fault(status=429, retry_after=5, times=2)
    sandbox.fault(kind="hang", seconds=3, accepted=True)
    for kind in ("reset", "close", "cut", "html"):
        sandbox.fault(kind=kind)

    section = page(caller).partition('<section class="faults"')[2].partition("</section>")[0]
    assert [re.sub(r"\s+", " ", item) for item in re.findall("<li>(.*?)</li>", section, re.DOTALL)] == [
        "For the next 2 requests: status 429 with Retry-After: 5. The message is not stored.",
        "For the next request: no answer for 3 s, then the connection is closed. The message is stored.",
        "For the next request: the connection is reset, no answer. The message is not stored.",
        "For the next request: the connection is closed, no answer. The message is not stored.",
        "For the next request: the connection is closed in the middle of the answer. The message is not stored.",
        "For the next request: status 200 with an HTML page. The message is not stored.",
    ]


def test_the_page_refreshes_itself_only_when_asked(caller: Caller) -> None:
    assert 'http-equiv="refresh"' not in page(caller)
    assert 'http-equiv="refresh"' in page(caller, "/?refresh")


def test_a_full_inbox_shows_the_newest_and_says_how_many_there_are(
    sandbox: Sandbox, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "MAX_SHOWN", 2)
    for number in range(3):
        caller.send({**SMS, "message": f"number {number}"})

    text = page(caller)
    assert "The newest 2 of 3 messages" in text
    assert ("number 0" in text, "number 1" in text, "number 2" in text) == (False, True, True)
    assert len(sandbox.messages()) == 3
