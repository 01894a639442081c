"""Failures that the sandbox plays on request."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import threading
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from starlette.responses import HTMLResponse, JSONResponse, Response

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

KINDS = ("status", "reset", "close", "hang", "cut", "html")

ALLOWED = (
    'Allowed: "kind": "status" (the default), "reset", "close", "hang", "cut" or "html"; '
    '"status": 300 to 599, always and only for "status"; '
    '"retry_after": whole seconds from 0, or an HTTP date, only for "status"; '
    '"seconds": 0.1 to 600, always and only for "hang"; '
    '"times": 1 to 1000, 1 when missing; '
    '"accepted": true or false, false when missing.'
)

_MIN_SECONDS = 0.1
_MAX_SECONDS = 600
_SUCCESS = b'{"success": true}'
_REDIRECTS = (301, 302, 303, 307, 308)
_NOT_MODIFIED = 304
_HTML = "<!DOCTYPE html><html><head><title>Sandbox</title></head><body><h1>Not the API</h1></body></html>"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One failure, played to the next calls of ``POST /v1/send_message``.

    :param kind: ``status`` answers with a status; ``reset`` sends a TCP reset instead of an answer; ``close``
        closes the connection instead of answering; ``hang`` does so after ``seconds``; ``cut`` closes it in
        the middle of the answer's body; ``html`` answers 200 with a page.
    :param status: 300 to 599, for ``status``.
    :param retry_after: for ``status``: the Retry-After header, in seconds or as text that is sent as it is.
    :param seconds: 0.1 to 600, for ``hang``.
    :param accepted: whether a valid message goes to the inbox all the same.
    :param times: how many calls it still applies to, 1 to 1000.
    """

    kind: str = "status"
    status: int | None = None
    retry_after: int | str | None = None
    seconds: float | None = None
    accepted: bool = False
    times: int = 1

    @classmethod
    def parse(cls, fields: object) -> Fault:
        """Make a fault of what somebody asked for.

        :param fields: the parameters of this class by name.
        :raises ValueError: says what is wrong and what is allowed.
        """
        problems = _problems(fields) if isinstance(fields, Mapping) else ["A fault is a JSON object."]
        if problems:
            raise ValueError(" ".join([*problems, ALLOWED]))
        return cls(**dict(fields))  # type: ignore[call-overload]

    def as_dict(self) -> dict[str, str | int | float]:
        """Give the fields that apply to this kind."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @property
    def effect(self) -> str:
        """What the caller meets, in words."""
        after = "" if self.retry_after is None else f" with Retry-After: {self.retry_after}"
        return {
            "status": f"status {self.status}{after}",
            "reset": "the connection is reset, no answer",
            "close": "the connection is closed, no answer",
            "hang": f"no answer for {self.seconds} s, then the connection is closed",
            "cut": "the answer is cut in its body",
            "html": "status 200 with an HTML page",
        }[self.kind]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Play this fault as the answer to one request."""
        if self.kind == "status":
            await self._status_answer()(scope, receive, send)
            return
        if self.kind == "html":
            await HTMLResponse(_HTML)(scope, receive, send)
            return
        transport: asyncio.Transport = scope["state"]["transport"]
        if self.kind == "hang":
            with suppress(TimeoutError):
                async with asyncio.timeout(self.seconds):
                    await _disconnected(receive)
        if self.kind == "cut":
            length = str(len(_SUCCESS)).encode()
            headers = [(b"content-type", b"application/json"), (b"content-length", length)]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": _SUCCESS[:9], "more_body": True})
        if self.kind == "reset":
            # Closing with a linger time of zero makes the kernel send RST in place of FIN: socket(7).
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        else:
            transport.close()
        # uvicorn answers 500 for an application that returns before the connection is seen to be gone.
        await _disconnected(receive)

    def _status_answer(self) -> Response:
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        if self.status in _REDIRECTS:
            # A client that follows it sends the message again, which the inbox then shows.
            headers["Location"] = "/v1/send_message"
        if self.status == _NOT_MODIFIED:
            # It can't have a body: RFC 9110, 15.4.5.
            return Response(status_code=_NOT_MODIFIED, headers=headers)
        answer = {"success": False, "error": f"A fault of the sandbox: {self.effect}."}
        return JSONResponse(answer, status_code=self.status or 500, headers=headers)


class Faults:
    """The faults that are switched on, first come, first played. May be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queue: deque[Fault] = deque()

    def switch_on(self, fault: Fault) -> None:
        """Play a fault after those that are switched on already.

        :param fault: the fault.
        """
        with self._lock:
            self._queue.append(fault)

    def take(self) -> Fault | None:
        """Give the fault that this call meets, if any, and count the call."""
        with self._lock:
            if not self._queue:
                return None
            fault = self._queue.popleft()
            if fault.times > 1:
                self._queue.appendleft(replace(fault, times=fault.times - 1))
            return fault

    def pending(self) -> list[Fault]:
        """List what is switched on; ``times`` counts the calls that are left."""
        with self._lock:
            return list(self._queue)

    def clear(self) -> int:
        """Switch all off and return how many they were."""
        with self._lock:
            count = len(self._queue)
            self._queue.clear()
            return count


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _problems(fields: Mapping[object, object]) -> list[str]:
    kind = fields.get("kind", "status")
    status, retry_after, seconds = fields.get("status"), fields.get("retry_after"), fields.get("seconds")
    unknown = [repr(name) for name in fields if name not in Fault.__dataclass_fields__]
    checks = (
        (not unknown, f"Unknown: {', '.join(unknown)}."),
        (kind in KINDS, "kind is not known."),
        (_whole(status, 300, 599) if kind == "status" else status is None, "status does not fit."),
        (
            retry_after is None or (kind == "status" and _retry_after(retry_after)),
            "retry_after does not fit.",
        ),
        (_seconds(seconds) if kind == "hang" else seconds is None, "seconds does not fit."),
        (_whole(fields.get("times", 1), 1, 1000), "times does not fit."),
        (isinstance(fields.get("accepted", False), bool), "accepted does not fit."),
    )
    return [problem for fits, problem in checks if not fits]


def _whole(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _seconds(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and _MIN_SECONDS <= value <= _MAX_SECONDS


def _retry_after(value: object) -> bool:
    if isinstance(value, str):
        # As it is, but nothing that could end the header.
        return re.fullmatch(r"[!-~]([ -~]{0,98}[!-~])?", value) is not None
    return _whole(value, 0, 10**9)
