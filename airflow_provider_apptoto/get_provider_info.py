"""The provider's metadata for Airflow: one dict, without imports and computations.

Airflow calls this in every process. ``conn-fields`` is the only definition of the connection's extra fields, used by
the form of Airflow 3.2+, by the older form (:mod:`.hooks.apptoto`) and by validation (:mod:`.connection`). Each of
them, and ``host``, is also an option of ``[apptoto]``, with the deployment's default (:mod:`.configuration`).
"""

from __future__ import annotations

from typing import Any


def get_provider_info() -> dict[str, Any]:
    """Return the metadata, in the format of Airflow's ``provider_info.schema.json``."""
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
        "sensors": [
            {
                "integration-name": "Apptoto",
                "python-modules": ["airflow_provider_apptoto.sensors.apptoto"],
            },
        ],
        "triggers": [
            {
                "integration-name": "Apptoto",
                "python-modules": ["airflow_provider_apptoto.triggers.apptoto"],
            },
        ],
        "hooks": [
            {
                "integration-name": "Apptoto",
                "python-modules": ["airflow_provider_apptoto.hooks.apptoto"],
            },
        ],
        "task-decorators": [
            {
                "name": "apptoto_message",
                "class-name": "airflow_provider_apptoto.decorators.apptoto.apptoto_message_task",
            },
            {
                "name": "apptoto_message_batch",
                "class-name": "airflow_provider_apptoto.decorators.apptoto.apptoto_message_batch_task",
            },
        ],
        "extra-links": ["airflow_provider_apptoto.links.apptoto.ApptotoOutboxLink"],
        "notifications": ["airflow_provider_apptoto.notifications.apptoto.ApptotoNotifier"],
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
                        "port": "Port (443; required by Test Connection)",
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
                        "description": "How long to wait for Apptoto's answer, 5 to 300; default 120. After a timeout, "
                        "the outcome of the message is unknown.",
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
                        "label": "Maximum Retry-After (seconds)",
                        "description": "Longest delay to accept from a Retry-After header, for the whole account, "
                        "1 to 86400; default 3600.",
                        "schema": {"type": ["number", "null"], "minimum": 1, "maximum": 86400},
                    },
                    "default_region": {
                        "label": "Default region",
                        "description": "Country of phone numbers without +, as two letters such as US. "
                        "If it is blank, such numbers are refused.",
                        "schema": {"type": ["string", "null"]},
                    },
                    "allowed_regions": {
                        "label": "Allowed regions",
                        "description": "Regions whose phone numbers may receive messages, such as US, CA; * for all. "
                        "Default: the default region, or all if there is none.",
                        "schema": {"type": ["string", "null"]},
                    },
                    "delivery_mode": {
                        "label": "Delivery mode",
                        "description": "live: messages go to their recipients; redirect: all messages go to the two "
                        "recipients below; dry_run: nothing is sent. Default: live.",
                        "schema": {"type": ["string", "null"], "enum": ["live", "redirect", "dry_run"]},
                    },
                    "redirect_phone_to": {
                        "label": "Redirect SMS and calls to",
                        "description": "Phone number that receives every SMS and call in delivery mode redirect.",
                        "schema": {"type": ["string", "null"]},
                    },
                    "redirect_email_to": {
                        "label": "Redirect e-mail to",
                        "description": "Address that receives every e-mail in delivery mode redirect.",
                        "schema": {"type": ["string", "null"]},
                    },
                    "ca_bundle": {
                        "label": "CA bundle",
                        "description": "Path of a PEM file on the workers for verifying Apptoto's certificate, "
                        "for networks with a TLS proxy. Default: the CA bundle of the environment.",
                        "schema": {"type": ["string", "null"]},
                    },
                    "state_conn_id": {
                        "label": "State database",
                        "description": "Id of an SQL connection for the ledger and the shared rate limit: "
                        "sqlite for one host, postgres for several.",
                        "schema": {"type": ["string", "null"]},
                    },
                    "send_window": {
                        "label": "Sending window",
                        "description": "When messages may be sent, in the recipient's time zone, such as "
                        "Mon-Fri 09:00-18:00, Sat 10:00-14:00; off or blank: at any time.",
                        "schema": {"type": ["string", "null"]},
                    },
                    "timezone": {
                        "label": "Time zone of recipients",
                        "description": "Time zone for the sending window, such as America/Chicago. "
                        "Default: that of the phone number, if it has only one.",
                        "schema": {"type": ["string", "null"]},
                    },
                    "at_most": {
                        "label": "Messages per recipient",
                        "description": "Limit on the messages to one recipient over all DAGs, such as 3/day, 1/hour "
                        "or 5/7d. Needs the state database.",
                        "schema": {"type": ["string", "null"]},
                    },
                },
            },
        ],
        "cli": ["airflow_provider_apptoto.cli.get_cli_commands"],
        "config": {
            "apptoto": {
                "description": "Options of the Apptoto provider. An option named like a connection field is the "
                "default for all connections; a value on a connection takes precedence, but the strictest "
                "delivery_mode and all limits of at_most apply.",
                "options": {
                    "delivery_mode": {
                        "description": "Delivery mode of this deployment: live, redirect or dry_run. The strictest of "
                        "this, the connection's and the operator's mode applies, so that a staging deployment with "
                        "production connections can't message anyone.\n",
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
                        "description": "Seconds to wait for Apptoto's answer, 5 to 300. After a timeout, the outcome "
                        "of the message is unknown.\n",
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
                        "description": "Longest delay in seconds to accept from a Retry-After header, for the whole "
                        "account, 1 to 86400.\n",
                        "version_added": "0.1.0",
                        "type": "float",
                        "example": "3600",
                        "default": None,
                    },
                    "default_region": {
                        "description": "Country of phone numbers without +, as two letters. If it is not set, such "
                        "numbers are refused.\n",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "US",
                        "default": None,
                    },
                    "allowed_regions": {
                        "description": "Regions whose phone numbers may receive messages; * for all.\n",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "US, CA",
                        "default": None,
                    },
                    "redirect_phone_to": {
                        "description": "Phone number that receives every SMS and call in delivery mode redirect.\n",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "+16505550100",
                        "default": None,
                    },
                    "redirect_email_to": {
                        "description": "Address that receives every e-mail in delivery mode redirect.\n",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "test@clinic.example",
                        "default": None,
                    },
                    "ca_bundle": {
                        "description": "Path of a PEM file on the workers for verifying Apptoto's certificate.\n",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "/etc/ssl/certs/proxy.pem",
                        "default": None,
                    },
                    "state_conn_id": {
                        "description": "Id of an SQL connection for the ledger and the shared rate limit.\n",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "apptoto_state",
                        "default": None,
                    },
                    "send_window": {
                        "description": "When messages may be sent, in the recipient's time zone.\n",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "Mon-Fri 09:00-18:00, Sat 10:00-14:00",
                        "default": None,
                    },
                    "timezone": {
                        "description": "Time zone of recipients for the sending window. If it is not set, that of the "
                        "phone number applies.\n",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "America/Chicago",
                        "default": None,
                    },
                    "at_most": {
                        "description": "Limit on the messages to one recipient over all DAGs. Needs the state "
                        "database.\n",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "3/day",
                        "default": None,
                    },
                    "keep_days": {
                        "description": "Days for which a purge keeps finished ledger entries, at least 1; by default "
                        "35. Nothing is removed until a purge runs.\n",
                        "version_added": "0.1.0",
                        "type": "float",
                        "example": "400",
                        "default": None,
                    },
                    "ledger_secret": {
                        "description": "Secret of at least 16 characters that keys the hashes in the ledger, so that "
                        "readers of the ledger can't find recipients by hashing all phone numbers. To rotate it, set "
                        "NEW,OLD until the entries created with OLD are purged.\n",
                        "version_added": "0.1.0",
                        "type": "string",
                        "sensitive": True,
                        "example": "output-of: openssl rand -base64 32",
                        "default": None,
                    },
                    "outbox_conn_ids": {
                        "description": "Ids of the Apptoto connections whose state databases the page Apptoto outbox "
                        "shows, separated by commas. The default is apptoto_default.\n",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "apptoto_default, apptoto_north",
                        "default": None,
                    },
                },
            },
        },
    }
