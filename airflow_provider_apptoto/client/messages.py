"""What Apptoto accepts: one message, checked before a byte leaves."""

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
_NOTHING_TO_SEE = {"Cc", "Cf", "Zl", "Zp", "Zs"}
MESSAGE_TYPES: tuple[str, ...] = get_args(MessageType)
TARGETS = ("to", "event_id", "participant_id")
TEXT_FIELDS = ("message", "subject")
MESSAGE_FIELDS = ("type", *TARGETS, *TEXT_FIELDS, "template_id")
_MAX_ID_DIGITS = 18
"""What a 64-bit integer holds in any case."""
_MAX_ID = 10**_MAX_ID_DIGITS - 1
_OPENING = re.compile(r"\{[{%#]")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Category Cc of Unicode, without tab and newline."""
_INVISIBLE = re.compile(
    r"[\s\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Letters and marks of Unicode that show nothing (Default_Ignorable_Code_Point, and the blank of Braille)."""


@dataclass(frozen=True, slots=True, repr=False)
class Message:
    """One message for ``POST /v1/send_message``, with the endpoint's own names for its fields.

    Source: apidocs.apptoto.com/reference/v1send_message.

    A ``Message`` that exists is valid: texts are not blank, can be encoded, and are no template where nobody would fill
    it in; the recipient is normalised, ids have the types of the endpoint's table. Its ``repr`` shows neither recipient
    nor text.

    :param type: ``sms``, ``call`` or ``email``.
    :param to: phone number (``sms``, ``call``) or e-mail address (``email``).
    :param event_id: every participant of this event gets a copy; an integer, or its digits.
    :param participant_id: this participant of an event; an integer, or its digits.
    :param message: the text; required unless ``template_id`` is given. Of control characters, only newline and tab are
        allowed; CR LF and CR become newlines.
    :param subject: for ``email`` only; one line.
    :param template_id: a template stored in Apptoto; an integer, or its digits.
    :param redact: whether ``target`` hides the recipient.
    :param max_segments: refuse an ``sms`` whose text is estimated to take more SMS segments than this, at least 1;
        ``None``: no limit. The length of a text with dynamic fields is not known, and not limited.
    :param default_region: region (ISO 3166 in capitals, e.g. ``US``) that completes a number without ``+``. Without it,
        such a number is refused.
    :param allowed_regions: regions (as ``default_region``) whose numbers may get messages; ``*`` among them: all.
        ``None``: that of ``default_region``, or all if there is none. Not kept: a copy by ``dataclasses.replace`` may
        go to any region.
    :raises ApptotoValidationError: exactly one of ``to``, ``event_id`` and ``participant_id`` is needed, and at least
        one of ``message`` and ``template_id``; or a field is not what it has to be.
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
        """Check every field, and put the normal form in its place."""
        _check_max_segments(self.max_segments)
        if self.type not in MESSAGE_TYPES:
            # a text, a number or a name may have got here by mistake, and is not shown
            raise ApptotoValidationError("type", f"is not one of {', '.join(MESSAGE_TYPES)}", code="type_unknown")
        given = [name for name in TARGETS if getattr(self, name) is not None]
        if len(given) != 1:
            msg = f"exactly one of {', '.join(TARGETS)} is needed; given: {', '.join(given) or 'none'}"
            raise ApptotoValidationError("to", msg, code="target_ambiguous" if given else "target_missing")
        if self.message is None and self.template_id is None:
            raise ApptotoValidationError("message", "a text is needed, or a template_id", code="text_missing")
        if self.subject is not None and self.type != "email":
            msg = f"only an email has a subject, a message of type {self.type} has none"
            raise ApptotoValidationError("subject", msg, code="subject_not_allowed")
        checked = {
            "to": _recipient(self.type, self.to, default_region, allowed_regions),
            "event_id": _integer("event_id", self.event_id),
            "participant_id": _integer("participant_id", self.participant_id),
            "message": _without_controls("message", _text("message", self.message)),
            "subject": _line("subject", self.subject),
            "template_id": _integer("template_id", self.template_id),
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
        """Who gets it, fit to be shown: a recipient, masked, or ``event 123``, ``participant 456``."""
        if self.to is not None:
            return mask_recipient(self.to) if self.redact else self.to
        return f"event {self.event_id}" if self.event_id is not None else f"participant {self.participant_id}"

    @property
    def masked_target(self) -> str:
        """The same, with the recipient masked whatever ``redact`` says."""
        return self.target if self.to is None else mask_recipient(self.to)

    @property
    def size(self) -> str:
        """The estimated SMS segments, in words that end a log line; empty for other channels."""
        return f", {estimate_segments(self.message)}" if self.type == "sms" and self.message is not None else ""

    @property
    def private(self) -> tuple[str, ...]:
        """What must not be shown: recipient, text, subject."""
        return tuple(text for text in (self.to, self.message, self.subject) if text is not None)

    def payload(self) -> dict[str, Any]:
        """Return the request's JSON object, its types as in the endpoint's table: only ``template_id`` is a string."""
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
        """Show type and masked target, nothing else."""
        return f"<Message {self.type} to {self.target}>"


def _check_max_segments(value: object) -> None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return
    msg = f"{value!r} is not an integer of at least 1; None means no limit"
    raise ApptotoConfigurationError("max_segments", msg)


def _check_length(text: str, max_segments: int) -> None:
    if _OPENING.search(text):  # dynamic fields: only Apptoto knows what it fills in
        return
    segments = estimate_segments(text)
    if segments.parts > max_segments:
        msg = (
            f"takes about {segments}, and max_segments is {max_segments}; shorten the text, or raise max_segments "
            "(None: no limit)"
        )
        raise ApptotoValidationError("message", msg, code="text_too_long")


def _recipient(kind: str, to: object, region: str | None, allowed_regions: Collection[str] | None) -> str | None:
    if isinstance(to, int | float):
        msg = (
            "arrived as a number, which has lost its leading + (Airflow's render_template_as_native_obj does that); "
            "it has to arrive as a string"
        )
        raise ApptotoValidationError("to", msg, code="field_not_text")
    recipient = _line("to", to)
    if recipient is None:
        return None
    if kind == "email":
        return normalise_email_address(recipient)
    if "@" in recipient:
        msg = f"{mask_recipient(recipient)} is an e-mail address, and type {kind} needs a phone number"
        raise ApptotoValidationError("to", msg, code="recipient_invalid")
    if allowed_regions is None and region is not None:
        allowed_regions = (region,)
    return normalise_phone_number(recipient, region=region, allowed_regions=allowed_regions, sms=kind == "sms")


def _integer(field: str, value: object) -> int | None:
    if value is None:
        return None
    digits = ""
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _MAX_ID):
        digits = str(value).strip()
    if digits.isascii() and digits.isdigit() and len(digits) <= _MAX_ID_DIGITS and int(digits) > 0:
        return int(digits)
    shown = "it is blank" if isinstance(value, str) and not value.strip() else f"this {type(value).__name__} is not"
    problem = f"has to be a positive integer, or its digits, but {shown}"
    raise ApptotoValidationError(field, problem, code="id_invalid")


def _text(field: str, value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        problem = f"has to be a string, but is of type {type(value).__name__}"
        raise ApptotoValidationError(field, problem, code="field_not_text")
    if all(unicodedata.category(character) in _NOTHING_TO_SEE or _INVISIBLE.match(character) for character in value):
        raise ApptotoValidationError(field, "is blank; nothing blank is sent", code="field_empty")
    if value.strip() in {AIRFLOW_MASK, MASK}:
        problem = "is a masked value; use the original value"
        raise ApptotoValidationError(field, problem, code="value_masked")
    try:
        value.encode()
    except UnicodeEncodeError:
        msg = "holds half a character (a lone surrogate), which can't be encoded; decode its source as UTF-8"
        raise ApptotoValidationError(field, msg, code="text_not_encodable") from None
    return value


def _without_controls(field: str, text: str | None) -> str | None:
    if text is None:
        return None
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if found := _CONTROL.search(text):
        msg = (
            f"holds the control character U+{ord(found[0]):04X} (character {found.start() + 1}); only newline and tab "
            "are allowed. Remove it where the text is made"
        )
        raise ApptotoValidationError(field, msg, code="control_character")
    return text


def _check_rendered(field: str, text: str | None) -> None:
    """Refuse what is still a template: Apptoto fills in dynamic fields for events and participants only (assumed)."""
    if text is not None and (found := _OPENING.search(text)):
        msg = (
            f"holds {found[0]}, and would be sent as it stands: only a message to an event_id or a participant_id has "
            "dynamic fields. Render the text first, or write the braces apart"
        )
        raise ApptotoValidationError(field, msg, code="text_unrendered")


def _line(field: str, value: object) -> str | None:
    text = _text(field, value)
    if text is not None and any(unicodedata.category(character) in {"Cc", "Zl", "Zp"} for character in text):
        problem = "has to be one line, without control characters"
        raise ApptotoValidationError(field, problem, code="control_character")
    return text
