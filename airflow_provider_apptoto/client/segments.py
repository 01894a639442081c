"""Estimate the SMS segments of a text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# 3GPP TS 23.038, 6.2.1, by code. 0x1B, the escape to the extension table (6.2.1.1), is not a character.
_BASIC = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ"
    " !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§"
    "¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_EXTENSION = frozenset("\f^{}\\[~]|€")
_GSM_7 = _BASIC | _EXTENSION
_END_OF_BMP = "\uffff"

# 140 octets, 6 fewer in each part of a multipart message (3GPP TS 23.040, 9.2.3.24.1).
_MAX_SEPTETS, _MAX_SEPTETS_IN_A_PART = 160, 153
_MAX_UTF_16_UNITS, _MAX_UTF_16_UNITS_IN_A_PART = 70, 67


@dataclass(frozen=True, slots=True)
class Segments:
    """The estimated SMS segments of a text; as a string, e.g. ``2 segments (UCS-2)``.

    :param encoding: ``GSM-7``, or ``UCS-2`` if a character of the text is not in GSM-7.
    :param units: length of the text: septets in GSM-7, UTF-16 code units in UCS-2.
    :param parts: number of segments, at least 1.
    """

    encoding: Literal["GSM-7", "UCS-2"]
    units: int
    parts: int

    def __str__(self) -> str:
        return f"{self.parts} segment{'' if self.parts == 1 else 's'} ({self.encoding})"


def estimate_segments(text: str) -> Segments:
    """Estimate the SMS segments of a text by the standard: 3GPP TS 23.038 (alphabet) and TS 23.040 (parts).

    How Apptoto or a carrier encodes, splits and charges a text is not documented, nor whether Apptoto charges by
    segment at all. Liquid is counted as written, because its output is unknown here.

    :param text: the text as sent, line endings included (LF is one unit, CR LF two). An empty text is one part of
        0 units in GSM-7, as in Twilio's calculator.
    """
    # A character of two units can't be split over two parts: an escaped one (TS 23.040), a surrogate pair.
    if _GSM_7.issuperset(text):
        widths = [2 if character in _EXTENSION else 1 for character in text]
        units = sum(widths)
        return Segments("GSM-7", units, _parts(widths, units, _MAX_SEPTETS, _MAX_SEPTETS_IN_A_PART))
    widths = [2 if character > _END_OF_BMP else 1 for character in text]
    units = sum(widths)
    return Segments("UCS-2", units, _parts(widths, units, _MAX_UTF_16_UNITS, _MAX_UTF_16_UNITS_IN_A_PART))


def split_segments(text: str) -> list[str]:
    """Return the parts of a text, as many as :func:`estimate_segments` counts."""
    estimate = estimate_segments(text)
    if estimate.parts == 1:
        return [text]
    is_gsm_7 = estimate.encoding == "GSM-7"
    most = _MAX_SEPTETS_IN_A_PART if is_gsm_7 else _MAX_UTF_16_UNITS_IN_A_PART
    parts, room = [""], most
    for character in text:
        width = 2 if (character in _EXTENSION if is_gsm_7 else character > _END_OF_BMP) else 1
        if width > room:
            parts.append("")
            room = most
        parts[-1] += character
        room -= width
    return parts


def non_gsm_7_characters(text: str) -> frozenset[str]:
    """Return the characters of a text that are not in GSM-7. One of them is enough to send the whole text in UCS-2."""
    return frozenset(text) - _GSM_7


def estimate_in_gsm_7(text: str) -> Segments:
    """Estimate the segments of a text after each character that is not in GSM-7 is replaced with one that is."""
    return estimate_segments("".join(character if character in _GSM_7 else "?" for character in text))


def _parts(widths: list[int], units: int, max_units: int, max_units_in_a_part: int) -> int:
    if units <= max_units:
        return 1
    parts, room = 1, max_units_in_a_part
    for width in widths:
        if width > room:
            parts, room = parts + 1, max_units_in_a_part
        room -= width
    return parts
