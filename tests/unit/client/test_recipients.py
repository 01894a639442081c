"""Recipients in any notation are normalised, or refused before a message costs anything.

Numbers are from the ranges that regulators reserve for fiction (NANPA 555-0100 to 0199; Ofcom; ACMA; Bundesnetzagentur;
PTS; ARCEP), if ``phonenumbers`` treats them as numbers in use.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

import phonenumbers
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_apptoto.client import ApptotoConfigurationError, ApptotoValidationError
from airflow_provider_apptoto.client.recipients import (
    check_region,
    check_regions,
    e164,
    normalise_email_address,
    normalise_phone_number,
)


def refused_number(number: str, **options: Any) -> str:
    """Return the refusal of a number, after checking that it shows only a mask."""
    with pytest.raises(ApptotoValidationError) as raised:
        normalise_phone_number(number, **options)
    assert raised.value.field == "to"
    text = str(raised.value)
    digits = re.sub(r"\D", "", number)
    shown = re.sub(r"[^\d•]", "", text)
    assert all(digits[start : start + 6] not in shown for start in range(len(digits) - 5))
    return text


def refused_address(address: str) -> str:
    """Return the refusal of an address, after checking that it shows only a mask."""
    with pytest.raises(ApptotoValidationError) as raised:
        normalise_email_address(address)
    assert raised.value.field == "to"
    assert raised.value.__context__ is None  # it would quote the address
    return str(raised.value)


# --- phone numbers with + and country code


@pytest.mark.parametrize(
    "written",
    [
        "+16505550199",
        "  +16505550199  ",
        "+1 650 555 0199",
        "+1-650-555-0199",
        "+1 (650) 555-0199",
        "+1.650.555.0199",
        "+1/650/555-0199",
        "(+1) 650 555 0199",
        "( +1 ) 650-555-0199",
        "+1 650\u2011555\u20110199",
        "+1\u2013650\u2013555\u20130199",
        "+1\u2014650\u2014555\u20140199",
        "+1\u00a0650\u00a0555\u00a00199",
        "+1\u202f650\u2009555\u30000199",
        "\u202a+1 650 555 0199\u202c",
        "\u200e+16505550199\u200f",
        "\u2066+1\u2060650\u200b555\u200d0199\u2069",
        "\ufeff+16505550199",
        "+1\u00ad6505550199",
        "+\uff11\uff16\uff15\uff10\uff15\uff15\uff15\uff10\uff11\uff19\uff19",
        "+\u0661\u0666\u0665\u0660\u0665\u0665\u0665\u0660\u0661\u0669\u0669",
        "+\u0967\u096c\u096b\u0966\u096b\u096b\u096b\u0966\u0967\u096f\u096f",
    ],
    ids=ascii,
)
def test_one_number_has_one_form_however_it_is_written(written: str) -> None:
    assert normalise_phone_number(written) == "+16505550199"
    # a region is for numbers without +
    assert normalise_phone_number(written, region="GB") == "+16505550199"


@pytest.mark.parametrize(
    ("written", "e164"),
    [
        ("+1 212 555 0100", "+12125550100"),
        ("+44 20 7946 0958", "+442079460958"),
        ("+44 (0)20 7946 0958", "+442079460958"),
        ("+44 (0) 113 496 0123", "+441134960123"),
        ("+44 0 20 7946 0958", "+442079460958"),
        ("+49 (0)30 23125 123", "+493023125123"),
        ("+49 171 3920012", "+491713920012"),
        ("+61 491 570 156", "+61491570156"),
        ("+61 (0)2 7010 1234", "+61270101234"),
        ("+33 1 99 00 12 34", "+33199001234"),
        ("+33 (0)1 99 00 12 34", "+33199001234"),
        ("+46 70-174 06 12", "+46701740612"),
        # in Italy the 0 belongs to the number
        ("+39 06 1234 5678", "+390612345678"),
        # the shortest numbers (Niue), and numbers that belong to no country (universal freephone)
        ("+683 4000", "+6834000"),
        ("+800 1234 5678", "+80012345678"),
    ],
)
def test_a_number_with_its_country_code_becomes_e164(written: str, e164: str) -> None:
    assert normalise_phone_number(written) == e164
    assert normalise_phone_number(e164) == e164


@pytest.mark.parametrize(
    "number",
    [
        "+22 607 123 4567",  # the example of ITU-T E.123, with a country that does not exist
        "+44 7700 900123",  # Ofcom's mobile numbers for fiction
        "+33 6 39 98 01 23",
        "+1 650 555 019",
        "+1 650 555 01999",
        "+44 20 7946 09580",
        "+44 00 20 7946 0958",
        "+1 0 650 555 0199",
        "+6505550199",
        "+0016505550199",
        "+999 650 555 0199",
        "+1 555 555 5555",
        "+16505550199 / 98",
    ],
)
def test_a_number_that_nobody_can_have_is_refused(number: str) -> None:
    assert "not a valid phone number" in refused_number(number)


# --- phone numbers without +


@pytest.mark.parametrize(
    ("written", "region", "e164"),
    [
        ("(650) 555-0199", "US", "+16505550199"),
        ("6505550199", "US", "+16505550199"),
        ("1 650 555 0199", "US", "+16505550199"),
        ("16505550199", "CA", "+16505550199"),
        ("020 7946 0958", "GB", "+442079460958"),
        ("(020) 7946 0958", "GB", "+442079460958"),
        ("442079460958", "GB", "+442079460958"),
        ("0491 570 156", "AU", "+61491570156"),
        ("030 / 23125-123", "DE", "+493023125123"),
        ("01 99 00 12 34", "FR", "+33199001234"),
        ("070-174 06 12", "SE", "+46701740612"),
        ("06 1234 5678", "IT", "+390612345678"),
        ("011 44 20 7946 0958", "US", "+442079460958"),
        ("00 44 20 7946 0958", "DE", "+442079460958"),
    ],
)
def test_a_local_number_is_completed_by_its_region(written: str, region: str, e164: str) -> None:
    assert normalise_phone_number(written, region=region) == e164


@pytest.mark.parametrize(
    ("number", "region"),
    [
        ("555-0199", "US"),
        ("442079460958", "US"),
        ("650 555 019", "US"),
        ("020 7946 095", "GB"),
        ("00 1 650 555 0199", "US"),
    ],
)
def test_a_local_number_that_its_region_does_not_have_is_refused_and_the_region_named(number: str, region: str) -> None:
    assert f"not a valid phone number in {region}" in refused_number(number, region=region)


@pytest.mark.parametrize(
    "written",
    [
        "6505550199",
        "16505550199",
        "(650) 555-0199",
        " 650.555.0199 ",
        "\u202a650\u2011555\u20110199\u202c",
        "\uff16\uff15\uff10\uff15\uff15\uff15\uff10\uff11\uff19\uff19",
        "00442079460958",
        "020 7946 0958",
        "1-900-555-0199",
        "011 53 5 123 4567",
        "9110000",
    ],
    ids=ascii,
)
def test_a_number_without_plus_and_region_is_refused_with_what_to_set(written: str) -> None:
    shown = refused_number(written)
    assert shown.endswith("has no country code; add + and the country code, or set default_region on the connection")


# --- what is not one phone number


@pytest.mark.parametrize(
    "number",
    [
        "+1 650 555 0199 x12",
        "+16505550199x12",
        "+1 650 555 0199 X 12",
        "+1 650 555 0199 ext 12",
        "+1 650 555 0199 ext. 12",
        "+1 650 555 0199 Ext: 12",
        "+1 650 555 0199 extension 12",
        "+1 650 555 0199 #12",
        "+16505550199,12",
        "+16505550199;12",
        "650-555-0199 x 4",
    ],
)
def test_an_extension_is_refused_since_it_can_not_be_dialled(number: str) -> None:
    for region in (None, "US"):
        assert "extension" in refused_number(number, region=region)


@pytest.mark.parametrize(
    "number",
    [
        "+4930 1234567O",
        "+49 30 O1234567",
        "+1-650-555-O199",
        "+1 650 555 0l99",
        "+l 650 555 0199",
        "1-800-FLOWERS",
        "+1 800 FLOWERS",
        "(650) 555-HELP",
        "+1 650 555 0199 Mary",
        "Mary +1 650 555 0199",
        "+1 650 555 0199 (home)",
        "tel:+16505550199",
        "+16505550199;ext=12",
        "+16505550199 poste 12",
        "+16505550199p12",
        "+16505550199~12",
        "+1650555\u00b2\u00b9990",
        "+1 650 555 \u2460199",
        "+1 650 555 0199\u0301",
        "+1_650_555_0199",
        "*67 650 555 0199",
        "+1 650 555 0199\0",
        "+1 650 555 0199\x1b[2J",
        "++16505550199",
        "+1+6505550199",
        "+",
        "-",
        "",
        " ",
        "none",
        "+16505550199 +16505550198",
        "+16505550199, +16505550198",
        "+16505550199; +16505550198",
        "+16505550199/+16505550198",
        "+16505550199 or 650 555 0198",
    ],
    ids=ascii,
)
def test_whatever_else_stands_in_a_number_it_is_refused_and_never_left_out(number: str) -> None:
    for region in (None, "US", "DE"):
        refused_number(number, region=region)


@pytest.mark.parametrize(
    ("number", "digits"),
    [
        ("911", 3),
        ("+911", 3),
        ("112", 3),
        ("32665", 5),
        ("555019", 6),
        ("+(-)", 0),
        ("6505550199 6505550198", 20),
        ("+16505550199/16505550198", 22),
        ("1234567890123456", 16),
    ],
)
def test_a_short_code_or_two_numbers_in_one_are_refused_by_their_length(number: str, digits: int) -> None:
    for region in (None, "US"):
        assert f"has {digits} digits" in refused_number(number, region=region)


_NOISE = list(" ()-./\u200e\u00a0\u2011\uff0d\uff10\u06f1OolxXeE,;:#*_~\u00b2\u00b7\n\t\0+")


@given(
    area=st.sampled_from(["30", "89", "171", "2302", "(0)30", "030"]),
    rest=st.text("0123456789", min_size=4, max_size=9),
    noise=st.lists(st.tuples(st.integers(0, 16), st.sampled_from(_NOISE)), max_size=3),
)
def test_no_digit_that_was_written_is_ever_lost(area: str, rest: str, noise: list[tuple[int, str]]) -> None:
    # German numbers have no fixed length: a number that lost its end would still be one in use
    written = area + rest
    for place, character in noise:
        written = written[:place] + character + written[place:]
    try:
        normal = normalise_phone_number(f"+49 {written}")
    except ApptotoValidationError:
        return
    digits = "".join(str(unicodedata.decimal(character)) for character in written if character.isdecimal())
    # except for the 0 that is dialled only within the country
    assert normal == f"+49{digits.removeprefix('0')}"
    assert not any(character.isalpha() for character in written)


# --- what takes no texts


@pytest.mark.parametrize(
    ("number", "named"),
    [
        ("+1 800 555 0199", "toll-free"),
        ("+1 888 555 0199", "toll-free"),
        ("+44 808 157 0123", "toll-free"),
        ("+800 1234 5678", "toll-free"),
    ],
)
def test_a_number_that_takes_no_texts_is_refused_for_sms_and_dialled_for_calls(number: str, named: str) -> None:
    assert named in refused_number(number, sms=True)
    assert normalise_phone_number(number, sms=False) == "+" + re.sub(r"\D", "", number)


def test_a_local_number_that_takes_no_texts_is_refused_too() -> None:
    assert "toll-free" in refused_number("(800) 555-0199", region="US", sms=True)
    assert "toll-free" in refused_number("0808 157 0123", region="GB", sms=True)


TYPES = phonenumbers.PhoneNumberType
REFUSED_TYPES = {
    TYPES.PREMIUM_RATE: "premium-rate",
    TYPES.SHARED_COST: "shared-cost",
    TYPES.UAN: "UAN (company)",
    TYPES.PAGER: "pager",
    TYPES.VOICEMAIL: "voicemail",
}


@pytest.mark.parametrize(("kind", "named"), REFUSED_TYPES.items(), ids=REFUSED_TYPES.values())
def test_a_number_that_costs_extra_or_reaches_no_person_gets_neither_texts_nor_calls(kind: int, named: str) -> None:
    tried = 0
    for country in [*phonenumbers.SUPPORTED_REGIONS, None]:
        example = phonenumbers.example_number_for_type(country, kind)
        # a number of two types counts as the first that phonenumbers looks for
        if example is None or phonenumbers.number_type(example) != kind:
            continue
        number = phonenumbers.format_number(example, phonenumbers.PhoneNumberFormat.E164)
        if len(number) < len("+1234567"):
            continue
        tried += 1
        for sms in (True, False):
            shown = refused_number(number, sms=sms, allowed_regions=["*"])
            assert f"is a {named} number, which is not allowed; use another number" in shown
    assert tried > 10


@pytest.mark.parametrize(("number", "named"), [("1-900-555-0199", "premium-rate"), ("(800) 555-0199", "toll-free")])
def test_the_type_of_a_local_number_is_known_by_its_region(number: str, named: str) -> None:
    assert f"is a {named} number" in refused_number(number, region="US", sms=True)


# --- regions that are allowed


@pytest.mark.parametrize(
    ("number", "regions"),
    [
        ("+16505550199", ["US"]),
        ("+16505550199", ["GB", "US"]),
        ("+16505550199", ["*"]),
        ("+16505550199", ["GB", "*"]),
        ("+16505550199", None),
        ("+1 514 555 0199", ["CA"]),
        ("+1 787 555 0199", ["PR"]),
        ("+1 800 555 0199", ["US"]),
        ("+1 800 555 0199", ["CA"]),
        ("+800 1234 5678", ["*"]),
        ("+800 1234 5678", None),
    ],
)
def test_a_number_of_an_allowed_region_is_let_through(number: str, regions: list[str] | None) -> None:
    assert normalise_phone_number(number, allowed_regions=regions) == "+" + re.sub(r"\D", "", number)


@pytest.mark.parametrize(
    ("number", "regions", "problem"),
    [
        ("+53 5 123 4567", ["US"], "of CU, but allowed_regions is US. To allow it, set allowed_regions ... to US, CU"),
        (
            "+1 514 555 0199",
            ["US"],
            "of CA, but allowed_regions is US. To allow it, set allowed_regions ... to US, CA",
        ),
        (
            "+1 787 555 0199",
            ["US"],
            "of PR, but allowed_regions is US. To allow it, set allowed_regions ... to US, PR",
        ),
        ("+16505550199", ["GB", "CA"], "of US, but allowed_regions is CA, GB. To allow it, set ... to CA, GB, US"),
        ("+882 16 1234 5678", ["US"], "of no country, but allowed_regions is US. To allow it, set ... to *"),
    ],
)
def test_a_number_of_another_region_is_refused_with_the_region_to_add(
    number: str, regions: list[str], problem: str
) -> None:
    for sms in (True, False):
        shown = refused_number(number, allowed_regions=regions, sms=sms)
        for part in problem.split(" ... "):
            assert part in shown


def test_a_local_number_that_dials_abroad_is_refused_too() -> None:
    assert "is a number of CU" in refused_number("011 53 5 123 4567", region="US", allowed_regions=["US"])


def test_e164_is_a_form_alone_and_asks_neither_for_type_nor_for_region() -> None:
    assert e164("+19005550199", region="GB", field="suppression") == "+19005550199"


@pytest.mark.parametrize("number", ["+16505550199", "+442079460958", "+61491570156", "+491713920012"])
def test_a_number_that_may_take_texts_is_let_through(number: str) -> None:
    assert normalise_phone_number(number, sms=True) == number


def test_a_landline_is_warned_of_where_a_text_is_to_go_there(caplog: pytest.LogCaptureFixture) -> None:
    for number in ("+442079460958", "+493023125123"):
        caplog.clear()
        normalise_phone_number(number, sms=True)
        [record] = caplog.records
        assert record.levelname == "WARNING"
        assert "landline" in record.getMessage()
        assert number[3:-4] not in record.getMessage()
    caplog.clear()
    normalise_phone_number("+442079460958", sms=False)
    # in North America, a number does not show whether it is a landline
    normalise_phone_number("+16505550199", sms=True)
    normalise_phone_number("+61491570156", sms=True)
    assert caplog.records == []


def test_a_refusal_names_the_field_it_is_told() -> None:
    with pytest.raises(ApptotoValidationError) as number:
        normalise_phone_number("911", field="redirect_phone_to")
    with pytest.raises(ApptotoValidationError) as address:
        normalise_email_address("mary", field="redirect_email_to")
    assert (number.value.field, address.value.field) == ("redirect_phone_to", "redirect_email_to")


# --- regions


@pytest.mark.parametrize(("region", "code"), [("US", "US"), ("us", "US"), ("gB", "GB")])
def test_a_region_is_two_letters_in_either_case(region: str, code: str) -> None:
    assert check_region(region) == code


@pytest.mark.parametrize("region", ["", "UK", "USA", "+1", "001", "ZZ", "Germany", " US"])
def test_what_is_no_region_is_refused_and_shown(region: str) -> None:
    with pytest.raises(ApptotoConfigurationError) as raised:
        check_region(region)
    assert raised.value.field == "default_region"
    assert repr(region) in str(raised.value)


@pytest.mark.parametrize(
    ("regions", "codes"),
    [("US", ("US",)), ("US, CA", ("US", "CA")), (" us,gb ", ("US", "GB")), ("*", ("*",)), ("US,*", ("US", "*"))],
)
def test_a_list_of_regions_is_separated_by_commas(regions: str, codes: tuple[str, ...]) -> None:
    assert check_regions(regions) == codes


@pytest.mark.parametrize("regions", ["UK", "US, UK", "US CA", "US;CA", "US,", ",", "**", "+1", "001", "all"])
def test_a_list_with_what_is_no_region_is_refused(regions: str) -> None:
    with pytest.raises(ApptotoConfigurationError, match="is not a region code; use two letters") as raised:
        check_regions(regions)
    assert raised.value.field == "allowed_regions"


# --- e-mail addresses


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("mary@clinic.example", "mary@clinic.example"),
        (" mary@clinic.example ", "mary@clinic.example"),
        ("mary@CLINIC.Example", "mary@clinic.example"),
        ("Mary.Jones+visit@clinic.example", "Mary.Jones+visit@clinic.example"),
        ("m@sub.clinic.example", "m@sub.clinic.example"),
        ("o'brien@clinic.example", "o'brien@clinic.example"),
        ("j\u00f6rg@clinic.example", "j\u00f6rg@clinic.example"),
        ("jo\u0308rg@clinic.example", "j\u00f6rg@clinic.example"),
        ("mary@m\u00fcnchen.example", "mary@m\u00fcnchen.example"),
        ("mary@MU\u0308NCHEN.example", "mary@m\u00fcnchen.example"),
        ("mary@xn--mnchen-3ya.example", "mary@m\u00fcnchen.example"),
        ("mary@\uff43linic.example", "mary@clinic.example"),
    ],
    ids=ascii,
)
def test_one_address_has_one_form_and_its_mailbox_keeps_its_case(written: str, normal: str) -> None:
    assert normalise_email_address(written) == normal
    assert normalise_email_address(normal) == normal


def test_an_address_that_not_all_servers_take_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    normalise_email_address("mary@m\u00fcnchen.example")
    assert caplog.records == []
    normalise_email_address("j\u00f6rg.jones@clinic.example")
    [record] = caplog.records
    assert (record.levelname, "SMTPUTF8" in record.getMessage()) == ("WARNING", True)
    assert "rg" not in record.getMessage()


@pytest.mark.parametrize(
    "address",
    [
        "",
        "mary",
        "@clinic.example",
        "mary@",
        "mary@clinic",
        "a@b",
        "mary@@clinic.example",
        "mary@clinic.example.",
        "mary@.example",
        "mary@clinic..example",
        "mary@-clinic.example",
        ".mary@clinic.example",
        "mary..jones@clinic.example",
        "mary jones@clinic.example",
        "mary@clinic .example",
        "mary@clinic,example",
        '"mary jones"@clinic.example',
        "mary@[127.0.0.1]",
        "mary@127.0.0.1",
        "Mary Jones <mary@clinic.example>",
        "<mary@clinic.example>",
        "mary@clinic.example (Mary)",
        "mailto:mary@clinic.example",
        "mary@clinic.example, jo@clinic.example",
        "mary@clinic.example;jo@clinic.example",
        "mary@clinic.example jo@clinic.example",
        "mary\u200b@clinic.example",
        "\u200emary@clinic.example",
        "x" * 300 + "@clinic.example",
        "mary@" + "x" * 64 + ".example",
    ],
    ids=lambda address: ascii(address)[:40],
)
def test_what_is_not_one_bare_address_is_refused(address: str) -> None:
    assert "use a bare address" in refused_address(address)


@pytest.mark.parametrize("ending", ["\n", "\r", "\r\n", "\x0b", "\x85", "\u2028", "\0"], ids=ascii)
def test_no_header_can_be_smuggled_into_an_address(ending: str) -> None:
    refused_address(f"mary@clinic.example{ending}Bcc: all@clinic.example")
    refused_address(f"mary{ending}Bcc: all@clinic.example")


@pytest.mark.parametrize(
    "domain",
    ["localhost", "clinic.localhost", "clinic.local", "clinic.invalid", "clinic.test", "clinic.onion", "clinic.arpa"],
)
def test_a_domain_that_no_mail_can_reach_is_refused(domain: str) -> None:
    refused_address(f"mary@{domain}")


def test_no_name_server_is_asked_about_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(*_: object, **__: object) -> None:
        pytest.fail("a name server was asked")

    monkeypatch.setattr("email_validator.deliverability.validate_email_deliverability", ask)
    monkeypatch.setattr("socket.getaddrinfo", ask)
    assert normalise_email_address("mary@no-such-clinic.example") == "mary@no-such-clinic.example"
