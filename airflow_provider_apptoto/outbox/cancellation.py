"""Why nothing more may be sent."""

from __future__ import annotations

import time

from airflow_provider_apptoto.client.errors import ApptotoStoppedError

POLL = 0.2
"""Seconds within which a wait ends after a cancellation."""


class Cancellation:
    """Stops the sends that it is given to.

    It is a flag that is polled, not a ``threading.Event``: Airflow cancels out of a signal handler, and ``Event.set``
    can deadlock there.

    :param parent: a cancellation that stops these sends too.
    """

    def __init__(self, parent: Cancellation | None = None) -> None:
        self._parent = parent
        self._reason = ""

    def cancel(self, reason: str) -> None:
        """Let nothing more leave; the first reason counts."""
        self._reason = self._reason or reason

    @property
    def reason(self) -> str:
        """Why nothing more may be sent; empty if that is not so."""
        return self._reason or ("" if self._parent is None else self._parent.reason)

    def check(self) -> None:
        """Return if messages may be sent.

        :raises ApptotoStoppedError: they may not.
        """
        if reason := self.reason:
            raise ApptotoStoppedError(f"The message was not sent: {reason}", reason=reason)

    def sleep(self, seconds: float) -> None:
        """Wait, at most until sending is stopped.

        :raises ApptotoStoppedError: it was.
        """
        until = time.monotonic() + seconds
        self.check()
        while (remaining := until - time.monotonic()) > 0:
            time.sleep(min(remaining, POLL))
            self.check()
