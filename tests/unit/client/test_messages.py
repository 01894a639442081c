"""An invalid message is refused before anything is sent, and no error or repr shows personal data."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import sys
import traceback
import unicodedata
from decimal import Decimal
from typing import Any

import pytest

from airflow_provider_apptoto.client import (
    ApptotoConfigurationError,
    ApptotoError,
    ApptotoRejectedError,
    ApptotoValidationError,
    Message,
)
from airflow_provider_apptoto.privacy import Redacted

PHONE = "+16505550199"
ADDRESS = "mary@clinic.example"
SMS: dict[str, Any] = {"type": "sms", "to": PHONE, "message": "Hi"}
EMAIL: dict[str, Any] = {"type": "email", "to": ADDRESS, "message": "Hi"}
EVENT: dict[str, Any] = {"type": "sms", "event_id": 12, "message": "Hi"}

BLANK = {
    "nothing": "",
    "spaces": "   ",
    "newlines": "\n\r\n",
    "tab": "\t",
    "no-break space": "\u00a0",
    "ideographic space": "\u3000",
    "line separator": "\u2028",
    "zero-width space": "\u200b",
    "zero-width joiner": "\u200d",
    "byte order mark": "\ufeff",
    "direction marks": "\u200e\u2066\u2069",
    "soft hyphen": "\u00ad",
    "a mixture": " \u200b\n\u00a0\t",
    "null": "\0",
}
CONTROLS = {
    "line feed": "\n",
    "carriage return": "\r",
    "both": "\r\n",
    "vertical tab": "\x0b",
    "form feed": "\x0c",
    "next line": "\x85",
    "line separator": "\u2028",
    "paragraph separator": "\u2029",
    "null": "\0",
    "escape": "\x1b",
    "tab": "\t",
}


def refusal(fields: dict[str, Any]) -> ApptotoValidationError:
    with pytest.raises(ApptotoValidationError) as raised:
        Message(**fields)
    return raised.value


def everything_shown(error: BaseException) -> str:
    """Return everything that a log can show of an error, including its causes and attributes."""
    lines = traceback.format_exception(type(error), error, None)
    return "\n".join([*lines, repr(error), repr(vars(error))])


def named(table: dict[str, str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("text", table.values(), ids=table.keys())


# --- one target, and something to say


@pytest.mark.parametrize(
    ("fields", "payload"),
    [
        (
            {"type": "sms", "to": PHONE, "message": "Hi there!"},
            {"type": "sms", "to": PHONE, "message": "Hi there!"},
        ),
        (
            {"type": "call", "to": PHONE, "message": "Hello"},
            {"type": "call", "to": PHONE, "message": "Hello"},
        ),
        (
            {"type": "email", "to": ADDRESS, "message": "Hi", "subject": "Visit"},
            {"type": "email", "to": ADDRESS, "message": "Hi", "subject": "Visit"},
        ),
        ({"type": "sms", "event_id": "123", "template_id": 45}, {"type": "sms", "event_id": 123, "template_id": "45"}),
        (
            {"type": "call", "participant_id": 123456, "template_id": "45", "message": "Hi {{ name }}!"},
            {"type": "call", "participant_id": 123456, "template_id": "45", "message": "Hi {{ name }}!"},
        ),
        ({"type": "email", "event_id": 1, "message": "Hi"}, {"type": "email", "event_id": 1, "message": "Hi"}),
    ],
)
def test_the_payload_holds_what_was_given_and_nothing_else_typed_as_in_the_endpoints_table(
    fields: dict[str, Any], payload: dict[str, Any]
) -> None:
    built = Message(**fields).payload()
    assert built == payload
    assert {name: type(value) for name, value in built.items()} == {
        name: type(value) for name, value in payload.items()
    }
    assert json.loads(json.dumps(built)) == payload


@pytest.mark.parametrize(
    "targets",
    [
        {},
        {"to": PHONE, "event_id": 1},
        {"to": PHONE, "participant_id": 1},
        {"event_id": 1, "participant_id": 2},
        {"to": PHONE, "event_id": 1, "participant_id": 2},
        {"to": "", "event_id": 1},
        {"event_id": "", "participant_id": 2},
    ],
    ids=lambda targets: "+".join(targets) or "none",
)
def test_exactly_one_target_is_taken_and_a_blank_one_is_never_passed_over(targets: dict[str, Any]) -> None:
    error = refusal({"type": "sms", "message": "Hi", **targets})
    assert error.field == "to"
    assert "exactly one of to, event_id, participant_id" in str(error)
    given = str(error).partition("required")[2]
    for name in targets or ["none"]:
        assert name in given
    assert PHONE not in everything_shown(error)


@pytest.mark.parametrize("target", ["to", "event_id", "participant_id"])
@named(BLANK)
def test_a_blank_target_is_refused(target: str, text: str) -> None:
    error = refusal({"type": "sms", "message": "Hi", target: text})
    assert error.field == target


def test_a_text_or_a_template_is_needed_and_either_is_enough() -> None:
    error = refusal({"type": "sms", "to": PHONE})
    assert error.field == "message"
    assert "template_id" in str(error)
    assert Message("sms", to=PHONE, template_id=45).payload() == {"type": "sms", "to": PHONE, "template_id": "45"}
    assert Message("sms", to=PHONE, message="Hi", template_id=45).payload()["message"] == "Hi"


# --- texts


@pytest.mark.parametrize("template", [{}, {"template_id": 45}], ids=["alone", "beside a template"])
@named(BLANK)
def test_a_blank_message_is_never_sent(template: dict[str, Any], text: str) -> None:
    error = refusal({**SMS, "message": text, **template})
    assert error.field == "message"
    assert "blank" in str(error)


@named(BLANK)
def test_a_blank_subject_is_never_sent(text: str) -> None:
    error = refusal({**EMAIL, "subject": text})
    assert error.field == "subject"
    assert "blank" in str(error)


def test_a_character_newer_than_this_pythons_tables_is_not_blank() -> None:
    newest = next(chr(code) for code in range(0x1FA70, 0x1FAFF) if unicodedata.category(chr(code)) == "Cn")
    assert Message("sms", to=PHONE, message=newest).message == newest


@pytest.mark.parametrize(
    "text",
    ["\u2800", "\u3164", "\u115f\u1160", "\uffa0", "\ufe0f", "\u034f", "\u180b", "\U000e0100"],
    ids=ascii,
)
def test_a_text_of_letters_that_nobody_can_see_is_blank(text: str) -> None:
    assert refusal({**SMS, "message": text}).field == "message"


@pytest.mark.parametrize(
    "text",
    [
        "braces { like } these { { and %} #} too",
        "  kept\n\tas it is  \n",
        "0",
        ".",
        "\u200bstarts unseen",
        "\U0001f469\u200d\u2695\ufe0f",
        "Gr\u00fc\u00dfe, \u4f60\u597d, \u0645\u0631\u062d\u0628\u0627",
        '"quoted" \\ and </script>',
    ],
)
def test_a_text_goes_out_to_the_letter(text: str) -> None:
    assert Message("sms", to=PHONE, message=text).payload()["message"] == text
    assert Message("email", to=ADDRESS, message=text).payload()["message"] == text


@pytest.mark.parametrize("kind", [SMS, SMS | {"type": "call"}, EMAIL], ids=["sms", "call", "email"])
def test_of_control_characters_only_newline_and_tab_go_out(kind: dict[str, Any]) -> None:
    for character in (chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) == "Cc"):
        fields = {**kind, "message": f"Hi{character}Mary"}
        if character in "\n\t\r":
            assert Message(**fields).message == fields["message"].replace("\r", "\n")
            continue
        error = refusal(fields)
        assert error.field == "message"
        assert str(error) == (
            f"message: contains the control character U+{ord(character):04X} at position 3; only newline and tab are "
            "allowed. Remove it at the source"
        )
        assert "Mary" not in everything_shown(error)


@pytest.mark.parametrize(
    ("text", "sent"),
    [("a\r\nb", "a\nb"), ("a\rb", "a\nb"), ("a\r\r\nb\n\r", "a\n\nb\n\n"), ("a\n\nb\r\n", "a\n\nb\n")],
    ids=ascii,
)
def test_every_line_ending_becomes_a_newline(text: str, sent: str) -> None:
    assert Message("email", to=ADDRESS, message=text).message == sent
    assert Message("sms", event_id=12, message=text).message == sent


def test_dynamic_fields_go_out_to_those_for_whom_apptoto_fills_them_in() -> None:
    text = "Hi there {{ name }}! {{ event.start_time | date_and_time_phrase }}"
    assert Message("sms", event_id=12, message=text).payload()["message"] == text
    for field in ("message", "subject"):
        fields = {"type": "email", "to": ADDRESS, "message": "Hi", field: text}
        assert refusal(fields).field == field


@pytest.mark.parametrize("field", ["message", "subject", "to"])
@pytest.mark.parametrize("value", [b"bytes", ["Hi"], {"a": 1}, object()], ids=lambda value: type(value).__name__)
def test_what_is_no_text_is_refused_and_named_by_its_type(field: str, value: object) -> None:
    error = refusal({**EMAIL, field: value})
    assert error.field == field
    assert type(value).__name__ in str(error)


@pytest.mark.parametrize("value", [5, 1.5, True])
def test_a_number_is_no_message(value: object) -> None:
    for field in ("message", "subject"):
        error = refusal({**EMAIL, field: value})
        assert (error.field, type(value).__name__ in str(error)) == (field, True)


@pytest.mark.parametrize("field", ["message", "subject", "to"])
@pytest.mark.parametrize("text", ["\ud83d", "cut\ud83d", "\udc69 cut", "caf\udce9"], ids=ascii)
def test_half_a_character_is_refused(field: str, text: str) -> None:
    error = refusal({**EMAIL, field: text})
    assert error.field == field
    assert "cut" not in everything_shown(error)
    str(error).encode()


@named(CONTROLS)
def test_no_header_can_be_smuggled_into_a_subject(text: str) -> None:
    for subject in (f"Visit{text}Bcc: all@clinic.example", f"{text}Visit", f"Visit{text}"):
        error = refusal({**EMAIL, "subject": subject})
        assert error.field == "subject"
        assert "one line" in str(error)
        assert "clinic" not in everything_shown(error)


@named(CONTROLS)
def test_no_header_can_be_smuggled_into_a_recipient(text: str) -> None:
    assert refusal({**EMAIL, "to": f"{ADDRESS}{text}Bcc: all@clinic.example"}).field == "to"
    assert refusal({**SMS, "to": f"{PHONE}{text}{PHONE}"}).field == "to"
    assert refusal({**SMS, "to": f"+1650555{text}0199"}).field == "to"
    assert refusal({**SMS, "to": f"650555{text}0199"}).field == "to"


@pytest.mark.parametrize("kind", ["sms", "call"])
@pytest.mark.parametrize("subject", ["Visit", ""])
def test_only_an_email_has_a_subject(kind: str, subject: str) -> None:
    error = refusal({**SMS, "type": kind, "subject": subject})
    assert error.field == "subject"
    assert kind in str(error)


@pytest.mark.parametrize("field", ["message", "subject", "to"])
@pytest.mark.parametrize("mask", ["***", "•••", " ***\t", "•••\u00a0"], ids=ascii)
def test_a_mask_is_never_sent_in_the_place_of_what_it_hides(field: str, mask: str) -> None:
    assert refusal({**EMAIL, field: mask}).field == field


@pytest.mark.parametrize("field", ["message", "subject", "to", "event_id", "participant_id", "template_id"])
def test_a_value_that_is_still_hidden_is_never_sent_and_stays_hidden(field: str) -> None:
    targets = {} if field in {"to", "event_id", "participant_id"} else {"to": ADDRESS}
    error = refusal({"type": "email", "message": "Hi", **targets, field: Redacted("4711 results")})
    assert error.field == field
    assert "4711" not in everything_shown(error)


# --- length


def gsm(segments: int) -> str:
    """Return the longest text of so many segments."""
    return "a" * (160 if segments == 1 else 153 * segments)


@pytest.mark.parametrize("target", [{"to": PHONE}, {"event_id": 12}, {"participant_id": 12}])
@pytest.mark.parametrize(("limit", "most"), [({}, 3), ({"max_segments": 1}, 1), ({"max_segments": 7}, 7)])
def test_a_text_of_more_segments_than_allowed_is_refused(
    target: dict[str, Any], limit: dict[str, Any], most: int
) -> None:
    fields = {"type": "sms", **target, **limit}
    assert Message(**fields, message=gsm(most)).message == gsm(most)
    error = refusal({**fields, "message": gsm(most) + "b"})
    assert str(error) == (
        f"message: takes about {most + 1} segments (GSM-7), more than max_segments={most}; shorten the text or raise "
        "max_segments (None: no limit)"
    )


def test_a_text_outside_gsm_7_takes_more_segments() -> None:
    text = "\u2019" + "a" * 200
    assert Message("sms", to=PHONE, message=text).message == text
    assert "takes about 4 segments (UCS-2)" in str(refusal({**SMS, "message": text + "b"}))


def test_a_line_ending_counts_once() -> None:
    text = "a\r\n" * 80
    assert Message("sms", to=PHONE, message=text, max_segments=1).message == "a\n" * 80


@pytest.mark.parametrize(
    "fields",
    [
        {**SMS, "max_segments": None},
        {**SMS, "type": "call"},
        EMAIL,
        {"type": "call", "event_id": 12},
        {"type": "email", "event_id": 12},
    ],
    ids=str,
)
def test_without_a_limit_and_on_other_channels_a_text_may_be_of_any_length(fields: dict[str, Any]) -> None:
    assert Message(**{**fields, "message": gsm(90)}).message == gsm(90)


@pytest.mark.parametrize("dynamic", ["{{ name }}", "{% if name %}a{% endif %}"])
def test_the_length_of_a_text_that_apptoto_fills_in_is_not_known_and_not_limited(dynamic: str) -> None:
    text = gsm(3) + dynamic
    for target in ("event_id", "participant_id"):
        fields: dict[str, Any] = {"type": "sms", target: 12, "message": text}
        assert Message(**fields).message == text


@pytest.mark.parametrize("limit", [0, -1, True, False, 1.0, 2.5, "3", "", [3]], ids=repr)
@pytest.mark.parametrize("fields", [SMS, EMAIL, {"type": "sms", "to": PHONE, "template_id": 45}], ids=str)
def test_a_limit_is_an_integer_of_at_least_one(fields: dict[str, Any], limit: Any) -> None:
    with pytest.raises(
        ApptotoConfigurationError, match="is not an integer of at least 1; None means no limit"
    ) as raised:
        Message(**fields, max_segments=limit)
    assert raised.value.field == "max_segments"
    assert repr(limit) in str(raised.value)


def test_a_limit_is_not_sent() -> None:
    assert Message(**SMS, max_segments=5).payload() == SMS


# --- types and ids


@pytest.mark.parametrize("kind", ["SMS", "text", "", " sms", "whatsapp", None, True, 1, ["sms"], b"sms"])
def test_an_unknown_type_is_refused_with_the_known_ones(kind: Any) -> None:
    error = refusal({**SMS, "type": kind})
    assert error.field == "type"
    assert "sms, call, email" in str(error)


def test_a_type_that_is_really_somebodys_data_is_not_shown() -> None:
    for mistaken in ("mary@clinic.example", "+16505550199", "Your results are in"):
        assert mistaken not in everything_shown(refusal({**SMS, "type": mistaken}))


class _Id(int):
    pass


@pytest.mark.parametrize("field", ["event_id", "participant_id"])
@pytest.mark.parametrize(
    ("value", "number"),
    [(12, 12), ("12", 12), (" 12\n", 12), ("0012", 12), (_Id(12), 12), (10**17, 10**17), ("9" * 18, 10**18 - 1)],
)
def test_an_id_may_be_an_integer_or_its_digits_and_goes_out_as_an_integer(
    field: str, value: object, number: int
) -> None:
    fields: dict[str, Any] = {"type": "sms", "message": "Hi", field: value}
    sent = Message(**fields).payload()[field]
    assert (type(sent), sent) == (int, number)


@pytest.mark.parametrize("value", [45, "45", " 45 ", "0045", _Id(45)])
def test_a_template_id_goes_out_as_a_string(value: Any) -> None:
    assert Message("sms", to=PHONE, template_id=value).payload()["template_id"] == "45"


@pytest.mark.parametrize("field", ["event_id", "participant_id", "template_id"])
@pytest.mark.parametrize(
    "value",
    [
        "",
        "  ",
        0,
        "0",
        "000",
        -1,
        "-1",
        "+1",
        True,
        False,
        1.0,
        1.5,
        "1.0",
        "1e3",
        "1_000",
        "1,000",
        "0x10",
        "12a",
        "1 2",
        "\uff11\uff12",
        "\u0663",
        "\u00b2",
        "None",
        10**18,
        "1" * 19,
        "1" * 5000,
        b"12",
        [12],
        Decimal(12),
    ],
    ids=lambda value: f"{type(value).__name__} {str(value)[:20]!a}",
)
def test_what_is_no_id_is_refused(field: str, value: object) -> None:
    fields = EVENT if field == "template_id" else {"type": "sms", "message": "Hi"}
    error = refusal({**fields, field: value})
    assert error.field == field
    assert "positive integer" in str(error)
    assert len(str(error)) < 150


def test_a_recipient_given_for_an_id_is_not_shown() -> None:
    for field in ("event_id", "participant_id"):
        assert "5550199" not in everything_shown(refusal({"type": "sms", "message": "Hi", field: PHONE}))
    assert "5550199" not in everything_shown(refusal({**EVENT, "template_id": PHONE}))


def test_an_integer_longer_than_python_prints_is_refused_like_any_other() -> None:
    for field in ("event_id", "participant_id"):
        error = refusal({"type": "sms", "message": "Hi", field: 10 ** (sys.get_int_max_str_digits() + 1)})
        assert (error.field, "positive integer" in str(error)) == (field, True)


def test_a_negative_integer_longer_than_python_prints_is_refused_like_any_other() -> None:
    error = refusal({**EVENT, "event_id": -(10 ** (sys.get_int_max_str_digits() + 1))})
    assert (error.field, "positive integer" in str(error)) == ("event_id", True)


# --- recipients


@pytest.mark.parametrize("kind", ["sms", "call", "email"])
@pytest.mark.parametrize("number", [16505550199, 16505550199.0, 0, True], ids=repr)
def test_a_recipient_that_arrives_as_a_number_is_refused_with_the_reason(kind: str, number: object) -> None:
    error = refusal({"type": kind, "to": number, "message": "Hi"})
    assert error.field == "to"
    assert "render_template_as_native_obj" in str(error)
    assert "string" in str(error)
    assert "5550199" not in everything_shown(error)


def test_a_recipient_is_normalised_by_the_channels_rules() -> None:
    assert Message("sms", to="+1 (650) 555-0199", message="Hi").to == PHONE
    assert Message("call", to="(650) 555-0199", message="Hi", default_region="US").to == PHONE
    assert Message("email", to=" mary@CLINIC.Example ", message="Hi", default_region="US").to == ADDRESS


def test_a_recipient_of_another_channel_is_refused() -> None:
    for kind in ("sms", "call"):
        error = refusal({**SMS, "type": kind, "to": ADDRESS})
        assert (error.field, "e-mail address" in str(error), kind in str(error)) == ("to", True, True)
    assert refusal({**EMAIL, "to": PHONE}).field == "to"


def test_a_number_that_takes_no_texts_can_still_be_called() -> None:
    assert "can't receive text messages" in str(refusal({**SMS, "to": "+18005550199"}))
    assert Message("call", to="+18005550199", message="Hi").to == "+18005550199"


@pytest.mark.parametrize("kind", ["sms", "call"])
def test_a_number_that_costs_extra_is_refused_on_every_channel(kind: str) -> None:
    for options in ({}, {"allowed_regions": ["*"]}, {"default_region": "US"}):
        error = refusal({"type": kind, "to": "+19005550199", "message": "Hi", **options})
        assert (error.field, "premium-rate" in str(error)) == ("to", True)


@pytest.mark.parametrize("kind", ["sms", "call"])
@pytest.mark.parametrize(
    "options",
    [
        {"default_region": "US"},
        {"allowed_regions": ("US", "CA")},
        {"default_region": "GB", "allowed_regions": ("US",)},
    ],
    ids=str,
)
def test_a_number_of_a_region_that_is_not_allowed_is_refused(kind: str, options: dict[str, Any]) -> None:
    fields = {"type": kind, "message": "Hi", **options}
    assert Message(**fields, to=PHONE).to == PHONE
    for number in ("+5351234567", "+442079460958", "+61491570156"):
        error = refusal({**fields, "to": number})
        assert (error.field, "allowed_regions" in str(error)) == ("to", True)


def test_without_a_region_or_with_a_star_any_country_s_number_is_taken() -> None:
    for options in ({}, {"allowed_regions": ("*",)}, {"default_region": "US", "allowed_regions": ("*",)}):
        for number in (PHONE, "+5351234567", "+442079460958"):
            fields: dict[str, Any] = {"type": "call", "to": number, "message": "Hi", **options}
            assert Message(**fields).to == number


def test_regions_are_for_phone_numbers_alone() -> None:
    assert Message("email", to=ADDRESS, message="Hi", allowed_regions=("US",)).to == ADDRESS
    assert Message("sms", event_id=12, message="Hi", allowed_regions=("US",)).event_id == 12


@pytest.mark.parametrize("kind", ["sms", "call"])
def test_a_number_without_plus_and_region_is_refused(kind: str) -> None:
    error = refusal({"type": kind, "to": "(650) 555-0199", "message": "Hi", "allowed_regions": ("*",)})
    assert (error.field, "default_region" in str(error)) == ("to", True)


# --- what is shown


MESSAGES = [
    (Message("sms", to=PHONE, message="Your results"), "<Message sms to +1•••0199>"),
    (Message("email", to=ADDRESS, message="Your results", subject="Visit"), "<Message email to m•••@•••.example>"),
    (Message("sms", event_id=12, message="Your results"), "<Message sms to event 12>"),
    (Message("call", participant_id=34, message="Your results"), "<Message call to participant 34>"),
]


@pytest.mark.parametrize(("message", "shown"), MESSAGES, ids=[shown for _, shown in MESSAGES])
def test_a_message_shows_its_type_and_masked_target_and_nothing_else(message: Message, shown: str) -> None:
    for form in (repr(message), str(message), f"{message}", f"{message!s:>5}", f"{[message]}"[1:-1]):
        assert form == shown
    assert shown.endswith(f"to {message.target}>")


def test_a_recipient_is_shown_in_full_only_where_that_is_asked_for_and_a_text_never() -> None:
    message = Message("email", to=ADDRESS, message="Your results", subject="Visit", redact=False)
    assert message.target == ADDRESS
    assert "results" not in repr(message)
    assert "Visit" not in repr(message)
    assert message.payload() == Message("email", to=ADDRESS, message="Your results", subject="Visit").payload()


def test_what_is_private_is_recipient_text_and_subject() -> None:
    message = Message("email", to=ADDRESS, message="Your results", subject="Visit", template_id=5)
    assert set(message.private) == {ADDRESS, "Your results", "Visit"}
    assert Message("sms", event_id=12, template_id=5).private == ()


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "sms", "to": "+1 650 555 0199 ext. 7", "message": "Your results"},
        {"type": "sms", "to": "+1 650 555 019O", "message": "Your results"},
        {"type": "sms", "to": "+99950550199123", "message": "Your results"},
        {"type": "sms", "to": "+4416505550199", "message": "Your results"},
        {"type": "sms", "to": "650 555 0199 650 555 0198", "message": "Your results"},
        {"type": "call", "to": "mary.jones@surgery.example", "message": "Your results"},
        {"type": "email", "to": "mary.jones@surgery", "message": "Your results"},
        {"type": "email", "to": "Mary Jones <mary.jones@surgery.example>", "message": "Your results"},
        {"type": "email", "to": "mary.jones@surgery.example\nBcc: x@surgery.example", "message": "Your results"},
        {"type": "email", "to": "mary.jones@surgery.invalid", "message": "Your results"},
        {"type": "email", "to": ADDRESS, "message": "Your results\ud83d"},
        {"type": "email", "to": ADDRESS, "message": "Your results", "subject": "Your results\n"},
        {"type": "sms", "to": PHONE, "message": "Your results", "allowed_regions": ("GB",)},
        {"type": "sms", "to": "(650) 555-0199", "message": "Your results"},
        {"type": "call", "to": "+19005550199", "message": "Your results"},
        {"type": "sms", "to": PHONE, "message": "Your results\0"},
        {"type": "sms", "to": PHONE, "message": "Your results" * 100},
        {"type": "sms", "to": PHONE, "event_id": 5, "message": "Your results"},
        {"type": "sms", "to": PHONE, "message": "Your results", "subject": "Your results"},
        {"type": "Your results are in", "to": PHONE, "message": "Your results"},
        {"type": "sms", "to": PHONE, "template_id": "Your results", "message": "Your results"},
        {"type": "sms", "to": [PHONE], "message": ["Your results"]},
    ],
)
def test_no_refusal_shows_recipient_or_text(fields: dict[str, Any]) -> None:
    shown = everything_shown(refusal(fields)).casefold()
    for private in ("5550199", "555 0199", "650 555", "jones", "surgery", "results"):
        assert private not in shown


# --- what programs rely on


def test_a_refusal_can_be_caught_as_what_it_is_and_says_where_and_what() -> None:
    error = refusal({**SMS, "message": ""})
    assert isinstance(error, ApptotoError)
    assert isinstance(error, ApptotoRejectedError)
    assert isinstance(error, ValueError)
    assert (error.field, error.status) == ("message", None)
    assert str(error) == f"message: {error.problem}"
    assert error.reason == error.problem


def test_a_message_survives_pickling_and_copying() -> None:
    for message, _ in MESSAGES:
        for twin in (pickle.loads(pickle.dumps(message)), copy.copy(message), copy.deepcopy(message)):  # noqa: S301
            assert twin == message
            assert hash(twin) == hash(message)
            assert twin.payload() == message.payload()


def test_a_copy_with_another_field_is_checked_again() -> None:
    message = Message("sms", to="(650) 555-0199", message="Hi", default_region="US")
    assert dataclasses.replace(message, message="Bye").payload() == {"type": "sms", "to": PHONE, "message": "Bye"}
    with pytest.raises(ApptotoValidationError, match="blank"):
        dataclasses.replace(message, message=" ")


def test_a_copy_keeps_its_limit() -> None:
    message = Message("sms", to=PHONE, message="Hi", max_segments=1)
    with pytest.raises(ApptotoValidationError, match="max_segments=1"):
        dataclasses.replace(message, message=gsm(2))
    longer = Message("sms", to=PHONE, message=gsm(5), max_segments=None)
    assert dataclasses.replace(longer, to="+16505550198").message == gsm(5)


def test_a_message_that_was_checked_can_not_be_changed() -> None:
    message = Message("sms", to=PHONE, message="Hi")
    with pytest.raises(dataclasses.FrozenInstanceError):
        message.message = ""  # type: ignore[misc]


# --- the codes of refusals


@pytest.mark.parametrize(
    ("fields", "field", "code"),
    [
        (SMS | {"type": "fax"}, "type", "type_unknown"),
        (SMS | {"to": None}, "to", "target_missing"),
        (SMS | {"event_id": 12}, "to", "target_ambiguous"),
        (SMS | {"message": None}, "message", "text_missing"),
        (SMS | {"subject": "Visit"}, "subject", "subject_not_allowed"),
        (SMS | {"to": " "}, "to", "field_empty"),
        (SMS | {"to": 16505550199}, "to", "field_not_text"),
        (SMS | {"to": ADDRESS}, "to", "recipient_invalid"),
        (SMS | {"to": "call me"}, "to", "recipient_invalid"),
        (SMS | {"to": "+1 650"}, "to", "recipient_invalid"),
        (SMS | {"to": f"{PHONE} ext 7"}, "to", "recipient_invalid"),
        (EMAIL | {"to": "mary"}, "to", "recipient_invalid"),
        (SMS | {"to": "(650) 555-0199"}, "to", "region_needed"),
        (SMS | {"to": "+1 111 555 0199"}, "to", "recipient_not_in_use"),
        (SMS | {"allowed_regions": ["DE"]}, "to", "region_not_allowed"),
        (SMS | {"to": "+1 900 555 0199"}, "to", "premium_number"),
        (SMS | {"to": "+1 800 555 0199"}, "to", "number_type_refused"),
        (SMS | {"template_id": "x"}, "template_id", "id_invalid"),
        (EVENT | {"event_id": 0}, "event_id", "id_invalid"),
        (SMS | {"message": " "}, "message", "field_empty"),
        (SMS | {"message": 5}, "message", "field_not_text"),
        (SMS | {"message": "***"}, "message", "value_masked"),
        (SMS | {"message": "\ud800"}, "message", "text_not_encodable"),
        (SMS | {"message": "a\x1bb"}, "message", "control_character"),
        (EMAIL | {"subject": "a\nb"}, "subject", "control_character"),
        (SMS | {"message": "Hi {{ name }}"}, "message", "text_unrendered"),
        (SMS | {"message": "x" * 500}, "message", "text_too_long"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_refused_message_has_a_code_for_what_is_wrong_with_it(fields: dict[str, Any], field: str, code: str) -> None:
    error = refusal(fields)
    assert (error.field, error.code) == (field, code)
