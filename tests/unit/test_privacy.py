"""Recipients and texts are masked wherever they are shown."""

from __future__ import annotations

import base64
import html
import json
import subprocess
import sys
import traceback
import unicodedata
import urllib.parse
from collections.abc import Callable

import phonenumbers
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_apptoto.client import ApptotoError
from airflow_provider_apptoto.privacy import MASK, Redacted, mask_recipient, remove_frames, safe_text, unwrap

# --- recipients


@pytest.mark.parametrize(
    ("recipient", "mask"),
    [
        ("+16505550199", "+1•••0199"),
        ("+1 (650) 555-0199", "+1•••0199"),
        ("  +1.650.555.0199\n", "+1•••0199"),
        ("+442079460958", "+44•••0958"),
        ("+4915228817386", "+49•••7386"),
        ("+79161234567", "+7•••4567"),
        ("+35312345678", "+353•••5678"),
        ("+20212345678", "+20•••5678"),
        ("+211912345678", "+211•••5678"),
        ("+80012345678", "+800•••5678"),
        ("6505550199", "•••0199"),
        ("(650) 555-0199", "•••0199"),
        ("5550199", "•••0199"),
        ("+1 650 555 0199 ext. 7", "+1•••1997"),
        ("1-800-FLOWERS", "•••"),
        ("mary@clinic.example", "m•••@•••.example"),
        (" mary.jones+visit@mail.clinic.example ", "m•••@•••.example"),
        ("m@clinic.example", "m•••@•••.example"),
        ("mary@jones@clinic.example", "m•••@•••.example"),
        ("@clinic.example", "•••@•••.example"),
        ("mary@clinic", "m•••@•••"),
        ("mary@", "m•••@•••"),
    ],
    ids=ascii,
)
def test_a_mask_shows_country_code_and_four_digits_or_one_letter_and_the_top_level(recipient: str, mask: str) -> None:
    assert mask_recipient(recipient) == mask


def test_a_mask_shows_every_country_code_there_is_and_no_digit_more() -> None:
    for code in phonenumbers.COUNTRY_CODE_TO_REGION_CODE:
        assert mask_recipient(f"+{code}5550199123") == f"+{code}•••9123"


@pytest.mark.parametrize(
    "garbage",
    ["", " ", "Mary Jones", "none", "+", "911", "555019", "12 34 56", "+12345", "Your results are in", "\x1b[2J", "•"],
    ids=ascii,
)
def test_of_what_is_no_recipient_nothing_is_shown(garbage: str) -> None:
    assert mask_recipient(garbage) == MASK


@pytest.mark.parametrize(
    "recipient",
    [
        "mary@clinic.example +16505550199",
        "mary@clinic.example?subject=Your results",
        "mary@clinic.example (Mary Jones)",
        "Mary Jones <mary@clinic.example>",
        "mary@clinic.results are in",
        "mary@clinic.example\x1b[2J",
        "\x1bmary@clinic.example",
        "\u200emary@clinic.example",
        "mary@clinic." + "x" * 5000,
    ],
    ids=lambda recipient: ascii(recipient)[:40],
)
def test_of_what_stands_beside_an_address_nothing_is_shown(recipient: str) -> None:
    mask = mask_recipient(recipient)
    assert mask.isprintable()
    assert len(mask) < 80
    for private in ("5550199", "results", "Jones", ">", "[2J"):
        assert private not in mask


@pytest.mark.parametrize("number", ["+6834000", "+2904567", "+29012345", "+99912345"])
def test_the_mask_of_a_short_number_hides_most_of_it(number: str) -> None:
    shown = sum(character.isdigit() for character in mask_recipient(number))
    assert shown <= len(number.lstrip("+")) - 3


@pytest.mark.parametrize("zero", ["\uff10", "\u0660", "\u0966"], ids=ascii)
def test_a_mask_shows_no_more_of_a_number_in_digits_of_another_script(zero: str) -> None:
    number = "+" + "".join(chr(ord(zero) + int(digit)) for digit in "16505550199")
    for mask in (mask_recipient(number), safe_text(f"to {number}: refused")):
        assert sum(character.isdigit() for character in mask) <= 5


