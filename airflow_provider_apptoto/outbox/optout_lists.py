"""The names of the lists of people who opted out. Tasks name lists, so this imports no database."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from airflow_provider_apptoto.client.errors import ApptotoConfigurationError

ALL = "all"
"""The list that every sender obeys."""
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def check_lists(names: object) -> tuple[str, ...]:
    """Return the names of lists, without duplicates.

    :raises ApptotoConfigurationError: ``names`` is not a collection of names of lists.
    """
    if isinstance(names, str | bytes | Mapping) or not isinstance(names, Iterable):
        msg = f'must be a list of names, such as ("campaigns",), not {type(names).__name__}'
        raise ApptotoConfigurationError("optout_lists", msg)
    return tuple(dict.fromkeys(check_list(name, "optout_lists") for name in names))


def check_list(name: object, field: str = "list") -> str:
    """Return the name of a list.

    :param field: name of the parameter in the error.
    :raises ApptotoConfigurationError: it is not the name of a list.
    """
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        # the value is not shown: it may be a recipient, passed by mistake
        msg = "is not the name of a list: use 1 to 64 letters (A to Z, a to z), digits, _ and -"
        raise ApptotoConfigurationError(field, msg)
    return name
