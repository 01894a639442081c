"""Fault injection: tries are killed or frozen at named points, or run beside each other, and a server goes wrong.

The server's own list of what it accepted is the truth. ``make chaos`` prints the table; ``test_chaos.py`` runs a short
one.
"""

from __future__ import annotations
