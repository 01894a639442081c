"""``ledger reconcile``: search Apptoto for messages that may have been sent."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_provider_apptoto._cli_common import NOTHING, end
from airflow_provider_apptoto.outbox.admin import Author
from airflow_provider_apptoto.outbox.entry import State
from airflow_provider_apptoto.outbox.ledger import fingerprint_of_text
from airflow_provider_apptoto.outbox.settling import is_searchable, matcher_of, was_sent
from airflow_provider_apptoto.privacy import mask_recipient

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from airflow_provider_apptoto.client import ApptotoClient
    from airflow_provider_apptoto.outbox.admin import LedgerAdmin, Record, Selection
    from airflow_provider_apptoto.outbox.entry import Entry
    from airflow_provider_apptoto.outbox.stores.base import LedgerStore

_DAY = 86_400
_AHEAD = 60 * _DAY
"""Seconds from now within which events are searched by default."""
NOTE = "found in the conversation in Apptoto"


def found_in_apptoto(
    given: argparse.Namespace,
    records: Sequence[Record],
    client: ApptotoClient,
    store: LedgerStore,
) -> list[Record]:
    """Return those of some entries whose messages are in a conversation.

    :param given: arguments of the command.
    :param records: entries of messages that may have been sent.
    :param store: the ledger.
    """
    account = mask_recipient(client.account[1])
    wanted = (each for each in records if is_searchable(each.entry) and each.entry.account in {None, account})
    open_records = {record.entry.key: record for record in wanted}
    oldest = min((record.entry.sent_at or time.time() for record in open_records.values()), default=None)
    if oldest is None:
        return []
    begin = datetime.fromtimestamp(oldest - _DAY if given.begin is None else given.begin, UTC)
    last = datetime.fromtimestamp(time.time() + _AHEAD if given.end is None else given.end, UTC)
    hash_keys = store.hash_keys()
    is_text = {key: _matcher(each.entry, hash_keys, given.message) for key, each in open_records.items()}
    found: list[Record] = []
    for event in client.iter_events(begin, last, include_conversations=True):
        here = [key for key, each in open_records.items() if was_sent(event, each.entry, is_text[key], store)]
        found += [open_records.pop(key) for key in here]
        if not open_records:
            break
    return found


def reconcile(
    given: argparse.Namespace,
    admin: LedgerAdmin,
    selection: Selection,
    find: Callable[..., list[Record]],
    change: Callable[..., None],
) -> None:
    """Resolve the selected entries whose messages are found, and say how many are left for a person.

    :param find: returns the entries whose messages are found.
    :param change: confirms and carries out a change.
    """
    records = admin.resolvable(selection)
    if not records:
        end("No matching entry has an unknown outcome, so there is nothing to search for.", NOTHING)
    about = [record for record in records if is_searchable(record.entry)]
    sys.stderr.write(f"Searching for {len(about)} of {len(records)} messages: those to events and participants.\n")
    found = find(records)
    left = len(records) - len(found)
    if not found:
        end(f"None was found, but any of them may have been sent. A person must decide about {left}.", NOTHING)
    author = Author(by=given.by, note=NOTE)
    change(
        found, lambda: admin.resolve(found, State.SENT, author), f"Resolved as sent: {{}}. Left for a person: {left}."
    )


def _matcher(entry: Entry, hash_keys: list[bytes], text: str | None) -> Callable[[str], bool]:
    """Return a function that tells whether a text in a conversation is that of an entry, of which only a hash is known.

    :param text: the text with its dynamic fields, if the user gave it. It is used only if it has this hash.
    """

    def is_entrys(found: str) -> bool:
        return any(fingerprint_of_text(key, found) == entry.fingerprint for key in hash_keys)

    is_given = matcher_of(text) if text is not None and is_entrys(text) else None
    return lambda found: is_entrys(found) or is_entrys(found.strip()) or (is_given is not None and is_given(found))
