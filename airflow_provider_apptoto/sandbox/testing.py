"""A pytest plugin: the fixture ``apptoto_sandbox`` runs a sandbox, and checks which messages a DAG sent.

pytest loads this module in every environment with the provider, so it imports nothing heavy.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from airflow_provider_apptoto.sandbox import Sandbox
    from airflow_provider_apptoto.sandbox.appointments.store import Appointments

_CHANNELS = ("sms", "call", "email")
_STATE = "apptoto_sandbox_state"
"""Id of the connection to the state database."""
_INTERVAL = 0.02
"""Seconds between two looks at the inbox."""
_MAX_LISTED = 30
_MAX_TEXT = 120
"""Messages, and characters of each text, that a failure lists."""


@pytest.fixture
def apptoto_sandbox(tmp_path: Path) -> Iterator[ApptotoSandbox]:
    """Run a sandbox and a state database for one test, and make all Apptoto connections use them."""
    with running_sandbox(tmp_path / "apptoto-sandbox") as sandbox:
        yield sandbox


@contextlib.contextmanager
def running_sandbox(folder: Path) -> Iterator[ApptotoSandbox]:
    """Run a sandbox while the ``with`` block does, for fixtures of another scope than ``apptoto_sandbox``.

    :param folder: a new folder for the state database.
    """
    try:
        from airflow_provider_apptoto.sandbox import Sandbox
    except ImportError as error:
        pytest.fail(str(error), pytrace=False)
    from sqlalchemy.engine import URL

    from airflow_provider_apptoto.outbox.database import forget_database

    folder.mkdir(parents=True)
    url = URL.create("sqlite", database=str(folder / "state.db"))
    with Sandbox() as sandbox, pytest.MonkeyPatch.context() as patch:
        for name, value in _environment(sandbox, url, folder).items():
            patch.setenv(name, value)
        found = ApptotoSandbox(sandbox, folder, patch)
        found.connect("apptoto_default")
        try:
            yield found
        finally:
            forget_database(url)


class ApptotoSandbox:
    """A running sandbox with a state database. Get it from the fixture ``apptoto_sandbox``."""

    def __init__(self, sandbox: Sandbox, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self._sandbox = sandbox
        self._holds = folder / "holds.jsonl"
        self._patch = patch

    @property
    def url(self) -> str:
        """The URL of the inbox page and the API."""
        return self._sandbox.url

    def connect(self, conn_id: str = "apptoto_default", **extra: Any) -> None:
        """Set an Apptoto connection in the environment, until the test ends.

        :param conn_id: id of the connection.
        :param extra: its extra fields, such as ``default_region="US"``.
        """
        fields = {**json.loads(self._sandbox.connection()), "extra": {"state_conn_id": _STATE, **extra}}
        self._patch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(fields))

    def messages(self) -> list[dict[str, Any]]:
        """Return the messages in the order of arrival, as :meth:`.Sandbox.messages` does."""
        return [dict(message) for message in self._sandbox.messages()]

    def wait_for_message(
        self,
        to: str | None = None,
        type: str | None = None,
        containing: str | None = None,
        timeout: float = 10.0,
        *,
        event_id: int | str | None = None,
        participant_id: int | str | None = None,
    ) -> dict[str, Any]:
        """Return the first message that matches all arguments; wait for it if it has not arrived.

        :param to: phone number, in any notation, or e-mail address.
        :param type: ``sms``, ``call`` or ``email``.
        :param containing: part of the text or the subject.
        :param timeout: seconds to wait.
        :param event_id: event whose participants get the message.
        :param participant_id: participant who gets the message.
        :raises AssertionError: no such message arrived in time; the error lists the messages that did.
        :raises ValueError: no message can match ``to`` or ``type``.
        """
        __tracebackhide__ = True
        wanted = _Wanted(to, type, containing, event_id, participant_id)
        found = self._first(wanted, timeout)
        if found is None:
            msg = f"No {wanted} arrived within {timeout:g} s. {_listing(self.messages())}"
            raise AssertionError(msg)
        return found

    def assert_no_message(
        self,
        to: str | None = None,
        type: str | None = None,
        containing: str | None = None,
        within: float = 0.0,
        *,
        event_id: int | str | None = None,
        participant_id: int | str | None = None,
    ) -> None:
        """Check that no message matches all arguments. The others are those of :meth:`wait_for_message`.

        :param within: seconds to wait for such a message.
        :raises AssertionError: such a message arrived; the error lists all messages.
        :raises ValueError: no message can match ``to`` or ``type``.
        """
        __tracebackhide__ = True
        wanted = _Wanted(to, type, containing, event_id, participant_id)
        if self._first(wanted, within) is not None:
            msg = f"A {wanted} arrived, and none was expected. {_listing(self.messages())}"
            raise AssertionError(msg)

    def holds(self) -> list[dict[str, Any]]:
        """Return the waits for a sending window, which end at once, in order.

        Each has ``dag_id``, ``task_id``, ``run_id``, ``map_index``, and ``held_until`` (ISO 8601, UTC): when the task
        would have continued.
        """
        if not self._holds.exists():
            return []
        return [json.loads(line) for line in self._holds.read_text(encoding="utf-8").splitlines()]

    @property
    def appointments(self) -> Appointments:
        """The appointments: add them, let their people answer, and read what was said."""
        return self._sandbox.appointments

    def fault(self, **fields: object) -> None:
        """Add a fault for the next messages or reads, as :meth:`.Sandbox.fault` does."""
        self._sandbox.fault(**fields)

    def clear(self) -> None:
        """Remove all messages, faults, appointments and holds. The ledger keeps its entries."""
        self._sandbox.clear()
        self._holds.unlink(missing_ok=True)

    def _first(self, wanted: _Wanted, seconds: float) -> dict[str, Any] | None:
        deadline = time.monotonic() + seconds
        while True:
            is_last = time.monotonic() >= deadline
            for message in self.messages():
                if wanted.matches(message):
                    return message
            if is_last:
                return None
            time.sleep(_INTERVAL)


@dataclass(frozen=True)
class _Wanted:
    to: str | None
    type: str | None
    containing: str | None
    event_id: int | str | None
    participant_id: int | str | None

    def __post_init__(self) -> None:
        if self.type is not None and self.type not in _CHANNELS:
            msg = f"type must be one of {', '.join(_CHANNELS)}, not {self.type!r}."
            raise ValueError(msg)
        if self.to is not None and "@" not in self.to and not _digits(self.to).strip("0"):
            msg = f"to must be a phone number or an e-mail address, not {self.to!r}."
            raise ValueError(msg)

    def __str__(self) -> str:
        parts = [self.type or "message"]
        if self.to is not None:
            parts.append(f"to {self.to}")
        if self.event_id is not None:
            parts.append(f"to event {self.event_id}")
        if self.participant_id is not None:
            parts.append(f"to participant {self.participant_id}")
        if self.containing is not None:
            parts.append(f"containing {self.containing!r}")
        return " ".join(parts)

    def matches(self, message: dict[str, Any]) -> bool:
        ids = ("event_id", "participant_id")
        texts = (message["message"] or "", message["subject"] or "")
        return (
            (self.type is None or message["type"] == self.type)
            and (self.to is None or _is_same(self.to, message["to"] or ""))
            and (self.containing is None or any(self.containing in text for text in texts))
            and all(getattr(self, name) is None or str(getattr(self, name)) == str(message[name]) for name in ids)
        )


def _is_same(wanted: str, to: str) -> bool:
    """Return whether a recipient is the wanted one. A number without ``+`` matches those of every country."""
    if "@" in wanted or "@" in to:
        return wanted.strip().casefold() == to.strip().casefold()
    if wanted.strip().startswith("+"):
        return _digits(wanted) == _digits(to)
    return _digits(to).endswith(_digits(wanted).lstrip("0"))


def _digits(number: str) -> str:
    return re.sub(r"\D", "", number)


def _listing(messages: Sequence[dict[str, Any]]) -> str:
    if not messages:
        return "No message arrived. If a task withheld one, its log gives the reason."
    count = f"{len(messages)} message{'' if len(messages) == 1 else 's'} arrived"
    shown = messages[-_MAX_LISTED:]
    count += ":" if len(shown) == len(messages) else f"; the last {len(shown)}:"
    return "\n".join([count, *(f"  {_line(message)}" for message in shown)])


def _line(message: dict[str, Any]) -> str:
    targets = {"to": "", "event_id": "event ", "participant_id": "participant "}
    if message["recipient_name"] is not None:  # a participant, whose number is known
        targets = {"to": ""}
    who = ", ".join(f"{label}{message[name]}" for name, label in targets.items() if message[name] is not None)
    names = ("subject", "message", "template_id")
    text = ", ".join(f"{name} {message[name]!r}" for name in names if message[name] is not None)
    return f"{message['type']} to {who}: {text if len(text) <= _MAX_TEXT else f'{text[: _MAX_TEXT - 1]}…'}"


def _environment(sandbox: Sandbox, url: Any, folder: Path) -> dict[str, str]:
    """Return the environment in which all Apptoto connections use the sandbox and the state database.

    :param url: SQLAlchemy URL of the state database, which is created.
    """
    from airflow_provider_apptoto.outbox.database import state_database
    from airflow_provider_apptoto.outbox.pin import Pin
    from airflow_provider_apptoto.sandbox_account import SANDBOX_HOLDS, SANDBOX_URL, direct_connections

    pins = _Pins()
    Pin(_STATE, state_database(url), pins, "").accept()
    return {
        **direct_connections(),
        SANDBOX_URL: sandbox.account_url,
        SANDBOX_HOLDS: str(folder / "holds.jsonl"),
        f"AIRFLOW_CONN_{_STATE.upper()}": json.dumps({"conn_type": "sqlite", "host": str(url.database)}),
        "AIRFLOW__APPTOTO__STATE_CONN_ID": _STATE,
        "AIRFLOW__APPTOTO__REQUESTS_PER_MINUTE": "6000",
        "AIRFLOW__APPTOTO__DELIVERY_MODE": "live",
        # each test has a new database, which a pin in Airflow's own database would refuse
        **{f"AIRFLOW_VAR_{name.upper()}": value for name, value in pins.items()},
    }


class _Pins(dict[str, str]):
    def set(self, name: str, value: str) -> None:
        self[name] = value
