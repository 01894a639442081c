"""Cancel sends that have not started."""

from __future__ import annotations

import time

from airflow_provider_apptoto.client.errors import ApptotoStoppedError

POLL = 0.2
"""Seconds between two checks during a wait."""


class Cancellation:
    """Cancels the sends of an outbox.

    It is a polled flag, not a ``threading.Event``: Airflow cancels from a signal handler, where ``Event.set`` can
    deadlock.

    :param parent: a cancellation that also applies to these sends.
    """

    def __init__(self, parent: Cancellation | None = None) -> None:
        self._parent = parent
        self._reason = ""

    def cancel(self, reason: str) -> None:
        """Stop sending; only the first reason is kept."""
        self._reason = self._reason or reason

    @property
    def reason(self) -> str:
        """Why sending was cancelled; empty if it was not."""
        return self._reason or ("" if self._parent is None else self._parent.reason)

    def check(self) -> None:
        """Check that sending was not cancelled.

        :raises ApptotoStoppedError: it was.
        """
        if reason := self.reason:
            raise ApptotoStoppedError(f"The message was not sent: {reason}", reason=reason)

    def sleep(self, seconds: float) -> None:
        """Wait for a number of seconds, or until sending is cancelled.

        :raises ApptotoStoppedError: sending was cancelled.
        """
        until = time.monotonic() + seconds
        self.check()
        while (remaining := until - time.monotonic()) > 0:
            time.sleep(min(remaining, POLL))
            self.check()
