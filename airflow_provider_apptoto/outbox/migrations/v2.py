"""Version 2: drop ``claimed``, rename ``type`` to ``channel``, add columns, opt-outs and a view for dashboards.

No byte of a ``claimed`` message was written, so it becomes ``not_sent``, or ``unknown`` if an earlier try may have sent
it. Development versions used version 1 for tables that already had ``sent_at``.
"""

from __future__ import annotations

# SQLite can't add a NOT NULL column without a default, so the table is recreated, which drops both old indexes. If the
# copy lacks sent_at, the name refers to the one-row table, whose value is NULL.
_SQLITE = (
    "CREATE TABLE apptoto_ledger_v1 AS SELECT * FROM apptoto_ledger",
    "DROP TABLE apptoto_ledger",
    """\
CREATE TABLE apptoto_ledger (
    message_key VARCHAR(32) NOT NULL,
    version VARCHAR(16) NOT NULL,
    state VARCHAR(16) NOT NULL,
    fingerprint VARCHAR(16) NOT NULL,
    channel VARCHAR(8) NOT NULL,
    target VARCHAR(320),
    recipient VARCHAR(32),
    reference TEXT,
    origin VARCHAR(32) NOT NULL,
    dag_id VARCHAR(250) NOT NULL,
    task_id VARCHAR(250) NOT NULL,
    run_id VARCHAR(250) NOT NULL,
    map_index INTEGER NOT NULL,
    try_number INTEGER NOT NULL,
    account VARCHAR(320),
    labels TEXT,
    created_at FLOAT NOT NULL,
    updated_at FLOAT NOT NULL,
    sent_at FLOAT,
    http_status INTEGER,
    code VARCHAR(64),
    reason TEXT NOT NULL,
    response_id VARCHAR(64),
    segments INTEGER,
    in_doubt BOOLEAN NOT NULL,
    lease FLOAT NOT NULL,
    PRIMARY KEY (message_key)
)""",
    """\
INSERT INTO apptoto_ledger (message_key, version, state, fingerprint, channel, reference, origin, dag_id, task_id,
    run_id, map_index, try_number, created_at, updated_at, sent_at, http_status, reason, in_doubt, lease)
SELECT message_key, version,
    CASE WHEN state <> 'claimed' THEN state WHEN in_doubt THEN 'unknown' ELSE 'not_sent' END,
    fingerprint, type, reference, 'task', dag_id, task_id, run_id, map_index, try_number, updated_at, updated_at,
    (SELECT sent_at FROM apptoto_ledger_v1 AS same WHERE same.rowid = old.rowid),
    http_status, reason, in_doubt, CASE WHEN state = 'claimed' THEN 0 ELSE lease END
FROM apptoto_ledger_v1 AS old, (SELECT NULL AS sent_at)""",
    "DROP TABLE apptoto_ledger_v1",
    "CREATE INDEX apptoto_ledger_run ON apptoto_ledger (dag_id, run_id)",
    "CREATE INDEX apptoto_ledger_state ON apptoto_ledger (state)",
    "CREATE INDEX apptoto_ledger_reference ON apptoto_ledger (reference)",
)
# In PostgreSQL, the table is altered in place, so that grants to roles are preserved.
_POSTGRESQL = (
    "ALTER TABLE apptoto_ledger RENAME COLUMN type TO channel",
    """\
ALTER TABLE apptoto_ledger
    ADD COLUMN IF NOT EXISTS sent_at FLOAT,
    ADD COLUMN target VARCHAR(320),
    ADD COLUMN recipient VARCHAR(32),
    ADD COLUMN origin VARCHAR(32) NOT NULL DEFAULT 'task',
    ADD COLUMN account VARCHAR(320),
    ADD COLUMN labels TEXT,
    ADD COLUMN created_at FLOAT,
    ADD COLUMN code VARCHAR(64),
    ADD COLUMN response_id VARCHAR(64),
    ADD COLUMN segments INTEGER""",
    """\
UPDATE apptoto_ledger SET created_at = updated_at,
    state = CASE WHEN state <> 'claimed' THEN state WHEN in_doubt THEN 'unknown' ELSE 'not_sent' END,
    lease = CASE WHEN state = 'claimed' THEN 0 ELSE lease END""",
    "ALTER TABLE apptoto_ledger ALTER COLUMN origin DROP DEFAULT, ALTER COLUMN created_at SET NOT NULL",
    # its other indexes refuse values of more than 2,700 bytes, and references had no limit
    "CREATE INDEX apptoto_ledger_reference ON apptoto_ledger USING hash (reference)",
)
_OTHERS = (
    "CREATE INDEX apptoto_ledger_updated_at ON apptoto_ledger (updated_at)",
    "CREATE INDEX apptoto_ledger_recipient ON apptoto_ledger (recipient)",
    """\
CREATE TABLE apptoto_recipient (
    recipient VARCHAR(32) NOT NULL,
    PRIMARY KEY (recipient)
)""",
    """\
CREATE TABLE apptoto_optout (
    list VARCHAR(64) NOT NULL,
    recipient VARCHAR(32) NOT NULL,
    added_at FLOAT NOT NULL,
    added_by VARCHAR(250) NOT NULL,
    note TEXT NOT NULL,
    PRIMARY KEY (list, recipient)
)""",
    """\
CREATE VIEW apptoto_messages AS
SELECT message_key, state AS outcome, channel, target, reference, labels, origin, dag_id, task_id, run_id, map_index,
    try_number, account, http_status, code, reason, response_id, segments, created_at, sent_at, updated_at
FROM apptoto_ledger""",
)

STATEMENTS = {"sqlite": (*_SQLITE, *_OTHERS), "postgresql": (*_POSTGRESQL, *_OTHERS)}
