"""One message, validated before any byte is sent."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from dataclasses import InitVar, dataclass
from typing import Any, Literal, get_args

from airflow_provider_apptoto.client.errors import ApptotoConfigurationError, ApptotoValidationError
from airflow_provider_apptoto.client.recipients import normalise_email_address, normalise_phone_number
from airflow_provider_apptoto.client.segments import estimate_segments
from airflow_provider_apptoto.privacy import AIRFLOW_MASK, MASK, mask_recipient

MessageType = Literal["sms", "call", "email"]
_INVISIBLE_CATEGORIES = {"Cc", "Cf", "Zl", "Zp", "Zs"}
MESSAGE_TYPES: tuple[str, ...] = get_args(MessageType)
TARGETS = ("to", "event_id", "participant_id")
TEXT_FIELDS = ("message", "subject")
MESSAGE_FIELDS = ("type", *TARGETS, *TEXT_FIELDS, "template_id")
_MAX_ID_DIGITS = 18
"""Any number of 18 digits fits into a 64-bit integer."""
_MAX_ID = 10**_MAX_ID_DIGITS - 1
_OPENING = re.compile(r"\{[{%#]")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Category Cc of Unicode, without tab and newline."""
_INVISIBLE = re.compile(
    r"[\s\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Invisible letters and marks of Unicode (Default_Ignorable_Code_Point, and the Braille blank)."""


@dataclass(frozen=True, slots=True, repr=False)
class Message:
    """One message for ``POST /v1/send_message``. Fields have the endpoint's names.

    Source: apidocs.apptoto.com/reference/v1send_message.

    Every instance is valid: texts are not blank and can be encoded, no text for ``to`` contains template syntax, the
    recipient is normalised, and ids are integers. The ``repr`` shows neither recipient nor text.

    :param type: ``sms``, ``call`` or ``email``.
    :param to: phone number (``sms``, ``call``) or e-mail address (``email``).
    :param event_id: id of an event; every participant gets a copy. An integer, or a string of digits.
    :param participant_id: id of one participant of an event; an integer, or a string of digits.
    :param message: the text; required unless ``template_id`` is given. The only control characters allowed are newline
        and tab; CR LF and CR become newlines.
    :param subject: for ``email`` only; one line.
    :param template_id: id of a template stored in Apptoto; an integer, or a string of digits.
    :param redact: whether ``target`` masks the recipient.
    :param max_segments: maximum estimated SMS segments of an ``sms``, at least 1; ``None``: no limit. Texts with
        dynamic fields are not limited, because their length is unknown.
    :param default_region: region (ISO 3166 in capitals, e.g. ``US``) of numbers without ``+``. Without it, such
        numbers are refused.
    :param allowed_regions: regions (as ``default_region``) whose numbers may receive messages; ``*``: all. ``None``:
        ``default_region``, or all if there is none. Not stored: a copy made by ``dataclasses.replace`` may go to any
        region.
    :raises ApptotoValidationError: exactly one of ``to``, ``event_id`` and ``participant_id`` is needed, and at least
        one of ``message`` and ``template_id``; or a field is invalid.
    :raises ApptotoConfigurationError: ``max_segments`` is neither ``None`` nor an integer of at least 1.
    """

    type: str
    to: str | None = None
    event_id: int | str | None = None
    participant_id: int | str | None = None
    message: str | None = None
    subject: str | None = None
    template_id: int | str | None = None
    redact: bool = True
    max_segments: int | None = 3
    default_region: InitVar[str | None] = None
    allowed_regions: InitVar[Collection[str] | None] = None

    def __post_init__(self, default_region: str | None, allowed_regions: Collection[str] | None) -> None:
        """Validate every field and store its normal form."""
        _check_max_segments(self.max_segments)
        if self.type not in MESSAGE_TYPES:
            # the value is not shown: it may be a text or a recipient, passed by mistake
            raise ApptotoValidationError("type", f"must be one of {', '.join(MESSAGE_TYPES)}", code="type_unknown")
        given = [name for name in TARGETS if getattr(self, name) is not None]
        if len(given) != 1:
            msg = f"exactly one of {', '.join(TARGETS)} is required; given: {', '.join(given) or 'none'}"
            raise ApptotoValidationError("to", msg, code="target_ambiguous" if given else "target_missing")
        if self.message is None and self.template_id is None:
            raise ApptotoValidationError("message", "is required unless template_id is given", code="text_missing")
        if self.subject is not None and self.type != "email":
            msg = f"is allowed for email only, not for {self.type}"
            raise ApptotoValidationError("subject", msg, code="subject_not_allowed")
        checked = {
            "to": _recipient(self.type, self.to, default_region, allowed_regions),
            "event_id": check_id("event_id", self.event_id),
            "participant_id": check_id("participant_id", self.participant_id),
            "message": _without_controls("message", _text("message", self.message)),
            "subject": _line("subject", self.subject),
            "template_id": check_id("template_id", self.template_id),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        if self.to is not None:
            _check_rendered("message", self.message)
            _check_rendered("subject", self.subject)
        if self.type == "sms" and self.message is not None and self.max_segments is not None:
            _check_length(self.message, self.max_segments)

    @property
    def target(self) -> str:
        """The recipient, masked if ``redact`` is set; or ``event 123``, ``participant 456``."""
        if self.to is not None:
            return mask_recipient(self.to) if self.redact else self.to
        return f"event {self.event_id}" if self.event_id is not None else f"participant {self.participant_id}"

    @property
    def masked_target(self) -> str:
        """The same as ``target``, but always masked."""
        return self.target if self.to is None else mask_recipient(self.to)

    @property
    def size(self) -> str:
        """The estimated SMS segments, to append to a log line; empty for other channels."""
        return f", {estimate_segments(self.message)}" if self.type == "sms" and self.message is not None else ""

    @property
    def private(self) -> tuple[str, ...]:
        """Values that must not be shown: recipient, text, subject."""
        return tuple(text for text in (self.to, self.message, self.subject) if text is not None)

    def payload(self) -> dict[str, Any]:
        """Return the JSON object of the request. As documented, ``template_id`` is a string, other ids are integers."""
        template_id = None if self.template_id is None else str(self.template_id)
        fields = {
            "type": self.type,
            "to": self.to,
            "event_id": self.event_id,
            "participant_id": self.participant_id,
            "message": self.message,
            "subject": self.subject,
            "template_id": template_id,
        }
        return {name: value for name, value in fields.items() if value is not None}

    def __repr__(self) -> str:
        """Show only type and masked target."""
        return f"<Message {self.type} to {self.target}>"


def _check_max_segments(value: object) -> None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return
    msg = f"{value!r} is not an integer of at least 1; None means no limit"
    raise ApptotoConfigurationError("max_segments", msg)


def _check_length(text: str, max_segments: int) -> None:
    if _OPENING.search(text):  # dynamic fields: the length after Apptoto fills them in is unknown
        return
    segments = estimate_segments(text)
    if segments.parts > max_segments:
        msg = (
            f"takes about {segments}, more than max_segments={max_segments}; shorten the text or raise max_segments "
            "(None: no limit)"
        )
        raise ApptotoValidationError("message", msg, code="text_too_long")


def _recipient(kind: str, to: object, region: str | None, allowed_regions: Collection[str] | None) -> str | None:
    if isinstance(to, int | float):
        msg = (
            "must be a string; it is a number, so a leading + is lost (render_template_as_native_obj turns strings "
            "into numbers)"
        )
        raise ApptotoValidationError("to", msg, code="field_not_text")
    recipient = _line("to", to)
    if recipient is None:
        return None
    if kind == "email":
        return normalise_email_address(recipient)
    if "@" in recipient:
        msg = f"{mask_recipient(recipient)} is an e-mail address, but type {kind} needs a phone number"
        raise ApptotoValidationError("to", msg, code="recipient_invalid")
    if allowed_regions is None and region is not None:
        allowed_regions = (region,)
    return normalise_phone_number(recipient, region=region, allowed_regions=allowed_regions, sms=kind == "sms")


def check_id(field: str, value: object) -> int | None:
    """Return an id as an integer.

    :param field: name of the field in the error.
    :raises ApptotoValidationError: it is neither a positive integer nor a string of digits.
    """
    if value is None:
        return None
    digits = ""
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _MAX_ID):
        digits = str(value).strip()
    if digits.isascii() and digits.isdigit() and len(digits) <= _MAX_ID_DIGITS and int(digits) > 0:
        return int(digits)
    is_blank = isinstance(value, str) and not value.strip()
    shown = "a blank string" if is_blank else f"an invalid {type(value).__name__}"
    problem = f"must be a positive integer or a string of digits; got {shown}"
    raise ApptotoValidationError(field, problem, code="id_invalid")


def _text(field: str, value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        problem = f"must be a string, not {type(value).__name__}"
        raise ApptotoValidationError(field, problem, code="field_not_text")
    if all(
        unicodedata.category(character) in _INVISIBLE_CATEGORIES or _INVISIBLE.match(character) for character in value
    ):
        raise ApptotoValidationError(field, "must not be blank", code="field_empty")
    if value.strip() in {AIRFLOW_MASK, MASK}:
        problem = "is a masked value; use the original value"
        raise ApptotoValidationError(field, problem, code="value_masked")
    try:
        value.encode()
    except UnicodeEncodeError:
        msg = "contains a lone surrogate, which can't be encoded; decode its source as UTF-8"
        raise ApptotoValidationError(field, msg, code="text_not_encodable") from None
    return value


def _without_controls(field: str, text: str | None) -> str | None:
    if text is None:
        return None
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if found := CONTROL.search(text):
        msg = (
            f"contains the control character U+{ord(found[0]):04X} at position {found.start() + 1}; only newline and "
            "tab are allowed. Remove it at the source"
        )
        raise ApptotoValidationError(field, msg, code="control_character")
    return text


def _check_rendered(field: str, text: str | None) -> None:
    """Reject template syntax: Apptoto fills in dynamic fields for events and participants only (assumed)."""
    if text is not None and (found := _OPENING.search(text)):
        msg = (
            f"contains {found[0]}, which would be sent literally: Apptoto fills in dynamic fields for an event_id or "
            "participant_id only. Render the text first, or put a space between the braces"
        )
        raise ApptotoValidationError(field, msg, code="text_unrendered")


def _line(field: str, value: object) -> str | None:
    text = _text(field, value)
    if text is not None and any(unicodedata.category(character) in {"Cc", "Zl", "Zp"} for character in text):
        problem = "must be one line without control characters"
        raise ApptotoValidationError(field, problem, code="control_character")
    return text
