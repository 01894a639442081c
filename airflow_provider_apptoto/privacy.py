"""Masking: what may be shown of a recipient, of a text of ours, and of one that somebody else wrote.

Imports nothing of Airflow, so that the client can use it anywhere.
"""

from __future__ import annotations

import re
import unicodedata
from contextvars import ContextVar
from typing import Any

_ADDRESS = re.compile(r"[^\s@<>\"'(),;:]+@[^\s@<>\"'(),:;]+")
_TOP_LEVEL = re.compile(r"[\w.•-]*(\.[a-z][a-z0-9-]{1,23})", re.IGNORECASE)
_NUMBER = re.compile(r"\+?\d(?:[\s()./\u00b7\u2010-\u2015\u2212\uff0d-]*\d){6,}")
_FEWEST_DIGITS = 7
_DIGITS_BESIDE_COUNTRY_CODE = 10
"""Of a shorter number, country code and last four digits would leave too little hidden."""
_COUNTRY_CODE = re.compile(r"\+(?:1|7|2[07]|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]|\d{3})")
_ECHO = 8
"""Characters in a row that a server's text and a part of ours must share to count as an echo."""
_SHORTEST_PRIVATE = 4
"""A shorter text of ours would stand in many a word."""

HIDDEN = "•••"
STARS = "***"
"""What Airflow shows in the place of a value that is hidden."""


class Private:
    """A value that shows itself to nobody: not in logs, rendered fields, XComs or errors.

    Airflow stores a task's fields as they are between rendering and execution; this stands in them meanwhile. It is no
    string, so that it can't be sent by mistake, and never holds another ``Private``: fields may be rendered twice.

    :param value: what to hide.
    """

    __slots__ = ("_value",)

    def __init__(self, value: object) -> None:
        self._value = reveal(value)

    def __repr__(self) -> str:
        """Show stars.

        :raises HiddenValueError: while a text is rendered: stars would be sent in the place of the value.
        """
        if rendering.get():
            raise HiddenValueError
        return STARS

    def serialize(self) -> str:
        """Show stars to whatever Airflow stores."""
        return STARS


class Unrendered(Private):
    """A hidden template: to be rendered, never to be sent as it is."""

    __slots__ = ()

    @property
    def template(self) -> Any:
        """The template."""
        return self._value


class HiddenValueError(Exception):
    """A hidden value was about to become text."""


rendering: ContextVar[bool] = ContextVar("apptoto_rendering", default=False)
"""Whether a text is being rendered."""


def reveal(value: Any) -> Any:
    """Return what a ``Private`` hides, and any other value as it is; an ``Unrendered`` is never revealed."""
    return value._value if type(value) is Private else value  # noqa: SLF001  nothing else may look inside


def mask_recipient(recipient: str) -> str:
    """Return what may be shown of a phone number or an e-mail address.

    ``+16505550199`` becomes ``+1•••0199``, ``mary@clinic.example`` becomes ``m•••@•••.example``. Of anything
    else nothing is shown.

    :param recipient: a phone number or an e-mail address, valid or not.
    """
    if "@" in recipient:
        mailbox, _, domain = recipient.strip().rpartition("@")
        top_level = _TOP_LEVEL.fullmatch(domain)
        return f"{mailbox[0] if mailbox[:1].isalnum() else ''}{HIDDEN}@{HIDDEN}{top_level[1] if top_level else ''}"
    digits = "".join(str(unicodedata.decimal(character)) for character in recipient if character.isdecimal())
    if len(digits) < _FEWEST_DIGITS:
        return HIDDEN
    plus = "+" if recipient.lstrip(" (").startswith("+") else ""
    country_code = _COUNTRY_CODE.match(plus + digits) if len(digits) >= _DIGITS_BESIDE_COUNTRY_CODE else None
    return f"{country_code[0] if country_code else ''}{HIDDEN}{digits[-4:]}"


def safe_text(text: str, *, private: tuple[str, ...] = (), limit: int = 200) -> str:
    """Return somebody else's text (a server's answer, an error of a library) fit for a log line.

    Control characters become spaces, phone numbers and e-mail addresses are masked, whatever repeats a part of
    ``private`` is taken out, and the rest is cut to ``limit`` characters.

    :param text: the text as it came.
    :param private: texts of ours that may have been echoed: recipient, message, subject.
    :param limit: characters, at least 1.
    """
    text = _printable(text[: limit * 10])
    for ours in private:
        text = _without_echoes(text, _printable(ours))
    text = _ADDRESS.sub(lambda match: mask_recipient(match[0]), text)
    text = _NUMBER.sub(lambda match: mask_recipient(match[0]), text)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _printable(text: str) -> str:
    shown = (" " if unicodedata.category(character)[0] in "CZ" else character for character in text)
    return " ".join("".join(shown).split())


def _without_echoes(text: str, private: str) -> str:
    folded, private = _folded(text), _folded(private)
    echo = min(len(private), _ECHO)
    if echo < _SHORTEST_PRIVATE:
        return text
    hidden = [False] * len(text)
    for start in range(len(text) - echo + 1):
        if folded[start : start + echo] in private:
            hidden[start : start + echo] = [True] * echo
    return re.sub("\0+", HIDDEN, "".join("\0" if hide else char for char, hide in zip(text, hidden, strict=True)))


def _folded(text: str) -> str:
    """Fold case and keep the length, so that positions still match."""
    forms = ((character.casefold(), character.lower(), character) for character in text)
    return "".join(next(form for form in alternatives if len(form) == 1) for alternatives in forms)
