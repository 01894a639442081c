"""Defaults that several parts of the package share."""

from __future__ import annotations

DEFAULT_CONN_ID = "apptoto_default"
"""Id of the Apptoto connection that is used if none is named."""