def test_a_number_that_stands_for_a_domain_is_not_shown() -> None:
    for mask in (mask_recipient("mary@clinic.6505550199"), mask_recipient("mary@650.555.0199")):
        assert sum(character.isdigit() for character in mask) == 0


@given(st.from_regex(r"\+?[1-9][0-9]{8,14}", fullmatch=True))
def test_a_masked_number_never_shows_more_than_seven_digits_and_hides_at_least_two(number: str) -> None:
    shown = sum(character.isdigit() for character in mask_recipient(number))
    digits = sum(character.isdigit() for character in number)
    assert shown <= 7
    assert digits - shown >= 2


@given(st.emails())
def test_a_masked_address_never_shows_more_than_a_letter_and_the_top_level(address: str) -> None:
    mailbox, _, domain = address.rpartition("@")
    _, _, top_level = domain.rpartition(".")
    first, ending = mask_recipient(address).split("•••@•••")
    assert first in {"", mailbox[0]}
    assert ending in {"", f".{top_level}"}


def test_a_mask_that_is_masked_again_shows_no_more() -> None:
    for recipient in ("+16505550199", "6505550199", "mary@clinic.example"):
        mask = mask_recipient(recipient)
        assert safe_text(f"to {mask}") == f"to {mask}"


# --- other people's texts


def test_a_harmless_text_is_shown_as_it_is() -> None:
    text = 'no credits left (code 12345): see "Billing" <https://clinic.example/a?b=c> \u00fc \u4f60 \U0001f511'
    assert safe_text(text) == text
    assert safe_text("") == ""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb\r\nc\td", "a b c d"),
        ("  a  \n\n  b  ", "a b"),
        ("a\u00a0b\u3000c", "a b c"),
        ("a\u2028b\u2029c\x85d", "a b c d"),
        ("\x1b[31mred\x1b[0m", "[31mred [0m"),
        ("\x1b]0;title\x07end", "]0;title end"),
        ("\x9b2J", "2J"),
        ("a\x00b\x08c\x7fd", "a b c d"),
        ("evil\u202egnp.exe", "evil gnp.exe"),
        ("a\u200bb\ufeffc", "a b c"),
        ("half\ud83d", "half"),
        ("\ue000private\U0010ffff", "private"),
    ],
    ids=ascii,
)
def test_a_text_is_one_line_without_anything_that_a_terminal_or_editor_obeys(text: str, shown: str) -> None:
    assert safe_text(text) == shown


@given(st.text(), st.integers(1, 300))
def test_whatever_the_text_it_comes_out_printable_encodable_and_short(text: str, limit: int) -> None:
    shown = safe_text(text, limit=limit)
    assert shown.isprintable()
    assert len(shown.encode()) <= 4 * limit
    assert len(shown) <= limit
    assert not any(unicodedata.category(character)[0] in "CZ" for character in shown.replace(" ", ""))


def test_a_long_text_is_cut_and_says_so() -> None:
    assert safe_text("ab" * 100) == "ab" * 100
    assert safe_text("ab" * 100 + "c") == "ab" * 99 + "a…"
    assert safe_text("word " * 10_000) == ("word " * 40)[:199] + "…"
    assert safe_text("abcdef", limit=3) == "ab…"


@pytest.mark.parametrize(
    "number",
    [
        "+16505550199",
        "16505550199",
        "6505550199",
        "+1 650 555 0199",
        "+1-650-555-0199",
        "+1.650.555.0199",
        "+1/650/555/0199",
        "(650) 555-0199",
        "(+1) 650 555-0199",
        "+1 (650) 555 - 0199",
        "650.555.0199",
        "650  555  0199",
        "+1\u00a0650\u2009555\u202f0199",
        "5550199",
        "001 650 555 0199",
    ],
    ids=ascii,
)
@pytest.mark.parametrize("around", ["{}", "to {}: refused", "'{}'", "tel:{};", "[{}]", "to={}&x=y", "x{}y", "<{}>"])
def test_a_phone_number_is_masked_however_it_is_written(number: str, around: str) -> None:
    shown = safe_text(around.format(number))
    assert MASK in shown
    assert sum(character.isdigit() for character in shown) <= 5
    before, after = around.split("{}")
    assert shown.startswith(before)
    assert shown.endswith(after)


