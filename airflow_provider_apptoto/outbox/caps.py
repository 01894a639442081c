"""The limits on messages to one recipient (``at_most``), for sending and for a rehearsal with ``dry_run``."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_apptoto.outbox.ledger import recipient_hash
from airflow_provider_apptoto.outbox.stores.base import Cap
from airflow_provider_apptoto.privacy import mask_recipient

if TYPE_CHECKING:
    from airflow_provider_apptoto.client import Message
    from airflow_provider_apptoto.outbox.limit import Limit
    from airflow_provider_apptoto.outbox.stores.base import SharedLedgerStore


@dataclass(slots=True)
class Caps:
    """The limits of an outbox.

    :param store: counts the messages.
    :param limits: all of them apply.
    :param login: login of the Apptoto account.
    """

    store: SharedLedgerStore
    limits: tuple[Limit, ...]
    login: str
    _planned: dict[tuple[str, ...], int] = field(init=False, default_factory=dict)
    """By recipient: messages that ``dry_run`` would have sent."""
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def of(self, message: Message) -> Cap | None:
        """Return the limits on messages to a recipient; ``None`` if only Apptoto knows who it is."""
        hashes = (recipient_hash(hash_key, message.to) for hash_key in self.store.hash_keys())
        recipients = tuple(each for each in hashes if each is not None)
        return Cap(self.store, self.limits, recipients, mask_recipient(self.login)) if recipients else None

    def rehearse(self, message: Message) -> None:
        """Count a message that is not sent.

        :raises CapReachedError: with the messages that were rehearsed before, it would exceed a limit.
        """
        if (cap := self.of(message)) is None:
            return
        with self._lock:
            planned = self._planned.get(cap.recipients, 0)
            self.store.check_cap(cap, planned)
            self._planned[cap.recipients] = planned + 1
