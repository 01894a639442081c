"""An Airflow connection's fields, read and checked in one place; imports nothing of Airflow."""

from __future__ import annotations

import difflib
import json
import math
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import unquote, urlsplit

from airflow_provider_apptoto.client.client import (
    DEFAULT_BASE_URL,
    DEFAULT_CONNECT_TIMEOUT,
    DEFAULT_MAX_RETRY_AFTER,
    DEFAULT_TIMEOUT,
)
from airflow_provider_apptoto.client.errors import ApptotoConfigurationError, ApptotoValidationError
from airflow_provider_apptoto.client.pacing import DEFAULT_REQUESTS_PER_MINUTE
from airflow_provider_apptoto.client.recipients import (
    check_region,
    check_regions,
    normalise_email_address,
    normalise_phone_number,
)
from airflow_provider_apptoto.client.routing import DeliveryMode
from airflow_provider_apptoto.get_provider_info import get_provider_info

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")

CONNECTION_TYPE: Mapping[str, Any] = get_provider_info()["connection-types"][0]
EXTRA_FIELDS: Mapping[str, Mapping[str, Any]] = CONNECTION_TYPE["conn-fields"]
_FORM_PREFIX = f"extra__{CONNECTION_TYPE['connection-type']}__"
"""Put before the names of extra fields by the forms of older Airflows."""


class AirflowConnection(Protocol):
    """What is read of Airflow's ``Connection``, whose class differs between versions."""

    conn_id: str
    conn_type: str | None
    login: str | None
    password: str | None
    host: str | None
    port: int | None
    schema: str | None
    extra: str | None

    @property
    def extra_dejson(self) -> dict[str, Any]:
        """The extra fields."""


SANDBOX_URL = "APPTOTO_SANDBOX_URL"
"""Environment variable with the URL of a sandbox, to which every connection then leads."""


