"""The current tables of the state database.

A change here needs a new migration (:mod:`airflow_provider_apptoto.outbox.migrations`) and the next ``SCHEMA_VERSION``.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, MetaData, String, Table, Text

SCHEMA_VERSION = 4

metadata = MetaData()
meta = Table(
    "apptoto_meta",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("value", String(128), nullable=False),
)
ledger = Table(
    "apptoto_ledger",
    metadata,
    Column("message_key", String(32), primary_key=True),
    Column("version", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("fingerprint", String(16), nullable=False),
    Column("channel", String(8), nullable=False),
    Column("target", String(320)),
    Column("recipient", String(32)),
    Column("reference", Text),
    Column("origin", String(32), nullable=False),
    Column("dag_id", String(250), nullable=False),
    Column("task_id", String(250), nullable=False),
    Column("run_id", String(250), nullable=False),
    Column("map_index", Integer, nullable=False),
    Column("try_number", Integer, nullable=False),
    Column("account", String(320)),
    Column("labels", Text),
    Column("created_at", Float(53), nullable=False),
    Column("updated_at", Float(53), nullable=False),
    Column("sent_at", Float(53)),
    Column("http_status", Integer),
    Column("code", String(64)),
    Column("reason", Text, nullable=False),
    Column("response_id", String(64)),
    Column("segments", Integer),
    Column("in_doubt", Boolean(create_constraint=False), nullable=False),
    Column("lease", Float(53), nullable=False),
    Index("apptoto_ledger_state", "state", "updated_at"),
    Index("apptoto_ledger_dag", "dag_id", "updated_at"),
    Index("apptoto_ledger_run", "dag_id", "run_id"),
    Index("apptoto_ledger_updated_at", "updated_at"),
    Index("apptoto_ledger_recipient", "recipient"),
    # PostgreSQL's B-tree indexes reject values over 2,700 bytes, and references in old entries may be longer.
    Index("apptoto_ledger_reference", "reference", postgresql_using="hash"),
)
"""One row per message (:class:`airflow_provider_apptoto.outbox.entry.Entry`)."""
changes = Table(
    "apptoto_ledger_change",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("message_key", String(32), nullable=False, index=True),
    Column("at", Float(53), nullable=False),
    Column("from_state", String(16), nullable=False),
    Column("to_state", String(16), nullable=False),
    Column("changed_by", String(250), nullable=False),
    Column("note", Text, nullable=False),
)
"""Changes that people made to the ledger."""
pace = Table(
    "apptoto_pace",
    metadata,
    Column("account", String(32), primary_key=True),
    Column("departs_at", BigInteger, nullable=False),
)
"""The next free slot of each account, in microseconds since 1970."""
recipients = Table(
    "apptoto_recipient",
    metadata,
    Column("recipient", String(32), primary_key=True),
)
"""Rows to lock, so that messages to the same person are counted one at a time."""
optouts = Table(
    "apptoto_optout",
    metadata,
    Column("list", String(64), primary_key=True),
    Column("recipient", String(32), primary_key=True),
    Column("added_at", Float(53), nullable=False),
    Column("added_by", String(250), nullable=False),
    Column("note", Text, nullable=False),
)
"""Keyed hashes of recipients that opted out."""
storms = Table(
    "apptoto_storm",
    metadata,
    Column("recipient", String(32), primary_key=True),
    Column("account", String(32), primary_key=True),
    Column("sent_at", Text, nullable=False),
    Column("held_back", Integer, nullable=False),
)
"""Recent notifications to each recipient, as a JSON list of seconds since 1970, and how many were held back since."""

MESSAGES_VIEW = "apptoto_messages"
MESSAGES_VIEW_QUERY = """\
SELECT message_key, state AS outcome, channel, target, reference, labels, origin, dag_id, task_id, run_id, map_index,
    try_number, account, http_status, code, reason, response_id, segments, created_at, sent_at, updated_at
FROM apptoto_ledger"""
"""A view for dashboards: one row per message.

Times are seconds since 1970 (UTC). ``outcome`` is the state; ``sending`` may also be a message whose task was killed
while sending. ``target`` and ``account`` are masked. ``labels`` is a JSON object.
"""
