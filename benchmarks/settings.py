"""Shared settings of the benchmarks: the server's limit, the message, and the rate of every arm."""

from __future__ import annotations

import sys
import time

LIMIT = 100
"""Requests that the server accepts in any window; it answers 429 to more. Apptoto's limit is about 100 (observed)."""
WINDOW = 6.0
"""Length of a window in seconds. Apptoto's is about 60 (observed); the benchmark is ten times as fast."""
RATE = 0.9 * LIMIT / WINDOW
"""Requests per second of every arm that limits its rate: the same share of the limit as the provider's default."""
LATENCY = 0.05
"""Seconds that the server takes to answer."""
TIMEOUT = 5.0
"""Seconds without an answer after which every arm gives up."""
TEXT = "See you at nine."
LOGIN, API_KEY = "bench@clinic.example", "key"
"""The account; the server accepts any."""


def say(text: str) -> None:
    """Print progress to stderr, so that stdout contains only the tables."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
