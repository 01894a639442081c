"""One HTTP exchange.

Whether a message may have been accepted is decided by one fact: had a byte of the request been written? It is
observed where the bytes go out, in the connection, since the class of an exception can't tell: a reset before the
server read anything and a reset after it accepted the message look the same.
"""

from __future__ import annotations

import contextvars
import gzip
import http.client
import io
import ipaddress
import json
import math
import re
import sys
import time
import zlib
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

import requests
import urllib3
import urllib3.connection
import urllib3.connectionpool
from requests.adapters import HTTPAdapter
from requests.auth import HTTPBasicAuth

from airflow_provider_apptoto.client.errors import ApptotoConfigurationError
from airflow_provider_apptoto.client.outcomes import Answer, is_final, parse_retry_after
from airflow_provider_apptoto.privacy import safe_text

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping

MOST_CONNECTIONS = 32
"""Kept open to the server, for threads that share the session."""
MOST_ANSWER_BYTES = 4 * 1024 * 1024
"""A larger answer is not read: it is not one of Apptoto's."""

_HOST = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*\.?"
_BASE_URL = re.compile(
    rf"(?P<scheme>https?)://(?P<host>{_HOST}|\[[0-9a-f:.]+\])(?P<port>:\d{{1,5}})?(?P<path>(?:/[\w.~-]*)*)",
    re.ASCII | re.IGNORECASE,
)
_LAST_PORT = 65_535
_DEFAULT_PORTS = {"https": ":443", "http": ":80"}
_REDIRECT_TO = re.compile(rf"(?:https?:)?//(?P<host>{_HOST})(?=[:/?#]|$)", re.ASCII | re.IGNORECASE)


