"""Failures that the sandbox simulates on request."""

from __future__ import annotations

import asyncio
import random
import re
import secrets
import socket
import struct
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.responses import HTMLResponse, JSONResponse, Response

from airflow_provider_apptoto.sandbox.feed import disconnected

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import Receive, Scope, Send

#: Value of ``endpoint`` for the requests that read events, contacts and address books.
READS = "reads"
KINDS = ("status", "reset", "close", "hang", "cut", "html")

ALLOWED = (
    'Allowed: "kind": "status" (the default), "reset", "close", "hang", "cut" or "html"; '
    '"status": 300 to 599, required for "status" and not allowed otherwise; '
    '"retry_after": whole seconds from 0, or an HTTP date, only for "status"; '
    '"seconds": 0.1 to 600, required for "hang" and not allowed otherwise; '
    '"times": 1 to 1000 (default: 1; with "probability": no limit); '
    '"probability": more than 0, at most 1; '
    '"seed": a whole number from 0 to 4294967295, only with "probability"; '
    '"accepted": true or false (default: false), not for "reads"; '
    '"endpoint": "reads" for the requests that read events or contacts (default: those that send a message).'
)

_MAX_SEED = 2**32 - 1
_MIN_SECONDS = 0.1
_MAX_SECONDS = 600
_SUCCESS = b'{"success": true}'
_REDIRECTS = (301, 302, 303, 307, 308)
_NOT_MODIFIED = 304
_HTML = "<!DOCTYPE html><html><head><title>Sandbox</title></head><body><h1>Not the API</h1></body></html>"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A failure that the next calls of ``POST /v1/send_message`` get, or those that read events.

    :param kind: ``status`` answers with a status; ``reset`` sends a TCP reset instead of an answer; ``close``
        closes the connection instead of answering; ``hang`` closes it after ``seconds``; ``cut`` closes it in
        the middle of the answer's body; ``html`` answers 200 with an HTML page.
    :param status: 300 to 599, for ``status``.
    :param retry_after: the Retry-After header for ``status``, in seconds or as text that is sent unchanged.
    :param seconds: 0.1 to 600, for ``hang``.
    :param accepted: whether a valid message is stored in the inbox anyway.
    :param times: number of calls that get the fault, 1 to 1000; None for no limit, with ``probability``.
    :param probability: more than 0, at most 1: each call gets the fault with this probability, and calls without it get
        the next active fault. None: each call gets it.
    :param seed: makes the draws repeatable: the same seed and the same number of calls give the same faults.
    :param endpoint: ``reads`` for the requests that read events, contacts or address books; None for those that send.
    """

    kind: str = "status"
    status: int | None = None
    retry_after: int | str | None = None
    seconds: float | None = None
    accepted: bool = False
    times: int | None = 1
    probability: float | None = None
    seed: int | None = None
    endpoint: str | None = None

    @classmethod
    def parse(cls, fields: object) -> Fault:
        """Create a fault from a JSON object.

        :param fields: the parameters of this class by name.
        :raises ValueError: a field is invalid; the error says what is allowed.
        """
        problems = _problems(fields) if isinstance(fields, Mapping) else ["A fault must be a JSON object."]
        if problems:
            raise ValueError(" ".join([*problems, ALLOWED]))
        given = dict(fields)  # type: ignore[call-overload]
        if given.get("probability") is not None:
            # Drawn here if it is not given, so that the answer tells how to repeat the run.
            seed = secrets.randbelow(_MAX_SEED + 1) if given.get("seed") is None else given["seed"]
            given = {"times": None, **given, "seed": seed}
        return cls(**given)

    def as_dict(self) -> dict[str, str | int | float]:
        """Return the fields that apply to this kind."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @property
    def effect(self) -> str:
        """Description of the answer that the caller gets."""
        after = "" if self.retry_after is None else f" with Retry-After: {self.retry_after}"
        return {
            "status": f"status {self.status}{after}",
            "reset": "the connection is reset, no answer",
            "close": "the connection is closed, no answer",
            "hang": f"no answer for {self.seconds} s, then the connection is closed",
            "cut": "the connection is closed in the middle of the answer",
            "html": "status 200 with an HTML page",
        }[self.kind]

    @property
    def description(self) -> str:
        """Which requests get it, and its effect."""
        one, many = ("read", "reads") if self.endpoint == READS else ("request", "requests")
        requests = f"the next {one}" if self.times == 1 else f"the next {self.times} {many}"
        if self.probability is not None:
            limit = "" if self.times is None else f", at most {self.times} more"
            requests = f"{self.probability * 100:g} % of all {many}{limit} (seed {self.seed})"
        stored = " The message is stored." if self.accepted else " The message is not stored."
        return f"For {requests}: {self.effect}.{'' if self.endpoint == READS else stored}"

    @property
    def explanation(self) -> str:
        """The error of a request that gets this fault."""
        return f"Simulated fault: {self.effect}."

    @property
    def answered_status(self) -> int | None:
        """HTTP status of the answer; None if there is no answer."""
        return self.status if self.kind == "status" else HTTPStatus.OK if self.kind in ("cut", "html") else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request with this fault."""
        if self.kind == "status":
            await self._status_answer(scope["path"])(scope, receive, send)
            return
        if self.kind == "html":
            await HTMLResponse(_HTML)(scope, receive, send)
            return
        transport: asyncio.Transport = scope["state"]["transport"]
        if self.kind == "hang":
            with suppress(TimeoutError):
                async with asyncio.timeout(self.seconds):
                    await disconnected(receive)
        if self.kind == "cut":
            length = str(len(_SUCCESS)).encode()
            headers = [(b"content-type", b"application/json"), (b"content-length", length)]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": _SUCCESS[:9], "more_body": True})
        if self.kind == "reset":
            # A linger time of zero makes the kernel send RST instead of FIN: socket(7).
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        else:
            transport.close()
        # If the application returned before uvicorn noticed the closed connection, uvicorn would answer 500.
        await disconnected(receive)

    def _status_answer(self, path: str) -> Response:
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        if self.status in _REDIRECTS:
            # If a client follows it and sends the message again, the inbox shows that.
            headers["Location"] = path
        if self.status == _NOT_MODIFIED:
            # A 304 has no body: RFC 9110, 15.4.5.
            return Response(status_code=_NOT_MODIFIED, headers=headers)
        answer = {"success": False, "error": self.explanation}
        return JSONResponse(answer, status_code=self.status or 500, headers=headers)


class Faults:
    """The queue of active faults, oldest first. Safe to use from several threads.

    :param changed: called after each change, from the thread that made it.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._lock = threading.Lock()
        self._changed = changed
        self._queue: list[_Active] = []
        self.changes = 0
        """Number of changes."""

    def switch_on(self, fault: Fault) -> None:
        """Add a fault after the active ones.

        :param fault: the fault.
        """
        with self._lock:
            self._queue.append(_Active(fault))
            self.changes += 1
        self._changed()

    def take(self, endpoint: str | None = None) -> Fault | None:
        """Return the fault for this call, if there is one, and count the call.

        :param endpoint: ``reads`` for a request that reads; None for one that sends.
        """
        with self._lock:
            queue = (active for active in self._queue if active.fault.endpoint == endpoint)
            active = next((active for active in queue if active.strikes()), None)
            if active is None:
                return None
            fault = active.fault
            if fault.times is not None:
                active.fault = replace(fault, times=fault.times - 1)
                self._queue = [each for each in self._queue if each.fault.times != 0]
                self.changes += 1
        self._changed()
        return fault

    def pending(self) -> list[Fault]:
        """Return the active faults; ``times`` is the number of remaining calls."""
        with self._lock:
            return [active.fault for active in self._queue]

    def clear(self) -> int:
        """Remove all faults and return their number."""
        with self._lock:
            count = len(self._queue)
            self._queue.clear()
            self.changes += 1
        self._changed()
        return count


