"""Lists of people who opted out, in the state database: keyed hashes, never a phone number or an address."""

from __future__ import annotations

import contextlib
import functools
import itertools
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, TypedDict, TypeVar

from sqlalchemy import and_, bindparam, delete, false, insert, select, update

from airflow_provider_apptoto.client.errors import ApptotoConfigurationError, ApptotoValidationError
from airflow_provider_apptoto.client.recipients import canonical, spellings
from airflow_provider_apptoto.outbox.ledger import recipient_hash
from airflow_provider_apptoto.outbox.optout_lists import ALL, check_list, check_lists
from airflow_provider_apptoto.outbox.schema import optouts
from airflow_provider_apptoto.privacy import MAX_LINE, is_one_line, remove_frames

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from sqlalchemy.engine import Connection

    from airflow_provider_apptoto.outbox.database import StateDatabase

    P = ParamSpec("P")
    T = TypeVar("T")

_LOT = 500
"""Hashes per query."""
_MAX_SHOWN = 20
_FIELD = "recipients"
_REKEY = (
    update(optouts)
    .where(and_(optouts.c.list == bindparam("name"), optouts.c.recipient == bindparam("old")))
    .values(recipient=bindparam("new"))
)

Hashes = tuple[str, ...]
"""All hashes under which one person may be stored: of each spelling, under each key. The first is the one to write."""


class Replaced(TypedDict):
    """What replacing a list changed, in numbers of recipients."""

    total: int
    added: int
    removed: int


def _without_frames(method: Callable[P, T]) -> Callable[P, T]:
    """Remove the frames of a method from its errors, because they hold recipients."""

    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(*args, **kwargs)
        except BaseException as error:
            remove_frames(error)
            raise

    return call


