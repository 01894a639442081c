"""The Python of the documentation that needs no Airflow runs as printed."""

from __future__ import annotations

import contextlib
import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_apptoto import client
from airflow_provider_apptoto.client import DeliveryMode
from tests.support.faults import FaultServer, answering
from tests.support.printed_runs import run_by

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.faults import Script
    from tests.support.printed import Printed

PRINTED = run_by(__name__, "python")


@dataclass(frozen=True)
class Expected:
    """What a block needs and does.

    :param part: a part of the block.
    :param prints: all lines that it prints, as a regular expression.
    :param sends: texts that the server accepts.
    :param server: what the server does; none: it accepts messages.
    :param names: names that the text before the block defines.
    :param check: given the names after the block, whether they are right.
    """

    part: str
    prints: str = ""
    sends: tuple[str, ...] = ()
    server: tuple[Script, ...] = ()
    names: Callable[[str], dict[str, Any]] = lambda _: {}
    check: Callable[[dict[str, Any]], bool] = lambda _: True


class Journal(list[str]):
    write = list.append


def message_and_client(url: str) -> dict[str, Any]:
    message = client.Message(type="sms", to="+16505550199", message="Hi")
    return {
        "client": client.ApptotoClient(login="a", api_key="b", base_url=url),
        "message": message,
        "journal": Journal(),
    }


ERRORS = "except ApptotoNotSentError"
EXPECTED = [
    Expected("result = client.send(", r"sent \+1•••0199\n", sends=("Hi Mary, your results are in.",)),
    Expected('to="(650) 555-0199"', names=lambda _: {"Message": client.Message}),
    Expected(ERRORS, sends=("Hi",)),
    Expected(ERRORS, r"Not sent, .*; asked to wait: 3600\.0\n", server=(answering(429, Retry_After="3600"),)),
    Expected(ERRORS, r"Rejected, would be rejected again: .*HTTP 422.*\n", server=(answering(422),)),
    Expected(ERRORS, r"May have been sent, .* send it twice: .*HTTP 500.*\n", server=(answering(500),)),
    Expected("RetryPolicy(", check=lambda names: names["client"]._attempts._policy is names["policy"]),
    Expected(
        "before_write",
        sends=("Hi",),
        names=message_and_client,
        check=lambda names: names["journal"] == ["sending appointment 4711"],
    ),
    Expected("InProcessRateLimiter(", check=lambda names: names["client"]._attempts._limiter is names["limiter"]),
    Expected("DeliveryMode.REDIRECT", check=lambda names: names["client"].mode is DeliveryMode.REDIRECT),
    Expected("premium_number to", r"premium_number to\n"),
    Expected(
        "sandbox.appointments.confirm(visit)",
        r"http://127\.0\.0\.1:\d+\n\{.*\}\n\[\]\n\[\]\n\{.*'state': 'confirmed'.*\}\n",
    ),
]


def blocks_of(part: str) -> list[Printed]:
    return [block for block in PRINTED if part in block.text]


def test_each_block_is_expected() -> None:
    found = [block for expected in EXPECTED for block in blocks_of(expected.part)]
    assert len(found) == len(EXPECTED)
    assert set(found) == set(PRINTED)


@pytest.mark.parametrize("expected", EXPECTED, ids=lambda expected: expected.part)
def test_a_block_runs_as_printed(expected: Expected) -> None:
    [block] = blocks_of(expected.part)
    with FaultServer(list(expected.server)) as server, contextlib.redirect_stdout(io.StringIO()) as printed:
        names = expected.names(server.url)
        source = block.text.replace("ApptotoClient(login=", f"ApptotoClient(base_url={server.url!r}, login=")
        exec(compile(source, str(block), "exec"), names)  # noqa: S102  the pages of this project
        if "client" in names:
            names["client"].close()
    assert re.fullmatch(expected.prints, printed.getvalue(), re.DOTALL), printed.getvalue()
    assert [request.json["message"] for request in server.accepted] == list(expected.sends)
    assert expected.check(names)
