"""Tasks that send."""
