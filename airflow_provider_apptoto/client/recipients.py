"""Validate and normalise phone numbers and e-mail addresses."""

from __future__ import annotations

import logging
import re
import unicodedata
from typing import TYPE_CHECKING

from airflow_provider_apptoto.client.errors import ApptotoConfigurationError, ApptotoValidationError
from airflow_provider_apptoto.privacy import mask_recipient

if TYPE_CHECKING:
    from collections.abc import Collection

    from email_validator import ValidatedEmail
    from phonenumbers import PhoneNumber

log = logging.getLogger(__name__)

_EXTENSION = re.compile(r"\d\s*(?:x|ext|extension|#|;|,)[\s.:=]*\d+$", re.IGNORECASE)
_WRITTEN_NUMBER = re.compile(r"[\s(]*\+?[\d\s().\-/]+")
_MIN_DIGITS, _MAX_DIGITS = 7, 15
"""Subscriber numbers have at least seven digits in practice, and at most 15 (ITU-T E.164)."""
ALL_REGIONS = "*"
_SCHEME = re.compile(r"\s*(?:tel|mailto):", re.IGNORECASE)
_OTHER_FORMS = (
    # Mexico dropped these prefixes of mobile numbers in 2019
    (re.compile(r"\+52(?:1|01|044|045)(\d{10})"), r"+52\1"),
    # Brazil put a 9 before its mobile numbers until 2016
    (re.compile(r"\+55(\d\d)([689]\d{7})"), r"+55\g<1>9\2"),
    # in Italy, only numbers of landlines begin with 0, also after +39
    (re.compile(r"\+390(3\d{8,9})"), r"+39\1"),
    (re.compile(r"\+39([1-9]\d+)"), r"+390\1"),
)
"""Old or mistaken ways to write E.164 numbers, and today's; used only if the first is not a number in use."""
_ARGENTINA = re.compile(r"\+549?([1-8]\d{9})")
"""A number in Argentina; mobile numbers have a 9 here, which is often omitted."""


def canonical(recipient: object, region: str | None, *, field: str = "recipient") -> str:
    """Return one form for all spellings of a recipient, to compare recipients. It is not meant for sending.

    A recipient in the normal form of messages is returned unchanged, except that addresses are in lower case. A number
    that is not in use is allowed if it has a country code.

    :param recipient: a phone number or an e-mail address.
    :param region: region of numbers without ``+``.
    :param field: name of the field in the error.
    :raises ApptotoValidationError: it is neither, or a number without ``+`` that is not in use in ``region``.
    """
    import phonenumbers

    if not isinstance(recipient, str):
        raise ApptotoValidationError(field, f"must be a string, not {type(recipient).__name__}", code="field_not_text")
    bare = recipient[found.end() :] if (found := _SCHEME.match(recipient)) else recipient
    if "@" in bare:
        return _validated_address(bare, field=field).normalized.casefold()
    written = written_number(bare, field=field)
    try:
        return e164(written, region=region, field=field)
    except ApptotoValidationError as error:
        if error.code == "region_needed":
            raise
        refusal = error
    try:
        parsed = phonenumbers.parse(written, region)
    except phonenumbers.NumberParseException:
        number = f"+{''.join(filter(str.isdigit, written))}"
    else:
        number = phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)
    for pattern, form in _OTHER_FORMS:
        other = pattern.sub(form, number) if pattern.fullmatch(number) else number
        if other != number and phonenumbers.is_valid_number(phonenumbers.parse(other)):
            return other
    if "+" not in written:
        raise refusal
    return number


def spellings(recipient: str) -> tuple[str, ...]:
    """Return all forms that name the same recipient as a canonical one, in an order that depends on the recipient only.

    In Argentina, numbers with and without the 9 of mobile numbers are the same: no number is both mobile and landline.

    :param recipient: as :func:`canonical` returns it, or ``Message.to``.
    """
    if found := _ARGENTINA.fullmatch(recipient):
        return f"+549{found[1]}", f"+54{found[1]}"
    return (recipient,)


def normalise_phone_number(
    number: str,
    *,
    region: str | None = None,
    allowed_regions: Collection[str] | None = None,
    field: str = "to",
    sms: bool = False,
) -> str:
    """Return a phone number that may receive messages, as E.164.

    :param number: with a leading ``+`` and country code, or as it is dialled within ``region``.
    :param region: two letters (ISO 3166) in capitals, e.g. ``US``; the region of a number without ``+``.
    :param allowed_regions: regions whose numbers may receive messages; ``*`` among them, or ``None``: all.
    :param field: name of the field in the error.
    :param sms: whether the number must be able to receive text messages.
    :raises ApptotoValidationError: the number is invalid, has neither ``+`` nor ``region``, is of a region that is not
        allowed, or of a type that is not allowed.
    """
    import phonenumbers

    plain = written_number(number, field=field)
    parsed = _parse(plain, region, field=field)
    shown = mask_recipient(plain)
    _check_type(phonenumbers.number_type(parsed), shown, field=field, sms=sms)
    if not (
        allowed_regions is None
        or ALL_REGIONS in allowed_regions
        or any(phonenumbers.is_valid_number_for_region(parsed, allowed) for allowed in allowed_regions)
    ):
        country = phonenumbers.region_code_for_number(parsed)
        is_region = country in phonenumbers.SUPPORTED_REGIONS
        wanted = ", ".join([*sorted(allowed_regions), str(country)]) if is_region else ALL_REGIONS
        msg = (
            f"{shown} is a number of {country if is_region else 'no country'}, but allowed_regions is "
            f"{', '.join(sorted(allowed_regions))}. To allow it, set allowed_regions on the connection to {wanted}"
        )
        raise ApptotoValidationError(field, msg, code="region_not_allowed")
    return phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)


