"""What outlives the process: which messages were sent (the ledger), and when the next request may depart (the pace)."""
