"""Find out from a conversation in Apptoto whether a message was sent whose outcome is unknown.

Found means sent: the participant was sent this text within an hour of the first byte of the request. Not found proves
nothing, because Apptoto may send later, and its conversations were observed, not documented.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_apptoto.client.errors import ApptotoError
from airflow_provider_apptoto.outbox.entry import State
from airflow_provider_apptoto.outbox.stores.base import LedgerStoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from airflow_provider_apptoto.client import ApptotoClient, Event, Participant
    from airflow_provider_apptoto.client.appointments import Id
    from airflow_provider_apptoto.outbox.draft import Draft
    from airflow_provider_apptoto.outbox.entry import Entry
    from airflow_provider_apptoto.outbox.stores.base import LedgerStore

log = logging.getLogger(__name__)

_SKEW = 60.0
"""Seconds by which Apptoto's clock may be behind."""
_LATEST = 3600.0
"""Seconds after the first byte within which Apptoto sends. A later message is probably one of another run."""
_LEAST_TEXT = 8
"""Letters and digits of a text outside of its dynamic fields, without which any text could match."""
_MOST_FILLED = 100
"""Average length of what Apptoto fills in for a field. A longer text is probably another message."""
_MAX_FAILURES = 3
_TARGET = re.compile(r"(event|participant) (\d+)")
_FIELD = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.DOTALL)


def matcher_of(text: str | None) -> Callable[[str], bool] | None:
    """Return a function that tells whether a text in a conversation is this one; ``None`` if that can't be told.

    Nothing may stand before or after it, because a longer text is another message. No regular expression, because one
    with several fields takes minutes for a long text.

    :param text: a text with dynamic fields, which Apptoto filled in.
    """
    parts = [_plain(part) for part in _FIELD.split(text or "")]
    first, *others = parts
    if not any(parts) or (others and sum(each.isalnum() for part in parts for each in part) < _LEAST_TEXT):
        return None
    if not others:
        return lambda found: _plain(found) == first
    *others, last = others
    longest = sum(map(len, parts)) + (len(parts) - 1) * _MOST_FILLED

    def is_text(found: str) -> bool:
        rest = _plain(found)
        if len(rest) > longest or not (rest.startswith(first) and rest[len(first) :].endswith(last)):
            return False
        rest = rest[len(first) : len(rest) - len(last)]
        for part in filter(None, others):
            _, is_there, rest = rest.partition(part)
            if not is_there:
                return False
        return True

    return is_text


def is_searchable(entry: Entry) -> bool:
    """Return whether a message went to an event or a participant, who have conversations."""
    return _TARGET.fullmatch(entry.target or "") is not None


def was_sent(event: Event, entry: Entry, is_text: Callable[[str], bool], store: LedgerStore) -> bool:
    """Return whether the conversations of an event have a message, and do not only have another like it.

    :param is_text: whether a text in a conversation is the message's.
    :param store: the ledger, which knows the others.
    """
    target = _TARGET.fullmatch(entry.target or "")
    if target is None or entry.sent_at is None:
        return False
    kind, number = target[1], int(target[2])
    if kind == "event" and event.id != number:
        return False
    people = addressed(event, None if kind == "event" else number)
    if not got_it(people, entry.sent_at, is_text):
        return False
    targets = {f"event {event.id}", *(f"participant {person.id}" for person in people)}
    others = store.of_targets(targets, entry.sent_at - _LATEST - _SKEW)
    return got_it(people, entry.sent_at, is_text, 1 + sum(_is_like(each, entry) for each in others))


def _is_like(other: Entry, entry: Entry) -> bool:
    """Return whether the copy of another message could be taken for that of an entry.

    A conversation does not tell the channel. The fingerprint of an e-mail covers its subject, so its text can't be
    compared with that of another channel.
    """
    return (
        other.key != entry.key
        and other.account == entry.account
        and (other.may_be_sent or other.state is State.SENT)
        and abs((other.sent_at or 0.0) - (entry.sent_at or 0.0)) <= _LATEST + _SKEW
        and (other.fingerprint == entry.fingerprint or (other.channel == "email") != (entry.channel == "email"))
    )


def got_it(people: Iterable[Participant], since: float, is_text: Callable[[str], bool], copies: int = 1) -> bool:
    """Return whether each of some participants was sent a text.

    :param people: nobody got it if there is none.
    :param since: when the first byte was about to be written (seconds since 1970, UTC).
    :param is_text: whether a text in a conversation is the message's.
    :param copies: how often each must have been sent it.
    """
    found = [
        sum(
            message.is_sent
            and not message.send_failed
            and message.at is not None
            and since - _SKEW <= message.at.timestamp() <= since + _LATEST
            and is_text(message.content)
            for message in person.messages or ()
        )
        for person in people
    ]
    return bool(found) and min(found) >= copies


def addressed(event: Event, participant_id: Id | None) -> list[Participant]:
    """Return the participants of an event who got a message: one, or all. None if some could not be read."""
    if participant_id is None and not event.is_complete:
        return []
    return [each for each in event.participants if participant_id is None or each.id == participant_id]


@dataclass(slots=True)
class Settler:
    """Looks for messages of this task that may have been sent. After some failed reads, it gives up.

    :param client: reads the conversations.
    """

    client: ApptotoClient
    _failures: int = field(init=False, default=0)

    def settle(self, store: LedgerStore, draft: Draft, entry: Entry, new: Entry) -> bool:
        """Record a message that may have been sent as sent if it is found; return whether to look up its entry again.

        :param new: the entry that this try would write. If its text is another, the text that was sent is not known.
        """
        if not entry.may_be_sent or entry.fingerprint != new.fingerprint:
            return False
        try:
            if not self._was_sent(store, draft, entry):
                return False
            store.compare_and_swap(entry, entry.changed(State.SENT, in_doubt=False, reason="found in the conversation"))
        except LedgerStoreError as error:
            log.warning("Whether the %s to %s was sent can't be recorded: %s", entry.channel, entry.target, error)
            return False
        log.warning("%s to %s: it was sent; it is in the conversation in Apptoto", entry.channel, entry.target)
        return True

    def _was_sent(self, store: LedgerStore, draft: Draft, entry: Entry) -> bool:
        message = draft.message
        event_id = message.event_id if draft.event_id is None else draft.event_id
        is_text = matcher_of(message.message)
        if entry.sent_at is None or event_id is None or is_text is None or self._failures >= _MAX_FAILURES:
            return False
        try:
            event = self.client.get_event(id=event_id, include_conversations=True)
        except ApptotoError as error:
            self._failures += 1
            log.info("The conversation of event %s could not be read: %s", event_id, error)
            return False
        self._failures = 0
        return event is not None and was_sent(event, entry, is_text, store)


def _plain(text: str) -> str:
    """Normalise a text: Apptoto, or a carrier, may replace typographic characters and spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).split())
