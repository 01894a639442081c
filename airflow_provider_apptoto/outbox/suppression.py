"""The suppression list: recipients who must not get a message, compared in normalised form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from airflow_provider_apptoto.client.errors import ApptotoConfigurationError, ApptotoValidationError
from airflow_provider_apptoto.client.recipients import canonical, spellings

if TYPE_CHECKING:
    from airflow_provider_apptoto.client import Message

_FIELD = "suppression"
_MAX_SHOWN = 20


class Suppression:
    """Recipients who must not get a message.

    :param recipients: phone numbers and e-mail addresses. A row with one column counts as its value. ``None`` is
        ignored.
    :param region: region of numbers without ``+``.
    :raises ApptotoConfigurationError: ``recipients`` is not a list, or an entry can't be compared with a recipient, so
        a suppressed person could get a message.
    """

    def __init__(self, recipients: object, region: str | None) -> None:
        if isinstance(recipients, str | bytes | Mapping) or not isinstance(recipients, Iterable):
            msg = f"must be a list of phone numbers and e-mail addresses, not {type(recipients).__name__}"
            raise ApptotoConfigurationError(_FIELD, msg)
        self._suppressed: set[str] = set()
        self._region = region
        problems = []
        for index, value in enumerate(recipients):
            recipient = value[0] if isinstance(value, list | tuple) and len(value) == 1 else value
            if recipient is None:
                continue
            try:
                self._suppressed.update(spellings(canonical(recipient, region, field=_FIELD)))
            except ApptotoValidationError as error:
                problems.append(f"entry {index} {error.problem}")
        if problems:
            shown = "; ".join(problems[:_MAX_SHOWN])
            more = f"; and {len(problems) - _MAX_SHOWN} more" if len(problems) > _MAX_SHOWN else ""
            msg = f"has entries that can't be compared with a recipient: {shown}{more}"
            raise ApptotoConfigurationError(_FIELD, msg, code="suppression_invalid")

    def holds(self, message: Message) -> bool:
        """Return whether the recipient of a message is suppressed.

        :raises ApptotoValidationError: only Apptoto knows the recipient.
        """
        if not self._suppressed:
            return False
        if message.to is None:
            msg = f"is required with suppression: only Apptoto knows who receives {message.target}"
            raise ApptotoValidationError("to", msg, code="suppression_impossible")
        if message.type == "email":
            return message.to.casefold() in self._suppressed
        return message.to in self._suppressed

    def holds_written(self, recipient: object) -> bool:
        """Return whether a recipient, as it is written in a row that may be invalid, is suppressed."""
        comparable = self.comparable(recipient) if self._suppressed else None
        return comparable is not None and comparable in self._suppressed

    def comparable(self, recipient: object) -> str | None:
        """Return a recipient in the form that can be compared, or ``None``."""
        if recipient is None:
            return None
        try:
            return canonical(recipient, self._region, field=_FIELD)
        except ApptotoValidationError:
            return None
