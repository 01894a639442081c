"""Who must get nothing: opt-outs, compared by what can be dialled or mailed, not by how it is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from airflow_provider_apptoto.client.errors import ApptotoConfigurationError, ApptotoValidationError
from airflow_provider_apptoto.client.recipients import e164, normalise_email_address, written_number

if TYPE_CHECKING:
    from airflow_provider_apptoto.client import Message

_FIELD = "suppression"
_MAX_SHOWN = 20


class Suppression:
    """A list of recipients.

    :param recipients: phone numbers and e-mail addresses; a row of one column counts as what it holds, and ``None``
        as nobody.
    :param region: completes numbers without ``+``.
    :raises ApptotoConfigurationError: not a list, or it holds what can't be compared with a recipient: somebody who
        must get nothing would get something.
    """

    def __init__(self, recipients: object, region: str | None) -> None:
        if isinstance(recipients, str | bytes | Mapping) or not isinstance(recipients, Iterable):
            msg = f"has to be a list of phone numbers and addresses, and is of type {type(recipients).__name__}"
            raise ApptotoConfigurationError(_FIELD, msg)
        self._suppressed: set[str | None] = set()
        problems = []
        for index, value in enumerate(recipients):
            recipient = value[0] if isinstance(value, list | tuple) and len(value) == 1 else value
            if recipient is None:
                continue
            try:
                self._suppressed.add(_comparable(recipient, region))
            except ApptotoValidationError as error:
                problems.append(f"entry {index} {error.problem}")
        if problems:
            shown = "; ".join(problems[:_MAX_SHOWN])
            more = f"; and {len(problems) - _MAX_SHOWN} more" if len(problems) > _MAX_SHOWN else ""
            msg = f"holds what can't be compared: {shown}{more}"
            raise ApptotoConfigurationError(_FIELD, msg, code="suppression_invalid")

    def holds(self, message: Message) -> bool:
        """Tell whether a message's recipient must get nothing.

        :raises ApptotoValidationError: that can't be told.
        """
        if not self._suppressed:
            return False
        if message.to is None:
            msg = f"who gets {message.target} only Apptoto knows, so that a suppression list can't be kept to; use to"
            raise ApptotoValidationError("to", msg, code="suppression_impossible")
        if message.type == "email":
            return message.to.casefold() in self._suppressed
        return message.to in self._suppressed


def _comparable(recipient: object, region: str | None) -> str | None:
    """Return the form in which messages have their recipients; ``None``: no message can have this one."""
    if not isinstance(recipient, str):
        problem = f"is of type {type(recipient).__name__}, not a string"
        raise ApptotoValidationError(_FIELD, problem, code="field_not_text")
    if "@" in recipient:
        return normalise_email_address(recipient, field=_FIELD).casefold()
    written = written_number(recipient, field=_FIELD)
    try:
        return e164(written, region=region, field=_FIELD)
    except ApptotoValidationError:
        if "+" in written:  # out of use
            return None
        raise
