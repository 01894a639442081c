"""Pages of other sites can't use the login of a person, and the outbox page runs no foreign code."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_apptoto.ui.access import is_own
from tests.support.old_databases import rows_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi.testclient import TestClient

    from airflow_provider_apptoto.outbox.database import StateDatabase

OWN = "http://airflow.example:8080"
RESOLVE = "api/dags/clinic/resolve"
BODY: dict[str, Any] = {"keys": ["5" * 32], "note": "seen", "outcome": "sent"}


@pytest.fixture
def browser(anonymous: TestClient, token: Callable[[str], str]) -> TestClient:
    """Provide the browser of somebody who is logged in: it sends the cookie, whichever page asks."""
    anonymous.cookies.set("_token", token("admin"))
    return anonymous


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "null"},
        {"Origin": "https://evil.example"},
        {"Origin": "http://airflow.example:8081"},
        {"Origin": "http://airflow.example"},
        {"Origin": OWN, "Sec-Fetch-Site": "same-site"},
        {"Origin": OWN, "Sec-Fetch-Site": "cross-site"},
        {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "https://evil.example", "Authorization": "Bearer x"},
        {"Authorization": "Basic x"},
    ],
)
def test_a_page_of_another_site_changes_nothing(
    browser: TestClient, ledger: StateDatabase, headers: dict[str, str]
) -> None:
    before = rows_of(ledger._url)
    assert browser.post(RESOLVE, json=BODY, headers=headers).status_code == 403
    assert browser.post("api/search", json={"text": "4711"}, headers=headers).status_code == 403
    assert rows_of(ledger._url) == before


@pytest.mark.usefixtures("ledger")
@pytest.mark.parametrize("headers", [{"Origin": OWN}, {"Origin": OWN, "Sec-Fetch-Site": "same-origin"}])
def test_the_page_itself_may_change_entries(browser: TestClient, headers: dict[str, str]) -> None:
    answer = browser.post(RESOLVE, json=BODY, headers=headers)
    assert answer.status_code == 200
    assert len(answer.json()["rows"]) == 1


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_what_a_form_can_send_is_refused(browser: TestClient, ledger: StateDatabase, kind: str) -> None:
    before = rows_of(ledger._url)
    text = '{"keys": ["55555555555555555555555555555555"], "note": "seen", "outcome": "sent"}'
    answer = browser.post(RESOLVE, content=text, headers={"Origin": OWN, "Content-Type": kind})
    assert answer.status_code == 415
    assert rows_of(ledger._url) == before


def test_no_get_changes_anything(browser: TestClient, ledger: StateDatabase) -> None:
    before = rows_of(ledger._url)
    for path in (RESOLVE, "api/dags/clinic/forget", "api/dags/clinic/optout", "api/search", "api/export"):
        assert browser.get(path).status_code == 405
    assert rows_of(ledger._url) == before


@pytest.mark.parametrize(
    ("headers", "base_url", "own"),
    [
        ({"host": "internal:8080", "origin": "https://air.example"}, "https://air.example/airflow", True),
        ({"host": "internal:8080", "origin": "https://AIR.example"}, "https://air.example", True),
        ({"host": "internal:8080", "origin": "https://air.example"}, None, False),
        ({"host": "internal:8080", "origin": "https://air.example"}, "https://other.example", False),
        ({"origin": "null"}, None, False),
        ({"host": "", "origin": "null"}, "", False),
        ({"host": "a", "authorization": "bearer x"}, None, True),
        ({"host": "a"}, None, False),
    ],
)
def test_a_proxy_may_change_the_host_if_airflow_knows_its_own_address(
    headers: dict[str, str], base_url: str | None, *, own: bool
) -> None:
    assert is_own(headers, base_url) is own


# --- the page


def test_the_page_holds_no_data_and_allows_only_its_own_script_and_style(anonymous: TestClient) -> None:
    answer = anonymous.get("outbox")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(each.split(" ", 1) for each in answer.headers["content-security-policy"].split("; "))
    assert (policy["default-src"], policy["connect-src"], policy["frame-ancestors"]) == ("'none'", "'self'", "'self'")
    for tag in ("script", "style"):
        [own] = re.findall(f"<{tag}>(.*?)</{tag}>", answer.text, re.DOTALL)
        assert policy[f"{tag}-src"] == f"'sha256-{base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()}'"


def test_the_page_inserts_text_only_as_text_and_loads_nothing_from_elsewhere(anonymous: TestClient) -> None:
    page = anonymous.get("outbox").text
    unsafe = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|srcdoc|DOMParser|\sstyle=|<[^>]+\son\w+="
    assert re.findall(unsafe, page) == []
    assert not re.search(r"(?:src|href)=[\"']?(?:https?:)?//", page)


@pytest.mark.parametrize("path", ["outbox", "icon.svg", "api/messages", "nothing", "docs", "openapi.json"])
def test_nothing_is_cached_or_guessed(anonymous: TestClient, path: str) -> None:
    answer = anonymous.get(path)
    assert answer.status_code == {"outbox": 200, "icon.svg": 200, "api/messages": 401}.get(path, 404)
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'self'" in answer.headers["content-security-policy"]