def e164(number: str, *, region: str | None, field: str) -> str:
    """Return a phone number as E.164, whether or not it may receive messages.

    :param number: as :func:`written_number` returns it.
    :raises ApptotoValidationError: the number is invalid, or has neither ``+`` nor ``region``.
    """
    import phonenumbers

    return phonenumbers.format_number(_parse(number, region, field=field), phonenumbers.PhoneNumberFormat.E164)


def written_number(number: str, *, field: str) -> str:
    """Return a phone number as it was written, without invisible characters.

    :raises ApptotoValidationError: it does not look like a phone number.
    """
    shown = mask_recipient(number)
    # Numbers pasted from address books contain invisible direction marks and typographic dashes and spaces.
    plain = "".join(_plain(character) for character in number).strip()
    if _EXTENSION.search(plain):
        msg = "has an extension, which can't be dialled; remove it"
        raise ApptotoValidationError(field, msg, code="recipient_invalid")
    if _WRITTEN_NUMBER.fullmatch(plain) is None:
        msg = f"{shown} is not a phone number: only digits, spaces, ( ) . - / and a leading + are allowed"
        raise ApptotoValidationError(field, msg, code="recipient_invalid")
    digits = sum(character.isdigit() for character in plain)
    if not _MIN_DIGITS <= digits <= _MAX_DIGITS:
        msg = (
            f"{shown} has {digits} digits; a phone number has {_MIN_DIGITS} to {_MAX_DIGITS} (short codes are not "
            "supported)"
        )
        raise ApptotoValidationError(field, msg, code="recipient_invalid")
    return plain


def _plain(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Nd":
        return str(unicodedata.decimal(character))
    return "+" if character == "\uff0b" else {"Cf": "", "Pd": "-", "Zs": " "}.get(category, character)


def _parse(number: str, region: str | None, *, field: str) -> PhoneNumber:
    import phonenumbers

    shown = mask_recipient(number)
    if "+" not in number and region is None:
        msg = f"{shown} has no country code; add + and the country code, or set default_region on the connection"
        raise ApptotoValidationError(field, msg, code="region_needed")
    try:
        parsed = phonenumbers.parse(number, region)
    except phonenumbers.NumberParseException:
        parsed = None
    if parsed is None or not phonenumbers.is_valid_number(parsed):
        where = "" if "+" in number else f" in {region}"
        msg = f"{shown} is not a valid phone number{where}; check it. Numbers abroad start with + and the country code"
        raise ApptotoValidationError(field, msg, code="recipient_not_in_use")
    return parsed


def _check_type(number_type: int, shown: str, *, field: str, sms: bool) -> None:
    """Reject numbers that cost extra or that don't reach a person."""
    from phonenumbers import PhoneNumberType

    refused = {
        PhoneNumberType.PREMIUM_RATE: "premium-rate",
        PhoneNumberType.SHARED_COST: "shared-cost",
        PhoneNumberType.UAN: "UAN (company)",
        PhoneNumberType.PAGER: "pager",
        PhoneNumberType.VOICEMAIL: "voicemail",
    }
    if number_type in refused:
        msg = f"{shown} is a {refused[number_type]} number, which is not allowed; use another number"
        costs_extra = number_type in {PhoneNumberType.PREMIUM_RATE, PhoneNumberType.SHARED_COST}
        raise ApptotoValidationError(field, msg, code="premium_number" if costs_extra else "number_type_refused")
    if sms and number_type == PhoneNumberType.TOLL_FREE:
        msg = f"{shown} is a toll-free number, which can't receive text messages"
        raise ApptotoValidationError(field, msg, code="number_type_refused")
    if sms and number_type == PhoneNumberType.FIXED_LINE:
        log.warning("%s: %s is a landline, which may not receive text messages", field, shown)


def normalise_email_address(address: str, *, field: str = "to") -> str:
    """Return an e-mail address in its normal form, without DNS queries.

    :param address: one bare address, without a display name.
    :param field: name of the field in the error.
    :raises ApptotoValidationError: it is not a single valid address.
    """
    found = _validated_address(address, field=field)
    if found.ascii_email is None:
        log.warning(
            "%s: %s has non-ASCII letters, which some mail servers reject (no SMTPUTF8)", field, mask_recipient(address)
        )
    return found.normalized


def _validated_address(address: str, *, field: str) -> ValidatedEmail:
    import email_validator

    try:
        found = email_validator.validate_email(address.strip(), check_deliverability=False)
    except email_validator.EmailNotValidError:
        # raise below: this error may quote the address, and must not be the context
        found = None
    if found is None:
        msg = f"{mask_recipient(address)} is not a valid e-mail address; use a bare address such as name@clinic.example"
        raise ApptotoValidationError(field, msg, code="recipient_invalid")
    return found


def check_region(region: str, *, field: str = "default_region") -> str:
    """Return a region code in upper case.

    :param field: name of the field in the error.
    :raises ApptotoConfigurationError: it is not a region with its own phone numbers.
    """
    import phonenumbers

    if (code := region.upper()) not in phonenumbers.SUPPORTED_REGIONS:
        msg = f"{region!r} is not a region code; use two letters (ISO 3166) such as US or GB"
        raise ApptotoConfigurationError(field, msg, code="region_invalid")
    return code


def check_regions(regions: str) -> tuple[str, ...]:
    """Return the region codes of a list like ``US, CA``, in upper case; ``*`` stands for all regions.

    :raises ApptotoConfigurationError: a code is not a region with its own phone numbers.
    """
    codes = [code.strip() for code in regions.split(",")]
    return tuple(code if code == ALL_REGIONS else check_region(code, field="allowed_regions") for code in codes)
