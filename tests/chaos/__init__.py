"""Fault injection: tasks are killed at named points, a server goes wrong on purpose, and its own list is the truth.

``make chaos`` prints the table; ``tests/test_chaos.py`` runs a short one.
"""

from __future__ import annotations
