"""Decorators that turn Python functions into tasks that send messages."""
