"""When the client itself retries a request."""

from __future__ import annotations

import random
from dataclasses import dataclass

from airflow_provider_apptoto.client.errors import ApptotoConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often, and for how long, the client retries a message that was certainly not sent.

    :param max_attempts: total number of attempts, at least 1.
    :param window: seconds, 0 or more; no attempt starts later than this after the first one, and none waits longer than
        this for a slot in the rate limit.
    :param backoff: seconds before the second attempt, 0 or more, with 25 % jitter; tripled for each further attempt.
        A ``Retry-After`` from the server replaces it.
    :raises ApptotoConfigurationError: a value is out of bounds.
    """

    max_attempts: int = 3
    window: float = 60.0
    backoff: float = 2.0

    def __post_init__(self) -> None:
        """Check the bounds."""
        if self.max_attempts < 1:
            problem = f"must be at least 1, not {self.max_attempts!r}"
            raise ApptotoConfigurationError("max_attempts", problem)
        for name, seconds in {"window": self.window, "backoff": self.backoff}.items():
            if not seconds >= 0:
                problem = f"must be at least 0 seconds, not {seconds!r}"
                raise ApptotoConfigurationError(name, problem)

    def pause(self, attempt: int) -> float:
        """Return the backoff in seconds after this attempt (from 1), if the server sent no ``Retry-After``."""
        return self.backoff * 3.0 ** (attempt - 1) * random.uniform(0.75, 1.25)  # noqa: S311  jitter, no secret
