"""The section ``[apptoto]`` of Airflow's configuration; a mistyped name is an error, and never ignored."""

from __future__ import annotations

import configparser
import contextlib
import difflib
import functools
import math
import os
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import conf

from airflow_provider_apptoto._defaults import DEFAULT_CONN_ID
from airflow_provider_apptoto.client.errors import ApptotoConfigurationError
from airflow_provider_apptoto.get_provider_info import get_provider_info

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

DEFAULT_KEEP_DAYS = 35.0
"""Days for which the ledger keeps finished entries, if ``keep_days`` is not set."""
_SECTION = "apptoto"
_INFO = get_provider_info()
_OPTIONS: Mapping[str, Mapping[str, Any]] = _INFO["config"][_SECTION]["options"]
_CONNECTION_FIELDS = ("host", *_INFO["connection-types"][0]["conn-fields"])
_NAMES = {
    f"{name}{suffix}": name
    for name, about in _OPTIONS.items()
    for suffix in (("", "_cmd", "_secret") if about.get("sensitive") else ("",))
}
"""Option by name in the configuration file."""


def _variable(name: str) -> str:
    return f"AIRFLOW__{_SECTION}__{name}".upper()


_VARIABLES = {_variable(name): name for name in _NAMES}
"""Name in the configuration file by environment variable."""
_GUARDED = [_variable(name) for name, of in _NAMES.items() if of in {"delivery_mode", "ledger_secret"}]
"""Variables for which a similar name is an error in any section: a typo could send live messages."""
_MIN_SIMILARITY = 0.85
"""Similarity, 0 to 1, from which a name counts as mistyped."""


def option(name: str) -> tuple[str, str] | None:
    """Return the value of an option and where it is set, or ``None`` if it is not set.

    :raises ApptotoConfigurationError: the value is blank or can't be read, or an unknown name is set.
    """
    source = _current_sources().get(name)
    return None if source is None else (_value(name, source), source)


def connection_defaults() -> dict[str, tuple[str, str]]:
    """Return the deployment's default of each connection field that has one, and where it is set.

    :raises ApptotoConfigurationError: a value is blank or can't be read, or an unknown name is set.
    """
    sources = _current_sources()
    return {name: (_value(name, sources[name]), sources[name]) for name in _CONNECTION_FIELDS if name in sources}


def outbox_conn_ids() -> list[str]:
    """Return the ids of the connections that the outbox page shows, without duplicates.

    :raises ApptotoConfigurationError: the option is blank or can't be read, or an unknown name is set.
    """
    found = option("outbox_conn_ids")
    names = [DEFAULT_CONN_ID] if found is None else [name.strip() for name in found[0].split(",")]
    return [*dict.fromkeys(name for name in names if name)]


def keep_days() -> float:
    """Return for how many days the ledger keeps finished entries.

    :raises ApptotoConfigurationError: the option is not a number of at least 1, or an unknown name is set.
    """
    found = option("keep_days")
    if found is None:
        return DEFAULT_KEEP_DAYS
    value, source = found
    with contextlib.suppress(ValueError):
        if 1 <= (days := float(value)) < math.inf:
            return days
    raise ApptotoConfigurationError(source, f"{value!r} is not a number of days of at least 1")


def _value(name: str, source: str) -> str:
    value: str | None = None
    with contextlib.suppress(configparser.InterpolationError):  # its text quotes the value
        value = conf.get(_SECTION, name, fallback="")
    if value is None:
        raise ApptotoConfigurationError(source, "can't be read; in a configuration file, write % as %%")
    if not value.strip():
        msg = f"is blank. Set it, for example to {_OPTIONS[name]['example']}, or remove it"
        raise ApptotoConfigurationError(source, msg)
    return value


def _current_sources() -> Mapping[str, str]:
    in_file = conf.options(_SECTION) if conf.has_section(_SECTION) else ()
    return _sources(tuple(os.environ), tuple(conf.sections()), tuple(in_file))


@functools.lru_cache(maxsize=1)  # comparing names takes milliseconds, and each hook does it
def _sources(variables: tuple[str, ...], sections: tuple[str, ...], in_file: tuple[str, ...]) -> Mapping[str, str]:
    """Check all names, and return where each option is set."""
    for section in sections:
        if section != _SECTION and _is_near(section, (_SECTION,)):
            problem = f"is unknown; did you mean [{_SECTION}]?"
            raise ApptotoConfigurationError(f"[{section}]", problem, code="setting_unknown")
    for name in in_file:
        if name not in _NAMES:
            problem = f"is unknown; {_meant(name, list(_NAMES), 0.6)}"
            raise ApptotoConfigurationError(f"[{_SECTION}] {name}", problem, code="setting_unknown")
    for variable in variables:
        if variable not in _VARIABLES and variable.upper().startswith("AIRFLOW_") and _is_mistyped(variable):
            meant = _meant(variable.upper(), list(_VARIABLES), 0.9)
            raise ApptotoConfigurationError(variable, f"is unknown; {meant}", code="setting_unknown")
    # Later ones replace earlier ones: the environment takes precedence over the file, a value over a command or secret.
    sources = {of: f"[{_SECTION}] {name}" for name, of in reversed(_NAMES.items()) if name in in_file}
    return sources | {
        _NAMES[name]: variable for variable, name in reversed(_VARIABLES.items()) if variable in variables
    }


def _is_mistyped(variable: str) -> bool:
    """Return whether an Airflow variable looks like a mistyped option of this provider."""
    section = _plain(variable).removeprefix("airflow")
    lengths = range(len(_SECTION) - 1, len(_SECTION) + 2)
    return (
        section.startswith(_SECTION)
        or _is_near(variable, _GUARDED)
        or any(_is_near(section[:length], (_SECTION,)) for length in lengths)
    )


def _plain(name: str) -> str:
    return name.replace("_", "").casefold()


def _is_near(name: str, known: Iterable[str]) -> bool:
    matcher = difflib.SequenceMatcher(a=_plain(name))
    for each in known:
        matcher.set_seq2(_plain(each))
        if all(ratio() >= _MIN_SIMILARITY for ratio in (matcher.real_quick_ratio, matcher.quick_ratio, matcher.ratio)):
            return True
    return False


def _meant(name: str, known: list[str], cutoff: float) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=cutoff)
    return f"did you mean {near[0]}?" if near else f"valid names: {', '.join(known)}"
