"""Where ledger entries are kept: the state database, or Airflow's task state."""
