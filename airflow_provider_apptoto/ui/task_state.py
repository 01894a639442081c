"""Messages of a DAG run whose tasks have no state database: Airflow's task state store keeps their ledger entries."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_provider_apptoto._airflow_task_state import (
    Swap,
    TaskInstanceId,
    ValueChangedError,
    read_values,
    replace_values,
)
from airflow_provider_apptoto.client.errors import ApptotoValidationError
from airflow_provider_apptoto.client.recipients import canonical
from airflow_provider_apptoto.hooks._state import ledger_secret
from airflow_provider_apptoto.outbox.admin import Change, Record
from airflow_provider_apptoto.outbox.entry import Entry, State
from airflow_provider_apptoto.outbox.instructions import TASK_STATE_PREFIX
from airflow_provider_apptoto.outbox.optouts import hashes_under
from airflow_provider_apptoto.outbox.pages import Cursor, Page
from airflow_provider_apptoto.outbox.stores.task_state import SALT, value_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from airflow_provider_apptoto._airflow_task_state import StoredValue
    from airflow_provider_apptoto.outbox.admin import Author, Selection

WHERE = "Airflow's task state"
MAX_ENTRIES = 10_000
"""Entries of a DAG run that are read, newest first."""
_CHANGES_PREFIX = "apptoto-changes-"
"""Prefix of the changes that people made to an entry."""


@dataclass(frozen=True, slots=True)
class StateRecord(Record):
    """An entry in the task state of a task instance.

    :param task: the task instance.
    :param text: the value, as stored.
    :param old_changes: the value that holds the changes, as stored; ``None``: there are none.
    """

    task: TaskInstanceId = field(kw_only=True)
    text: str = field(kw_only=True)
    old_changes: str | None = field(kw_only=True)

    @property
    def seen(self) -> str:
        """What a change must quote: it differs as soon as the value does."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:32]

    @property
    def place(self) -> dict[str, Any]:
        """The task instance within its DAG, as the page sends it back."""
        return {"run": self.task.run_id, "task": self.task.task_id, "map_index": self.task.map_index}


@dataclass(frozen=True, kw_only=True)
class TaskStates:
    """The entries in the task state of a DAG run.

    :param task_id: of this task only.
    """

    dag_id: str
    run_id: str
    task_id: str | None = None

    @cached_property
    def problem(self) -> str | None:
        """What is not shown, or ``None``."""
        if self._found[1]:
            return f"{self._found[1]} values in {WHERE} can't be read. They were edited, or are stored elsewhere."
        if len(self._found[0]) == MAX_ENTRIES:
            return f"Only the newest {MAX_ENTRIES} messages in {WHERE} are shown. Filter by task to see others."
        return None

    def page(self, selection: Selection, finder: Finder | None, *, after: Cursor | None, limit: int) -> Page:
        """Return a page of the selected entries, newest first.

        :param finder: further condition.
        :param after: where the page starts; ``None``: at the newest entry.
        """
        chosen = [
            record
            for record in self._found[0]
            if _is_selected(record.entry, selection)
            and (finder is None or finder.finds(record.entry, self._salts.get(record.task)))
            and (after is None or _order(record) > (-after.updated_at, after.key))
        ]
        chosen.sort(key=_order)
        shown = chosen[:limit]
        return Page(
            tuple(shown), Cursor(shown[-1].entry.updated_at, shown[-1].entry.key) if len(chosen) > limit else None
        )

    def chosen(self, map_index: int, seen: Mapping[str, str]) -> list[StateRecord]:
        """Return the entries of a task instance with these keys.

        :param seen: :attr:`StateRecord.seen` by key.
        :raises ValueChangedError: an entry is not as it was seen.
        """
        found = {record.entry.key: record for record in self._found[0] if record.task.map_index == map_index}
        chosen = [found[key] for key in seen if key in found]
        if len(chosen) < len(seen) or any(record.seen != seen[record.entry.key] for record in chosen):
            raise ValueChangedError
        return chosen

    @cached_property
    def _found(self) -> tuple[list[StateRecord], int]:
        """The entries, and how many values are not entries."""
        histories = {(each.task, each.name): each.text for each in self._read(_CHANGES_PREFIX)}
        records, unreadable = [], 0
        for value in self._read(TASK_STATE_PREFIX):
            history = histories.get((value.task, _CHANGES_PREFIX + value.name.removeprefix(TASK_STATE_PREFIX)))
            try:
                records.append(_record_of(value, history))
            except (ValueError, TypeError, AttributeError):
                unreadable += 1
        return records, unreadable

    @cached_property
    def _salts(self) -> dict[TaskInstanceId, list[bytes]]:
        """The hash keys of each task instance."""
        secret = ledger_secret()
        keys = {}
        for value in self._read(SALT):
            try:
                keys[value.task] = secret.keys(bytes.fromhex(json.loads(value.text)["salt"]))
            except (ValueError, TypeError, KeyError):
                continue
        return keys

    def _read(self, prefix: str) -> list[StoredValue]:
        return read_values(self.dag_id, self.run_id, self.task_id, prefix, MAX_ENTRIES)


