"""The sandbox's account, and its documented and assumed behaviour, as ``--help`` and the inbox page list it."""

from __future__ import annotations

import shlex

HOST = "127.0.0.1"
LOGIN = "sandbox@example.com"
API_KEY = "sandbox-api-key"

DOCUMENTED = (
    "/v1/send_message takes a JSON object and HTTP Basic with the account's e-mail address and an API key.",
    'type is "sms", "call" or "email".',
    "At least one of to, event_id, participant_id; at least one of message, template_id.",
    "to, message, subject, template_id are strings; event_id, participant_id are integers, also as strings.",
    'An accepted message is answered with 200 and {"success": true}.',
    'GET /v1/events answers {"events": [...]}; the sandbox has no events, so the list is empty.',
)

ASSUMED = (
    "The method of /v1/send_message is POST.",
    "Refusals have status 400 (the request), 401 (login or key), 403, 404, 405 or 413 (more than 1 MiB).",
    'Refusals have the body {"success": false, "error": "..."}.',
    "The Content-Type must be application/json.",
    "null and blank texts count as not given, undocumented fields are ignored, ids have at most 18 digits.",
    "Every event, participant and template exists; dynamic fields and templates are shown as sent, not filled.",
    "There are no credits, opt-outs, quiet hours or rate limits; add faults to rehearse their answers.",
)


def connection_command(login: str, api_key: str, port: int) -> str:
    """Return the command that stores a connection to a sandbox in Airflow.

    The port is a separate field, because *Test Connection* of Airflow 3.3.1 and 3.3.2 needs a stored port.
    """
    fields = {"type": "apptoto", "login": login, "password": api_key, "host": f"http://{HOST}", "port": str(port)}
    options = " ".join(f"--conn-{name} {shlex.quote(value)}" for name, value in fields.items())
    return f"airflow connections add apptoto_default {options}"
