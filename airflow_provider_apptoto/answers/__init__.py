"""Wait for the answers of participants: what counts as an answer, how it is read, and the result."""
