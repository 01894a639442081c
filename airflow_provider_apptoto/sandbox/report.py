"""What each person got and answered, as text for a terminal."""

from __future__ import annotations

import textwrap
import unicodedata
from collections import defaultdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_apptoto.sandbox.inbox import Entry, by_recipient

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_MAX_REPLY = 40
"""Characters of a reply that are shown."""


def report(messages: Sequence[Entry], appointments: Sequence[Mapping[str, Any]] = ()) -> str:
    """Return a table of the appointments, if there are any, and the messages to everybody else.

    :param messages: as :meth:`~airflow_provider_apptoto.sandbox.Sandbox.messages` returns them.
    :param appointments: one entry for each participant, as :func:`.overview.entries` returns them.
    """
    known = {person["participant_id"] for person in appointments}
    others = [message for message in messages if message["participant_id"] not in known]
    lines = _table(messages, appointments) if appointments else []
    if others or not appointments:
        lines += [""] if lines else []
        lines += _inbox(others, "What each person got" if not appointments else "What others got")
    return "\n".join(lines)


def _table(messages: Iterable[Entry], appointments: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each participant: when, who, the channels of the messages, and the answer."""
    channels: dict[Any, list[str]] = defaultdict(list)
    for message in messages:
        channels[message["participant_id"]].append(str(message["type"]))
    rows = [
        (
            f"{datetime.fromisoformat(person['start_time']):%H:%M}",
            _printable(person["name"]),
            ", ".join(channels[person["participant_id"]]) or "-",
            _answer(person),
        )
        for person in appointments
    ]
    head = ("Start", "Participant", "Got", "State, last reply")
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (head, *rows)]
    got = [channels[person["participant_id"]] for person in appointments]
    counts = ", ".join(
        f"{sum(channel in each for each in got)} {done}"
        for channel, done in (("sms", "were texted"), ("call", "were called"), ("email", "got an e-mail"))
        if any(channel in each for each in got)
    )
    return [f"{len(rows)} participants: {counts or 'no message was accepted'}", *(line.rstrip() for line in lines)]


def _answer(person: Mapping[str, Any]) -> str:
    state, reply = str(person["state"]), person["last_reply"]
    return state if reply is None else f'{state}, "{textwrap.shorten(_printable(reply), _MAX_REPLY)}"'


def _inbox(messages: Sequence[Entry], title: str) -> list[str]:
    lines = [f"{title} ({len(messages)} message{'' if len(messages) == 1 else 's'}):"]
    for person, theirs in by_recipient(messages).items():
        lines += ["", _printable(person)]
        for message in theirs:
            lines.append(f"  {message['type']} at {message['received_at']}")
            lines += [
                textwrap.indent(f"{label}{_printable(str(message[field]))}", "    ")
                for field, label in (("subject", "Subject: "), ("template_id", "Template: "), ("message", ""))
                if message[field] is not None
            ]
    return lines


def _printable(text: str) -> str:
    # Control characters in a message could control the terminal.
    return "".join(
        character
        if character == "\n" or unicodedata.category(character) != "Cc"
        else character.encode("unicode_escape").decode()
        for character in text
    )
