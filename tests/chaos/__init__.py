"""Fault injection: tries are killed or frozen at named points or run at the same time, and the server fails.

The server's list of accepted messages is the reference. ``make chaos`` prints the table; ``test_chaos.py`` runs a short
version.
"""

from __future__ import annotations
