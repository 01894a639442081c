"""Masking: what may be shown of a recipient, and of a text that somebody else wrote.

Imports nothing of Airflow, so that the client can use it anywhere.
"""

from __future__ import annotations

import re
import unicodedata

_ADDRESS = re.compile(r"[^\s@<>\"'(),;:]+@[^\s@<>\"'(),;]+")
_NUMBER = re.compile(r"\+?\d(?:[\s().\-/]*\d){6,}")
_COUNTRY_CODE = re.compile(r"\+(?:1|7|2[07]|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]|\d{3})")
_ECHO = 8
"""Characters in a row that a server's text and a part of ours must share to count as an echo."""
_SHORTEST_PRIVATE = 4
"""A shorter text of ours would stand in many a word."""

HIDDEN = "•••"


def mask_recipient(recipient: str) -> str:
    """Return what may be shown of a phone number or an e-mail address.

    ``+16505550199`` becomes ``+1•••0199``, ``mary@clinic.example`` becomes ``m•••@•••.example``. Of anything
    else nothing is shown.

    :param recipient: a phone number or an e-mail address, valid or not.
    """
    if "@" in recipient:
        mailbox, _, domain = recipient.strip().rpartition("@")
        _, dot, top_level = domain.rpartition(".")
        return f"{mailbox[:1]}{HIDDEN}@{HIDDEN}{dot}{top_level if dot else ''}"
    number = re.sub(r"[^\d+]", "", recipient)
    if _NUMBER.fullmatch(number) is None:
        return HIDDEN
    country_code = _COUNTRY_CODE.match(number)
    return f"{country_code[0] if country_code else ''}{HIDDEN}{number[-4:]}"


def safe_text(text: str, *, private: tuple[str, ...] = (), limit: int = 200) -> str:
    """Return somebody else's text (a server's answer, an error of a library) fit for a log line.

    Control characters become spaces, phone numbers and e-mail addresses are masked, whatever repeats a part of
    ``private`` is taken out, and the rest is cut to ``limit`` characters.

    :param text: the text as it came.
    :param private: texts of ours that may have been echoed: recipient, message, subject.
    :param limit: characters, at least 1.
    """
    text = text[: limit * 10]
    text = "".join(" " if unicodedata.category(character)[0] in "CZ" else character for character in text)
    text = " ".join(text.split())
    for ours in private:
        text = _without_echoes(text, " ".join(ours.split()))
    text = _ADDRESS.sub(lambda match: mask_recipient(match[0]), text)
    text = _NUMBER.sub(lambda match: mask_recipient(match[0]), text)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _without_echoes(text: str, private: str) -> str:
    folded, private = _lower(text), _lower(private)
    echo = min(len(private), _ECHO)
    if echo < _SHORTEST_PRIVATE:
        return text
    hidden = [False] * len(text)
    for start in range(len(text) - echo + 1):
        if folded[start : start + echo] in private:
            hidden[start : start + echo] = [True] * echo
    return re.sub("\0+", HIDDEN, "".join("\0" if hide else char for char, hide in zip(text, hidden, strict=True)))


def _lower(text: str) -> str:
    """Lower a text and keep its length, so that positions still match."""
    return "".join(lowered if len(lowered := character.lower()) == 1 else character for character in text)
