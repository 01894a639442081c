"""A limit on messages per time, such as ``2/day``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from airflow_provider_apptoto.client.errors import ApptotoConfigurationError

_SYNTAX = re.compile(r"(\d{1,4})\s*/\s*(?:(\d{1,3})?\s*(h|d)|(hour|day|week))", re.ASCII | re.IGNORECASE)
_SECONDS = {"h": 3600, "d": 86_400, "hour": 3600, "day": 86_400, "week": 7 * 86_400}


@dataclass(frozen=True, slots=True)
class Limit:
    """At most ``count`` messages in any ``seconds``: a rolling window, not a calendar day.

    :param count: from 1 to 9999.
    :param seconds: length of the window.
    :param text: the limit as the user wrote it.
    """

    count: int
    seconds: int
    text: str

    @classmethod
    def parse(cls, text: object, field: str) -> Self:
        """Return the limit that a text describes: ``2/day``, ``1/hour``, ``3/7d``, ``1/12h``, ``2/week``.

        :param field: name of the setting in the error.
        :raises ApptotoConfigurationError: the text does not describe a limit.
        """
        found = _SYNTAX.fullmatch(text.strip()) if isinstance(text, str) else None
        if found is not None and (count := int(found[1])) > 0:
            unit = (found[3] or found[4]).lower()
            seconds = int(found[2] or 1) * _SECONDS[unit]
            if seconds > 0:
                return cls(count, seconds, found[0].replace(" ", ""))
        msg = f"{text!r} is not a limit such as '2/day', '1/hour', '3/7d' or '1/12h'; 'off' means no limit"
        raise ApptotoConfigurationError(field, msg)

    def __str__(self) -> str:
        """Return the text."""
        return self.text