@pytest.mark.parametrize(
    "dash", ["\u2010", "\u2011", "\u2012", "\u2013", "\u2014", "\uff0d", "\u2212", "\u00b7"], ids=ascii
)
def test_a_phone_number_with_typographic_dashes_is_masked_as_well(dash: str) -> None:
    shown = safe_text(f"to {dash.join(['650', '555', '0199'])}: refused")
    assert sum(character.isdigit() for character in shown) <= 4


def test_two_phone_numbers_are_both_masked() -> None:
    shown = safe_text("+16505550199, +442079460958 and 650 555 0100")
    assert shown == "+1•••0199, +44•••0958 and •••0100"


@pytest.mark.parametrize("number", ["500", "12345", "123456", "HTTP 422", "v1.2.3", "127.0.0.1", "10:42:59", "a1b2c3"])
def test_a_number_too_short_to_dial_stays_readable(number: str) -> None:
    assert safe_text(f"code {number}!") == f"code {number}!"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("to mary@clinic.example: refused", "to m•••@•••.example: refused"),
        ("Mary <mary@clinic.example>", "Mary <m•••@•••.example>"),
        ("(mary@clinic.example)", "(m•••@•••.example)"),
        ('"mary@clinic.example"', '"m•••@•••.example"'),
        ("a@x.example,b@y.example;c@z.example", "a•••@•••.example,b•••@•••.example;c•••@•••.example"),
        ("mailto:mary@clinic.example", "mailto:m•••@•••.example"),
        ("mary.jones+visit@mail.clinic.example", "m•••@•••.example"),
        ("MARY@CLINIC.EXAMPLE", "M•••@•••.EXAMPLE"),
        ("j\u00f6rg@m\u00fcnchen.example", "j•••@•••.example"),
        ("mary@localhost", "m•••@•••"),
        ("16505550199@sms.clinic.example", "1•••@•••.example"),
    ],
    ids=ascii,
)
def test_an_address_is_masked_wherever_it_stands(text: str, shown: str) -> None:
    assert safe_text(text) == shown


# --- echoes of our own texts


OURS = "Your results are in, please call Dr. Gr\u00fcn"


@pytest.mark.parametrize(
    "echo",
    [
        OURS,
        OURS.upper(),
        OURS.lower(),
        OURS.swapcase(),
        OURS[:20],
        OURS[10:],
        OURS[5:13],
        OURS.replace(" ", "\n"),
        OURS.replace(" ", "   "),
        OURS.replace(" ", "\u00a0\r\n\t"),
        f"{OURS[:15]}\u2026",
        f"{OURS[:15]} [...] {OURS[20:]}",
        f"{OURS}{OURS}",
    ],
    ids=ascii,
)
def test_an_echo_of_our_text_is_hidden_cut_folded_or_in_another_case(echo: str) -> None:
    shown = safe_text(f"refused: {echo}! try later", private=("unrelated words", OURS))
    assert MASK in shown
    assert shown.startswith("refused:")
    assert shown.endswith("! try later")
    for word in ("your", "result", "please", "gr\u00fc"):
        assert word not in shown.lower()


@pytest.mark.parametrize(
    "ours",
    [
        "\u0646\u062a\u06cc\u062c\u0647\u200c\u0647\u0627 \u0622\u0645\u0627\u062f\u0647\u200c\u0627\u0646\u062f",
        "Hi Ann \U0001f469\u200d\u2695\ufe0f it is me",
        "Ihre Er\u00adgeb\u00adnis\u00adse sind da",
        "Results\x0b\x0care\x00in",
    ],
    ids=ascii,
)
def test_an_echo_is_found_in_a_text_with_invisible_characters(ours: str) -> None:
    assert safe_text(f"refused <{ours}>", private=(ours,)) == "refused <•••>"


def test_an_echo_is_found_in_capitals_of_any_script() -> None:
    ours = "\u03a4\u03bf \u03c1\u03b1\u03bd\u03c4\u03b5\u03b2\u03bf\u03cd \u03c3\u03b1\u03c2"
    assert safe_text(f"refused <{ours.upper()}>", private=(ours,)) == "refused <•••>"


@pytest.mark.parametrize(
    "ours", ["STRA\u1e9eE 5, K\u00d6LN", "\u1f88\u03b4\u03bf\u03c5\u03c3\u03b9 \u03c0\u03b1"], ids=ascii
)
def test_an_echo_is_found_in_small_letters_of_any_script(ours: str) -> None:
    assert safe_text(f"refused <{ours.lower()}>", private=(ours,)) == "refused <•••>"


