"""Check the base URL of Apptoto's API before a key is sent there."""

from __future__ import annotations

import ipaddress
import re

from airflow_provider_apptoto.client.errors import ApptotoConfigurationError

HOST_NAME = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*\.?"
"""Pattern of a host name, in lower case."""
_BASE_URL = re.compile(
    rf"(?P<scheme>https?)://(?P<host>{HOST_NAME}|\[[0-9a-f:.]+\])(?P<port>:\d{{1,5}})?(?P<path>(?:/[\w.~-]*)*)",
    re.ASCII | re.IGNORECASE,
)
_MAX_PORT = 65_535
_DEFAULT_PORTS = {"https": ":443", "http": ":80"}


def check_base_url(url: str) -> str:
    """Return a base URL in its normal form, with ``/v1`` if it has no path.

    :param url: ``https://`` may be omitted; plain ``http`` is for loopback only.
    :raises ApptotoConfigurationError: the URL could send the key to another host, or expose it on the network.
    """

    def refuse(problem: str) -> ApptotoConfigurationError:
        hint = "use a base URL such as https://api.apptoto.com"
        return ApptotoConfigurationError("host", f"{problem}; {hint}", code="url_invalid")

    if "@" in url:
        raise refuse("must not contain a user name (set login and password instead)")
    # Accept only what all URL parsers agree on: no backslash, blank, control character or query.
    parts = _BASE_URL.fullmatch(url if "://" in url else f"https://{url}")
    if parts is None:
        raise refuse("is not a base URL (only scheme, host, port and path are allowed)")
    scheme, host = parts["scheme"].lower(), parts["host"].lower()
    if host.startswith("["):
        try:
            ipaddress.IPv6Address(host.strip("[]"))
        except ValueError:
            raise refuse(f"{host} is not an IPv6 address") from None
    if scheme == "http" and not _is_loopback(host.strip("[]")):
        raise refuse(f"plain http to {host} would expose the API key and messages; use https")
    port = parts["port"] or ""
    if port and not 0 < int(port[1:]) <= _MAX_PORT:
        raise refuse(f"port {port[1:]} is not from 1 to {_MAX_PORT}")
    if port == _DEFAULT_PORTS[scheme]:
        port = ""  # with and without the default port, the account is the same
    return f"{scheme}://{host}{port}{parts['path'].rstrip('/') or '/v1'}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