def check_base_url(url: str) -> str:
    """Return a base URL in its normal form, with ``/v1`` where it has no path.

    :param url: ``https://`` may be left out; plain ``http`` is for loopback only.
    :raises ApptotoConfigurationError: anything through which the key could go elsewhere or be read on its way.
    """

    def refuse(problem: str) -> ApptotoConfigurationError:
        return ApptotoConfigurationError("host", f"{problem}; give a base URL like https://api.apptoto.com")

    if "@" in url:
        raise refuse("a user name in the base URL is refused; login and password have fields of their own")
    # No more is let through than all readers of URLs agree on: no backslash, blank, control character, query.
    parts = _BASE_URL.fullmatch(url if "://" in url else f"https://{url}")
    if parts is None:
        raise refuse("this is not a base URL (scheme, host, port and path, nothing else)")
    scheme, host = parts["scheme"].lower(), parts["host"].lower()
    if host.startswith("["):
        try:
            ipaddress.IPv6Address(host.strip("[]"))
        except ValueError:
            raise refuse(f"{host} is not an IPv6 address") from None
    if scheme == "http" and not _is_loopback(host.strip("[]")):
        raise refuse(f"plain http to {host} would show key and messages to the network; use https")
    port = parts["port"] or ""
    if port and not 0 < int(port[1:]) <= _LAST_PORT:
        raise refuse(f"there is no port {port[1:]}")
    if port == _DEFAULT_PORTS[scheme]:
        port = ""  # the account is the same with it and without
    return f"{scheme}://{host}{port}{parts['path'].rstrip('/') or '/v1'}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Transport:
    """One HTTP session: keep-alive, TLS always verified, no redirects, proxies and CA bundles from the environment.

    :param base_url: as :func:`check_base_url` returns it.
    :param login: name for HTTP Basic authentication.
    :param api_key: secret for HTTP Basic authentication.
    :param connect_timeout: seconds.
    :param read_timeout: seconds without a byte of the answer.
    :param total_timeout: seconds from the first byte of a request to the last one of its answer.
    :param ca_bundle: path of a PEM file to verify the server with, instead of the environment's.
    :param user_agent: the ``User-Agent``.
    """

    def __init__(
        self,
        *,
        base_url: str,
        login: str,
        api_key: str,
        connect_timeout: float,
        read_timeout: float,
        total_timeout: float,
        ca_bundle: str | None,
        user_agent: str,
    ) -> None:
        self._base_url = base_url
        self._timeout = (connect_timeout, read_timeout)
        self._total_timeout = total_timeout
        self._ca_bundle = ca_bundle or None  # never False, which would switch verification off
        self._session = requests.Session()
        headers = {"User-Agent": user_agent, "Accept": "application/json", "Accept-Encoding": "identity"}
        self._session.headers.update(headers)
        # bytes: requests would encode strings as latin-1
        self._session.auth = HTTPBasicAuth(login.encode(), api_key.encode())
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, _WatchedAdapter(max_retries=0, pool_maxsize=MOST_CONNECTIONS))

    def exchange(
        self,
        method: str,
        path: str,
        *,
        json_body: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        before_write: Callable[[], None] | None = None,
    ) -> Answer:
        """Make one request, once, and return what is known after it.

        :param before_write: called after connecting and before the first byte; what it raises is passed on, and then
            nothing was written.
        """
        watch = _Watch(before_write, self._total_timeout)
        token = _current.set(watch)
        try:
            return self._exchange(watch, method, path, json_body, params)
        except _WriteRefusedError as refusal:
            refused = refusal.cause
        except (
            requests.RequestException,
            urllib3.exceptions.HTTPError,
            http.client.HTTPException,
            OSError,
        ) as error:
            return Answer(written=watch.written, failure=_describe(error))
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:
            # Airflow's task timeout is a BaseException that can strike anywhere: after the first byte it leaves the
            # outcome as unknown as any other break does.
            if not watch.written:
                raise
            return Answer(written=True, failure=f"interrupted by {type(error).__name__}")
        finally:
            _current.reset(token)
        raise refused

    def _exchange(
        self,
        watch: _Watch,
        method: str,
        path: str,
        json_body: Mapping[str, Any] | None,
        params: Mapping[str, Any] | None,
    ) -> Answer:
        url = f"{self._base_url}{path}"
        request = requests.Request(
            method,
            url,
            data=None if json_body is None else json.dumps(json_body, allow_nan=False).encode(),
            headers=None if json_body is None else {"Content-Type": "application/json"},
            params=params,
        )
        # Not Session.send: it keeps cookies, and reads a redirect's body to its end and its target, to follow it.
        adapter = self._session.get_adapter(url)
        response = adapter.send(self._session.prepare_request(request), timeout=self._timeout, **self._settings)
        body = b""
        with response:
            while len(body) <= MOST_ANSWER_BYTES and (
                part := response.raw.read(MOST_ANSWER_BYTES + 1 - len(body), decode_content=False)
            ):
                body += part
        try:
            body = _decoded(body, response.headers.get("Content-Encoding", ""))
        except (EOFError, OSError, ValueError, zlib.error) as error:
            return Answer(written=watch.written, failure=f"the answer can't be decoded: {_describe(error)}")
        if len(body) > MOST_ANSWER_BYTES:
            return Answer(written=watch.written, failure=f"the answer is larger than {MOST_ANSWER_BYTES} bytes")
        return Answer(
            written=watch.written,
            status=response.status_code,
            retry_after=parse_retry_after(response.headers.get("Retry-After")),
            location=_host(response.headers.get("Location", "")),
            body=body,
        )

    @cached_property
    def _settings(self) -> Any:
        """Proxies and verification; looked up once, since all requests go to one host, and the look-up is slow."""
        # A CA bundle given here goes before the environment's. What is for loopback in clear is shown to no proxy.
        proxies: dict[str, Any] = {"http": None, "all": None} if self._base_url.startswith("http://") else {}
        return self._session.merge_environment_settings(
            self._base_url, proxies, stream=True, verify=self._ca_bundle, cert=None
        )

    def close(self) -> None:
        """Close the connections."""
        self._session.close()


def _decoded(body: bytes, encoding: str) -> bytes:
    """Return what was encoded, though no encoding is asked for: some proxies compress all the same.

    Not urllib3's decoders: they take a stream that was cut for a whole one.

    :raises ValueError: an encoding that is not known.
    """
    encoding = encoding.strip().lower()
    if encoding in {"", "identity"}:
        return body
    if encoding not in {"gzip", "x-gzip"}:
        msg = f"its encoding is {safe_text(encoding)}"
        raise ValueError(msg)
    return gzip.GzipFile(fileobj=io.BytesIO(body)).read(MOST_ANSWER_BYTES + 1)


def _host(location: str) -> str:
    """Return the host that a redirect names, if it is one that can be shown."""
    found = _REDIRECT_TO.match(location)
    return safe_text(found["host"]) if found else ""


