"""Tell waiting readers that the inbox or the faults changed."""

from __future__ import annotations

import asyncio
import json
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from starlette.types import Receive, Scope, Send

HEARTBEAT = 15.0
"""Seconds after which a stream without news shows that it is alive."""
_RETRY = 1000
"""Milliseconds after which a browser reconnects."""


class Feed:
    """The readers that wait for a change. Readers get no queue: each reads what is new when it can.

    Only :meth:`notify` is safe to use from several threads.
    """

    def __init__(self) -> None:
        self._readers: set[Reader] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self) -> None:
        """Start in the running event loop."""
        self._loop = asyncio.get_running_loop()

    def notify(self) -> None:
        """Wake all readers."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed, so nobody waits
                self._loop.call_soon_threadsafe(self._wake)

    @contextmanager
    def reader(self, receive: Receive) -> Iterator[Reader]:
        """Register a reader.

        :param receive: tells when the client disconnects.
        """
        reader = Reader(receive)
        self._readers.add(reader)
        try:
            yield reader
        finally:
            self._readers.discard(reader)
            reader.close()

    def _wake(self) -> None:
        for reader in self._readers:
            reader.wake()


class Reader:
    """One client that waits for changes.

    :param receive: tells when the client disconnects.
    """

    def __init__(self, receive: Receive) -> None:
        self._changed = asyncio.Event()
        self._gone = asyncio.ensure_future(disconnected(receive))

    @property
    def is_gone(self) -> bool:
        """Whether the client disconnected."""
        return self._gone.done()

    def wake(self) -> None:
        """End the current or the next wait."""
        self._changed.set()

    async def wait(self, seconds: float) -> bool:
        """Wait for a change, for the client to disconnect, or for the time to pass; return whether there is a change.

        :param seconds: maximum wait.
        """
        changed = asyncio.ensure_future(self._changed.wait())
        try:
            await asyncio.wait({changed, self._gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()
        is_changed = self._changed.is_set()
        self._changed.clear()
        return is_changed

    def close(self) -> None:
        """Stop watching the client."""
        self._gone.cancel()


class EventStream:
    """Server-sent events about changes, until the client disconnects.

    :param feed: says when something may have changed.
    :param news: returns the events since its last call, as pairs of a name and JSON data.
    :param last_id: returns the id that a client which reconnects sends back as ``Last-Event-ID``.
    """

    def __init__(
        self, feed: Feed, news: Callable[[], list[tuple[str, dict[str, object]]]], last_id: Callable[[], int]
    ) -> None:
        self._feed = feed
        self._news = news
        self._last_id = last_id

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        """Stream the events. While a client doesn't read, its events are not collected: it gets them later in one."""
        headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
        with self._feed.reader(receive) as reader:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            text = f"retry: {_RETRY}\n\n"
            while not reader.is_gone:
                text += "".join(
                    f"id: {self._last_id()}\nevent: {name}\ndata: {json.dumps(data)}\n\n" for name, data in self._news()
                )
                if text:
                    await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
                text = "" if await reader.wait(HEARTBEAT) else ": still here\n\n"


async def disconnected(receive: Receive) -> None:
    """Return when the client has disconnected."""
    while (await receive())["type"] != "http.disconnect":
        pass
