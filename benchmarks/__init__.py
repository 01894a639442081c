"""Benchmarks of the provider: import time, cost of a message, CPU of a batch, speed, and other ways to send.

``make bench`` runs all of them. ``python -m benchmarks cpu`` runs one; ``python -m benchmarks --help`` lists them.
"""

from __future__ import annotations
