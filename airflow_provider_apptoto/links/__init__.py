"""Links of the provider's tasks."""