class _Active:
    """A fault with the state of its draws."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self._random = random.Random(fault.seed)  # noqa: S311  no secret

    def strikes(self) -> bool:
        """Return whether this call gets the fault."""
        return self.fault.probability is None or self._random.random() < self.fault.probability


def _problems(fields: Mapping[object, object]) -> list[str]:
    kind = fields.get("kind", "status")
    status, retry_after, seconds = fields.get("status"), fields.get("retry_after"), fields.get("seconds")
    probability, seed = fields.get("probability"), fields.get("seed")
    accepted = fields.get("accepted", False)
    unknown = [repr(name) for name in fields if name not in Fault.__dataclass_fields__]
    checks = (
        (not unknown, f"Unknown fields: {', '.join(unknown)}."),
        (kind in KINDS, "kind is not allowed."),
        (_whole(status, 300, 599) if kind == "status" else status is None, "status is not allowed."),
        (
            retry_after is None or (kind == "status" and _retry_after(retry_after)),
            "retry_after is not allowed.",
        ),
        (_seconds(seconds) if kind == "hang" else seconds is None, "seconds is not allowed."),
        (_whole(fields.get("times", 1), 1, 1000), "times is not allowed."),
        (probability is None or _probability(probability), "probability is not allowed."),
        (seed is None or (probability is not None and _whole(seed, 0, _MAX_SEED)), "seed is not allowed."),
        (fields.get("endpoint") in (None, READS), "endpoint is not allowed."),
        (isinstance(accepted, bool) and not (accepted and fields.get("endpoint")), "accepted is not allowed."),
    )
    return [problem for fits, problem in checks if not fits]


def _whole(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _seconds(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and _MIN_SECONDS <= value <= _MAX_SECONDS


def _probability(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1


def _retry_after(value: object) -> bool:
    if isinstance(value, str):
        # Sent unchanged, so it must not contain anything that ends the header.
        return re.fullmatch(r"[!-~]([ -~]{0,98}[!-~])?", value) is not None
    return _whole(value, 0, 10**9)