def _describe(error: BaseException) -> str:
    """Say why an exchange failed by its innermost cause: the outer ones quote the URL."""
    while True:
        nested = (cause for cause in error.args if isinstance(cause, BaseException))
        inner = next(nested, None) or error.__cause__ or error.__context__
        if inner is None:
            break
        error = inner
    text = getattr(error, "verify_message", None) or getattr(error, "strerror", None) or str(error)
    return safe_text(f"{type(error).__name__}: {text}")


class _WriteRefusedError(Exception):
    """``before_write`` raised; of no class that ``urllib3`` or ``requests`` would take for its own."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__()
        self.cause = cause


@dataclass(slots=True)
class _Watch:
    """Looks on at one exchange."""

    before_write: Callable[[], None] | None
    total_timeout: float
    written: bool = False
    ends: float = math.inf
    """When the answer has to be complete (seconds of ``time.monotonic``)."""

    def about_to_write(self) -> None:
        if self.written:
            return
        if self.before_write is not None:
            try:
                self.before_write()
            except BaseException as error:  # noqa: BLE001
                raise _WriteRefusedError(error) from None
        self.written = True
        self.ends = time.monotonic() + self.total_timeout


_current: contextvars.ContextVar[_Watch] = contextvars.ContextVar("apptoto_exchange")


class _TimedStream(io.RawIOBase):
    """Reads from a socket until the exchange has to end: a socket's own timeout starts again with each byte."""

    def __init__(self, sock: socket.socket, watch: _Watch) -> None:
        self._sock = sock
        self._stream = sock.makefile("rb", buffering=0)
        silence = sock.gettimeout()
        self._silence = math.inf if silence is None else silence
        self._watch = watch

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._watch.ends - time.monotonic()
        try:
            self._sock.settimeout(max(min(left, self._silence), sys.float_info.min))  # 0 would mean: do not wait
            return self._stream.readinto(buffer)
        except TimeoutError:
            if self._silence < left:
                raise
        msg = f"the answer was not complete after {self._watch.total_timeout:g} s"
        raise TimeoutError(msg)

    def close(self) -> None:
        self._stream.close()
        super().close()


class _Lines(io.BufferedReader):
    """Remembers the last line read, to tell a header block that ended from one that was cut."""

    line = b""

    def readline(self, size: int | None = -1, /) -> bytes:
        self.line = super().readline(size)
        return self.line


class _OwnAnswer(http.client.HTTPResponse):
    """The whole answer to one request, and to no other.

    ``http.client`` skips the interim answer 100 alone, and takes any other for the final one: that one would then be
    read as the answer to the next request (RFC 9110, 15.2: any number of them may precede the final answer). And it
    takes the end of the stream for the end of the headers: an answer that was cut there would count.
    """

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        self.fp = _Lines(_TimedStream(sock, _current.get()))

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]  # typeshed leaves it out
            if status >= HTTPStatus.OK:
                return version, status, reason
            http.client.parse_headers(self.fp)

    def begin(self) -> None:
        super().begin()
        if cast("_Lines", self.fp).line not in {b"\r\n", b"\n"}:
            self.close()
            msg = "the answer was cut in its headers"
            raise http.client.HTTPException(msg)
        # Where somebody between gave up on a request, its answer may still come.
        if not is_final(self.status):
            self.will_close = True


class _WatchedConnection(urllib3.connection.HTTPConnection):
    """Reports the first byte of a request before it is written."""

    response_class = _OwnAnswer
    _connecting = False

    def connect(self) -> None:
        self._connecting = True
        try:
            super().connect()
        finally:
            self._connecting = False

    def send(self, data: Any) -> None:
        if not self._connecting:  # CONNECT to a proxy is no part of the request
            if self.sock is None:
                self.connect()
            _current.get().about_to_write()
        super().send(data)


class _WatchedTLSConnection(_WatchedConnection, urllib3.connection.HTTPSConnection):
    """The same over TLS."""


class _WatchedPool(urllib3.connectionpool.HTTPConnectionPool):
    ConnectionCls = _WatchedConnection


class _WatchedTLSPool(urllib3.connectionpool.HTTPSConnectionPool):
    ConnectionCls = _WatchedTLSConnection


class _WatchedAdapter(HTTPAdapter):
    """Lets every connection, direct or through a proxy, be a watched one."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        _watch(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> urllib3.ProxyManager:
        manager: urllib3.ProxyManager = super().proxy_manager_for(*args, **kwargs)
        _watch(manager)
        return manager


def _watch(manager: urllib3.PoolManager) -> None:
    manager.pool_classes_by_scheme = {"http": _WatchedPool, "https": _WatchedTLSPool}
