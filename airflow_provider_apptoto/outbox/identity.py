"""The ledger keys of a message, and its new entry."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_apptoto.client.errors import ApptotoConfigurationError
from airflow_provider_apptoto.outbox.entry import Entry, State
from airflow_provider_apptoto.outbox.ledger import fingerprint, message_key, recipient_hash
from airflow_provider_apptoto.privacy import mask_recipient

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_apptoto.client import ApptotoClient, Message
    from airflow_provider_apptoto.outbox.draft import Draft
    from airflow_provider_apptoto.outbox.origin import Origin
    from airflow_provider_apptoto.outbox.policy import SendPolicy
    from airflow_provider_apptoto.outbox.stores.base import LedgerStore

NO_LEDGER = (secrets.token_bytes(16),)
"""Hash key for keys that are used only within this process."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Derives the ledger keys and entries of an outbox.

    :param client: the client of the account.
    :param policy: its ``idempotency_key`` names the occasion.
    :param origin: the task or callback that sends.
    """

    client: ApptotoClient
    policy: SendPolicy
    origin: Origin

    def keys(self, hash_keys: Sequence[bytes], message: Message, item: str | None) -> list[str]:
        """Return the possible ledger keys of a message: one per secret, newest first."""
        return [
            message_key(
                hash_key,
                message,
                account=self.client.account,
                mode=self.client.mode,
                origin=self.origin,
                idempotency_key=self.policy.idempotency_key,
                item=item,
            )
            for hash_key in hash_keys
        ]

    def entry(self, hash_key: bytes, key: str, draft: Draft) -> Entry:
        """Return the new ledger entry of a message."""
        message = draft.message
        return Entry(
            key=key,
            state=State.SENDING,
            fingerprint=fingerprint(hash_key, message),
            channel=message.type,
            origin=self.origin,
            target=message.masked_target,
            recipient=recipient_hash(hash_key, message.to),
            reference=draft.reference,
            account=mask_recipient(self.client.account[1]),
            labels=draft.labels,
            segments=self.client.segments(message),
        )


def check_ledger(policy: SendPolicy, store: LedgerStore | None, origin: Origin) -> None:
    """Check that there is a ledger if the policy or the origin needs one.

    :raises ApptotoConfigurationError: there is none.
    """
    needs = "a state database, which all tasks and runs share: set state_conn_id on the Apptoto connection"
    if policy.idempotency_key is not None and (store is None or not store.is_shared):
        raise ApptotoConfigurationError("idempotency_key", f"needs {needs}", code="state_database_needed")
    if not origin.task_id and policy.idempotency_key is None:
        msg = f"has no task instance (ti), so idempotency_key is required. It needs {needs}"
        raise ApptotoConfigurationError("context", msg, code="idempotency_key_needed")


_texts: tuple[object, dict[str, str]] = (None, {})


def texts_of(ti: object) -> dict[str, str]:
    """Return the fingerprints of the texts sent by this try; those of other tries are dropped.

    :param ti: task instance of the try.
    """
    global _texts  # noqa: PLW0603  a task may create one outbox per message
    if ti is None:
        return {}
    if _texts[0] is not ti:
        _texts = (ti, {})
    return _texts[1]
