"""Version 3: add the table that limits notifications (``storm_limit``)."""

from __future__ import annotations

_STATEMENTS = (
    """\
CREATE TABLE apptoto_storm (
    recipient VARCHAR(32) NOT NULL,
    account VARCHAR(32) NOT NULL,
    sent_at TEXT NOT NULL,
    held_back INTEGER NOT NULL,
    PRIMARY KEY (recipient, account)
)""",
)

STATEMENTS = {"sqlite": _STATEMENTS, "postgresql": _STATEMENTS}
