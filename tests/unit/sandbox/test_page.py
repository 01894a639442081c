"""The inbox page needs nothing from elsewhere, and executes nothing that a message contains."""

from __future__ import annotations

import html
import json
import re
from typing import TYPE_CHECKING

import pytest

from airflow_provider_apptoto.sandbox import Sandbox
from airflow_provider_apptoto.sandbox.behaviour import ASSUMED, DOCUMENTED, OBSERVED
from tests.support.sandbox_caller import Caller

if TYPE_CHECKING:
    import requests

FILES = {
    "/": "text/html",
    "/inbox.js": "text/javascript",
    "/appointments.js": "text/javascript",
    "/inbox.css": "text/css",
    "/appointments.css": "text/css",
}
SCRIPTS = [path for path in FILES if path.endswith(".js")]


def got(caller: Caller, path: str = "/") -> requests.Response:
    # The page needs no account, because the sandbox listens only on this computer.
    caller.session.auth = None
    answer = caller.call("GET", path)
    caller.session.auth = (caller.sandbox.login, caller.sandbox.api_key)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == f"{FILES[path]}; charset=utf-8"
    return answer


def test_the_page_loads_only_its_own_files(caller: Caller) -> None:
    loaded = re.findall(r'(?:src|href|action)="([^"]*)"', got(caller).text)

    icon, *others = loaded
    assert icon.startswith("data:image/svg+xml,")
    own = ["inbox.css", "appointments.css", "inbox.js", "appointments.js"]
    assert others == [*own, "#messages", "#appointments", "sandbox/messages?outcome=any"]
    for path in FILES:
        text = got(caller, path).text.replace("http://www.w3.org/2000/svg", "").replace(caller.sandbox.url, "")
        assert re.findall(r"(?:https?:)?//[a-z]+\.|@import|url\(", text) == []


@pytest.mark.parametrize("path", FILES)
def test_the_page_lets_nothing_in(caller: Caller, path: str) -> None:
    headers = got(caller, path).headers
    policy = dict(rule.partition(" ")[::2] for rule in headers["Content-Security-Policy"].split("; "))

    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
    }
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "no-referrer"


def test_the_page_has_no_script_or_style_of_its_own(caller: Caller) -> None:
    text = got(caller).text

    assert re.findall(r"<script[^>]*>", text) == [f'<script src="{path[1:]}" defer>' for path in SCRIPTS]
    assert re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", text) is None


@pytest.mark.parametrize("path", SCRIPTS)
def test_a_script_never_makes_html_of_text(caller: Caller, path: str) -> None:
    sinks = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\b|Function\(|srcdoc"

    assert re.findall(sinks, got(caller, path).text) == []


def test_the_page_holds_no_message(caller: Caller) -> None:
    caller.send({"type": "email", "to": "ana@example.com", "subject": "Visit", "message": "<script>alert(1)</script>"})

    text = got(caller).text
    assert "ana@example.com" not in text
    assert "alert(1)" not in text


def test_the_account_does_not_become_part_of_the_page() -> None:
    with Sandbox(login='a"><script>@example.com', api_key="'\"&<b>") as sandbox, Caller(sandbox) as caller:
        text = got(caller).text

    assert "<b>" not in text
    assert len(re.findall("<script", text)) == len(SCRIPTS)


def test_the_page_has_the_command_that_stores_the_connection(sandbox: Sandbox, caller: Caller) -> None:
    text = html.unescape(got(caller).text)

    assert f'data-copy="{sandbox.connection_command()}"' in text
    assert f"<pre>{sandbox.connection_command()}</pre>" in text


def test_each_fault_that_has_a_button_can_be_switched_on(caller: Caller) -> None:
    buttons = [html.unescape(text) for text in re.findall(r'data-fault="([^"]*)"', got(caller).text)]

    assert len(buttons) >= 5
    for button in buttons:
        assert caller.call("POST", "/sandbox/faults", data=button).status_code == 201
    kinds = {fault["kind"] for fault in caller.faults()}
    assert kinds == {"status", "reset", "hang", "cut", "html"}
    assert all(fault["times"] == 1 for fault in caller.faults())
    assert {json.dumps(json.loads(button)) for button in buttons} == set(buttons)


def test_the_page_says_what_is_documented_observed_and_assumed(caller: Caller) -> None:
    text = html.unescape(got(caller).text)

    documented = text.index("Documented by Apptoto")
    observed = text.index("Observed, in programs")
    assumed = text.index("Assumed, because")
    assert all(documented < text.index(line) < observed for line in DOCUMENTED)
    assert all(observed < text.index(line) < assumed for line in OBSERVED)
    assert all(assumed < text.index(line) for line in ASSUMED)


def test_the_page_says_how_many_requests_are_kept() -> None:
    with Sandbox(keep=4321) as sandbox, Caller(sandbox) as caller:
        assert "The newest 4,321 requests are kept." in got(caller).text


@pytest.mark.parametrize("path", ["/inbox.html", "/static/inbox.js", "/../app.py", "/..%2fapp.py", "/app.py"])
def test_no_other_file_is_served(caller: Caller, path: str) -> None:
    assert caller.call("GET", path).status_code == 404