def test_every_private_text_is_looked_for() -> None:
    private = ("+16505550199", "Your results are in", "Subject: visit")
    shown = safe_text("A subject: VISIT to 6505550199 B your results are in C", private=private)
    for part in ("isit", "555", "0199", "result"):
        assert part not in shown
    assert [word for word in shown.split() if word in "ABC"] == ["A", "B", "C"]


@pytest.mark.parametrize("short", ["Hi Mary", "code 7", "Mary"])
def test_a_short_text_of_ours_is_hidden_where_it_stands_whole(short: str) -> None:
    assert safe_text(f"refused <{short}>", private=(short,)) == "refused <•••>"
    assert safe_text(f"refused <{short.upper()}>", private=(short,)) == "refused <•••>"


def test_a_text_of_ours_that_stands_in_every_word_hides_nothing() -> None:
    assert safe_text("no credits are left", private=("", "e", "re", "\n \n")) == "no credits are left"


def test_a_private_text_does_not_hide_what_only_resembles_it() -> None:
    assert safe_text("the result: none", private=("Your results are in",)) == "the result: none"
    assert safe_text("no credits: your account", private=("Your results are in",)) == "no credits: your account"


def _runs(text: str, length: int = 8) -> set[str]:
    """All runs of 8 characters, in the form in which texts are compared: one line, one case."""
    line = " ".join("".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in text).split())
    folded = "".join(lowered if len(lowered := c.lower()) == 1 else c for c in line)
    return {folded[start : start + length] for start in range(len(folded) - length + 1)}


# marks that safe_text inserts are not part of our text
_WRITTEN = st.text(st.characters(exclude_categories=["C"], exclude_characters="•…"), min_size=8)
_SENTENCES = st.lists(
    st.sampled_from(
        ["Hi", "Mary", "your", "Results", "650", "555-0199", "m@x.example", "\u00dcber", "Stra\u00dfe", "\u0130"]
    ),
    min_size=3,
).map(" ".join)


@given(
    ours=_WRITTEN | _SENTENCES,
    before=st.text(max_size=30) | _SENTENCES,
    after=st.text(max_size=30) | _SENTENCES,
    again=st.sampled_from(
        [str, str.upper, str.lower, lambda text: text.replace(" ", " \n"), lambda text: text[3:] + text[:9]]
    ),
    others=st.lists(st.text(max_size=20), max_size=2),
)
@example(ours="Gr\u00fc\u00dfe aus der Praxis, Ihre Ergebnisse sind da", before="", after="", again=str, others=[])
@example(ours="a" * 300, before="b" * 190, after="", again=str, others=["a" * 8])
def test_no_eight_characters_in_a_row_of_a_private_text_are_ever_shown(
    ours: str, before: str, after: str, again: object, others: list[str]
) -> None:
    assert callable(again)
    shown = safe_text(f"{before}{again(ours)}{after}", private=(*others, ours), limit=10_000)
    assert not _runs(shown) & _runs(ours)


SECRETS = ("Wilhelmina", "biopsy", "benign", "\u60a3\u8005")
LETTER = "Hi Wilhelmina, your biopsy was benign. \u60a3\u8005"


@pytest.mark.parametrize(
    "encode",
    [
        urllib.parse.quote,
        urllib.parse.quote_plus,
        lambda text: urllib.parse.quote(urllib.parse.quote(text)),
        json.dumps,
        lambda text: json.dumps(json.dumps(text)),
        lambda text: "".join(f"\\u{ord(character):04x}" for character in text),
        lambda text: "".join(f"&#{ord(character)};" for character in text),
        lambda text: "".join(f"&#x{ord(character):x};" for character in text),
        lambda text: base64.b64encode(text.encode()).decode(),
        lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("="),
        lambda text: " ... ".join(text.split()),
        lambda text: ", ".join(reversed(text.split())),
        lambda text: text.split()[1].upper(),
    ],
)
def test_an_echo_is_hidden_in_whatever_way_it_is_encoded(encode: Callable[[str], str]) -> None:
    shown = safe_text(f"refused <{encode(LETTER)}>, try later", private=(LETTER,), limit=10_000)
    decoded = f"{shown} {urllib.parse.unquote(shown)} {html.unescape(shown)}".casefold()
    assert not [secret for secret in SECRETS if secret.casefold() in decoded]
    assert shown.startswith("refused <")
    assert shown.endswith(", try later")


