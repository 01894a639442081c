"""Stores for ledger entries: the state database, and Airflow's task state."""
