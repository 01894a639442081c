"""Defaults and bounds of the client's settings; cheap to import when DAGs are parsed."""

from __future__ import annotations

DEFAULT_BASE_URL = "https://api.apptoto.com"
DEFAULT_TIMEOUT = 120.0
"""Seconds."""
DEFAULT_CONNECT_TIMEOUT = 5.0
"""Seconds."""
DEFAULT_MAX_RETRY_AFTER = 3600.0
"""Seconds."""
MAX_TIMEOUT = 86_400.0
"""Seconds."""
MAX_CONNECTIONS = 32
"""Maximum connections of a client, and maximum threads of a batch: each thread uses one connection."""
SENDER_HEADER = "X-Apptoto-Sandbox-Sender"
"""Request header with the ids of the sending task, as JSON. Only a sandbox gets it, never the real service."""
