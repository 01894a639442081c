"""The number of SMS segments is estimated by the alphabet of 3GPP TS 23.038 and the parts of TS 23.040."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_apptoto.client.segments import (
    Segments,
    estimate_in_gsm_7,
    estimate_segments,
    non_gsm_7_characters,
    split_segments,
)

ESCAPE = None
# As TS 23.038 prints it in 6.2.1: bits 7 to 5 of the code across, bits 4 to 1 down.
TABLE: list[list[str | None]] = [
    ["@", "Δ", " ", "0", "¡", "P", "¿", "p"],
    ["£", "_", "!", "1", "A", "Q", "a", "q"],
    ["$", "Φ", '"', "2", "B", "R", "b", "r"],
    ["¥", "Γ", "#", "3", "C", "S", "c", "s"],
    ["è", "Λ", "¤", "4", "D", "T", "d", "t"],
    ["é", "Ω", "%", "5", "E", "U", "e", "u"],
    ["ù", "Π", "&", "6", "F", "V", "f", "v"],
    ["ì", "Ψ", "'", "7", "G", "W", "g", "w"],
    ["ò", "Σ", "(", "8", "H", "X", "h", "x"],
    ["Ç", "Θ", ")", "9", "I", "Y", "i", "y"],
    ["\n", "Ξ", "*", ":", "J", "Z", "j", "z"],
    ["Ø", ESCAPE, "+", ";", "K", "Ä", "k", "ä"],
    ["ø", "Æ", ",", "<", "L", "Ö", "l", "ö"],
    ["\r", "æ", "-", "=", "M", "Ñ", "m", "ñ"],
    ["Å", "ß", ".", ">", "N", "Ü", "n", "ü"],
    ["å", "É", "/", "?", "O", "§", "o", "à"],
]
# Twilio's, by code point (github.com/TwilioDevEd/message-segment-calculator, src/libs/UnicodeToGSM.ts).
TWILIO = [
    *(0x0A, 0x0D, *range(0x20, 0x5B), 0x5F, *range(0x61, 0x7B)),
    *(0xA1, 0xA3, 0xA4, 0xA5, 0xA7, 0xBF, 0xC4, 0xC5, 0xC6, 0xC7, 0xC9, 0xD1, 0xD6, 0xD8, 0xDC, 0xDF),
    *(0xE0, 0xE4, 0xE5, 0xE6, 0xE8, 0xE9, 0xEC, 0xF1, 0xF2, 0xF6, 0xF8, 0xF9, 0xFC),
    *(0x393, 0x394, 0x398, 0x39B, 0x39E, 0x3A0, 0x3A3, 0x3A6, 0x3A8, 0x3A9),
]
TWILIO_ESCAPED = [0x0C, 0x5B, 0x5C, 0x5D, 0x5E, 0x7B, 0x7C, 0x7D, 0x7E, 0x20AC]

BASIC = [character for row in TABLE for character in row if character is not ESCAPE]
ESCAPED = ["\f", "^", "{", "}", "\\", "[", "~", "]", "|", "€"]
EMOJI = "😜"
FAMILY = "👨\u200d👩\u200d👧\u200d👦"


# --- the alphabet


def test_the_two_published_tables_are_the_same() -> None:
    assert sorted(map(ord, BASIC)) == sorted(TWILIO)
    assert sorted(map(ord, ESCAPED)) == TWILIO_ESCAPED
    assert len(BASIC) == len(set(BASIC)) == 127


@pytest.mark.parametrize("character", BASIC)
def test_a_character_of_the_default_alphabet_is_one_septet(character: str) -> None:
    assert estimate_segments(character) == Segments("GSM-7", 1, 1)


@pytest.mark.parametrize("character", ESCAPED)
def test_a_character_of_the_extension_table_is_two_septets(character: str) -> None:
    assert estimate_segments(character) == Segments("GSM-7", 2, 1)


def test_every_other_character_turns_the_whole_text_into_ucs_2() -> None:
    codes = [*range(0x10000), *range(0x10000, sys.maxunicode, 0xFFF), sys.maxunicode]
    others = [character for character in map(chr, codes) if character not in BASIC + ESCAPED]
    wrong = [c for c in others if estimate_segments(f"{{{c}") != Segments("UCS-2", 3 if ord(c) > 0xFFFF else 2, 1)]
    assert wrong == []


@pytest.mark.parametrize(
    ("text", "encoding", "units"),
    [
        ("We'll call you", "GSM-7", 14),
        ("We\u2019ll call you", "UCS-2", 14),
        ("GARÇON", "GSM-7", 6),
        ("garçon", "UCS-2", 6),
        ("é", "GSM-7", 1),
        ("e\u0301", "UCS-2", 2),
        ("a\nb", "GSM-7", 3),
        ("a\r\nb", "GSM-7", 4),
        ("a\tb", "UCS-2", 3),
        ("a\u00a0b", "UCS-2", 3),
        ("`", "UCS-2", 1),
        ("€\u2019", "UCS-2", 2),
        ("Hi {{ name }}", "GSM-7", 17),
        ("ж\r\n", "UCS-2", 3),
        (EMOJI, "UCS-2", 2),
        ("\U0001f1fa\U0001f1f8", "UCS-2", 4),
        (FAMILY, "UCS-2", 11),
        # smsutil has it as GSM-7, but as a septet it would make another character of the one that follows
        ("\x1be", "UCS-2", 2),
        # half a character, which can't be sent: it is for the message's own check to say so
        ("\ud83d", "UCS-2", 1),
    ],
)
def test_units_are_septets_or_utf_16_code_units(text: str, encoding: str, units: int) -> None:
    assert dataclasses.astuple(estimate_segments(text)) == (encoding, units, 1)


def test_an_empty_text_is_one_part_without_units() -> None:
    # one part in Twilio's calculator and in smsutil; GSM-7 in Twilio's alone
    assert estimate_segments("") == Segments("GSM-7", 0, 1)


# --- the parts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # tests/index.test.js and tests/segments.test.js of Twilio's calculator
        ("{" + "2" * 158, Segments("GSM-7", 160, 1)),
        ("{" + "2" * 159, Segments("GSM-7", 161, 2)),
        (EMOJI + "2" * 68, Segments("UCS-2", 70, 1)),
        (EMOJI + "2" * 69, Segments("UCS-2", 71, 2)),
        ("1" * 307, Segments("GSM-7", 307, 3)),
        (EMOJI + "2" * 133, Segments("UCS-2", 135, 3)),
        # developers.telnyx.com/docs/messaging/messages/message-encoding
        ("a" * 100, Segments("GSM-7", 100, 1)),
        ("a" * 160, Segments("GSM-7", 160, 1)),
        ("a" * 161, Segments("GSM-7", 161, 2)),
        ("a" * 306, Segments("GSM-7", 306, 2)),
        ("a" * 1530, Segments("GSM-7", 1530, 10)),
    ],
)
def test_the_parts_are_those_that_providers_publish(text: str, expected: Segments) -> None:
    assert estimate_segments(text) == expected


# All of these as smsutil 1.1.3 has them.
@pytest.mark.parametrize(
    ("text", "units", "parts"),
    [
        ("a" * 459, 459, 3),
        ("a" * 460, 460, 4),
        ("€" * 80, 160, 1),
        ("€" * 81, 162, 2),
        ("a" * 158 + "€", 160, 1),
        ("a" * 159 + "€", 161, 2),
        # the escape would be the last septet of the first part, so that part ends one before
        ("a" * 152 + "€" + "a" * 151, 305, 2),
        ("a" * 152 + "€" + "a" * 152, 306, 3),
        ("a" * 151 + "€" + "a" * 153, 306, 2),
        ("a" * 153 + "€" + "a" * 151, 306, 2),
        ("€" * 152, 304, 2),
        ("€" * 153, 306, 3),
        # 152 parts would hold as many septets; one left over in each makes 153
        ("€" * 76 * 153, 23256, 153),
        ("€" * 76 * 153 + "€", 23258, 154),
    ],
)
def test_an_escaped_character_is_not_split_over_parts(text: str, units: int, parts: int) -> None:
    assert estimate_segments(text) == Segments("GSM-7", units, parts)


# All of these as smsutil 1.1.3 has them.
@pytest.mark.parametrize(
    ("text", "units", "parts"),
    [
        ("ж" * 70, 70, 1),
        ("ж" * 71, 71, 2),
        ("ж" * 134, 134, 2),
        ("ж" * 135, 135, 3),
        ("ж" * 201, 201, 3),
        ("ж" * 202, 202, 4),
        ("a" * 69 + "\u2019", 70, 1),
        ("a" * 70 + "\u2019", 71, 2),
        ("€" * 69 + "\u2019", 70, 1),
        (EMOJI * 35, 70, 1),
        (EMOJI * 36, 72, 2),
        # the pair would begin with the last unit of the first part, so that part ends one before
        ("ж" * 66 + EMOJI + "ж" * 65, 133, 2),
        ("ж" * 66 + EMOJI + "ж" * 66, 134, 3),
        ("ж" * 65 + EMOJI + "ж" * 67, 134, 2),
        ("ж" * 67 + EMOJI + "ж" * 65, 134, 2),
        (EMOJI * 66, 132, 2),
        (EMOJI * 67, 134, 3),
        # one character to the eye, but only its surrogate pairs stay whole
        (FAMILY * 12, 132, 2),
        (FAMILY * 13, 143, 3),
    ],
)
def test_a_surrogate_pair_is_not_split_over_parts(text: str, units: int, parts: int) -> None:
    assert estimate_segments(text) == Segments("UCS-2", units, parts)


def runs_of(characters: str) -> st.SearchStrategy[str]:
    """Texts of some parts: characters one by one, and runs of them up to and over the ends of parts."""
    lengths = st.integers(1, 4) | st.integers(60, 80) | st.integers(145, 165)
    runs = st.builds(lambda character, length: character * length, st.sampled_from(characters), lengths)
    return st.lists(runs, max_size=8).map("".join)


SEPTETS = runs_of("aÇ\n\r€{\f")
TEXTS = SEPTETS | runs_of("aж\r\n€\u2019" + EMOJI) | st.text()


@given(text=TEXTS)
def test_parts_are_as_few_as_the_units_allow_with_at_most_one_left_over_in_each(text: str) -> None:
    estimate = estimate_segments(text)
    most, in_a_part = (160, 153) if estimate.encoding == "GSM-7" else (70, 67)
    if estimate.units <= most:
        assert estimate.parts == 1
    else:
        fewest, largest = math.ceil(estimate.units / in_a_part), math.ceil(estimate.units / (in_a_part - 1))
        assert max(fewest, 2) <= estimate.parts <= largest


@given(text=SEPTETS)
def test_gsm_7_parts_are_those_that_come_of_cutting_the_septets(text: str) -> None:
    escape = "\x1b"
    septets = "".join(escape + c if c in ESCAPED else c for c in text)
    cuts = [0]
    while cuts[-1] < len(septets):
        end = min(cuts[-1] + 153, len(septets))
        cuts.append(end - 1 if septets[end - 1] == escape else end)
    parts = 1 if len(septets) <= 160 else len(cuts) - 1
    assert estimate_segments(text) == Segments("GSM-7", len(septets), parts)


@given(text=TEXTS.map(lambda text: "ж" + text))
def test_ucs_2_parts_are_those_that_come_of_cutting_utf_16(text: str) -> None:
    octets = text.encode("utf-16-be")
    cuts = [0]
    while cuts[-1] < len(octets):
        end = min(cuts[-1] + 134, len(octets))
        cuts.append(end - 2 if 0xD8 <= octets[end - 2] < 0xDC else end)
    parts = 1 if len(octets) <= 140 else len(cuts) - 1
    assert estimate_segments(text) == Segments("UCS-2", len(octets) // 2, parts)


@given(text=TEXTS, character=st.sampled_from("a€\u2019" + EMOJI) | st.characters(), share=st.floats(0, 1))
@example(text="€" * 152, character="\u2019", share=1)
def test_another_character_anywhere_never_lowers_the_parts_nor_the_units_of_the_same_encoding(
    text: str, character: str, share: float
) -> None:
    place = round(share * len(text))
    before, after = estimate_segments(text), estimate_segments(text[:place] + character + text[place:])
    assert after.parts >= before.parts
    if after.encoding == before.encoding:
        assert after.units > before.units
    else:
        # so the septets of escaped characters may become fewer UTF-16 units
        assert (before.encoding, after.encoding) == ("GSM-7", "UCS-2")


# --- the characters that make a text UCS-2


def test_the_characters_outside_gsm_7_are_those_without_which_a_text_is_gsm_7() -> None:
    text = "".join(BASIC + ESCAPED) + "á\u2019á" + EMOJI
    assert non_gsm_7_characters(text) == {"á", "\u2019", EMOJI}
    assert non_gsm_7_characters("Hi {€}") == set()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("á" * 160, Segments("GSM-7", 160, 1)),
        ("á" + "a" * 160, Segments("GSM-7", 161, 2)),
        (EMOJI + "€" * 79, Segments("GSM-7", 159, 1)),
        ("abc", Segments("GSM-7", 3, 1)),
    ],
)
def test_in_gsm_7_each_other_character_takes_one_septet(text: str, expected: Segments) -> None:
    assert estimate_in_gsm_7(text) == expected


@given(text=TEXTS)
def test_gsm_7_never_takes_more_parts(text: str) -> None:
    assert estimate_in_gsm_7(text).parts <= estimate_segments(text).parts


# --- what it is as a value


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Hi", "1 segment (GSM-7)"),
        ("", "1 segment (GSM-7)"),
        ("a" * 161, "2 segments (GSM-7)"),
        ("Hi \u2019", "1 segment (UCS-2)"),
        ("ж" * 95, "2 segments (UCS-2)"),
    ],
)
def test_an_estimate_is_shown_in_a_form_for_a_log(text: str, shown: str) -> None:
    assert str(estimate_segments(text)) == shown


def test_an_estimate_is_a_value_that_holds_nothing_of_the_text() -> None:
    estimate = estimate_segments("Your results are in")
    assert repr(estimate) == "Segments(encoding='GSM-7', units=19, parts=1)"
    assert not hasattr(estimate, "__dict__")
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(estimate, "parts", 2)  # noqa: B010  # as code without types would
    for copied in (copy.deepcopy(estimate), pickle.loads(pickle.dumps(estimate))):  # noqa: S301  # its own pickle
        assert copied == estimate
        assert hash(copied) == hash(estimate)


@pytest.mark.parametrize(
    "text",
    ["", "x" * 160, "x" * 161, "x" * 152 + "€" * 80, "é" * 70, "ł" * 135, "ł" * 66 + "👋" * 80, "line\n" * 100],
    ids=["empty", "one", "two", "escaped at the seam", "basic", "three", "pair at the seam", "lines"],
)
def test_a_text_is_split_into_as_many_parts_as_are_counted(text: str) -> None:
    parts = split_segments(text)

    assert "".join(parts) == text
    assert len(parts) == estimate_segments(text).parts
    encoding = estimate_segments(text).encoding
    most = 153 if encoding == "GSM-7" else 67
    if len(parts) > 1:
        units = [estimate_segments(part + ("" if encoding == "GSM-7" else "ł")).units for part in parts]
        assert all(each <= most + (encoding == "UCS-2") for each in units)
