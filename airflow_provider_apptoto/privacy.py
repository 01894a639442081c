"""Masking: what may be shown of a recipient, of a text of ours, and of one that somebody else wrote.

Imports nothing of Airflow, so that the client can use it anywhere.
"""

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
_DIGITS_BESIDE_COUNTRY_CODE = 10
"""Of a shorter number, country code and last four digits would leave too little hidden."""
_COUNTRY_CODE = re.compile(r"\+(?:1|7|2[07]|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]|\d{3})")
_ECHO = 8
"""Characters in a row that a server's text and a part of ours must share to count as an echo."""
_MAX_ENCODINGS = 3
"""That are undone, one after the other."""
_MIN_PRIVATE = 4
"""A shorter text of ours would stand in many a word."""

_CREDENTIALS = re.compile(r"\b(basic|bearer)\s+[^\s\"'<>,;]+", re.IGNORECASE)
_AUTHORIZATION = re.compile(r"(authorization\W+)[^\s\"'<>,;]+(?:\s+[^\s\"'<>,;]+)?", re.IGNORECASE)
_ESCAPED = re.compile(r"\\u([0-9a-f]{4})", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{11,}={0,2}")
_WORD = re.compile(r"[^\W\d_]{3,}|[^\W\d_\0-\u02ff]{2,}")  # of Chinese, two signs are a name
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
"""Words of errors: they tell nothing of a person, and stand in many a text of ours."""

MAX_LINE = 200
"""Characters of a reference, a note, a name."""
MASK = "•••"
AIRFLOW_MASK = "***"
"""What Airflow shows in the place of a value that is hidden."""


class Redacted:
    """A value that shows itself to nobody: not in logs, rendered fields, XComs or errors.

    Airflow stores a task's fields as they are between rendering and execution; this stands in them meanwhile. It is no
    string, so that it can't be sent by mistake, and never holds another ``Redacted``: fields may be rendered twice.

    :param value: what to hide.
    :param shown: what to show in its place.
    """

    __slots__ = ("_shown", "_value")

    def __init__(self, value: object, shown: str = AIRFLOW_MASK) -> None:
        self._value = unwrap(value)
        self._shown = shown

    def __repr__(self) -> str:
        """Show stars, or what is shown in their place.

        :raises HiddenValueError: while a text is rendered: stars would be sent in the place of the value.
        """
        if rendering.get():
            raise HiddenValueError
        return self._shown

    def serialize(self) -> str:
        """Show the same to whatever Airflow stores."""
        return self._shown


class Unrendered(Redacted):
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


def unwrap(value: Any) -> Any:
    """Return what a ``Redacted`` hides, and any other value as it is; an ``Unrendered`` is never revealed."""
    return value._value if type(value) is Redacted else value  # noqa: SLF001  nothing else may look inside


def remove_frames(error: BaseException) -> None:
    """Remove the traceback of an error, and of the errors that led to it: log handlers may show variables of frames.

    An error that a later one suppresses is removed altogether, because its text may hold values. An error of another
    package keeps the lines of code that led to it, as a note.

    The bare ``raise`` that follows adds the frames of the callers, not its own.
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
    """Return what may be shown of a phone number or an e-mail address.

    ``+16505550199`` becomes ``+1•••0199``, ``mary@clinic.example`` becomes ``m•••@•••.example``. Of anything
    else nothing is shown.

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
    country_code = _COUNTRY_CODE.match(plus + digits) if len(digits) >= _DIGITS_BESIDE_COUNTRY_CODE else None
    return f"{country_code[0] if country_code else ''}{MASK}{digits[-4:]}"


def safe_text(text: str, *, private: tuple[str, ...] = (), limit: int = 200) -> str:
    """Return somebody else's text (a server's answer, an error of a library) fit for a log line.

    Control characters become spaces. Credentials, phone numbers and e-mail addresses are masked. What repeats a part of
    ``private`` is taken out, also percent-encoded, escaped for JSON or HTML, in base64, or as single words. The rest is
    cut to ``limit`` characters.

    :param text: the text as it came.
    :param private: texts of ours that may have been echoed: recipient, message, subject.
    :param limit: characters, at least 1.
    """
    text = printable(_decoded(text[: limit * 10]))
    text = _AUTHORIZATION.sub(rf"\1{MASK}", _CREDENTIALS.sub(rf"\1 {MASK}", text))
    for ours in private:
        text = _without_echoes(text, printable(ours))
    text = _ADDRESS.sub(lambda match: mask_recipient(match[0]), text)
    text = _NUMBER.sub(lambda match: mask_recipient(match[0]), text)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _decoded(text: str) -> str:
    """Undo what a server may have done to an echo of ours."""
    for _ in range(_MAX_ENCODINGS):
        before = text
        text = html.unescape(urllib.parse.unquote(text))
        text = _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text)
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "ignore")  # two escapes may make a character
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
    """Tell whether a text is one printable line that is not too long: a name that people gave to something."""
    return bool(text.strip()) and len(text) <= MAX_LINE and text.isprintable()


def printable(text: str) -> str:
    """Return a text on one line, without what a terminal or an editor obeys."""
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
    """Hide a number of ours whatever stands between its digits."""
    ours = "".join(character for character in private if character.isdecimal())
    places = [place for place, character in enumerate(text) if character.isdecimal()]
    digits = "".join(text[place] for place in places)
    for start in range(len(digits) - _MIN_DIGITS + 1):
        if digits[start : start + _MIN_DIGITS] in ours:
            for place in places[start : start + _MIN_DIGITS]:
                hidden[place] = True


def _folded(text: str) -> str:
    """Fold case and keep the length, so that positions still match."""
    forms = ((character.casefold(), character.lower(), character) for character in text)
    return "".join(next(form for form in alternatives if len(form) == 1) for alternatives in forms)
