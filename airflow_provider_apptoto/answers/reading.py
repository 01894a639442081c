"""Read what participants answered: one list of the window, whatever the number of waits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from airflow_provider_apptoto.answers.predicate import Seen
from airflow_provider_apptoto.client.errors import (
    ApptotoConfigurationError,
    ApptotoError,
    ApptotoRejectedError,
    ApptotoThrottledError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from airflow_provider_apptoto.answers.appointment import Window
    from airflow_provider_apptoto.client import ApptotoClient
    from airflow_provider_apptoto.client.appointments import Id

T = TypeVar("T")

Snapshot = dict["Id", dict["Id", Seen]]
"""By event, by participant: what was read in one cycle. Deleted events are left out."""


@dataclass(frozen=True, slots=True)
class ReadFailure:
    """A cycle in which Apptoto could not be read.

    :param text: why, without personal data.
    :param code: code of the error.
    :param is_final: whether another read would fail too.
    :param counts: whether it counts as an error: a wait for a slot does not.
    """

    text: str
    code: str
    is_final: bool = False
    counts: bool = True


@dataclass(slots=True)
class Reader:
    """Reads from one account; connects on the first read, and again after a failure.

    :param conn_id: the Apptoto connection.
    """

    conn_id: str
    _client: ApptotoClient | None = field(init=False, repr=False, default=None)

    def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _attempt(self, look: Callable[[ApptotoClient], T]) -> T | ReadFailure:
        """Return what ``look`` reads, or why it can't."""
        is_connected = self._client is not None
        found = self._once(look)
        if is_connected and isinstance(found, ReadFailure) and found.is_final:
            # waits are long: the login may have been replaced since it was read from the connection
            return self._once(look)
        return found

    def _once(self, look: Callable[[ApptotoClient], T]) -> T | ReadFailure:
        try:
            return look(self._connected())
        except ApptotoError as error:
            self.close()
            is_final = isinstance(error, ApptotoRejectedError | ApptotoConfigurationError)
            counts = not isinstance(error, ApptotoThrottledError)
            return ReadFailure(str(error), error.code, is_final=is_final, counts=counts)
        except Exception as error:  # noqa: BLE001  a store or a secrets backend is away; its text may hold secrets
            self.close()
            return ReadFailure(f"Reading with the connection {self.conn_id} failed: {type(error).__name__}", "error")

    def _connected(self) -> ApptotoClient:
        if self._client is None:
            from airflow_provider_apptoto.hooks.apptoto import ApptotoHook

            self._client = ApptotoHook(self.conn_id).get_conn()
        return self._client


@dataclass(slots=True)
class AnswerReader(Reader):
    """Reads snapshots.

    :param window: start times of the events to read; ``None``: none.
    :param event_ids: events that are read one by one.
    """

    window: Window | None
    event_ids: Collection[Id] = ()

    def read(self) -> Snapshot | ReadFailure:
        """Return a snapshot, or why there is none. Requests: the pages of the window and one more."""
        return self._attempt(self._snapshot)

    def _snapshot(self, client: ApptotoClient) -> Snapshot:
        found: Snapshot = {}
        if self.window is not None:
            for event in client.iter_events(self.window.begin, self.window.end, include_conversations=True):
                if not event.is_deleted:
                    # an event may be listed several times, with other participants
                    found.setdefault(event.id, {}).update({each.id: Seen.of(each) for each in event.participants})
        for event_id in self.event_ids:
            if event_id in found:
                continue
            one = client.get_event(id=event_id, include_conversations=True)
            if one is not None and not one.is_deleted:
                found[event_id] = {each.id: Seen.of(each) for each in one.participants}
        return found
