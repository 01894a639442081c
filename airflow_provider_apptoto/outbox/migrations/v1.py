"""Version 1: the tables of the first ledger.

``IF NOT EXISTS``, because the code of version 1 created the tables one by one and stored the version afterwards.
"""

from __future__ import annotations

_LEDGER = (
    """\
CREATE TABLE IF NOT EXISTS apptoto_ledger (
    message_key VARCHAR(32) NOT NULL,
    version VARCHAR(16) NOT NULL,
    state VARCHAR(16) NOT NULL,
    fingerprint VARCHAR(16) NOT NULL,
    type VARCHAR(8) NOT NULL,
    dag_id VARCHAR(250) NOT NULL,
    task_id VARCHAR(250) NOT NULL,
    run_id VARCHAR(250) NOT NULL,
    map_index INTEGER NOT NULL,
    try_number INTEGER NOT NULL,
    reference TEXT,
    in_doubt BOOLEAN NOT NULL,
    lease FLOAT NOT NULL,
    updated_at FLOAT NOT NULL,
    http_status INTEGER,
    reason TEXT NOT NULL,
    PRIMARY KEY (message_key)
)""",
    "CREATE INDEX IF NOT EXISTS apptoto_ledger_run ON apptoto_ledger (dag_id, run_id)",
    "CREATE INDEX IF NOT EXISTS apptoto_ledger_state ON apptoto_ledger (state)",
)
_CHANGE = """\
CREATE TABLE IF NOT EXISTS apptoto_ledger_change (
    id {serial} NOT NULL,
    message_key VARCHAR(32) NOT NULL,
    at FLOAT NOT NULL,
    from_state VARCHAR(16) NOT NULL,
    to_state VARCHAR(16) NOT NULL,
    changed_by VARCHAR(250) NOT NULL,
    note TEXT NOT NULL,
    PRIMARY KEY (id)
)"""
_OTHERS = (
    "CREATE INDEX IF NOT EXISTS ix_apptoto_ledger_change_message_key ON apptoto_ledger_change (message_key)",
    """\
CREATE TABLE IF NOT EXISTS apptoto_meta (
    name VARCHAR(32) NOT NULL,
    value VARCHAR(128) NOT NULL,
    PRIMARY KEY (name)
)""",
    """\
CREATE TABLE IF NOT EXISTS apptoto_pace (
    account VARCHAR(32) NOT NULL,
    departs_at BIGINT NOT NULL,
    PRIMARY KEY (account)
)""",
)

STATEMENTS = {
    "sqlite": (*_LEDGER, _CHANGE.format(serial="INTEGER"), *_OTHERS),
    "postgresql": (*_LEDGER, _CHANGE.format(serial="SERIAL"), *_OTHERS),
}
