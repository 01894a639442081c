"""Triggers that wait for answers from Apptoto. Triggers never send."""
