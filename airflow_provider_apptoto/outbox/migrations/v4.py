"""Version 4: indexes that return the newest entries of a state or a DAG first, for the outbox page."""

from __future__ import annotations

_STATEMENTS = (
    "DROP INDEX apptoto_ledger_state",
    "CREATE INDEX apptoto_ledger_state ON apptoto_ledger (state, updated_at)",
    "CREATE INDEX apptoto_ledger_dag ON apptoto_ledger (dag_id, updated_at)",
)

STATEMENTS = {"sqlite": _STATEMENTS, "postgresql": _STATEMENTS}
