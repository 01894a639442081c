"""The sandbox account that replaces every connection while ``APPTOTO_SANDBOX_URL`` is set."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from airflow_provider_apptoto.client.errors import ApptotoConfigurationError

if TYPE_CHECKING:
    from datetime import datetime

SANDBOX_URL = "APPTOTO_SANDBOX_URL"
"""Environment variable with the URL of a sandbox; if it is set, all connections use it."""
SANDBOX_HOLDS = "APPTOTO_SANDBOX_HOLDS"
"""Environment variable with the path of a file. If it and the URL are set, holds end at once and are listed there."""


@dataclass(slots=True, kw_only=True, repr=False)
class SandboxAccount:
    """Replaces the account of every connection, so that a rehearsal reaches nobody.

    It has the attributes of an Airflow connection that ``ConnectionSettings`` reads.

    :param login: login of the sandbox.
    :param password: API key of the sandbox.
    :param host: base URL of the sandbox.
    :param conn_id: id of the connection that it replaces.
    :param extra: extra fields of that connection.
    """

    login: str | None
    password: str | None
    host: str | None
    conn_id: str = ""
    extra: str | None = None
    port: int | None = None
    schema: str | None = None

    def __repr__(self) -> str:
        """Show the base URL, not login and API key."""
        return f"<SandboxAccount {self.host}>"

    @classmethod
    def of_environment(cls) -> SandboxAccount | None:
        """Return the account of ``APPTOTO_SANDBOX_URL``, or ``None`` if it is not set.

        :raises ApptotoConfigurationError: the value is not the URL of a sandbox on this host.
        """
        url = os.environ.get(SANDBOX_URL)
        if url is None:
            return None
        try:
            parts = urlsplit(url.strip())
            host, port = parts.hostname, parts.port
        except ValueError:
            parts, host, port = urlsplit(""), None, None
        if parts.scheme != "http" or host != "127.0.0.1" or port is None or not parts.username or not parts.password:
            msg = (
                "is not a sandbox URL like http://LOGIN:KEY@127.0.0.1:PORT, which `python -m "
                "airflow_provider_apptoto.sandbox` prints. Nothing is sent. Unset it to use the connections"
            )
            raise ApptotoConfigurationError(SANDBOX_URL, msg)
        return cls(login=unquote(parts.username), password=unquote(parts.password), host=f"http://{host}:{port}")


def direct_connections() -> dict[str, str]:
    """Return the environment variables that keep requests to the sandbox away from a proxy, which can't reach it."""
    listed = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    direct = f"{listed},127.0.0.1" if listed else "127.0.0.1"
    return {"no_proxy": direct, "NO_PROXY": direct}


def holds_end_at_once() -> bool:
    """Return whether tasks continue without waiting for their sending window; only if a sandbox gets all messages."""
    return bool(os.environ.get(SANDBOX_HOLDS)) and SANDBOX_URL in os.environ


def record_hold(ti: Any, until: datetime) -> None:
    """List a hold that ends at once in the file of ``APPTOTO_SANDBOX_HOLDS``.

    :param ti: the task instance that would wait.
    :param until: when the wait would end.
    """
    fields = {name: getattr(ti, name) for name in ("dag_id", "task_id", "run_id", "map_index")}
    with open(os.environ[SANDBOX_HOLDS], "a", encoding="utf-8") as file:  # noqa: PTH123  appends
        file.write(json.dumps({**fields, "held_until": until.isoformat()}) + "\n")
