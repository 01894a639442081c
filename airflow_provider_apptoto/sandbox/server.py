"""Run the sandbox as a server in a background thread."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import sys
import threading
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self
from urllib.parse import quote

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from airflow_provider_apptoto import __version__
from airflow_provider_apptoto.sandbox.app import SandboxApp
from airflow_provider_apptoto.sandbox.appointments.store import Appointments
from airflow_provider_apptoto.sandbox.behaviour import API_KEY, HOST, LOGIN, connection_command
from airflow_provider_apptoto.sandbox.faults import Fault, Faults
from airflow_provider_apptoto.sandbox.feed import Feed
from airflow_provider_apptoto.sandbox.inbox import KEEP, Entry, Inbox
from airflow_provider_apptoto.sandbox.search import Search
from airflow_provider_apptoto.sandbox.web import Account

if sys.version_info >= (3, 12):
    from typing import override
else:
    from typing_extensions import override  # Starlette brings it

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType


_MAX_PORT = 65535
# Long, because a client's next request fails if the server closes a kept-alive connection first.
_KEEP_ALIVE = 600


class Sandbox:
    """A local Apptoto that runs while its ``with`` block does.

    :param port: 0 to 65535; 0 takes a free one.
    :param login: e-mail address of the only account: printable ASCII without spaces and colons.
    :param api_key: API key of the only account: printable ASCII without spaces.
    :param database: path of an SQLite file for messages and appointments; None keeps them in memory.
    :param keep: number of requests that are kept, the newest ones, at least 1.
    :param host: only ``127.0.0.1``, because there is no TLS and anybody who reaches the page can read all messages.
    :raises ValueError: a parameter is not allowed.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        login: str = LOGIN,
        api_key: str = API_KEY,
        database: str | Path | None = None,
        keep: int = KEEP,
        host: str = HOST,
    ) -> None:
        if host != HOST:
            msg = f"The sandbox listens on {HOST} only, not on {host}."
            raise ValueError(msg)
        if not 0 <= port <= _MAX_PORT:
            msg = f"The port must be from 0 to {_MAX_PORT}, not {port}."
            raise ValueError(msg)
        if not re.fullmatch("[!-9;-~]+", login) or not re.fullmatch("[!-~]+", api_key):
            msg = "login and api_key must be printable ASCII without spaces, and login without a colon (RFC 7617)."
            raise ValueError(msg)
        if keep < 1:
            msg = f"keep must be at least 1, not {keep}."
            raise ValueError(msg)
        self.login = login
        self.api_key = api_key
        self._wanted_port = port
        self._database = database
        self._keep = keep
        self._resources = ExitStack()
        self._state: _Running | None = None

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    def start(self) -> None:
        """Start the server; :meth:`stop` ends it.

        :raises OSError: the port is busy or not allowed, or the database can't be used.
        :raises RuntimeError: it is already running, or the server did not start.
        """
        if self._state is not None:
            msg = "The sandbox is already running."
            raise RuntimeError(msg)
        with ExitStack() as resources:
            listener = resources.enter_context(closing(_listen(self._wanted_port)))
            port = listener.getsockname()[1]
            feed = Feed()
            inbox = resources.enter_context(closing(Inbox(self._database, keep=self._keep, changed=feed.notify)))
            appointments = resources.enter_context(closing(Appointments(self._database, feed.notify)))
            faults = Faults(feed.notify)
            stopping = threading.Event()
            app = SandboxApp(inbox, faults, appointments, feed, account=Account(self.login, self.api_key))
            server = _Server(
                uvicorn.Config(
                    app.asgi(stopping),
                    http=_Connection,
                    ws="none",
                    lifespan="on",
                    log_config=None,
                    log_level="warning",
                    access_log=False,
                    proxy_headers=False,
                    server_header=False,
                    headers=[("Server", f"airflow-provider-apptoto-sandbox/{__version__}")],
                    timeout_keep_alive=_KEEP_ALIVE,
                )
            )
            # A daemon thread, so that a program that forgets stop() still exits.
            thread = threading.Thread(
                target=server.run_on, args=(listener,), name=f"apptoto-sandbox-{port}", daemon=True
            )
            thread.start()
            resources.callback(thread.join)
            resources.callback(server.leave)
            resources.callback(stopping.set)
            server.settled.wait()
            if not server.started:
                msg = "The sandbox server did not start."
                raise RuntimeError(msg)
            self._resources = resources.pop_all()
        self._state = _Running(port, inbox, faults, appointments, feed)

    def stop(self) -> None:
        """Close the port and all connections, including hanging ones. Do nothing if it is not running."""
        self._state = None
        self._resources.close()

    @property
    def account_url(self) -> str:
        """The URL with login and API key, for ``APPTOTO_SANDBOX_URL``."""
        return self.url.replace("://", f"://{quote(self.login, safe='')}:{quote(self.api_key, safe='')}@", 1)

    @property
    def url(self) -> str:
        """The URL of the page and the API, without a path."""
        return f"http://{HOST}:{self._running.port}"

    def connection(self) -> str:
        """Return the Airflow connection as JSON, for ``AIRFLOW_CONN_APPTOTO_DEFAULT``."""
        return json.dumps({"conn_type": "apptoto", "login": self.login, "password": self.api_key, "host": self.url})

    def connection_command(self) -> str:
        """Return the command that stores the connection in Airflow."""
        return connection_command(self.login, self.api_key, self._running.port)

    def messages(self, **search: str | int | None) -> list[Entry]:
        """Return the messages that people got, in the order of arrival, or all requests that a search finds.

        Each has ``id``, ``received_at`` (UTC, ISO 8601) and the endpoint's fields: ``type``, ``to``, ``event_id``,
        ``participant_id``, ``message``, ``subject``, ``template_id``. ``outcome`` is ``accepted``, ``refused`` or
        ``fault``; ``delivered`` says whether the recipient gets it; ``status`` and ``error`` are those of the answer.
        ``origin``, ``dag_id``, ``run_id``, ``task_id``, ``map_index``, ``try_number`` are those of the Airflow task
        that sent it. What is not known is None.

        A message to an appointment is listed once for each participant who gets it: with that person's ``to``,
        ``event_id``, ``participant_id`` and ``recipient_name``, the text with its fields filled, and the text before
        that as ``unfilled``.

        :param search: the parameters of ``GET /sandbox/messages``, except ``limit`` and ``wait``: ``type``, ``dag_id``,
            ``outcome``, ``to``, ``text``, ``since_id``, ``before_id``. ``outcome="any"`` returns all requests.
        :raises ValueError: a parameter is unknown or invalid.
        """
        return self._running.inbox.entries(Search.parse(search))

    @property
    def appointments(self) -> Appointments:
        """The appointments: add them, let their people answer, and read what was said."""
        return self._running.appointments

    def fault(self, **fields: object) -> None:
        """Add a fault, as ``POST /sandbox/faults`` does.

        :param fields: the parameters of :class:`~airflow_provider_apptoto.sandbox.faults.Fault`.
        :raises ValueError: a field is invalid; the error says what is allowed.
        """
        self._running.faults.switch_on(Fault.parse(fields))

    def clear(self) -> None:
        """Remove all messages, faults, appointments, contacts and opt-outs."""
        self._running.inbox.clear()
        self._running.appointments.clear()
        self._running.faults.clear()

    @property
    def _running(self) -> _Running:
        if self._state is None:
            msg = "The sandbox is not running: use it in a with statement, or call start()."
            raise RuntimeError(msg)
        return self._state


@dataclass(frozen=True)
class _Running:
    port: int
    inbox: Inbox
    faults: Faults
    appointments: Appointments
    feed: Feed


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.settled = threading.Event()

    def run_on(self, listener: socket.socket) -> None:
        try:
            # The faults need an asyncio transport, whatever event loop policy the program has set.
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                runner.run(self.serve(sockets=[listener]))
        finally:
            self.settled.set()

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.settled.set()

    def leave(self) -> None:
        self.should_exit = True


class _Connection(H11Protocol):
    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # uvicorn copies it to scope["state"] of each request, where faults find the connection.
        self.app_state = {**self.app_state, "transport": transport}
        if self.app_state["stopping"].is_set():
            # Accepted while the server was closing its connections; uvicorn would wait for it.
            transport.abort()

    @override
    def shutdown(self) -> None:
        # uvicorn would wait for requests to end, which a hanging request or client may never do.
        self.transport.abort()


def _listen(port: int) -> socket.socket:
    # asyncio sets TCP_NODELAY only if the protocol is given; without it each answer takes 40 ms longer.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # Allows a new sandbox on a port right after the last one stopped.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"The sandbox can't listen on {HOST}, port {port}: {error.strerror}") from error
    return listener
