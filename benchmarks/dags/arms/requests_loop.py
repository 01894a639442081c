"""Send with a loop over ``requests`` in a Python task, as an experienced user writes it."""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import TYPE_CHECKING

from airflow.sdk import task

from benchmarks.dags.common import ATTEMPTS, RATE, TEXT, TIMEOUT, URL, dags, finish

if TYPE_CHECKING:
    import requests


def post(session: requests.Session, to: str) -> bool:
    """Send one message, and return whether it was sent."""
    import requests

    for attempt in range(ATTEMPTS):
        wait = 0.5 * 2**attempt
        try:
            answer = session.post(URL, json={"type": "sms", "to": to, "message": TEXT}, timeout=TIMEOUT)
            if answer.ok and answer.json()["success"] is True:
                return True
            if (
                answer.status_code < HTTPStatus.INTERNAL_SERVER_ERROR
                and answer.status_code != HTTPStatus.TOO_MANY_REQUESTS
            ):
                return False
            wait = float(answer.headers.get("Retry-After", wait))
        except (requests.RequestException, ValueError):
            pass
        if attempt < ATTEMPTS - 1:
            time.sleep(wait)
    return False


@task
def send(people: list[str]) -> None:
    """Send to these people, one after the other."""
    import requests

    failed, slot = [], time.monotonic()
    with requests.Session() as session:
        for to in people:
            time.sleep(max(0, slot - time.monotonic()))
            slot = time.monotonic() + 1 / RATE
            if not post(session, to):
                failed.append(to)
    finish(failed)


for people in dags("requests_loop"):
    send(people)
