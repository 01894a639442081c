"""How many SMS a text is likely to be sent as."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# 3GPP TS 23.038, 6.2.1, by code. At 0x1B is the escape to the extension table (6.2.1.1), which is no character.
_BASIC = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ"
    " !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§"
    "¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_EXTENSION = frozenset("\f^{}\\[~]|€")
_GSM_7 = _BASIC | _EXTENSION
_END_OF_BMP = "\uffff"

# 140 octets, less 6 in every part of several (3GPP TS 23.040, 9.2.3.24.1).
_MAX_SEPTETS, _MAX_SEPTETS_IN_A_PART = 160, 153
_MAX_UTF_16_UNITS, _MAX_UTF_16_UNITS_IN_A_PART = 70, 67


@dataclass(frozen=True, slots=True)
class Segments:
    """An estimate of what a text takes as SMS; as a string fit for a log, like ``2 segments (UCS-2)``.

    :param encoding: ``GSM-7``, or ``UCS-2`` where one character of the text is outside GSM-7.
    :param units: length of the text: septets in GSM-7, UTF-16 code units in UCS-2.
    :param parts: SMS, at least 1.
    """

    encoding: Literal["GSM-7", "UCS-2"]
    units: int
    parts: int

    def __str__(self) -> str:
        return f"{self.parts} segment{'' if self.parts == 1 else 's'} ({self.encoding})"


def estimate_segments(text: str) -> Segments:
    """Estimate how many SMS a text is sent as, by the standard: 3GPP TS 23.038 (alphabet) and TS 23.040 (parts).

    It is an estimate. How Apptoto or a carrier encodes, splits and charges is not documented; that Apptoto charges by
    parts at all is not confirmed. Liquid counts as it is written: what Apptoto puts in its place is not known here.

    :param text: as it is sent, line endings included (LF is one unit, CR LF two). The empty text is one part of
        0 units in GSM-7, as Twilio's calculator has it.
    """
    # What takes two units may not be split over parts: an escaped character (TS 23.040), a surrogate pair.
    if _GSM_7.issuperset(text):
        widths = [2 if character in _EXTENSION else 1 for character in text]
        units = sum(widths)
        return Segments("GSM-7", units, _parts(widths, units, _MAX_SEPTETS, _MAX_SEPTETS_IN_A_PART))
    widths = [2 if character > _END_OF_BMP else 1 for character in text]
    units = sum(widths)
    return Segments("UCS-2", units, _parts(widths, units, _MAX_UTF_16_UNITS, _MAX_UTF_16_UNITS_IN_A_PART))


def _parts(widths: list[int], units: int, most: int, most_in_a_part: int) -> int:
    if units <= most:
        return 1
    parts, room = 1, most_in_a_part
    for width in widths:
        if width > room:
            parts, room = parts + 1, most_in_a_part
        room -= width
    return parts
