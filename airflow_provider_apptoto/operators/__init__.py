"""Operators that send messages through Apptoto."""
