"""Notifiers that send messages through Apptoto."""
