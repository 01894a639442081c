"""Sensors that wait for answers from Apptoto."""
