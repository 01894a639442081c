"""A blank field of a connection takes the deployment's default, and an invalid default is an error that names it."""

from __future__ import annotations

import itertools
import json
from configparser import ConfigParser
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
from airflow.providers.common.compat.sdk import conf

from airflow_provider_apptoto.client import ApptotoConfigurationError, DeliveryMode
from airflow_provider_apptoto.configuration import connection_defaults
from airflow_provider_apptoto.connection import EXTRA_FIELDS, ConnectionSettings
from airflow_provider_apptoto.hooks import _state
from airflow_provider_apptoto.hooks.apptoto import ApptotoHook
from airflow_provider_apptoto.outbox.window import SendWindow
from airflow_provider_apptoto.sandbox import Sandbox
from tests.support.faults import FaultServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    SetDefault = Callable[[str, str], str]
    """Sets an option of ``[apptoto]``, and returns the name that an error gives it."""

pytestmark = pytest.mark.contract

FIELDS: dict[str, tuple[Any, tuple[str, Any], tuple[Any, Any]]] = {
    # field: provider's default, (deployment's default, as a setting), (connection's value, as a setting)
    "host": (
        "https://api.apptoto.com/v1",
        ("https://gateway.example:8443/apptoto", "https://gateway.example:8443/apptoto"),
        ("clinic.example", "https://clinic.example/v1"),
    ),
    "timeout": (120, ("30", 30), (40, 40)),
    "connect_timeout": (5, (" 2.5 ", 2.5), ("3", 3)),
    "requests_per_minute": (90, ("60", 60), (6000, 6000)),
    "max_retry_after": (3600, ("600", 600), (1, 1)),
    "default_region": (None, ("us", "US"), ("GB", "GB")),
    "allowed_regions": (None, ("us, CA", ("US", "CA")), ("*", ("*",))),
    "redirect_phone_to": (None, ("+1 650 555 0100", "+16505550100"), ("+442079460958", "+442079460958")),
    "redirect_email_to": (None, ("test@Clinic.example", "test@clinic.example"), ("a@b.example", "a@b.example")),
    "ca_bundle": (None, (__file__, __file__), (pytest.__file__, pytest.__file__)),
    "state_conn_id": (None, ("apptoto_state", "apptoto_state"), ("clinic_state", "clinic_state")),
    "send_window": (
        None,
        ("Mon-Fri 09:00-18:00", SendWindow.parse("Mon-Fri 09:00-18:00")),
        ("off", None),
    ),
    "timezone": (
        None,
        ("America/Chicago", ZoneInfo("America/Chicago")),
        ("Europe/Berlin", ZoneInfo("Europe/Berlin")),
    ),
}
SETTINGS = {**{field: field for field in FIELDS}, "host": "base_url"}


def variable(name: str) -> str:
    return f"AIRFLOW__APPTOTO__{name.upper()}"


@pytest.fixture(params=["environment", "file"])
def set_default(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[SetDefault]:
    """Set an option of ``[apptoto]`` in the environment, and in the file."""
    has_section = conf.has_section("apptoto")
    added: list[str] = []

    def set_in_environment(name: str, value: str) -> str:
        monkeypatch.setenv(variable(name), value)
        return variable(name)

    def set_in_file(name: str, value: str) -> str:
        if not conf.has_section("apptoto"):
            conf.add_section("apptoto")
        ConfigParser.set(conf, "apptoto", name, value.replace("%", "%%"))
        added.append(name)
        return f"[apptoto] {name}"

    yield set_in_environment if request.param == "environment" else set_in_file
    for name in added:
        ConfigParser.remove_option(conf, "apptoto", name)
    if not has_section:
        conf.remove_section("apptoto")


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ConnectionSettings]:
    """Read a connection, with Airflow's configuration: ``read(host=..., timeout=...)``."""

    def read(host: str | None = None, port: int | None = None, schema: str | None = None, **extra: Any) -> Any:
        fields = {"conn_type": "apptoto", "login": "clinic@clinic.example", "password": "key", "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_CLINIC", json.dumps(fields | {"host": host, "port": port, "schema": schema}))
        return ConnectionSettings.read(ApptotoHook.get_connection("clinic"), connection_defaults())

    return read


def test_the_table_of_these_tests_has_every_field() -> None:
    assert {*FIELDS, "delivery_mode", "at_most"} == {"host", *EXTRA_FIELDS}


@pytest.mark.parametrize(
    ("deployment", "connection", "limits"),
    [
        (None, None, []),
        ("3/day", None, ["3/day"]),
        (None, "1/hour", ["1/hour"]),
        ("3/day", "1/hour", ["1/hour", "3/day"]),
        ("3/day", "off", ["3/day"]),
        ("off", "1/hour", ["1/hour"]),
        ("off", "off", []),
    ],
)
def test_the_limits_of_the_deployment_and_of_the_connection_both_apply(
    deployment: str | None,
    connection: str | None,
    limits: list[str],
    set_default: SetDefault,
    read: Callable[..., ConnectionSettings],
) -> None:
    if deployment is not None:
        set_default("at_most", deployment)
    assert [str(each) for each in read(at_most=connection).at_most] == limits


