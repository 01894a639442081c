"""One HTTP exchange.

A message may have been accepted only if a byte of its request was written, which the connection tracks (module
``tracking``). The class of an exception can't show it: a reset before the server read anything looks the same as a
reset after it accepted the message.
"""

from __future__ import annotations

import gzip
import http.client
import io
import json
import re
import zlib
from functools import cached_property
from typing import TYPE_CHECKING, Any

import requests
import urllib3
from requests.auth import HTTPBasicAuth

from airflow_provider_apptoto.client.base_url import HOST_NAME
from airflow_provider_apptoto.client.outcomes import Answer, parse_retry_after
from airflow_provider_apptoto.client.settings import MAX_CONNECTIONS
from airflow_provider_apptoto.client.tracking import TrackedAdapter, WriteRefusedError, WriteTracker, current_tracker
from airflow_provider_apptoto.privacy import safe_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MAX_ANSWER_BYTES = 4 * 1024 * 1024
"""A larger answer is not read: Apptoto's are far smaller."""
_REDIRECT_TO = re.compile(rf"(?:https?:)?//(?P<host>{HOST_NAME})(?=[:/?#]|$)", re.ASCII | re.IGNORECASE)


class Transport:
    """One HTTP session: keep-alive, TLS always verified, no redirects, proxies and CA bundles from the environment.

    :param base_url: as ``check_base_url`` returns it.
    :param login: name for HTTP Basic authentication.
    :param api_key: secret for HTTP Basic authentication.
    :param connect_timeout: seconds.
    :param read_timeout: seconds to wait for the next byte of the answer.
    :param total_timeout: seconds from the first byte of a request to the last byte of its answer.
    :param ca_bundle: path of a PEM file to verify the server with, instead of the environment's.
    :param user_agent: value of the ``User-Agent`` header.
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
        self._ca_bundle = ca_bundle or None  # never False, which would disable verification
        self._session = requests.Session()
        headers = {"User-Agent": user_agent, "Accept": "application/json", "Accept-Encoding": "identity"}
        self._session.headers.update(headers)
        # bytes: requests would encode strings as latin-1
        self._session.auth = HTTPBasicAuth(login.encode(), api_key.encode())
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, TrackedAdapter(max_retries=0, pool_maxsize=MAX_CONNECTIONS))

    def exchange(
        self,
        method: str,
        path: str,
        *,
        json_body: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        before_write: Callable[[], None] | None = None,
        max_bytes: int = MAX_ANSWER_BYTES,
    ) -> Answer:
        """Make one request, without retries, and return the result.

        :param headers: additional headers.
        :param max_bytes: a larger answer is not read.
        :param before_write: called after connecting and before the first byte; if it raises, nothing is written and the
            exception propagates.
        """
        tracker = WriteTracker(before_write, self._total_timeout)
        token = current_tracker.set(tracker)
        try:
            return self._exchange(tracker, self._request(method, path, json_body, params, headers), max_bytes)
        except WriteRefusedError as refusal:
            refused = refusal.cause
        except (
            requests.RequestException,
            urllib3.exceptions.HTTPError,
            http.client.HTTPException,
            OSError,
        ) as error:
            return Answer(written=tracker.written, failure=_describe(error))
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:
            # Airflow's task timeout is a BaseException that can be raised anywhere. After the first byte, it makes the
            # outcome unknown, like any other interruption.
            if not tracker.written:
                raise
            return Answer(written=True, failure=f"interrupted by {type(error).__name__}")
        finally:
            current_tracker.reset(token)
        raise refused

    def _request(
        self,
        method: str,
        path: str,
        json_body: Mapping[str, Any] | None,
        params: Mapping[str, Any] | None,
        headers: Mapping[str, str] | None,
    ) -> requests.PreparedRequest:
        request = requests.Request(
            method,
            f"{self._base_url}{path}",
            data=None if json_body is None else json.dumps(json_body, allow_nan=False).encode(),
            headers={**({} if json_body is None else {"Content-Type": "application/json"}), **(headers or {})},
            params=params,
        )
        return self._session.prepare_request(request)

    def _exchange(self, tracker: WriteTracker, request: requests.PreparedRequest, max_bytes: int) -> Answer:
        # Session.send would keep cookies, and would read the whole body of a redirect before checking its target.
        adapter = self._session.get_adapter(self._base_url)
        response = adapter.send(request, timeout=self._timeout, **self._settings)
        body = b""
        with response:
            while len(body) <= max_bytes and (
                part := response.raw.read(max_bytes + 1 - len(body), decode_content=False)
            ):
                body += part
        try:
            body = _decoded(body, response.headers.get("Content-Encoding", ""), max_bytes)
        except (EOFError, OSError, ValueError, zlib.error) as error:
            return Answer(written=tracker.written, failure=f"the answer can't be decoded: {_describe(error)}")
        if len(body) > max_bytes:
            return Answer(written=tracker.written, failure=f"the answer is larger than {max_bytes} bytes")
        return Answer(
            written=tracker.written,
            status=response.status_code,
            retry_after=parse_retry_after(response.headers.get("Retry-After")),
            location=_host(response.headers.get("Location", "")),
            body=body,
        )

    @cached_property
    def _settings(self) -> Any:
        """Proxies and verification. The lookup is slow and all requests go to one host, so it is cached."""
        # ca_bundle takes precedence over the environment. Plain http is for loopback, and must not go through a proxy.
        proxies: dict[str, Any] = {"http": None, "all": None} if self._base_url.startswith("http://") else {}
        return self._session.merge_environment_settings(
            self._base_url, proxies, stream=True, verify=self._ca_bundle, cert=None
        )

    def close(self) -> None:
        """Close the connections."""
        self._session.close()


def _decoded(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """Decode a body. The request asks for no encoding, but some proxies compress anyway.

    urllib3's decoders are not used: they accept a truncated stream.

    :raises ValueError: the encoding is not supported.
    """
    encoding = encoding.strip().lower()
    if encoding in {"", "identity"}:
        return body
    if encoding not in {"gzip", "x-gzip"}:
        msg = f"unsupported Content-Encoding {safe_text(encoding)}"
        raise ValueError(msg)
    return gzip.GzipFile(fileobj=io.BytesIO(body)).read(max_bytes + 1)


def _host(location: str) -> str:
    """Return the host of a redirect, safe to show; empty if it can't be parsed."""
    found = _REDIRECT_TO.match(location)
    return safe_text(found["host"]) if found else ""


def _describe(error: BaseException) -> str:
    """Describe a failed exchange by its innermost cause: outer exceptions quote the URL."""
    while True:
        nested = (cause for cause in error.args if isinstance(cause, BaseException))
        inner = next(nested, None) or error.__cause__ or error.__context__
        if inner is None:
            break
        error = inner
    text = getattr(error, "verify_message", None) or getattr(error, "strerror", None) or str(error)
    return safe_text(f"{type(error).__name__}: {text}")
