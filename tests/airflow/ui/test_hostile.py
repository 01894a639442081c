"""The page withstands requests that its own script never sends."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.old_databases import rows_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi.testclient import TestClient

    from airflow_provider_apptoto.outbox.database import StateDatabase

    Client = Callable[[str], TestClient]

ANN = "+16505550199"
KEY = "5" * 32
RESOLVE = "api/dags/clinic/resolve"
BODY: dict[str, Any] = {"keys": [KEY], "note": "seen", "outcome": "sent"}
MEGABYTE = 2**20


@pytest.mark.usefixtures("ledger")
@pytest.mark.parametrize(
    "after",
    [
        *("~", "x", "1", "1.0", "~" * 100, "1e999~" + KEY, "-1e999~" + KEY, "nan~" + KEY, "inf~" + KEY),
        *("1.0~' OR 1=1 --", "1.0~%", "1.0~", "1.0~" + "5" * 96, "1.0~\x00", "1_0.0~" + KEY, " 1.0~" + KEY),
    ],
)
def test_a_cursor_that_was_altered_is_refused_or_shows_nothing_else(client: Client, after: str) -> None:
    answer = client("viewer").get("api/messages", params={"after": after})
    assert answer.status_code == 422, answer.text
    assert answer.json()["detail"].startswith("Invalid request: after: String should match pattern")


@pytest.mark.parametrize("path", ["api/search", "api/export", RESOLVE, "api/dags/clinic/forget"])
def test_a_body_of_ten_megabytes_is_refused_before_it_is_read(
    client: Client, ledger: StateDatabase, path: str, provider_log: list[str]
) -> None:
    before = rows_of(ledger._url)
    for body in (
        json.dumps({"text": ANN + "0" * 10 * MEGABYTE}),
        json.dumps({"keys": [KEY] * 300_000, "note": "seen", "outcome": "sent"}),
        "[" * 10 * MEGABYTE,
    ):
        answer = client("admin").post(path, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 413
        assert len(answer.text) < 200
        assert answer.headers["cache-control"] == "no-store"
    assert rows_of(ledger._url) == before
    assert "5550199" not in "".join(provider_log)


def test_a_body_without_a_length_is_refused_as_soon_as_it_is_too_long(client: Client, ledger: StateDatabase) -> None:
    sent = 0

    def endless() -> Any:
        nonlocal sent
        while sent < 10 * MEGABYTE:
            sent += MEGABYTE
            yield b" " * MEGABYTE

    before = rows_of(ledger._url)
    answer = client("admin").post(RESOLVE, content=endless(), headers={"Content-Type": "application/json"})
    assert answer.status_code in {400, 413}
    assert rows_of(ledger._url) == before


@pytest.mark.parametrize(
    "note",
    ["", " ", "n" * 201, "n" * 100_000, "a\nb", "a\tb", "a\x00b", "a\u2028b", "a\u202eb", None, 1, ["a"], {"a": "b"}],
)
def test_a_note_is_one_line_of_text(client: Client, ledger: StateDatabase, note: Any) -> None:
    before = rows_of(ledger._url)
    answer = client("admin").post(RESOLVE, json={**BODY, "note": note})
    assert answer.status_code == 422
    assert rows_of(ledger._url) == before
    assert len(answer.text) < 300


@pytest.mark.usefixtures("ledger")
def test_a_note_with_html_is_stored_and_returned_as_text(client: Client) -> None:
    note = "<img src=x onerror=alert(1)>'\"</script>"
    answer = client("op").post(RESOLVE, json={**BODY, "note": note})
    assert answer.json()["rows"][0]["why"] == f"ann op: {note}"
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.usefixtures("ledger")
@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"text": "+16505550199"',
        b'{"text": "+16505550199", "text": {}}',
        b'{"text": NaN}',
        b'{"text": "+16505550199", "source": "\xff"}',
        b'{"text": "+16505550199\\ud800"}',
        b"null",
        b'"+16505550199"',
        b'{"text": "+16505550199", "+16505550199": 1}',
        b'{"text": "+16505550199", "limit": "+16505550199"}',
        b'{"text": "+16505550199", "after": "+16505550199"}',
        b'{"text": "+16505550199", "outcome": ["+16505550199"]}',
    ],
)
def test_no_answer_and_no_log_line_repeats_what_was_typed(
    client: Client, body: bytes, provider_log: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    answer = client("viewer").post("api/search", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in {200, 400, 422}, answer.text
    assert "5550199" not in answer.text + "".join(provider_log) + caplog.text


@pytest.mark.usefixtures("ledger")
@pytest.mark.parametrize(
    "headers",
    [
        {"Cookie": "_token=nonsense"},
        {"Cookie": "_token="},
        {"Authorization": "Bearer nonsense"},
        {"Authorization": "Bearer "},
        {"Authorization": "Basic YTpi"},
    ],
)
def test_who_is_logged_out_or_whose_session_is_over_is_told_to_log_in(
    anonymous: TestClient, headers: dict[str, str]
) -> None:
    for method, path, body in (("GET", "api/about", None), ("GET", "api/open", None), ("POST", RESOLVE, BODY)):
        answer = anonymous.request(
            method, path, json=body, headers={**headers, "Origin": "http://airflow.example:8080"}
        )
        assert answer.status_code in {401, 403}, (path, answer.text)
        assert answer.headers["content-type"] == "application/json"
        assert "rows" not in answer.text


@pytest.mark.usefixtures("ledger")
def test_a_session_that_is_over_gets_401(anonymous: TestClient, token: Callable[[str], str]) -> None:
    import jwt

    fields = jwt.decode(token("admin"), options={"verify_signature": False})
    over = jwt.encode(
        {**fields, "exp": fields["iat"] - 100, "iat": fields["iat"] - 200, "nbf": fields["iat"] - 200},
        "k" * 64,
        "HS512",
    )
    anonymous.cookies.set("_token", over)
    assert anonymous.get("api/open").status_code == 401
    assert anonymous.get("outbox").status_code == 200


@pytest.mark.usefixtures("ledger")
@pytest.mark.parametrize("source", ["", "missing", "state", "../state", "x" * 251, "a\nb", "apptoto_default\x00"])
def test_only_connections_that_are_named_in_the_configuration_are_read(client: Client, source: str) -> None:
    answer = client("admin").get("api/messages", params={"source": source})
    assert answer.status_code in {422, 503}
    assert "rows" not in answer.text
    answer = client("admin").post(RESOLVE, json={**BODY, "source": source})
    assert answer.status_code in {422, 503}


@pytest.mark.parametrize("dag_id", ["..%2f..", "%00", "clinic%00", "clinic%0a", "CLINIC", "cl%69nic%20", "%E2%80%AE"])
def test_a_dag_id_in_the_path_is_taken_literally(client: Client, ledger: StateDatabase, dag_id: str) -> None:
    before = rows_of(ledger._url)
    answer = client("admin").post(f"api/dags/{dag_id}/resolve", json=BODY)
    assert answer.status_code in {200, 403, 404, 422}, answer.text
    assert answer.status_code != 200 or answer.json() == {"rows": [], "skipped": 1}
    assert rows_of(ledger._url) == before


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "TRACE", "OPTIONS"])
def test_no_other_method_changes_anything(client: Client, ledger: StateDatabase, method: str) -> None:
    before = rows_of(ledger._url)
    assert client("admin").request(method, RESOLVE, json=BODY).status_code == 405
    assert rows_of(ledger._url) == before
