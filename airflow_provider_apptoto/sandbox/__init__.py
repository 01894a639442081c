"""A local Apptoto: the documented part of the API, and a page that shows what each person got.

:class:`Sandbox` needs the extra ``sandbox``; importing this package does not.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_apptoto.sandbox.server import Sandbox

__all__ = ["Sandbox"]


def __getattr__(name: str) -> object:
    if name != "Sandbox":
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    try:
        server = import_module("airflow_provider_apptoto.sandbox.server")
    except ModuleNotFoundError as error:
        msg = f"The sandbox needs {error.name}: pip install 'airflow-provider-apptoto[sandbox]'"
        raise ImportError(msg) from error
    return server.Sandbox
