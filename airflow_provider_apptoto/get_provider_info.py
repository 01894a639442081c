"""What Airflow is told of this provider: one dict, with nothing imported and nothing computed.

Airflow calls this in every process. The connection's ``conn-fields`` are the only definition of its extra fields:
the form of Airflow 3.2+, the older form (:mod:`.hooks.apptoto`) and the checks (:mod:`.connection`) read them here.
Each of them, and ``host``, is also an option of ``[apptoto]``: the deployment's default (:mod:`.configuration`).
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
                        "description": "How long to wait for Apptoto's answer, 5 to 300; default 120. If it runs out, "
                        "it is unknown whether the message was sent.",
                        "schema": {"type": ["number", "null"], "minimum": 5, "maximum": 300},
                    },
                    "connect_timeout": {
                        "label": "Connect timeout (seconds)",
                        "description": "How long to wait for a connection, 0.1 to 300; default 5.",
                        "schema": {"type": ["number", "null"], "minimum": 0.1, "maximum": 300},
                    },
                    "requests_per_minute": {
                        "label": "Requests per minute",
                        "description": "Rate limit of the account, 1 to 6000; default 90.",
                        "schema": {"type": ["number", "null"], "minimum": 1, "maximum": 6000},
                    },
                    "max_retry_after": {
                        "label": "Longest Retry-After (seconds)",
                        "description": "Longest delay that one Retry-After of Apptoto's can impose on the account, "
                        "1 to 86400; default 3600.",
                        "schema": {"type": ["number", "null"], "minimum": 1, "maximum": 86400},
                    },
                    "default_region": {
                        "label": "Default region",
                        "description": "Two letters, like US: the country of phone numbers without +. "
                        "Without it, such numbers are refused.",
                        "schema": {"type": ["string", "null"]},
                    },
                    "allowed_regions": {
                        "label": "Allowed regions",
                        "description": "Regions whose phone numbers may get messages, like US, CA; * for all. "
                        "Default: the default region; all if there is none.",
                        "schema": {"type": ["string", "null"]},
                    },
                    "delivery_mode": {
                        "label": "Delivery mode",
                        "description": "live: messages go to their recipients; redirect: all go to the two "
                        "recipients below; dry_run: nothing is sent. Default live.",
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
                        "for networks with a TLS proxy. Default: the environment's.",
                        "schema": {"type": ["string", "null"]},
                    },
                    "state_conn_id": {
                        "label": "State database",
                        "description": "Id of an SQL connection to the database that keeps the ledger and the rate "
                        "limit of all workers: sqlite for one host, postgres for many.",
                        "schema": {"type": ["string", "null"]},
                    },
                },
            },
        ],
        "cli": ["airflow_provider_apptoto.cli.get_cli_commands"],
        "config": {
            "apptoto": {
                "description": "Options of the Apptoto provider. An option with the name of a connection's field is "
                "the default of all connections: a field that a connection sets itself wins.",
                "options": {
                    "delivery_mode": {
                        "description": "Where the messages of this deployment go: live, redirect or dry_run. The "
                        "strictest of this, the connection's and the operator's wins, so that a staging deployment "
                        "with production's connections can't text anybody.\n",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "dry_run",
                        "default": "live",
                    },
                    "host": {
                        "description": "Base URL of Apptoto's API, or of a gateway to it.\n",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "https://api.apptoto.com",
                        "default": None,
                    },
                    "timeout": {
                        "description": "Seconds to wait for Apptoto's answer, 5 to 300. If it runs out, it is "
                        "unknown whether the message was sent.\n",
                        "version_added": "0.1.0",
                        "type": "float",
                        "example": "120",
                        "default": None,
                    },
                    "connect_timeout": {
                        "description": "Seconds to wait for a connection to Apptoto, 0.1 to 300.\n",
                        "version_added": "0.1.0",
                        "type": "float",
                        "example": "5",
                        "default": None,
                    },
                    "requests_per_minute": {
                        "description": "Rate limit of each account, 1 to 6000.\n",
                        "version_added": "0.1.0",
                        "type": "float",
                        "example": "90",
                        "default": None,
                    },
                    "max_retry_after": {
                        "description": "Longest delay in seconds that one Retry-After of Apptoto's can impose on an "
                        "account, 1 to 86400.\n",
                        "version_added": "0.1.0",
                        "type": "float",
                        "example": "3600",
                        "default": None,
                    },
                    "default_region": {
                        "description": "Country of phone numbers without +, as two letters. Without it, such "
                        "numbers are refused.\n",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "US",
                        "default": None,
                    },
                    "allowed_regions": {
                        "description": "Regions whose phone numbers may get messages; * for all.\n",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "US, CA",
                        "default": None,
                    },
                    "redirect_phone_to": {
                        "description": "Phone number that gets every SMS and call in delivery mode redirect.\n",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "+16505550100",
                        "default": None,
                    },
                    "redirect_email_to": {
                        "description": "Address that gets every e-mail in delivery mode redirect.\n",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "test@clinic.example",
                        "default": None,
                    },
                    "ca_bundle": {
                        "description": "Path of a PEM file on the workers to verify Apptoto's certificate with.\n",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "/etc/ssl/certs/proxy.pem",
                        "default": None,
                    },
                    "state_conn_id": {
                        "description": "Id of the SQL connection to the database that keeps the ledger and the rate "
                        "limit of all workers.\n",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "apptoto_state",
                        "default": None,
                    },
                    "ledger_secret": {
                        "description": "Secret of at least 16 characters that keys the hashes of recipients in the "
                        "ledger. Without the secret, nobody who reads the ledger can find recipients by hashing all "
                        "phone numbers. To replace it, set NEW,OLD until the entries made under the old one are "
                        "purged.\n",
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
