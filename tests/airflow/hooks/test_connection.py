"""An Airflow connection becomes the settings that it contains, or an error that says what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import Connection

from airflow_provider_apptoto.client import ApptotoConfigurationError, ApptotoValidationError, DeliveryMode
from airflow_provider_apptoto.connection import EXTRA_FIELDS, ConnectionSettings
from airflow_provider_apptoto.hooks import apptoto as hooks
from airflow_provider_apptoto.hooks.apptoto import ApptotoHook
from tests.support.faults import FaultServer, answering, hanging, not_listening

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.contract

KEY = "sekret-api-key/+%"


def make(extra: str | dict[str, Any] | None = None, **fields: Any) -> Connection:
    if isinstance(extra, dict):
        extra = json.dumps(extra)
    known = {"conn_id": "clinic", "conn_type": "apptoto", "login": "clinic@clinic.example", "password": KEY}
    return Connection(**{**known, **fields}, extra=extra)


def read(extra: str | dict[str, Any] | None = None, **fields: Any) -> ConnectionSettings:
    return ConnectionSettings.read(make(extra, **fields), {})


def settings_from_environment(value: str, monkeypatch: pytest.MonkeyPatch) -> ConnectionSettings:
    monkeypatch.setenv("AIRFLOW_CONN_CLINIC", value)
    return ConnectionSettings.read(ApptotoHook.get_connection("clinic"), {})


def test_login_and_key_are_all_that_is_needed() -> None:
    settings = read()
    assert settings == ConnectionSettings(
        login="clinic@clinic.example",
        api_key=KEY,
        base_url="https://api.apptoto.com/v1",
        timeout=120,
        connect_timeout=5,
        requests_per_minute=90,
        max_retry_after=3600,
        default_region=None,
        allowed_regions=None,
        delivery_modes={},
        redirect_phone_to=None,
        redirect_email_to=None,
        ca_bundle=None,
        state_conn_id=None,
        send_window=None,
        timezone=None,
        at_most=(),
    )
    assert KEY not in repr(settings)


EVERYTHING = {
    "timeout": 30,
    "connect_timeout": 2.5,
    "requests_per_minute": 60,
    "max_retry_after": 600,
    "default_region": "us",
    "allowed_regions": "us, CA",
    "delivery_mode": "redirect",
    "redirect_phone_to": "(650) 555-0100",
    "redirect_email_to": "Test@Clinic.example",
    "ca_bundle": __file__,
}


def check_everything(settings: ConnectionSettings) -> None:
    assert (settings.login, settings.api_key) == ("clinic@clinic.example", KEY)
    assert settings.base_url == "https://proxy.example:8443/v1"
    assert (settings.timeout, settings.connect_timeout, settings.requests_per_minute) == (30, 2.5, 60)
    assert settings.max_retry_after == 600
    assert (settings.default_region, settings.allowed_regions) == ("US", ("US", "CA"))
    assert settings.delivery_modes == {"connection 'clinic'": DeliveryMode.REDIRECT}
    assert (settings.redirect_phone_to, settings.redirect_email_to) == ("+16505550100", "Test@clinic.example")
    assert settings.ca_bundle == __file__


def test_a_connection_in_json_is_read_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {
        "conn_type": "apptoto",
        "login": "clinic@clinic.example",
        "password": KEY,
        "host": "https://proxy.example:8443",
        "extra": EVERYTHING,
    }
    check_everything(settings_from_environment(json.dumps(fields), monkeypatch))


def test_a_connection_as_uri_is_read_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    check_everything(
        settings_from_environment(make(EVERYTHING, host="https://proxy.example", port=8443).get_uri(), monkeypatch)
    )


@pytest.mark.parametrize(
    ("uri", "base_url"),
    [
        ("apptoto://clinic%40clinic.example:key@", "https://api.apptoto.com/v1"),
        ("apptoto://clinic%40clinic.example:key@proxy.example", "https://proxy.example/v1"),
        ("apptoto://clinic%40clinic.example:key@127.0.0.1:8025/http", "http://127.0.0.1:8025/v1"),
        ("apptoto://clinic%40clinic.example:key@http%3A%2F%2F127.0.0.1%3A8025", "http://127.0.0.1:8025/v1"),
        ("apptoto://http://clinic%40clinic.example:key@127.0.0.1:8025/", "http://127.0.0.1:8025/v1"),
        (
            "apptoto://clinic%40clinic.example:key@https%3A%2F%2Fproxy.example%2Fapptoto%2Fv1",
            "https://proxy.example/apptoto/v1",
        ),
    ],
)
def test_a_uri_may_write_the_base_url_in_any_of_airflows_ways(
    uri: str, base_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_from_environment(uri, monkeypatch)
    assert (settings.base_url, settings.login, settings.api_key) == (base_url, "clinic@clinic.example", "key")


def test_what_a_form_leaves_blank_is_unset() -> None:
    blank = dict.fromkeys(EXTRA_FIELDS, "")
    assert read(blank, host="", schema="", port=None) == read()
    assert read(dict.fromkeys(EXTRA_FIELDS), host=" ") == read()
    assert read("") == read("{}") == read()


@pytest.mark.parametrize(
    ("host", "port", "base_url"),
    [
        ("", 443, "https://api.apptoto.com/v1"),
        ("https://api.apptoto.com", 443, "https://api.apptoto.com/v1"),
        ("api.apptoto.com:443", 443, "https://api.apptoto.com/v1"),
        ("http://127.0.0.1", 8025, "http://127.0.0.1:8025/v1"),
        ("http://127.0.0.1:8025", 8025, "http://127.0.0.1:8025/v1"),
        ("http://127.0.0.1:8025/v2", 8025, "http://127.0.0.1:8025/v2"),
    ],
)
def test_a_stored_port_that_airflow_needs_changes_neither_url_nor_account(host: str, port: int, base_url: str) -> None:
    assert read({}, host=host, port=port).base_url == base_url


def test_a_stored_port_that_contradicts_the_url_is_refused() -> None:
    with pytest.raises(
        ApptotoConfigurationError, match="port: is 443, but the base URL has port 8025; clear this field"
    ):
        read({}, host="http://127.0.0.1:8025", port=443)


def test_the_names_that_older_forms_give_are_understood() -> None:
    older = {f"extra__apptoto__{name}": str(value) for name, value in EVERYTHING.items()}
    assert read(older) == read(EVERYTHING)
    assert read({"extra__apptoto__timeout": 7, "timeout": 7}).timeout == 7
    assert read({"timeout": "", "extra__apptoto__timeout": 7}).timeout == 7


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"login": None}, "login: is missing"),
        ({"login": " "}, "login: is missing"),
        ({"password": None}, "password: is missing"),
        ({"host": "http://api.apptoto.com"}, "host: plain http to api.apptoto.com"),
        ({"host": "https://api.apptoto.com@evil.example"}, "host: must not contain a user name"),
        ({"host": "https://api.apptoto.com?x=1"}, "host: is not a base URL"),
        ({"schema": "v1"}, "schema: must be http, https or blank"),
        ({"extra": {"timout": 5}}, "extra field 'timout': is unknown; did you mean timeout?"),
        ({"extra": {"verify": False}}, "extra field 'verify': is unknown; valid names: timeout"),
        ({"extra": {"timeout": 0}}, "timeout: 0 is not a number from 5 to 300"),
        ({"extra": {"timeout": "soon"}}, "timeout: 'soon' is not a number from 5 to 300"),
        ({"extra": {"timeout": True}}, "timeout: True is not a number"),
        ({"extra": {"timeout": 7, "extra__apptoto__timeout": 8}}, "timeout: is set twice"),
        ({"extra": '{"timeout": 7, "timeout": 8}'}, "extra field 'timeout': is set twice"),
        ({"extra": {"timeout": [1]}}, "timeout: .1. is not a number"),
        ({"extra": {"connect_timeout": "nan"}}, "connect_timeout: 'nan' is not a number from 0.1 to 300"),
        ({"extra": {"requests_per_minute": 0.5}}, "requests_per_minute: 0.5 is not a number from 1 to 6000"),
        ({"extra": {"max_retry_after": 90_000}}, "max_retry_after: 90000 is not a number from 1 to 86400"),
        ({"extra": {"default_region": "USA"}}, "default_region: 'USA' is not a region"),
        ({"extra": {"allowed_regions": "US, UK"}}, "allowed_regions: 'UK' is not a region code; use two letters"),
        ({"extra": {"allowed_regions": "US CA"}}, "allowed_regions: 'US CA' is not a region"),
        ({"extra": {"allowed_regions": ["US"]}}, "allowed_regions: must be a string, not list"),
        (
            {"extra": {"delivery_mode": "dryrun"}},
            "delivery_mode: 'dryrun' is not one of live, redirect, dry_run",
        ),
        ({"extra": {"delivery_mode": False}}, "delivery_mode: False is not one of live, redirect, dry_run"),
        ({"extra": {"redirect_phone_to": 16505550100}}, "redirect_phone_to: must be a string"),
        ({"extra": {"redirect_phone_to": "+1650555"}}, "redirect_phone_to: .* is not a valid phone number"),
        (
            {"extra": {"redirect_phone_to": "6505550100"}},
            "redirect_phone_to: •••0100 has no country code; .*default_region",
        ),
        ({"extra": {"redirect_phone_to": "+19005550199"}}, "redirect_phone_to: .* is a premium-rate number"),
        ({"extra": {"redirect_email_to": "test@"}}, "redirect_email_to: .* is not a valid e-mail address"),
        ({"extra": {"ca_bundle": "/no/such.pem"}}, "ca_bundle: is not a file on this machine"),
    ],
)
def test_a_wrong_setting_is_named_with_its_connection_and_what_is_allowed(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ApptotoConfigurationError, match=f"^connection 'clinic', {says}") as raised:
        read(**fields)
    assert KEY not in str(raised.value)


def test_a_stand_in_may_be_of_a_region_that_is_not_allowed() -> None:
    extra = {"default_region": "US", "allowed_regions": "US", "redirect_phone_to": "+61491570156"}
    assert read(extra).redirect_phone_to == "+61491570156"


@pytest.mark.parametrize(
    ("extra", "takes", "refuses"),
    [
        ({}, ["+16505550199", "+5351234567"], ["6505550199"]),
        ({"default_region": "US"}, ["+16505550199", "6505550199"], ["+5351234567"]),
        ({"allowed_regions": "US"}, ["+16505550199"], ["+5351234567", "6505550199"]),
        ({"default_region": "US", "allowed_regions": "US, CU"}, ["6505550199", "+5351234567"], ["+442079460958"]),
        ({"default_region": "US", "allowed_regions": "*"}, ["6505550199", "+5351234567"], ["+19005550199"]),
    ],
    ids=str,
)
def test_the_hook_sends_to_allowed_regions_alone(
    connection: Callable[..., None], extra: dict[str, str], takes: list[str], refuses: list[str]
) -> None:
    with FaultServer() as server:
        connection(server.url, **extra)
        for number in refuses:
            with pytest.raises(ApptotoValidationError, match=r"^to: "):
                ApptotoHook().send_message(type="sms", to=number, message="Hi")
        assert server.requests == []
        for number in takes:
            ApptotoHook().send_message(type="sms", to=number, message="Hi")
        assert len(server.accepted) == len(takes)


def test_the_hook_refuses_what_is_too_long_or_holds_control_characters(connection: Callable[..., None]) -> None:
    with FaultServer() as server:
        connection(server.url)
        fields: dict[str, Any] = {"type": "sms", "to": "+16505550199"}
        for text in ("a" * 460, "a\0b"):
            for use in (ApptotoHook().send_message, ApptotoHook().build_message):
                with pytest.raises(ApptotoValidationError, match=r"^message: "):
                    use(**fields, message=text)
        assert server.requests == []
        ApptotoHook().send_message(**fields, message="a" * 460, max_segments=4)
        ApptotoHook().send_message(**fields, message="a" * 1000, max_segments=None)
        assert len(server.accepted) == 2


@pytest.mark.parametrize("extra", ["{", "[]", '"dry_run"', "delivery_mode=dry_run"])
def test_an_extra_that_can_not_be_read_is_an_error_and_never_means_live(extra: str) -> None:
    # A fake, because newer Airflows refuse such a text; it may still come from an older database.
    stored = SimpleNamespace(
        conn_id="clinic",
        login="clinic@clinic.example",
        password=KEY,
        host=None,
        port=None,
        schema=None,
        extra=extra,
    )
    with pytest.raises(ApptotoConfigurationError, match="extra: must be a JSON object"):
        ConnectionSettings.read(stored, {})


@pytest.mark.usefixtures("quick_retries")
class TestTestConnection:
    """The button of the form: four distinct and useful messages, none with the key, and nothing is ever sent."""

    @pytest.fixture(autouse=True)
    def _short_timeout(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(hooks, "_TEST_SECONDS", 0.3)

    def press(self, connection: Callable[..., None], host: str) -> tuple[bool, str]:
        connection(host, password=KEY)
        works, says = ApptotoHook().test_connection()
        assert KEY not in says
        return works, says

    def test_it_works(self, connection: Callable[..., None]) -> None:
        with FaultServer([answering(200, {"events": []})]) as server:
            works, says = self.press(connection, server.url)
        assert (works, says) == (True, f"Connected to Apptoto at {server.url}/v1. Login and API key are valid")
        assert [(request.method, request.path) for request in server.requests] == [
            ("GET", "/v1/events?page=1&page_size=1")
        ]

    @pytest.mark.parametrize("status", [401, 403])
    def test_login_or_key_are_wrong(self, connection: Callable[..., None], status: int) -> None:
        with FaultServer([answering(status, {"error": f"bad key {KEY}"})]) as server:
            works, says = self.press(connection, server.url)
        assert not works
        assert says.startswith(f"Apptoto rejected the login or API key: HTTP {status}")
        assert "Check both" in says

    def test_unreachable(self, connection: Callable[..., None]) -> None:
        with not_listening() as port:
            works, says = self.press(connection, f"http://127.0.0.1:{port}")
        assert not works
        assert says.startswith(f"http://127.0.0.1:{port}/v1 can't be reached: ConnectionRefusedError")

    def test_no_answer(self, connection: Callable[..., None]) -> None:
        with FaultServer([hanging]) as server:
            works, says = self.press(connection, server.url)
        assert not works
        assert "can't be reached: TimeoutError" in says

    @pytest.mark.parametrize(
        "answer",
        [
            answering(200, b"<html>It works!</html>"),
            answering(200, {"hello": "world"}),
            answering(200, b"[]"),
            answering(302, Location="https://login.example/"),
            answering(404, b"Not Found"),
        ],
    )
    def test_something_that_is_not_apptoto(self, connection: Callable[..., None], answer: Any) -> None:
        with FaultServer([answer]) as server:
            works, says = self.press(connection, server.url)
        assert not works
        assert says.startswith("The answer is not from Apptoto's API: HTTP ")

    def test_apptoto_has_a_bad_day(self, connection: Callable[..., None]) -> None:
        with FaultServer([answering(503)]) as server:
            works, says = self.press(connection, server.url)
        assert not works
        assert "is temporarily unavailable" in says
        assert "HTTP 503" in says

    def test_a_state_database_that_can_not_be_used_is_named(
        self, connection: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        says = ""
        with FaultServer([answering(200, {"events": []})]) as server:
            for folder, works in ((tmp_path, True), (tmp_path / "nowhere", False)):
                state = {"conn_type": "sqlite", "host": str(folder / "state.db")}
                monkeypatch.setenv("AIRFLOW_CONN_STATE", json.dumps(state))
                connection(server.url, state_conn_id="state")
                worked, says = ApptotoHook().test_connection()
                assert worked is works
        assert says.startswith("The state database can't be used")

    def test_a_wrong_or_missing_connection_is_said_and_not_raised(self, connection: Callable[..., None]) -> None:
        works, says = self.press(connection, "http://clinic.example")
        assert not works
        assert says.startswith("connection 'apptoto_default', host: plain http")
        works, says = ApptotoHook("no_such_connection").test_connection()
        assert not works
        assert "no_such_connection" in says
