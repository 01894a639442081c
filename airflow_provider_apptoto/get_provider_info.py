"""What Airflow is told of this provider: one dict, with nothing imported and nothing computed.

Airflow calls this in every process. The connection's ``conn-fields`` are the only definition of its extra fields:
the form of Airflow 3.2+, the older form (:mod:`.hooks.apptoto`) and the checks (:mod:`.connection`) read them here.
"""

from __future__ import annotations

from typing import Any


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata, as ``provider_info.schema.json`` of Airflow wants it."""
    return {
        "package-name": "airflow-provider-apptoto",
        "name": "Apptoto",
        "description": "Sends SMS, e-mail and voice calls through `Apptoto <https://www.apptoto.com/>`__.",
        "integrations": [
            {
                "integration-name": "Apptoto",
                "external-doc-url": "https://apidocs.apptoto.com/",
                "tags": ["service"],
            },
        ],
        "operators": [
            {
                "integration-name": "Apptoto",
                "python-modules": ["airflow_provider_apptoto.operators.apptoto"],
            },
        ],
        "hooks": [
            {
                "integration-name": "Apptoto",
                "python-modules": ["airflow_provider_apptoto.hooks.apptoto"],
            },
        ],
        "connection-types": [
            {
                "connection-type": "apptoto",
                "hook-class-name": "airflow_provider_apptoto.hooks.apptoto.ApptotoHook",
                "hook-name": "Apptoto",
                "ui-field-behaviour": {
                    "hidden-fields": ["schema", "extra"],
                    "relabeling": {
                        "login": "Account e-mail",
                        "password": "API key",
                        "host": "Base URL",
                        "port": "Port (443; Test Connection needs it)",
                    },
                    "placeholders": {
                        "host": "https://api.apptoto.com",
                        "port": "443",
                        "login": "name@clinic.example",
                    },
                },
                "conn-fields": {
                    "timeout": {
                        "label": "Timeout (seconds)",
                        "description": "How long to wait for Apptoto's answer, 1 to 3600; 120 if blank. A short "
                        "timeout leaves it unknown whether a message was sent.",
                        "schema": {"type": ["number", "null"], "minimum": 1, "maximum": 3600},
                    },
                    "connect_timeout": {
                        "label": "Connect timeout (seconds)",
                        "description": "How long to wait for a connection, 0.1 to 300; 5 if blank.",
                        "schema": {"type": ["number", "null"], "minimum": 0.1, "maximum": 300},
                    },
                    "requests_per_minute": {
                        "label": "Requests per minute",
                        "description": "The account's pace, 1 to 6000; 90 if blank.",
                        "schema": {"type": ["number", "null"], "minimum": 1, "maximum": 6000},
                    },
                    "max_retry_after": {
                        "label": "Longest Retry-After (seconds)",
                        "description": "How long one answer of Apptoto's may put the account off, 1 to 86400; 3600 if "
                        "blank.",
                        "schema": {"type": ["number", "null"], "minimum": 1, "maximum": 86400},
                    },
                    "default_region": {
                        "label": "Default region",
                        "description": "Two letters, like US: phone numbers without + are completed by it. "
                        "Blank: they are refused.",
                        "schema": {"type": ["string", "null"]},
                    },
                    "allowed_regions": {
                        "label": "Allowed regions",
                        "description": "Regions whose phone numbers may get messages, like US, CA; * for all. "
                        "Blank: the default region; all if that is blank too.",
                        "schema": {"type": ["string", "null"]},
                    },
                    "delivery_mode": {
                        "label": "Delivery mode",
                        "description": "live: messages go to their recipients; redirect: all go to the two "
                        "recipients below; dry_run: nothing is sent. live if blank.",
                        "schema": {"type": ["string", "null"], "enum": ["live", "redirect", "dry_run"]},
                    },
                    "redirect_phone_to": {
                        "label": "Redirect SMS and calls to",
                        "description": "Phone number that gets every SMS and call in delivery mode redirect.",
                        "schema": {"type": ["string", "null"]},
                    },
                    "redirect_email_to": {
                        "label": "Redirect e-mail to",
                        "description": "Address that gets every e-mail in delivery mode redirect.",
                        "schema": {"type": ["string", "null"]},
                    },
                    "ca_bundle": {
                        "label": "CA bundle",
                        "description": "Path of a PEM file on the workers to verify Apptoto's certificate with, "
                        "for networks with a TLS proxy. Blank: the environment's.",
                        "schema": {"type": ["string", "null"]},
                    },
                    "state_conn_id": {
                        "label": "State database",
                        "description": "Id of an SQL connection: it remembers what was sent, and keeps the pace of all "
                        "workers. sqlite for one host; postgres or mysql for many.",
                        "schema": {"type": ["string", "null"]},
                    },
                },
            },
        ],
        "cli": ["airflow_provider_apptoto.cli.get_cli_commands"],
        "config": {
            "apptoto": {
                "description": "Options of the Apptoto provider.",
                "options": {
                    "delivery_mode": {
                        "description": "What becomes of messages in this deployment: live, redirect or dry_run. The "
                        "strictest of this, the connection's and the operator's wins, so that a staging "
                        "deployment with production's connections can't text anybody.\n",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "dry_run",
                        "default": "live",
                    },
                    "ledger_secret": {
                        "description": "Keys the hashes that stand for recipients in ledgers, so that nobody who reads "
                        "one finds them out by trying all numbers: at least 16 characters. To replace it, set NEW,OLD "
                        "until what was sent under the old one is purged.\n",
                        "version_added": "0.1.0",
                        "type": "string",
                        "sensitive": True,
                        "example": "output-of: openssl rand -base64 32",
                        "default": None,
                    },
                },
            },
        },
    }
