"""Benchmarks of the provider: import time, cost of a message and of its guards, CPU, speed, and other ways to send.

``make bench`` runs all of them. ``python -m benchmarks cpu`` runs one; ``python -m benchmarks --help`` lists them.
"""

from __future__ import annotations
