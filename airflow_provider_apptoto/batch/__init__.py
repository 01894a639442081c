"""Many messages in one task: rows, checked all before the first is sent."""