@dataclass(frozen=True, slots=True)
class Finder:
    """Finds a reference or a recipient in the entries of any task instance.

    :param recipient: in its canonical form; ``None`` if the text can't be one.
    """

    reference: str
    recipient: str | None

    @classmethod
    def of(cls, text: str, region: str | None) -> Finder:
        """Return the finder for a text.

        :param region: region of numbers without ``+``.
        """
        try:
            return cls(text, canonical(text, region))
        except ApptotoValidationError:
            return cls(text, None)

    def finds(self, entry: Entry, keys: Sequence[bytes] | None) -> bool:
        """Return whether an entry has the reference or the recipient.

        :param keys: hash keys of its task instance.
        """
        if entry.reference == self.reference:
            return True
        return bool(self.recipient and keys and entry.recipient in hashes_under(keys, self.recipient))


def change(
    records: Sequence[StateRecord], state: State | None, author: Author, *, force: bool = False
) -> list[StateRecord]:
    """Resolve or (``None``) forget entries of one task instance, all or none; those in flight are left out.

    :param records: of one task instance.
    :param force: include entries whose state was set by a person.
    :return: the changed entries, with their new state.
    :raises TaskMayRunError: the task instance has not ended.
    :raises ValueChangedError: an entry has changed.
    """
    changed, swaps = [], []
    for record in records:
        old = record.entry
        is_open = old.is_unresolved or (force and record.decision is not None)
        if not (is_open if state is not None else not old.is_live):
            continue
        new = None if state is None else old.changed(state, in_doubt=False)
        made = (*record.changes, Change.of(old, new, author))
        text = None if new is None else json.dumps(value_of(new))
        history = json.dumps([asdict(each) for each in made])
        swaps += [
            Swap(f"{TASK_STATE_PREFIX}{old.key}", record.text, text),
            Swap(f"{_CHANGES_PREFIX}{old.key}", record.old_changes, history),
        ]
        changed.append(
            StateRecord(
                old if new is None else new,
                made,
                task=record.task,
                text=record.text if text is None else text,
                old_changes=history,
            )
        )
    if records:
        replace_values(records[0].task, swaps)
    return changed


def merged(pages: Sequence[Page], limit: int) -> Page:
    """Return one page of those of several stores, which start at the same place."""
    records = sorted((record for page in pages for record in page.records), key=_order)
    shown = tuple(records[:limit])
    if len(records) > limit or any(page.after is not None for page in pages):
        return Page(shown, Cursor(shown[-1].entry.updated_at, shown[-1].entry.key))
    return Page(shown)


def _record_of(value: StoredValue, history: str | None) -> StateRecord:
    """Return the entry in a value.

    :raises ValueError: the value is not an entry of its task instance.
    """
    entry = Entry.from_dict(json.loads(value.text))
    origin = entry.origin
    stored_at = TaskInstanceId(origin.dag_id, origin.run_id, origin.task_id, origin.map_index)
    if (value.task, value.name) != (stored_at, f"{TASK_STATE_PREFIX}{entry.key}"):
        raise ValueError("the value is an entry of another task instance")
    record = StateRecord(entry, _changes_of(history), task=value.task, text=value.text, old_changes=history)
    record.to_dict()  # a person may have edited the value
    return record


def _changes_of(history: str | None) -> tuple[Change, ...]:
    return () if history is None else tuple(Change(**each) for each in json.loads(history))


def _order(record: Record) -> tuple[float, str]:
    return -record.entry.updated_at, record.entry.key


def _is_selected(entry: Entry, selection: Selection) -> bool:
    return (
        _is_in(entry, selection.states)
        and selection.channel in {None, entry.channel}
        and selection.reference in {None, entry.reference}
        and (selection.since is None or entry.updated_at >= selection.since)
        and (selection.until is None or entry.updated_at < selection.until)
    )


def _is_in(entry: Entry, states: Collection[str]) -> bool:
    """Return whether an entry is in a state; ``unknown`` includes entries that a killed task left in ``sending``."""
    return not states or entry.state in states or (State.UNKNOWN in states and entry.is_unresolved)
