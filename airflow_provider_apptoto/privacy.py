"""Mask recipients, redact values, and make foreign texts safe to log. Does not import Airflow."""

from __future__ import annotations

import base64
import html
import re
import traceback
import unicodedata
import urllib.parse
from contextvars import ContextVar
from typing import Any

_ADDRESS = re.compile(r"[^\s@<>\"'(),;:]+@[^\s@<>\"'(),:;]+")
_TOP_LEVEL = re.compile(r"[\w.•-]*(\.[a-z][a-z0-9-]{1,23})", re.IGNORECASE)
_NUMBER = re.compile(r"\+?\d(?:(?:[^\w:+]|_)*\d){6,}")
_MIN_DIGITS = 7
_MIN_DIGITS_WITH_COUNTRY_CODE = 10
"""In a shorter number, showing the country code and the last four digits would hide too little."""
_COUNTRY_CODE = re.compile(r"\+(?:1|7|2[07]|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]|\d{3})")
_ECHO = 8
"""Number of consecutive characters of a private text that count as an echo."""
_MAX_ENCODINGS = 3
"""Number of nested encodings that are decoded."""
_MIN_PRIVATE = 4
"""A shorter private text would match parts of ordinary words."""

_CREDENTIALS = re.compile(r"\b(basic|bearer)\s+[^\s\"'<>,;]+", re.IGNORECASE)
_AUTHORIZATION = re.compile(r"(authorization\W+)[^\s\"'<>,;]+(?:\s+[^\s\"'<>,;]+)?", re.IGNORECASE)
_ESCAPED = re.compile(r"\\u([0-9a-f]{4})", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{11,}={0,2}")
_WORD = re.compile(r"[^\W\d_]{3,}|[^\W\d_\0-\u02ff]{2,}")  # in Chinese, two characters can be a name
_PLAIN_WORDS = """
about accepted account address allowed already also and any apptoto are available bad because been blank but call can
cannot characters check contact contain could credit credits default delivered disabled does email empty error event
exceeded exist expected failed field for format found from had has have his her http https invalid into json key known
left length limit long longer longest mail maximum message missing more must name none not number one only opted out
participant permission phone please present provided received recipient refused rejected request required see send
sending sent server service should short sms some status subject success such support supported template text than that
the their them then there they this too try type unknown unsupported until use used user valid value was were when which
will with would you your
"""
_COMMON = frozenset(_PLAIN_WORDS.split())
"""Words that are common in errors and in private texts, and not personal."""

MAX_LINE = 200
"""Maximum characters of a reference, a note or a name."""
MASK = "•••"
AIRFLOW_MASK = "***"
"""Airflow's mask for a hidden value."""


class Redacted:
    """A value that is not shown in logs, rendered fields, XComs or errors.

    Airflow stores the fields of a task between rendering and execution, so they contain this object then. It is not a
    string, so it can't be sent by mistake. It never wraps another ``Redacted``, because fields may be rendered twice.

    :param value: the hidden value.
    :param shown: the text to show instead.
    """

    __slots__ = ("_shown", "_value")

    def __init__(self, value: object, shown: str = AIRFLOW_MASK) -> None:
        self._value = unwrap(value)
        self._shown = shown

    def __repr__(self) -> str:
        """Return the text to show instead of the value.

        :raises HiddenValueError: while a text is rendered, because the mask would be sent.
        """
        if rendering.get():
            raise HiddenValueError
        return self._shown

    def serialize(self) -> str:
        """Return the same text for Airflow's serialization."""
        return self._shown


class Unrendered(Redacted):
    """A hidden template, which must be rendered before it is sent."""

    __slots__ = ()

    @property
    def template(self) -> Any:
        """The template."""
        return self._value


class HiddenValueError(Exception):
    """A hidden value was about to become text."""


rendering: ContextVar[bool] = ContextVar("apptoto_rendering", default=False)
"""Whether a text is being rendered."""


def unwrap(value: Any) -> Any:
    """Return the value of a ``Redacted``, and any other value (also an ``Unrendered``) unchanged."""
    return value._value if type(value) is Redacted else value  # noqa: SLF001  the only access to it


def remove_frames(error: BaseException) -> None:
    """Remove the tracebacks of an error and its causes, because log handlers may print local variables.

    A suppressed context is removed too, because its text may contain values. An error from another package keeps its
    lines of code as a note.

    Follow it with a bare ``raise``, which adds only the frames of the callers.
    """
    if not type(error).__module__.startswith(f"{__package__}.") and error.__traceback__ is not None:
        error.add_note("".join(["Raised by:\n", *traceback.format_tb(error.__traceback__)]).rstrip())
    chain: list[BaseException] = []
    each: BaseException | None = error
    while each is not None and each not in chain:
        chain.append(each)
        each.__traceback__ = None
        if each.__suppress_context__:
            each.__context__ = each.__cause__
        each = each.__context__


def mask_recipient(recipient: str) -> str:
    """Mask a phone number or an e-mail address.

    ``+16505550199`` becomes ``+1•••0199``, ``mary@clinic.example`` becomes ``m•••@•••.example``. Anything else is
    masked completely.

    :param recipient: a phone number or an e-mail address, valid or not.
    """
    if "@" in recipient:
        mailbox, _, domain = recipient.strip().rpartition("@")
        top_level = _TOP_LEVEL.fullmatch(domain)
        return f"{mailbox[0] if mailbox[:1].isalnum() else ''}{MASK}@{MASK}{top_level[1] if top_level else ''}"
    digits = "".join(str(unicodedata.decimal(character)) for character in recipient if character.isdecimal())
    if len(digits) < _MIN_DIGITS:
        return MASK
    plus = "+" if recipient.lstrip(" (").startswith("+") else ""
    country_code = _COUNTRY_CODE.match(plus + digits) if len(digits) >= _MIN_DIGITS_WITH_COUNTRY_CODE else None
    return f"{country_code[0] if country_code else ''}{MASK}{digits[-4:]}"


def safe_text(text: str, *, private: tuple[str, ...] = (), limit: int = 200) -> str:
    """Make a foreign text (a server's answer, an error of a library) safe for a log line.

    Control characters become spaces. Credentials, phone numbers and e-mail addresses are masked. Echoes of ``private``
    are masked too: percent-encoded, escaped for JSON or HTML, in base64, or as single words. The result is truncated to
    ``limit`` characters.

    :param text: the original text.
    :param private: texts that may have been echoed: recipient, message, subject.
    :param limit: maximum number of characters, at least 1.
    """
    text = printable(_decoded(text[: limit * 10]))
    text = _AUTHORIZATION.sub(rf"\1{MASK}", _CREDENTIALS.sub(rf"\1 {MASK}", text))
    for ours in private:
        text = _without_echoes(text, printable(ours))
    text = _ADDRESS.sub(lambda match: mask_recipient(match[0]), text)
    text = _NUMBER.sub(lambda match: mask_recipient(match[0]), text)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _decoded(text: str) -> str:
    """Decode what a server may have encoded in an echo."""
    for _ in range(_MAX_ENCODINGS):
        before = text
        text = html.unescape(urllib.parse.unquote(text))
        text = _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text)
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "ignore")  # two escapes may form one character
        text = _BASE64.sub(lambda match: MASK if _is_text(match[0]) else match[0], text)
        if text == before:
            break
    return text


