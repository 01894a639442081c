"""From what people write to what can be dialled or mailed: recipients, checked before they are paid for."""

from __future__ import annotations

import logging
import re
import unicodedata

from airflow_provider_apptoto.client.errors import ApptotoConfigurationError, ApptotoValidationError
from airflow_provider_apptoto.privacy import mask_recipient

log = logging.getLogger(__name__)

_EXTENSION = re.compile(r"\d\s*(?:x|ext|extension|#|;|,)[\s.:=]*\d+$", re.IGNORECASE)
_WRITTEN_NUMBER = re.compile(r"[\s(]*\+?[\d\s().\-/]+")
_FEWEST_DIGITS, _MOST_DIGITS = 7, 15
"""Subscriber numbers have at least seven digits in practice, and at most 15 (ITU-T E.164)."""


def normalise_phone_number(number: str, *, region: str | None = None, field: str = "to", sms: bool = False) -> str:
    """Return a phone number as E.164 where it can be known, else as it was written.

    :param number: with a leading ``+`` and country code, or as it is dialled within ``region``.
    :param region: two letters (ISO 3166), e.g. ``US``. Without it a number that has no ``+`` is only checked for
        its shape: Apptoto completes it by the account's own country (apidocs.apptoto.com/reference/v1events).
    :param field: the field's name for the error.
    :param sms: whether it has to take text messages.
    :raises ApptotoValidationError: not a number that can be dialled from everywhere, or not one that takes texts.
    """
    plain = written_number(number, field=field)
    if "+" not in plain and region is None:
        return plain
    return _e164(plain, region, field=field, shown=mask_recipient(number), sms=sms)


def written_number(number: str, *, field: str) -> str:
    """Return what is written as a phone number, without what can't be seen.

    :raises ApptotoValidationError: it has not the shape of one.
    """
    shown = mask_recipient(number)
    # Address books paste invisible direction marks and typographic dashes and spaces along with a number.
    plain = "".join(_plain(character) for character in number).strip()
    if _EXTENSION.search(plain):
        msg = "has an extension, which can't be dialled; give the number alone"
        raise ApptotoValidationError(field, msg)
    if _WRITTEN_NUMBER.fullmatch(plain) is None:
        msg = f"{shown} is not a phone number: only digits, spaces, ( ) . - / and a leading + are allowed"
        raise ApptotoValidationError(field, msg)
    digits = sum(character.isdigit() for character in plain)
    if not _FEWEST_DIGITS <= digits <= _MOST_DIGITS:
        msg = (
            f"{shown} has {digits} digits: a phone number has {_FEWEST_DIGITS} to {_MOST_DIGITS}, "
            "and short codes can't be reached"
        )
        raise ApptotoValidationError(field, msg)
    return plain


def _plain(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Nd":
        return str(unicodedata.decimal(character))
    return "+" if character == "\uff0b" else {"Cf": "", "Pd": "-", "Zs": " "}.get(category, character)


def _e164(number: str, region: str | None, *, field: str, shown: str, sms: bool) -> str:
    import phonenumbers

    try:
        parsed = phonenumbers.parse(number, region)
    except phonenumbers.NumberParseException:
        parsed = None
    if parsed is None or not phonenumbers.is_valid_number(parsed):
        where = "" if "+" in number else f" in {region}"
        msg = f"{shown} is not a number in use{where}; check it, and write other countries' with + and country code"
        raise ApptotoValidationError(field, msg)
    kind = phonenumbers.number_type(parsed)
    if sms and kind in {phonenumbers.PhoneNumberType.TOLL_FREE, phonenumbers.PhoneNumberType.PREMIUM_RATE}:
        named = "toll-free" if kind == phonenumbers.PhoneNumberType.TOLL_FREE else "premium-rate"
        raise ApptotoValidationError(field, f"{shown} is a {named} number, which takes no text messages")
    if sms and kind == phonenumbers.PhoneNumberType.FIXED_LINE:
        log.warning("%s: %s is a landline, where a text may never arrive", field, shown)
    return phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)


def normalise_email_address(address: str, *, field: str = "to") -> str:
    """Return an e-mail address in its normal form, without asking the DNS.

    :param address: one bare address, without a display name.
    :param field: the field's name for the error.
    :raises ApptotoValidationError: not one address.
    """
    import email_validator

    try:
        found = email_validator.validate_email(address.strip(), check_deliverability=False)
    except email_validator.EmailNotValidError:
        # its text may quote the address
        msg = f"{mask_recipient(address)} is not an e-mail address; give one bare address, like name@clinic.example"
        raise ApptotoValidationError(field, msg) from None
    if found.ascii_email is None:
        log.warning("%s: %s has letters that not all mail servers take (SMTPUTF8)", field, mask_recipient(address))
    return found.normalized


def check_region(region: str) -> str:
    """Return a region code in upper case.

    :raises ApptotoConfigurationError: not a region with phone numbers of its own.
    """
    import phonenumbers

    if (code := region.upper()) not in phonenumbers.SUPPORTED_REGIONS:
        msg = f"{region!r} is not a region; give two letters (ISO 3166), like US or GB"
        raise ApptotoConfigurationError("default_region", msg)
    return code