class OptOuts:
    """People who must not be messaged.

    A recipient is a phone number or an e-mail address, in any spelling. In a collection, a row with one column counts
    as its value, and ``None`` is ignored.

    Every method raises :class:`~airflow_provider_apptoto.outbox.stores.base.LedgerStoreError` if the database can't be
    used.

    :param database: the state database.
    :param hash_keys: returns the keys of the hashes, newest first.
    :param region: region of numbers without ``+``; without it, such numbers are refused.
    """

    def __init__(
        self, database: StateDatabase, hash_keys: Callable[[], Sequence[bytes]], region: str | None = None
    ) -> None:
        self._database = database
        self._hash_keys = hash_keys
        self._region = region

    def lists_holding(self, recipients: Collection[str], lists: Collection[str]) -> dict[str, str]:
        """Return the recipients who opted out, each with a list that holds it.

        :param recipients: recipients of messages (``Message.to``).
        :param lists: names of the lists to obey, besides ``all``.
        """
        names = (ALL, *check_lists(lists))
        keys = self._hash_keys()
        people = {recipient: hashes_under(keys, recipient) for recipient in recipients}
        holding = self._holding(people.values(), names)
        found = {}
        for recipient, own in people.items():
            held = set().union(*(holding.get(each, ()) for each in own))
            if held:
                found[recipient] = next(name for name in names if name in held)
        return found

    @_without_frames
    def check(self, recipient: object) -> list[str]:
        """Return the names of the lists that hold a recipient.

        :raises ApptotoValidationError: it is neither a phone number nor an e-mail address.
        """
        own = hashes_under(self._hash_keys(), canonical(recipient, self._region))
        return sorted(set().union(*self._holding([own], None).values()))

    @_without_frames
    def add(
        self,
        list: str,  # noqa: A002  the name of the option and of the column
        recipients: Iterable[object],
        *,
        by: str,
        note: str = "",
        places: Iterable[str] | None = None,
    ) -> int:
        """Add recipients to a list, all or, if one is invalid, none.

        :param list: ``all``, or 1 to 64 letters, digits, ``_`` and ``-``.
        :param by: who adds them, one line of 1 to 200 characters; stored.
        :param note: where they opted out, one line of up to 200 characters; stored. No personal data.
        :param places: what errors call the entries, such as ``line 2``; by default by their index.
        :return: how many were not on the list before.
        :raises ApptotoConfigurationError: an argument or an entry is invalid.
        """
        name = check_list(list, "list")
        _check_line("by", by)
        _check_line("note", note, may_be_blank=True)
        people = self._people(recipients, places)
        with self._writing() as connection:
            held = {each for lot in _lots(people) for each in _found(connection, lot, (name,))}
            return len(_write(connection, name, people, held, by=by, note=note)[0])

    def add_hashes(self, list: str, hashes: Iterable[str], *, by: str, note: str = "") -> int:  # noqa: A002
        """Add the recipients of ledger entries to a list.

        :param hashes: keyed hashes of the recipients (``Entry.recipient``).
        :param by: as for :meth:`add`.
        :param note: as for :meth:`add`.
        :return: how many were not on the list before.
        :raises ApptotoConfigurationError: an argument is invalid, or the deployment has several secrets.
        """
        name = check_list(list, "list")
        _check_line("by", by)
        _check_line("note", note, may_be_blank=True)
        if len(self._hash_keys()) > 1:
            msg = (
                "has several secrets, and entries of an old one can't be told from entries of the new one. Add the "
                "recipients themselves, so that they stay on the list when the old secret is removed"
            )
            raise ApptotoConfigurationError("ledger_secret", msg)
        people = [(each,) for each in dict.fromkeys(hashes)]
        with self._writing() as connection:
            held = {each for lot in _lots(people) for each in _found(connection, lot, (name,))}
            return len(_write(connection, name, people, held, by=by, note=note)[0])

    @_without_frames
    def hashes_of(self, recipient: object) -> Hashes:
        """Return all hashes under which a recipient may be stored, here and in the ledger.

        :raises ApptotoValidationError: it is neither a phone number nor an e-mail address.
        """
        return hashes_under(self._hash_keys(), canonical(recipient, self._region))

    @_without_frames
    def remove(self, list: str, recipients: Iterable[object], *, places: Iterable[str] | None = None) -> int:  # noqa: A002
        """Remove recipients from a list, all or, if one is invalid, none.

        :param places: as for :meth:`add`.
        :return: how many were on the list.
        :raises ApptotoConfigurationError: an argument or an entry is invalid.
        """
        name = check_list(list, "list")
        people = self._people(recipients, places)
        with self._writing() as connection:
            held = {each for lot in _lots(people) for each in _found(connection, lot, (name,))}
            _delete(connection, name, held)
        return sum(not held.isdisjoint(own) for own in people)

    @_without_frames
    def replace(
        self,
        list: str,  # noqa: A002
        recipients: Iterable[object],
        *,
        by: str = "",
        allow_empty: bool = False,
    ) -> Replaced:
        """Make a list hold exactly these recipients. Senders see the old list or the new one, nothing in between.

        :param by: who replaces the list, one line of up to 200 characters; stored with new entries.
        :param allow_empty: whether ``recipients`` may be empty, which lets all senders message everybody on the list.
        :return: the numbers of recipients on the list, of those added and of those removed.
        :raises ApptotoConfigurationError: an argument or an entry is invalid; the list is unchanged.
        """
        name = check_list(list, "list")
        _check_line("by", by, may_be_blank=True)
        people = self._people(recipients, None)
        if not people and not allow_empty:
            msg = (
                f"is empty, which would remove all recipients from list {name!r}. The list is unchanged. If no one has "
                "opted out, pass allow_empty=True"
            )
            raise ApptotoConfigurationError(_FIELD, msg, code="suppression_invalid")
        with self._writing() as connection:
            held = set(connection.execute(select(optouts.c.recipient).where(optouts.c.list == name)).scalars())
            added, kept = _write(connection, name, people, held, by=by, note="")
            _delete(connection, name, held - kept)
        return {"total": len(people), "added": len(added), "removed": len(held - kept)}

    def _people(self, recipients: object, places: Iterable[str] | None) -> list[Hashes]:
        """Return the hashes of each recipient, after all were checked.

        :raises ApptotoConfigurationError: ``recipients`` is not a collection, or an entry can't be compared with the
            recipient of a message.
        """
        if isinstance(recipients, str | bytes | Mapping) or not isinstance(recipients, Iterable):
            msg = f"must be a list of phone numbers and e-mail addresses, not {type(recipients).__name__}"
            raise ApptotoConfigurationError(_FIELD, msg)
        keys = self._hash_keys()
        people: dict[str, Hashes] = {}
        problems = []
        names = places if places is not None else (f"entry {index}" for index in itertools.count())
        for place, value in zip(names, recipients, strict=places is not None):
            recipient = value[0] if isinstance(value, list | tuple) and len(value) == 1 else value
            if recipient is None:
                continue
            try:
                own = hashes_under(keys, canonical(recipient, self._region))
            except ApptotoValidationError as error:
                problems.append(f"{place}: {error.problem}")
            else:
                people[own[0]] = own
        if problems:
            shown = "\n  ".join(problems[:_MAX_SHOWN])
            more = f"\n  and {len(problems) - _MAX_SHOWN} more" if len(problems) > _MAX_SHOWN else ""
            msg = f"nothing was changed; invalid entries: {len(problems)}\n  {shown}{more}"
            raise ApptotoConfigurationError(_FIELD, msg, code="suppression_invalid")
        return [*people.values()]

    def _holding(self, people: Iterable[Hashes], names: Collection[str] | None) -> dict[str, set[str]]:
        """Return the lists that hold each hash, with a transaction for each query, so that no writer waits long."""
        found: dict[str, set[str]] = {}
        for lot in _lots(people):
            with self._database.transaction() as connection:
                found.update(_found(connection, lot, names))
        return found

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Connection]:
        """Yield a connection in a transaction that excludes other changes of the lists. Senders can still read."""
        with self._database.transaction() as connection:
            if self._database.dialect == "postgresql":
                connection.exec_driver_sql(f"LOCK TABLE {optouts.name} IN SHARE ROW EXCLUSIVE MODE")
            else:
                # sqlite3 begins a transaction only at the first write, so reads before it are not part of it
                connection.execute(delete(optouts).where(false()))
            yield connection


