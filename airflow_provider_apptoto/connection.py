"""Read and validate the fields of an Airflow connection; does not import Airflow."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from airflow_provider_apptoto.client.base_url import check_base_url
from airflow_provider_apptoto.client.errors import ApptotoConfigurationError, ApptotoValidationError
from airflow_provider_apptoto.client.rate_limit import DEFAULT_REQUESTS_PER_MINUTE
from airflow_provider_apptoto.client.recipients import (
    check_region,
    check_regions,
    normalise_email_address,
    normalise_phone_number,
)
from airflow_provider_apptoto.client.routing import DeliveryMode
from airflow_provider_apptoto.client.settings import (
    DEFAULT_BASE_URL,
    DEFAULT_CONNECT_TIMEOUT,
    DEFAULT_MAX_RETRY_AFTER,
    DEFAULT_TIMEOUT,
)
from airflow_provider_apptoto.get_provider_info import get_provider_info
from airflow_provider_apptoto.outbox.policy import OFF, limits_of, window_of
from airflow_provider_apptoto.outbox.window import zone_named
from airflow_provider_apptoto.sandbox.behaviour import LOGIN

if TYPE_CHECKING:
    from collections.abc import Callable
    from zoneinfo import ZoneInfo

    from airflow_provider_apptoto.outbox.limit import Limit
    from airflow_provider_apptoto.outbox.window import SendWindow

T = TypeVar("T")
Defaults = Mapping[str, tuple[str, str]]
"""By field name: the deployment's default for all connections, and where it is set."""

CONNECTION_TYPE: Mapping[str, Any] = get_provider_info()["connection-types"][0]
EXTRA_FIELDS: Mapping[str, Mapping[str, Any]] = CONNECTION_TYPE["conn-fields"]
_HTTPS_PORT = 443
_PORT = re.compile(r":[0-9]+$")
_FORM_PREFIX = f"extra__{CONNECTION_TYPE['connection-type']}__"
"""Prefix of extra fields in the forms of older Airflow versions."""


class AirflowConnection(Protocol):
    """The attributes used of Airflow's ``Connection``, whose class differs between versions."""

    conn_id: str
    login: str | None
    password: str | None
    host: str | None
    port: int | None
    schema: str | None
    extra: str | None


