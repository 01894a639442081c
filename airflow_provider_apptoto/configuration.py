"""The section ``[apptoto]`` of Airflow's configuration; a mistyped name is an error, not a default."""

from __future__ import annotations

import difflib
import os
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import conf

from airflow_provider_apptoto.client.errors import ApptotoConfigurationError
from airflow_provider_apptoto.get_provider_info import get_provider_info

if TYPE_CHECKING:
    from collections.abc import Mapping

_SECTION = "apptoto"
_OPTIONS: Mapping[str, Mapping[str, Any]] = get_provider_info()["config"][_SECTION]["options"]
_NAMES = {
    f"{name}{suffix}": name
    for name, about in _OPTIONS.items()
    for suffix in (("", "_cmd", "_secret") if about.get("sensitive") else ("",))
}
"""Names in the file, and the option that each of them sets."""
_VARIABLES = {f"AIRFLOW__{_SECTION}__{name}".upper(): name for name in _NAMES}
"""Environment variables, and the name in the file that each of them stands for."""
_NEAR = 0.85
"""Similarity, 0 to 1, from which another name counts as a mistyped one."""


def option(name: str) -> tuple[str, str] | None:
    """Return an option's value and where it is set, or ``None`` where it is not set.

    :raises ApptotoConfigurationError: it is set, and blank; or something is set by a name that is no option's.
    """
    _check_names()
    in_file = conf.options(_SECTION) if conf.has_section(_SECTION) else []
    sources = [variable for variable, of in _VARIABLES.items() if _NAMES[of] == name and variable in os.environ]
    sources += [f"[{_SECTION}] {of}" for of in in_file if _NAMES[of] == name]
    if not sources:
        return None
    source = sources[0]
    value = conf.get(_SECTION, name, fallback="")
    if not value.strip():
        raise ApptotoConfigurationError(source, f"is blank: {_allowed(name)}; or remove it")
    return value, source


def _check_names() -> None:
    for section in conf.sections():
        if section != _SECTION and _is_near(section, _SECTION):
            raise ApptotoConfigurationError(f"[{section}]", f"is not known to Airflow; did you mean [{_SECTION}]?")
    for name in conf.options(_SECTION) if conf.has_section(_SECTION) else ():
        if name not in _NAMES:
            raise ApptotoConfigurationError(f"[{_SECTION}] {name}", f"is not known; {_meant(name, list(_NAMES))}")
    for variable in os.environ:
        if variable in _VARIABLES or not variable.upper().startswith("AIRFLOW_"):
            continue
        if _plain(variable).startswith(_plain(f"AIRFLOW__{_SECTION}")) or any(
            _is_near(variable, of) for of in _VARIABLES
        ):
            raise ApptotoConfigurationError(variable, f"is not known to Airflow; {_meant(variable, list(_VARIABLES))}")


def _plain(name: str) -> str:
    return name.replace("_", "").casefold()


def _is_near(name: str, known: str) -> bool:
    return difflib.SequenceMatcher(a=_plain(name), b=_plain(known)).ratio() >= _NEAR


def _meant(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"


def _allowed(name: str) -> str:
    return f"set it, to {_OPTIONS[name]['example']} for example"