def _is_text(encoded: str) -> bool:
    padded = encoded.rstrip("=") + "=" * (-len(encoded.rstrip("=")) % 4)
    try:
        return base64.urlsafe_b64decode(padded.translate({ord("+"): "-", ord("/"): "_"})).decode().isprintable()
    except ValueError:
        return False


def is_one_line(text: str) -> bool:
    """Return whether a text is one printable line of at most ``MAX_LINE`` characters."""
    return bool(text.strip()) and len(text) <= MAX_LINE and text.isprintable()


def printable(text: str) -> str:
    """Return a text on one line, without control characters."""
    shown = (" " if unicodedata.category(character)[0] in "CZ" else character for character in text)
    return " ".join("".join(shown).split())


def _without_echoes(text: str, private: str) -> str:
    folded, private = _folded(text), _folded(private)
    echo = min(len(private), _ECHO)
    hidden = [False] * len(text)
    words = set(_WORD.findall(private)) - _COMMON
    for match in _WORD.finditer(folded):
        if match[0] in words:
            hidden[match.start() : match.end()] = [True] * len(match[0])
    _hide_digits(text, private, hidden)
    if echo < _MIN_PRIVATE:
        echo = len(text) + 1
    for start in range(len(text) - echo + 1):
        if folded[start : start + echo] in private:
            hidden[start : start + echo] = [True] * echo
    return re.sub("\0+", MASK, "".join("\0" if hide else char for char, hide in zip(text, hidden, strict=True)))


def _hide_digits(text: str, private: str, hidden: list[bool]) -> None:
    """Hide echoes of a private number, whatever separates its digits."""
    ours = "".join(character for character in private if character.isdecimal())
    places = [place for place, character in enumerate(text) if character.isdecimal()]
    digits = "".join(text[place] for place in places)
    for start in range(len(digits) - _MIN_DIGITS + 1):
        if digits[start : start + _MIN_DIGITS] in ours:
            for place in places[start : start + _MIN_DIGITS]:
                hidden[place] = True


def _folded(text: str) -> str:
    """Fold case without changing the length, so that positions still match."""
    forms = ((character.casefold(), character.lower(), character) for character in text)
    return "".join(next(form for form in alternatives if len(form) == 1) for alternatives in forms)