@pytest.mark.parametrize("field", FIELDS)
def test_a_connection_wins_over_the_deployment_and_the_deployment_over_the_provider(
    field: str, set_default: SetDefault, read: Callable[..., ConnectionSettings]
) -> None:
    provider, (deployment_value, deployment), (connection_value, connection) = FIELDS[field]
    own = {field: connection_value}
    assert getattr(read(), SETTINGS[field]) == provider
    assert getattr(read(**own), SETTINGS[field]) == connection
    set_default(field, deployment_value)
    assert getattr(read(**own), SETTINGS[field]) == connection
    for blank in ({}, {field: None}, {field: ""}, {field: " "}):
        assert getattr(read(**blank), SETTINGS[field]) == deployment


def test_each_field_takes_its_default_on_its_own(
    set_default: SetDefault, read: Callable[..., ConnectionSettings]
) -> None:
    for field, (_, (value, _), _) in FIELDS.items():
        set_default(field, value)
    settings = read(timeout=40, state_conn_id="clinic_state")
    expected = {SETTINGS[field]: deployment for field, (_, (_, deployment), _) in FIELDS.items()}
    expected |= {"timeout": 40, "state_conn_id": "clinic_state"}
    assert {name: getattr(settings, name) for name in expected} == expected


def test_the_environment_wins_over_the_file(
    set_default: SetDefault, read: Callable[..., ConnectionSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_default("timeout", "30")
    monkeypatch.setenv(variable("timeout"), "20")
    assert read().timeout == 20
    monkeypatch.setenv(variable("timeout"), "soon")
    with pytest.raises(ApptotoConfigurationError, match=f"^{variable('timeout')}: "):
        read()


WRONG = [
    ("host", "http://api.apptoto.com", "plain http to api.apptoto.com"),
    ("host", "https://api.apptoto.com?x=1", "is not a base URL"),
    ("timeout", "soon", "'soon' is not a number from 5 to 300"),
    ("timeout", "0", "'0' is not a number from 5 to 300"),
    ("connect_timeout", "nan", "'nan' is not a number from 0.1 to 300"),
    ("requests_per_minute", "inf", "'inf' is not a number from 1 to 6000"),
    ("max_retry_after", "90000", "'90000' is not a number from 1 to 86400"),
    ("default_region", "USA", "'USA' is not a region code; use two letters"),
    ("allowed_regions", "US, UK", "'UK' is not a region code; use two letters"),
    ("delivery_mode", "dry-run", "'dry-run' is not one of live, redirect, dry_run"),
    ("redirect_phone_to", "6505550100", "•••0100 has no country code"),
    ("redirect_email_to", "test@", ".* is not a valid e-mail address"),
    ("ca_bundle", "/no/such.pem", "is not a file on this machine"),
]


@pytest.mark.parametrize(("field", "value", "says"), WRONG)
def test_a_wrong_default_is_named_by_where_it_is_set_and_what_is_allowed(
    field: str, value: str, says: str, set_default: SetDefault, read: Callable[..., ConnectionSettings]
) -> None:
    source = set_default(field, value)
    with pytest.raises(ApptotoConfigurationError) as raised:
        read()
    assert raised.value.field == source
    raised.match(rf"{says}.*\. Change or remove it in Airflow's configuration$")


@pytest.mark.parametrize("field", [*FIELDS, "delivery_mode"])
def test_a_default_that_is_blank_is_an_error_whatever_the_connection_says(
    field: str, set_default: SetDefault, read: Callable[..., ConnectionSettings]
) -> None:
    source = set_default(field, " ")
    own = {} if field == "delivery_mode" else {field: FIELDS[field][2][0]}
    for fields in ({}, own):
        with pytest.raises(
            ApptotoConfigurationError, match=r"is blank\. Set it, for example to .*, or remove it$"
        ) as raised:
            read(**fields)
        assert raised.value.field == source


def test_a_wrong_default_stops_no_connection_that_has_a_value_of_its_own_but_for_the_delivery_mode(
    set_default: SetDefault, read: Callable[..., ConnectionSettings]
) -> None:
    set_default("timeout", "soon")
    assert read(timeout=7).timeout == 7
    source = set_default("delivery_mode", "dryrun")
    with pytest.raises(ApptotoConfigurationError) as raised:
        read(timeout=7, delivery_mode="dry_run")
    assert raised.value.field == source


def test_a_wrong_field_of_a_connection_is_named_as_the_connections_beside_a_good_default(
    set_default: SetDefault, read: Callable[..., ConnectionSettings]
) -> None:
    set_default("timeout", "30")
    set_default("delivery_mode", "live")
    for extra in ({"timeout": 0}, {"timeout": 7, "extra__apptoto__timeout": 8}, {"delivery_mode": "dryrun"}):
        name = next(iter(extra))
        with pytest.raises(ApptotoConfigurationError, match=f"^connection 'clinic', {name}: ") as raised:
            read(**extra)
        assert "configuration" not in str(raised.value)


def test_the_default_region_of_a_connection_completes_the_deployments_stand_in(
    set_default: SetDefault, read: Callable[..., ConnectionSettings]
) -> None:
    source = set_default("redirect_phone_to", "(650) 555-0100")
    assert read(default_region="US").redirect_phone_to == "+16505550100"
    with pytest.raises(ApptotoConfigurationError) as raised:
        read(default_region="GB")
    assert raised.value.field == source
    assert "6505550100" not in str(raised.value)


@pytest.mark.parametrize(
    ("default", "fields", "base_url"),
    [
        ("https://gateway.example", {"port": 443}, "https://gateway.example/v1"),
        ("https://gateway.example:8443", {"port": 443}, "https://gateway.example:8443/v1"),
        ("https://gateway.example:8443", {"port": 8443}, "https://gateway.example:8443/v1"),
        ("http://127.0.0.1", {"port": 443}, "http://127.0.0.1/v1"),
        ("127.0.0.1:8025", {"schema": "http"}, "http://127.0.0.1:8025/v1"),
        ("https://gateway.example:8443", {"host": "clinic.example", "port": 444}, "https://clinic.example:444/v1"),
    ],
)
def test_a_stored_port_that_airflow_needs_does_not_change_the_deployments_base_url(
    default: str,
    fields: dict[str, Any],
    base_url: str,
    set_default: SetDefault,
    read: Callable[..., ConnectionSettings],
) -> None:
    set_default("host", default)
    assert read(**fields).base_url == base_url


def test_a_stored_port_that_contradicts_the_deployments_base_url_is_refused(
    set_default: SetDefault, read: Callable[..., ConnectionSettings]
) -> None:
    set_default("host", "https://gateway.example:8443")
    problem = "^connection 'clinic', port: is 8444, but the base URL has port 8443; clear this field"
    with pytest.raises(ApptotoConfigurationError, match=problem):
        read(port=8444)


def test_the_strictest_delivery_mode_holds_wherever_it_is_set(
    set_default: SetDefault, connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch, provider_log: list[str]
) -> None:
    for deployment, own, task in itertools.product(DeliveryMode, [None, *DeliveryMode], [None, *DeliveryMode]):
        setters = {set_default("delivery_mode", deployment): deployment, "connection 'clinic'": own, "the task": task}
        modes = [mode for mode in setters.values() if mode is not None]
        strictest = max(modes, key=list(DeliveryMode).index)
        first = next(name for name, mode in setters.items() if mode is strictest)
        monkeypatch.setattr(_state, "_told", set())
        provider_log.clear()
        connection("http://127.0.0.1:9", "clinic", **({} if own is None else {"delivery_mode": own}))
        ApptotoHook("clinic", delivery_mode=task).get_conn()
        assert provider_log == [f"Delivery mode: {strictest} (set by {first})"]


@pytest.mark.usefixtures("airflow_database")
def test_all_accounts_share_the_state_database_and_the_gateway_that_are_set_once(
    set_default: SetDefault, connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_STATE", json.dumps({"conn_type": "sqlite", "host": str(tmp_path / "state.db")}))
    set_default("state_conn_id", "state")
    accounts = [f"clinic_{number}" for number in range(10)]
    with FaultServer() as server:
        set_default("host", server.url)
        databases = set()
        for account in accounts:
            connection("", account, login=f"{account}@clinic.example")
            hook = ApptotoHook(account)
            databases.add(hook.state_database)
            hook.send_message(type="sms", to="+16505550199", message="Hi")
        assert len(server.accepted) == len(accounts)
    assert len(databases) == 1
    assert None not in databases


@pytest.mark.parametrize("host", ["production", "http://api.apptoto.com", "not a URL"])
def test_a_sandbox_gets_all_messages_whatever_base_url_the_deployment_sets(
    host: str, set_default: SetDefault, connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with FaultServer() as production, Sandbox(login="a@b.example", api_key="key") as sandbox:
        monkeypatch.setenv("APPTOTO_SANDBOX_URL", sandbox.account_url)
        set_default("host", production.url if host == "production" else host)
        set_default("default_region", "US")
        connection("", "clinic")
        for conn_id in ("clinic", "nowhere"):
            ApptotoHook(conn_id).send_message(type="sms", to="650-555-0199", message="Hi")
        assert [message["to"] for message in sandbox.messages()] == ["+16505550199"] * 2
    assert production.connections == 0