def hashes_under(keys: Sequence[bytes], recipient: str) -> Hashes:
    """Return the hashes of all spellings of a recipient under these keys."""
    return tuple(str(recipient_hash(key, form)) for key in keys for form in spellings(recipient))


def _lots(people: Iterable[Hashes]) -> Iterator[list[str]]:
    hashes = [*dict.fromkeys(itertools.chain.from_iterable(people))]
    for start in range(0, len(hashes), _LOT):
        yield hashes[start : start + _LOT]


def _found(connection: Connection, hashes: Sequence[str], names: Collection[str] | None) -> dict[str, set[str]]:
    """Return the lists that hold each hash.

    :param names: the lists to search; ``None``: all.
    """
    query = select(optouts.c.list, optouts.c.recipient).where(optouts.c.recipient.in_(hashes))
    if names is not None:
        query = query.where(optouts.c.list.in_(names))
    found: dict[str, set[str]] = {}
    for row in connection.execute(query):
        found.setdefault(row.recipient, set()).add(row.list)
    return found


def _write(
    connection: Connection, name: str, people: Iterable[Hashes], held: Collection[str], *, by: str, note: str
) -> tuple[list[str], set[str]]:
    """Add people who are not on a list, and write those who are under the newest key.

    :param held: hashes on the list.
    :return: the hashes that were added, and those of ``held`` that are still used, or were before they were rewritten.
    """
    new, kept, moved = [], set(), []
    for own in people:
        here = next((each for each in own if each in held), None)
        if here is None:
            new.append(own[0])
            continue
        kept.add(here)
        if here != own[0]:
            moved.append({"name": name, "old": here, "new": own[0]})
    if moved:
        connection.execute(_REKEY, moved)
    if new:
        row: dict[str, Any] = {"list": name, "added_at": time.time(), "added_by": by, "note": note}
        connection.execute(insert(optouts), [{**row, "recipient": each} for each in new])
    return new, kept


def _delete(connection: Connection, name: str, hashes: Collection[str]) -> None:
    for lot in _lots([tuple(hashes)]):
        connection.execute(delete(optouts).where(optouts.c.list == name, optouts.c.recipient.in_(lot)))


def _check_line(field: str, text: object, *, may_be_blank: bool = False) -> None:
    if not (isinstance(text, str) and (is_one_line(text) or (may_be_blank and not text))):
        raise ApptotoConfigurationError(field, f"must be one line of 1 to {MAX_LINE} characters")