class DatabaseConnection(AirflowConnection, Protocol):
    """The same, and what is used of a connection to a database."""

    conn_type: str | None

    @property
    def extra_dejson(self) -> dict[str, Any]:
        """The extra fields."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionSettings:
    """The settings of one connection, named like its fields (docs/connection.rst).

    :param delivery_modes: modes of the deployment and the connection, by where they are set. The strictest applies.
    :param is_sandbox: whether messages go to a sandbox: ``APPTOTO_SANDBOX_URL`` is set, or an account on loopback has a
        sandbox's login, whose domain is reserved.
    """

    login: str
    api_key: str
    base_url: str
    timeout: float
    connect_timeout: float
    requests_per_minute: float
    max_retry_after: float
    default_region: str | None
    allowed_regions: tuple[str, ...] | None
    delivery_modes: Mapping[str, DeliveryMode]
    redirect_phone_to: str | None
    redirect_email_to: str | None
    ca_bundle: str | None
    state_conn_id: str | None
    send_window: SendWindow | None
    timezone: ZoneInfo | None
    at_most: tuple[Limit, ...]
    is_sandbox: bool = False

    def __repr__(self) -> str:
        """Show the base URL, not login and API key."""
        return f"<ConnectionSettings {self.base_url}>"

    @classmethod
    def read(cls, connection: AirflowConnection, defaults: Defaults) -> ConnectionSettings:
        """Read and validate a connection. A blank field gets the deployment's default, else the provider's.

        :param defaults: the deployment's defaults. A value on the connection replaces them, but the strictest
            ``delivery_mode`` applies.
        :raises ApptotoConfigurationError: a setting is missing or invalid.
        """
        name = f"connection {connection.conn_id!r}"
        modes = _deployment_mode(defaults)
        sources: Mapping[str, str] = {}
        try:
            own = _own_fields(connection)
            sources = {field: source for field, (_, source) in defaults.items() if field not in own}
            if "delivery_mode" in own:
                modes[name] = DeliveryMode.strictest(own["delivery_mode"])
            fields = {**own, **{field: defaults[field][0] for field in sources}}
            limits = [own.get("at_most"), defaults.get("at_most", (None, ""))[0]]
            if all(limits):  # both apply, and neither can turn the other off
                fields["at_most"] = ", ".join(str(each) for each in limits if each != OFF) or OFF
            return cls._read(connection, fields, modes)
        except ApptotoConfigurationError as error:
            if error.field in sources:
                raise _wrong_default(sources[error.field], error) from None
            raise ApptotoConfigurationError(f"{name}, {error.field}", error.problem, code=error.code) from None

    @classmethod
    def _read(
        cls, connection: AirflowConnection, fields: Mapping[str, Any], modes: Mapping[str, DeliveryMode]
    ) -> ConnectionSettings:
        region = _checked(fields, "default_region", check_region)
        login = _required("login", connection.login, "the e-mail address of the Apptoto account")
        api_key = _required("password", connection.password, "an API key of the Apptoto account")
        base_url = _base_url(connection, fields.get("host"))
        return cls(
            login=login,
            api_key=api_key,
            base_url=base_url,
            timeout=_number(fields, "timeout", DEFAULT_TIMEOUT),
            connect_timeout=_number(fields, "connect_timeout", DEFAULT_CONNECT_TIMEOUT),
            requests_per_minute=_number(fields, "requests_per_minute", DEFAULT_REQUESTS_PER_MINUTE),
            max_retry_after=_number(fields, "max_retry_after", DEFAULT_MAX_RETRY_AFTER),
            default_region=region,
            allowed_regions=_checked(fields, "allowed_regions", check_regions),
            delivery_modes=modes,
            redirect_phone_to=_checked(
                fields,
                "redirect_phone_to",
                lambda number: normalise_phone_number(number, region=region, field="redirect_phone_to"),
            ),
            redirect_email_to=_checked(
                fields,
                "redirect_email_to",
                lambda address: normalise_email_address(address, field="redirect_email_to"),
            ),
            ca_bundle=_checked(fields, "ca_bundle", _file),
            state_conn_id=_checked(fields, "state_conn_id", str),
            send_window=_checked(fields, "send_window", window_of),
            timezone=_checked(fields, "timezone", lambda name: zone_named(name, "timezone")),
            at_most=_checked(fields, "at_most", limits_of) or (),
            is_sandbox=login == LOGIN and base_url.startswith("http://"),
        )


def _deployment_mode(defaults: Defaults) -> dict[str, DeliveryMode]:
    if "delivery_mode" not in defaults:
        return {}
    mode, source = defaults["delivery_mode"]
    try:
        return {source: DeliveryMode.strictest(mode)}
    except ApptotoConfigurationError as error:
        raise _wrong_default(source, error) from None


def _wrong_default(source: str, error: ApptotoConfigurationError) -> ApptotoConfigurationError:
    problem = f"{error.problem}. Change or remove it in Airflow's configuration"
    return ApptotoConfigurationError(source, problem, code=error.code)


def _own_fields(connection: AirflowConnection) -> dict[str, Any]:
    """Return the fields that are set on the connection, except login and password."""
    host = (connection.host or "").strip()
    return {**_extra_fields(connection.extra), **({"host": host} if host else {})}


def _extra_fields(text: str | None) -> dict[str, Any]:
    """Return the extra fields that are set, by name without prefix.

    :param text: JSON, or blank.
    :raises ApptotoConfigurationError: it is not a JSON object, or a field is unknown or has two values.
    """
    if text is None or not text.strip():
        return {}
    try:
        extra = json.loads(text, object_pairs_hook=_unambiguous)
    except ApptotoConfigurationError:
        raise
    except ValueError:
        extra = None
    if not isinstance(extra, dict):
        # Airflow itself would only log this, and delivery_mode would silently be live
        raise ApptotoConfigurationError("extra", "must be a JSON object")
    fields: dict[str, Any] = {}
    for key, value in extra.items():
        name = key.removeprefix(_FORM_PREFIX)
        if name not in EXTRA_FIELDS:
            near = difflib.get_close_matches(name, EXTRA_FIELDS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"valid names: {', '.join(EXTRA_FIELDS)}"
            raise ApptotoConfigurationError(f"extra field {name!r}", f"is unknown; {hint}", code="setting_unknown")
        if value is None or (isinstance(value, str) and not value.strip()):
            continue
        if fields.setdefault(name, value) != value:
            problem = f"is set twice: {_FORM_PREFIX}{name} has a different value"
            raise ApptotoConfigurationError(name, problem, code="given_twice")
    return fields


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ApptotoConfigurationError(f"extra field {twice!r}", "is set twice", code="given_twice")
    return fields


def _required(field: str, value: str | None, meaning: str) -> str:
    if value is None or not value.strip():
        raise ApptotoConfigurationError(field, f"is missing; set it to {meaning}", code="setting_missing")
    return value.strip()


def _base_url(connection: AirflowConnection, host: str | None) -> str:
    """Build the base URL: a connection from a URI has scheme, host and port in separate fields."""
    schema = (connection.schema or "").strip()
    if schema not in {"", "http", "https"}:
        msg = "must be http, https or blank; put the whole base URL, path included, into host"
        raise ApptotoConfigurationError("schema", msg)
    scheme, _, rest = (host or DEFAULT_BASE_URL).strip().rpartition("://")
    address, slash, path = rest.partition("/")
    # Test Connection in Airflow 3.3.1 and 3.3.2 needs a stored port, which is not part of the deployment's base URL.
    is_own = bool((connection.host or "").strip()) or host is None
    port = f":{connection.port}" if connection.port and (is_own or connection.port != _HTTPS_PORT) else ""
    has_port = _PORT.search(address)
    if has_port and port not in {"", has_port[0]}:
        msg = f"is {connection.port}, but the base URL has port {has_port[0][1:]}; clear this field"
        raise ApptotoConfigurationError("port", msg, code="setting_conflict")
    return check_base_url(f"{scheme or schema or 'https'}://{address}{'' if has_port else port}{slash}{path}")


def _number(fields: Mapping[str, Any], name: str, default: float) -> float:
    value = fields.get(name, default)
    schema = EXTRA_FIELDS[name]["schema"]
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not schema["minimum"] <= number <= schema["maximum"]:
        msg = f"{value!r} is not a number from {schema['minimum']} to {schema['maximum']}"
        raise ApptotoConfigurationError(name, msg)
    return number


def _checked(fields: Mapping[str, Any], name: str, check: Callable[[str], T]) -> T | None:
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise ApptotoConfigurationError(name, f"must be a string, not {type(value).__name__}")
    try:
        return check(value.strip())
    except ApptotoValidationError as error:
        raise ApptotoConfigurationError(name, error.problem, code=error.code) from None


def _file(path: str) -> str:
    if not Path(path).is_file():
        raise ApptotoConfigurationError("ca_bundle", "is not a file on this machine; set it to the path of a PEM file")
    return path