@dataclass(slots=True, kw_only=True, repr=False)
class SandboxAccount:
    """Stands in for the account of every connection: what a rehearsal sends must not reach anybody.

    It has the attributes of an Airflow connection that ``ConnectionSettings`` reads.

    :param login: the sandbox's.
    :param password: the sandbox's API key.
    :param host: base URL of the sandbox.
    :param conn_id: of the connection that it stands in for.
    :param extra: of that connection.
    """

    login: str | None
    password: str | None
    host: str | None
    conn_id: str = ""
    extra: str | None = None
    conn_type: str | None = "apptoto"
    port: int | None = None
    schema: str | None = None

    def __repr__(self) -> str:
        """Show the base URL, not login and key."""
        return f"<SandboxAccount {self.host}>"

    @property
    def extra_dejson(self) -> dict[str, Any]:
        """The extra fields."""
        return _extra(self.extra)

    @classmethod
    def of_environment(cls) -> SandboxAccount | None:
        """Return the account that ``APPTOTO_SANDBOX_URL`` names, or ``None`` where it is not set.

        :raises ApptotoConfigurationError: it is set, and is not the URL of a sandbox on this host.
        """
        url = os.environ.get(SANDBOX_URL)
        if url is None:
            return None
        parts = urlsplit(url.strip())
        try:
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
        if parts.scheme != "http" or host != "127.0.0.1" or port is None or not parts.username or not parts.password:
            msg = (
                "is set, and is not the URL of a sandbox, as `python -m airflow_provider_apptoto.sandbox` prints it: "
                "http://LOGIN:KEY@127.0.0.1:PORT. Nothing is sent while it is. Unset it to use the connections"
            )
            raise ApptotoConfigurationError(SANDBOX_URL, msg)
        return cls(login=unquote(parts.username), password=unquote(parts.password), host=f"http://{host}:{port}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionSettings:
    """The settings of one connection; the names are those of its fields (docs/connection.rst)."""

    login: str
    api_key: str
    base_url: str
    timeout: float
    connect_timeout: float
    requests_per_minute: float
    max_retry_after: float
    default_region: str | None
    allowed_regions: tuple[str, ...] | None
    delivery_mode: DeliveryMode | None
    redirect_phone_to: str | None
    redirect_email_to: str | None
    ca_bundle: str | None
    state_conn_id: str | None

    def __repr__(self) -> str:
        """Show the base URL, not login and key."""
        return f"<ConnectionSettings {self.base_url}>"

    @classmethod
    def read(cls, connection: AirflowConnection) -> ConnectionSettings:
        """Read and check a connection. Blank means unset, as a form leaves it.

        :raises ApptotoConfigurationError: a setting is missing or wrong; names connection, field, what is allowed.
        """
        try:
            return cls._read(connection)
        except ApptotoConfigurationError as error:
            raise ApptotoConfigurationError(
                f"connection {connection.conn_id!r}, {error.field}", error.problem
            ) from None

    @classmethod
    def _read(cls, connection: AirflowConnection) -> ConnectionSettings:
        extra = _extra(connection.extra)
        region = _checked(extra, "default_region", check_region)
        return cls(
            login=_required("login", connection.login, "the e-mail address of the Apptoto account"),
            api_key=_required("password", connection.password, "an API key of the Apptoto account"),
            base_url=_base_url(connection),
            timeout=_number(extra, "timeout", DEFAULT_TIMEOUT),
            connect_timeout=_number(extra, "connect_timeout", DEFAULT_CONNECT_TIMEOUT),
            requests_per_minute=_number(extra, "requests_per_minute", DEFAULT_REQUESTS_PER_MINUTE),
            max_retry_after=_number(extra, "max_retry_after", DEFAULT_MAX_RETRY_AFTER),
            default_region=region,
            allowed_regions=_checked(extra, "allowed_regions", check_regions),
            delivery_mode=None if (mode := extra.get("delivery_mode")) is None else DeliveryMode.strictest(mode),
            redirect_phone_to=_checked(
                extra,
                "redirect_phone_to",
                lambda number: normalise_phone_number(number, region=region, field="redirect_phone_to"),
            ),
            redirect_email_to=_checked(
                extra,
                "redirect_email_to",
                lambda address: normalise_email_address(address, field="redirect_email_to"),
            ),
            ca_bundle=_checked(extra, "ca_bundle", _file),
            state_conn_id=_checked(extra, "state_conn_id", str),
        )


def _extra(text: str | None) -> dict[str, Any]:
    """Return the extra fields that are set, by their plain names."""
    if text is None or not text.strip():
        return {}
    try:
        extra = json.loads(text, object_pairs_hook=_unambiguous)
    except ApptotoConfigurationError:
        raise
    except ValueError:
        extra = None
    if not isinstance(extra, dict):
        # Airflow itself would log this and go on without: delivery_mode would silently be live
        raise ApptotoConfigurationError("extra", "has to be a JSON object, but is not")
    fields: dict[str, Any] = {}
    for key, value in extra.items():
        name = key.removeprefix(_FORM_PREFIX)
        if name not in EXTRA_FIELDS:
            near = difflib.get_close_matches(name, EXTRA_FIELDS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(EXTRA_FIELDS)}"
            raise ApptotoConfigurationError(f"extra field {name!r}", f"is not known; {hint}")
        if value is None or (isinstance(value, str) and not value.strip()):
            continue
        if fields.setdefault(name, value) != value:
            raise ApptotoConfigurationError(name, f"is given twice, also as {_FORM_PREFIX}{name}, with another value")
    return fields


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ApptotoConfigurationError(f"extra field {twice!r}", "is given twice")
    return fields


def _required(field: str, value: str | None, meaning: str) -> str:
    if value is None or not value.strip():
        raise ApptotoConfigurationError(field, f"is missing; it is {meaning}")
    return value.strip()


def _base_url(connection: AirflowConnection) -> str:
    """Put together what a URI takes apart: its scheme, host and port come in fields of their own."""
    host = (connection.host or "").strip() or DEFAULT_BASE_URL
    schema = (connection.schema or "").strip()
    if schema not in {"", "http", "https"}:
        msg = "is http, https or blank; the whole base URL, with its path, goes into host"
        raise ApptotoConfigurationError("schema", msg)
    scheme, _, rest = host.rpartition("://")
    address, slash, path = rest.partition("/")
    port = f":{connection.port}" if connection.port else ""
    if address.endswith(port):  # Test Connection of Airflow 3.3.1 and 3.3.2 needs a stored port, also beside this one
        port = ""
    from airflow_provider_apptoto.client.transport import check_base_url

    return check_base_url(f"{scheme or schema or 'https'}://{address}{port}{slash}{path}")


def _number(extra: Mapping[str, Any], name: str, default: float) -> float:
    value = extra.get(name, default)
    schema = EXTRA_FIELDS[name]["schema"]
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not schema["minimum"] <= number <= schema["maximum"]:
        msg = f"{value!r} is not a number from {schema['minimum']} to {schema['maximum']}"
        raise ApptotoConfigurationError(name, msg)
    return number


def _checked(extra: Mapping[str, Any], name: str, check: Callable[[str], T]) -> T | None:
    value = extra.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise ApptotoConfigurationError(name, f"has to be a string, but is of type {type(value).__name__}")
    try:
        return check(value.strip())
    except ApptotoValidationError as error:
        raise ApptotoConfigurationError(name, error.problem) from None


def _file(path: str) -> str:
    if not Path(path).is_file():
        raise ApptotoConfigurationError("ca_bundle", "is not a file on this machine; give the path of a PEM file")
    return path
