"""A server that fails as drawn, and records what it accepted."""

from __future__ import annotations

import threading
import time
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from tests.chaos.draws import Draws, Fault
from tests.support.faults import Exchange, FaultServer, Script, accepting, answering, resetting, sending_raw
from tests.support.people import recipient_of

if TYPE_CHECKING:
    from typing import Self


def _hanging(exchange: Exchange) -> None:
    """Accept the message, and send no answer until the client disconnects."""
    exchange.accept()
    exchange.socket.recv(1)


def _redirecting(exchange: Exchange) -> None:
    answering(302, Location=f"{exchange.server.url}{exchange.request.path}")(exchange)


def _after_an_interim_answer(script: Script) -> Script:
    def hinting(exchange: Exchange) -> None:
        exchange.raw(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n")
        time.sleep(0.02)
        script(exchange)

    return hinting


def _giving_up_too_early(exchange: Exchange) -> None:
    """Refuse, and then send an answer that was meant for another request, on the same connection."""
    exchange.answer(429, Retry_After="0")
    time.sleep(0.02)
    exchange.answer(200, {"success": True})


_SCRIPTS: dict[Fault, Script] = {
    Fault.TOO_MANY: answering(429),
    Fault.TOO_MANY_RETRY_AFTER: answering(429, Retry_After="0"),
    Fault.UNAVAILABLE_RETRY_AFTER: answering(503, Retry_After="0"),
    Fault.UNAVAILABLE_NOT_ACCEPTED: answering(503),
    Fault.UNAVAILABLE_ACCEPTED: answering(503, accepted=True),
    Fault.BROKEN_NOT_ACCEPTED: answering(500),
    Fault.BROKEN_ACCEPTED: answering(500, accepted=True),
    Fault.REFUSED: answering(422, {"error": "no"}),
    Fault.RESET_NOT_ACCEPTED: resetting(accepted=False),
    Fault.RESET_ACCEPTED: resetting(accepted=True),
    Fault.CLOSED_ACCEPTED: sending_raw(b""),
    Fault.CUT_IN_HEADERS: sending_raw(b"HTTP/1.1 200 OK\r\nContent-Ty"),
    Fault.CUT_IN_BODY: sending_raw(b'HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n{"success":'),
    Fault.HANGING: _hanging,
    Fault.REDIRECT: _redirecting,
    Fault.INTERIM: _after_an_interim_answer(accepting),
    Fault.INTERIM_REFUSED: _after_an_interim_answer(answering(422)),
    Fault.LATE_ANSWER: _giving_up_too_early,
}


class ChaosServer:
    """The reference for all comparisons.

    :param draws: what goes wrong with the messages; reads never fail.
    """

    def __init__(self, draws: Draws) -> None:
        self._draws = draws
        self._server = FaultServer([self._play])
        self._lock = threading.Lock()
        self._seen: Counter[int] = Counter()
        self.faults: Counter[Fault] = Counter()
        self.behaves = False
        """Whether nothing goes wrong anymore."""

    def __enter__(self) -> Self:
        self._server.__enter__()
        return self

    def __exit__(self, *reason: object) -> None:
        self._server.__exit__(*reason)

    @property
    def url(self) -> str:
        return self._server.url

    def copies(self) -> Counter[int]:
        """Return how many copies each person got."""
        return Counter(recipient_of(request.json) for request in self._server.accepted)

    def _event(self, number: int) -> dict[str, Any]:
        """Return the event of a person, with its conversation as it was observed at Apptoto."""
        accepted = [each.json for each in self._server.accepted if each.json.get("participant_id") == number]
        now = datetime.now(UTC).isoformat()
        said = [
            {"id": index, "at": now, "event_type": "sent", "content": message["message"]}
            for index, message in enumerate(accepted, start=1)
        ]
        person = {"id": number, "name": "Ann", "state": "initial", "conversations": [{"messages": said}]}
        return {"id": number, "start_time": now, "end_time": now, "participants": [person]}

    def _play(self, exchange: Exchange) -> None:
        url = urlsplit(exchange.request.path)
        if url.path == "/v1/event":
            [number] = parse_qs(url.query)["id"]
            exchange.answer(200, self._event(int(number)))
            return
        if exchange.request.method != "POST":  # a client followed the redirect
            answering(200, b"<html>Hello</html>")(exchange)
            return
        person = recipient_of(exchange.request.json)
        with self._lock:
            fault = None if self.behaves else self._draws.fault(person, self._seen[person])
            self._seen[person] += 1
            if fault is not None:
                self.faults[fault] += 1
        (accepting if fault is None else _SCRIPTS[fault])(exchange)