@pytest.mark.parametrize(
    "number",
    ["415*555*0199", "1_415_555_0199", "415,555,0199", "415: 555: 0199", "415 then 555 and 0199", "4155550199"],
)
def test_a_number_of_ours_is_hidden_whatever_stands_between_its_digits(number: str) -> None:
    shown = safe_text(f"to {number} of 27", private=("+14155550199",))
    assert sum(character.isdigit() for character in shown) <= 6
    assert shown.startswith("to ")
    assert shown.endswith(" of 27")


def test_what_an_error_is_about_stays_readable() -> None:
    text = "The message is too long: 3 segments, at most 2 are allowed for this account (id 5f3a9c1e7b2d4f60)"
    assert safe_text(text, private=("Are you long? Is it mine, Wilhelmina?", "+14155550199")) == text


# --- values that are hidden


@pytest.mark.parametrize(
    "value", ["Your results", 16505550199, ["Your results"], {"to": "+16505550199"}, None], ids=repr
)
def test_a_hidden_value_shows_itself_in_no_form_and_comes_back_as_it_was(value: object) -> None:
    hidden = Redacted(value)
    for form in (repr(hidden), str(hidden), f"{hidden}", hidden.serialize(), f"{[hidden]}"[1:-1]):
        assert form == "***"
    assert str not in type(hidden).__mro__
    assert not hasattr(hidden, "__dict__")
    assert unwrap(hidden) is value
    assert unwrap(value) is value


def test_a_value_is_hidden_once_however_often_it_is_asked_for() -> None:
    assert unwrap(Redacted(Redacted("Your results"))) == "Your results"


def test_a_hidden_value_may_show_something_else_in_its_place() -> None:
    hidden = Redacted("s3://reader:key@clinic/rows.csv", "s3://•••@clinic/rows.csv")
    assert f"{hidden} {hidden.serialize()}" == "s3://•••@clinic/rows.csv s3://•••@clinic/rows.csv"
    assert unwrap(hidden) == "s3://reader:key@clinic/rows.csv"


# --- errors without frames


def raised(call: Callable[[], object]) -> BaseException:
    """Return what a call raises, as it leaves a function that removes the frames."""

    def boundary() -> None:
        try:
            call()
        except BaseException as error:
            remove_frames(error)
            raise

    try:
        boundary()
    except BaseException as error:  # noqa: BLE001  all kinds
        return error
    pytest.fail("nothing was raised")


def refuse() -> None:
    raise ValueError("Mary")


def suppress() -> None:
    try:
        refuse()
    except ValueError:
        raise ApptotoError("refused") from None


def blame() -> None:
    try:
        refuse()
    except ValueError as error:
        raise ApptotoError("refused") from error


def blame_each_other() -> None:
    error, other = ApptotoError("refused"), ApptotoError("not sent")
    error.__cause__, other.__cause__ = other, error
    raise error


@pytest.mark.parametrize("call", [refuse, suppress, blame, blame_each_other, sys.exit])
def test_an_error_leaves_the_frames_behind_that_led_to_it(call: Callable[[], object]) -> None:
    error = raised(call)
    assert [frame.name for frame in traceback.extract_tb(error.__traceback__)] == ["raised"]


def test_a_suppressed_error_is_left_behind_as_well() -> None:
    assert raised(suppress).__context__ is None


def test_a_cause_is_kept_without_its_frames() -> None:
    cause = raised(blame).__cause__
    assert isinstance(cause, ValueError)
    assert cause.__traceback__ is None


def test_an_error_of_another_package_keeps_the_lines_that_led_to_it_and_one_of_ours_does_not() -> None:
    [note] = raised(refuse).__notes__
    assert 'raise ValueError("Mary")' in note
    assert not hasattr(raised(suppress), "__notes__")


# --- a module for the client as well


def test_masking_needs_nothing_of_airflow() -> None:
    program = "import sys, airflow_provider_apptoto.privacy; sys.exit('airflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
