"""When the client itself repeats a request."""

from __future__ import annotations

import random
from dataclasses import dataclass

from airflow_provider_apptoto.client.errors import ApptotoConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often, and for how long, the client repeats a request that was certainly not sent.

    :param max_attempts: attempts in all, at least 1.
    :param window: seconds, 0 or more: no further attempt starts later than this after the first one, and no attempt
        waits longer than this for its slot in the rate limit.
    :param backoff: seconds, 0 or more, before the second attempt, give or take a quarter; three times as long before
        each further one. Where the server sends ``Retry-After``, that counts.
    :raises ApptotoConfigurationError: a value is out of its bounds.
    """

    max_attempts: int = 3
    window: float = 60.0
    backoff: float = 2.0

    def __post_init__(self) -> None:
        """Check the bounds."""
        if self.max_attempts < 1:
            problem = f"{self.max_attempts!r} is not a number of attempts from 1"
            raise ApptotoConfigurationError("max_attempts", problem)
        for name, seconds in {"window": self.window, "backoff": self.backoff}.items():
            if not seconds >= 0:
                problem = f"{seconds!r} is not a number of seconds from 0"
                raise ApptotoConfigurationError(name, problem)

    def pause(self, attempt: int) -> float:
        """Return the seconds to wait after this attempt (from 1) where the server names no time."""
        return self.backoff * 3.0 ** (attempt - 1) * random.uniform(0.75, 1.25)  # noqa: S311  jitter, no secret
